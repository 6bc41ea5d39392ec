FROM	alpine	AS	x
ENV	a=b
COPY	a	b
