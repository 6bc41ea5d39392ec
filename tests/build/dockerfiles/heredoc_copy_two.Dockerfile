FROM alpine
COPY <<a.txt <<b.txt c.txt /dest/
hello $X
a.txt
world
b.txt
