FROM alpine
LABEL who="Žluťoučký kůň" café=☕
