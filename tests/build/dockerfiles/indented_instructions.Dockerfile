  FROM alpine
    RUN true
	ENV a=b
