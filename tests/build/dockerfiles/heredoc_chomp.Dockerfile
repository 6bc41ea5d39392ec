FROM alpine
RUN <<-EOF
	echo tabs
		echo more
	EOF
