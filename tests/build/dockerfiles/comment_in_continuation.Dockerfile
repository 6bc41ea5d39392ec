FROM alpine
RUN echo a \
# a comment inside
  # indented too
  && echo b
