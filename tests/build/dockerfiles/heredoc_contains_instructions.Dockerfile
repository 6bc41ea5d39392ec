FROM alpine
RUN <<EOF
FROM scratch
RUN fail \
# comment
EOF
ENV after=1
