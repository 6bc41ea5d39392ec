ARG A=1 B
ARG C="x y"
FROM alpine:$A
ARG A
RUN echo $A
