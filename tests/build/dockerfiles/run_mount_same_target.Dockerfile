FROM alpine
RUN --mount=type=tmpfs,target=/x --mount=type=cache,target=/x true
