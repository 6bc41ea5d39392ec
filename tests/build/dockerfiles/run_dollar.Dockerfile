FROM alpine
RUN echo $HOME ${x:-y} $(id) `id` $$
