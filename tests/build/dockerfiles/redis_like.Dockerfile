FROM debian:12
ENV REDIS_VERSION=7.2.4 REDIS_URL=http://download.example/redis-7.2.4.tar.gz
ADD --checksum=sha256:8d104c26a154b29fd67d6568b4f375212212ad41e0c2caa3d66480e78dbd3b59 ${REDIS_URL} /tmp/
RUN mkdir /data && chown 999:999 /data
VOLUME /data
WORKDIR /data
