FROM alpine as a b
