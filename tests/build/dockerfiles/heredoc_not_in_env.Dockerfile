FROM alpine
ENV a=<<EOF
