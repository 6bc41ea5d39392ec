ARG A=3
ARG B=alpine:${A:-1}
FROM $B
