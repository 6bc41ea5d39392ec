FROM alpine
USER bob
USER 1000:1000
USER ${u:-nobody}
