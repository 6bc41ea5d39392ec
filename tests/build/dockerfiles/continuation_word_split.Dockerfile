FROM al\
pine
RUN ec\
ho hi
