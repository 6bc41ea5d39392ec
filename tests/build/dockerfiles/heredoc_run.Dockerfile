FROM alpine
RUN <<EOF
set -e
echo "hello $HOME"
EOF
