# a comment
FROM scratch
# another = with equals
   # indented comment
ENV a=b # not a comment
