# ESCAPE=`
FROM scratch
