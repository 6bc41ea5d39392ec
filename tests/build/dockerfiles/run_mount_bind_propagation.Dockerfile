FROM alpine
RUN --mount=type=bind,target=/x,bind-propagation=rshared true
