FROM alpine
COPY hom?.txt [a-c]*.md dir/**/x /x/
