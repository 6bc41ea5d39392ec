FROM alpine
RUN [ -f /etc/passwd ]
