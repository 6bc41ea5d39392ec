FROM alpine
RUN --mount=type=cache,target=/x,readonly --mount=target=/y,ro true
