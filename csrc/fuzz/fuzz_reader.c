/* Any bytes as a layer file: the reader must say -EBADMSG and never fault. The superblock's checksum is made
 * right first, or hardly any change would get past it. */
#define _GNU_SOURCE
#include <string.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "util.h"
#include "walk.h"

static uint32_t crc32c(const uint8_t *p, size_t n)
{
    uint32_t crc = UINT32_MAX;

    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
    }
    return crc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size);
    int fd = memfd_create("image", MFD_CLOEXEC);

    memcpy(copy, data, size);
    if (size >= 1024 + 128 && copy[1024 + 12] >= 9 && copy[1024 + 12] <= 12) {
        size_t block = (size_t)1 << copy[1024 + 12];
        size_t covered = block > 1024 ? block - 1024 : block;

        lfs_put32(copy + 1024, 0xe0f5e1e2u);
        lfs_put32(copy + 1028, 0);
        if (size >= 1024 + covered)
            lfs_put32(copy + 1028, crc32c(copy + 1024, covered));
    }
    if (write(fd, copy, size) == (ssize_t)size)
        walk_layer(fd, 2000);
    free(copy);
    close(fd);
    return 0;
}
