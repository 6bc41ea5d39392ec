FROM gcc:13 AS compile
COPY <<'EOF' /src/hello.c
#include <stdio.h>
int main(void) { printf("hello %d\n", 42); return 0; }
EOF
RUN gcc -static -O2 -o /hello /src/hello.c
FROM scratch
COPY --from=compile /hello /hello
CMD ["/hello"]
