FROM alpine
HEALTHCHECK --often=5s CMD true
