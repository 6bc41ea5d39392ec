FROM alpine
RUN ["sh", "<<EOF"]
