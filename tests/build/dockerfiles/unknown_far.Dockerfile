FROM alpine
XYZZY plugh
