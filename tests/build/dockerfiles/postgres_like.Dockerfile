FROM debian:bookworm-slim
RUN set -eux; \
	groupadd -r postgres --gid=999; \
# explicitly set the home directory
	useradd -r -g postgres --uid=999 postgres; \
	install --verbose --directory --owner postgres /var/lib/postgresql
ENV PG_MAJOR 16
ENV PATH $PATH:/usr/lib/postgresql/$PG_MAJOR/bin
ENV PGDATA /var/lib/postgresql/data
VOLUME ["/var/lib/postgresql/data"]
STOPSIGNAL SIGINT
EXPOSE 5432
CMD ["postgres"]
