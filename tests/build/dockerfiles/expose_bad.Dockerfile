FROM alpine
EXPOSE eighty
