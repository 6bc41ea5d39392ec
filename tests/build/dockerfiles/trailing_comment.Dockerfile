FROM alpine
ENV a=b
# end
