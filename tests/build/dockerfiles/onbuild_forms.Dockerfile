FROM alpine
ONBUILD COPY . /app/src
ONBUILD RUN /usr/local/bin/python-build --dir /app/src
ONBUILD ENV a=b
