FROM alpine
RUN --moutn=type=cache,target=/x true
