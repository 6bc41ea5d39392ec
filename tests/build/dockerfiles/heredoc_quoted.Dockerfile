FROM alpine
COPY <<"EOF" /a
$HOME stays
EOF
COPY <<'EOF' /b
$HOME stays
EOF
