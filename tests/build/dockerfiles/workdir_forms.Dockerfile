FROM alpine
WORKDIR /a
WORKDIR b
WORKDIR $c/d
WORKDIR "/with space"
