/* mkimage: a seed of fuzz_unpack on stdin (two bytes of choices, then a tar), the layer file on stdout. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "layerfs.h"

int main(void)
{
    static uint8_t data[1 << 20];
    static const uint8_t uuid[16];
    size_t n = fread(data, 1, sizeof data, stdin);
    FILE *image = tmpfile();
    lfs_unpack_options options = {.block_size = 512u << (data[0] & 3)};
    lfs_unpack_result result;
    lfs_unpack *u;
    int c;

    if (n < 2 || image == NULL || lfs_unpack_open(fileno(image), &options, &u, NULL) < 0 ||
        lfs_unpack_write(u, data + 2, n - 2, NULL) < 0 || lfs_unpack_finish(u, uuid, &result, NULL) < 0)
        return 1;
    lfs_unpack_free(u);
    rewind(image);
    while ((c = getc(image)) != EOF)
        putchar(c);
    fclose(image);
    return 0;
}
