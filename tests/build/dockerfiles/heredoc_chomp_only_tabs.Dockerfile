FROM alpine
RUN <<-EOF
    echo spaces stay
	EOF
