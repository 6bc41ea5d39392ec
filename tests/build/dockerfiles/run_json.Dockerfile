FROM alpine
RUN ["/bin/echo", "a b", "c\"d", "\u00e9"]
