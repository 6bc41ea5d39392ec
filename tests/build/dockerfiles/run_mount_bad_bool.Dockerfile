FROM alpine
RUN --mount=type=secret,id=a,required=maybe true
