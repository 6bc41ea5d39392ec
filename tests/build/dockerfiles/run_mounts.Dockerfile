FROM alpine
RUN --mount=type=bind,from=alpine,source=/etc,target=/x,rw --mount=type=tmpfs,dst=/t,size=10m --mount=type=secret,id=tok,required=true,mode=0440 --mount=type=ssh true
