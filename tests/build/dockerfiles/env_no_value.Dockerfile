FROM alpine
ENV justname
