ENV a=b
FROM alpine
