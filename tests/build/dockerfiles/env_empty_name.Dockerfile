FROM alpine
ENV =b
