FROM alpine
CMD ["a", "b"]
CMD echo $HOME
CMD []
ENTRYPOINT ["x"]
ENTRYPOINT exec top -b
