FROM alpine AS b
FROM alpine
COPY --from=b --chown=1:2 --chmod=u=rwX,go=rX --link --parents --exclude=*.md --exclude=docs /src/./a /dst/
