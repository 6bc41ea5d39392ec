FROM alpine
COPY --link=perhaps a b
