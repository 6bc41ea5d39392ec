FROM alpine a
