FROM alpine
ENV a=\$HOME b='$HOME' c=\\$HOME
