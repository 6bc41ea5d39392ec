# unknowndirective=value
# escape=`
FROM scratch
RUN a \
 b
