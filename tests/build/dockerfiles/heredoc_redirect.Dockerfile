FROM alpine
RUN cat <<EOF > /etc/motd && echo done
welcome
EOF
