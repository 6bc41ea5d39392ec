FROM alpine
ADD <<EOF /x
a
EOF
