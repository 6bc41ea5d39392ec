FROM alpine
RUN echo "it's" 'a "b"' \"
