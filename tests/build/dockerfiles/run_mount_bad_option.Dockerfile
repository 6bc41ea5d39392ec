FROM alpine
RUN --mount=type=cache,target=/x,bogus=1 true
