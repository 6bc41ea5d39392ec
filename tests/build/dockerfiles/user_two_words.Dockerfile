FROM alpine
USER bob alice
