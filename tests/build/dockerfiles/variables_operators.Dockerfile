FROM alpine
ENV v=${a:-b} w=${a-b} x=${a:+b} y=${a+b} z=${a#b*} q=${a%%.*} r=${a/x/y} s=${a//x/y}
