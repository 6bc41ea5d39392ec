FROM alpine
COPY ["a b.txt", "c", "/dest dir/"]
