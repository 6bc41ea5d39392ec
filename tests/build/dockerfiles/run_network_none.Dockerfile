FROM alpine
RUN --network=none --security=sandbox true
