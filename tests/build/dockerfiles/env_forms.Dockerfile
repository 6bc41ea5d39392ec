FROM alpine
ENV a=b c="d e" f='g h' i=j\ k
ENV old form with   spaces
ENV quoted "one two"
