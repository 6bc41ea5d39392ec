/*
 * Any bytes as an archive: unpacking must not fault, must not depend on how the input is split, and what it
 * accepts must come back byte for byte and be a layer that the reader finds whole. The first two bytes of the
 * input choose block size and split. Checksums of headers are made right, or hardly any change would pass.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "walk.h"

typedef struct layer {
    int fd;
    int r; /* what unpacking came to */
    lfs_error error;
    uint8_t *rest;
    size_t rest_len;
} layer;

static void drain(lfs_unpack *u, layer *l)
{
    int64_t n;

    do {
        l->rest = realloc(l->rest, l->rest_len + 4096);
        n = lfs_unpack_rest(u, l->rest + l->rest_len, 4096, NULL);
        l->rest_len += (size_t)n;
    } while (n > 0);
}

static void unpack(const uint8_t *p, size_t n, uint32_t block_size, size_t step, layer *l)
{
    static const uint8_t uuid[16];
    lfs_unpack_options options = {.block_size = block_size, .max_bytes = 16u << 20, .max_entries = 1000};
    lfs_unpack_result result;
    lfs_unpack *u = NULL;

    memset(l, 0, sizeof *l);
    l->fd = memfd_create("layer", MFD_CLOEXEC);
    l->r = lfs_unpack_open(l->fd, &options, &u, &l->error);
    while (l->r == 0 && n > 0) {
        size_t k = step < n ? step : n;
        l->r = lfs_unpack_write(u, p, k, &l->error);
        p += k;
        n -= k;
        if (l->r == 0)
            drain(u, l);
    }
    if (l->r == 0)
        l->r = lfs_unpack_finish(u, uuid, &result, &l->error);
    if (l->r == 0)
        drain(u, l);
    lfs_unpack_free(u);
}

static void check_repack(const layer *l, const uint8_t *p, size_t n, size_t step)
{
    uint8_t buf[1500];
    lfs_repack *r;
    size_t at = 0;
    size_t fed = 0;

    if (lfs_repack_open(l->fd, 0, &r, NULL) < 0)
        abort();
    while (fed < l->rest_len) {
        size_t k = step < l->rest_len - fed ? step : l->rest_len - fed;
        int64_t got;
        if (lfs_repack_feed(r, l->rest + fed, k, NULL) < 0)
            abort();
        fed += k;
        while ((got = lfs_repack_read(r, buf, sizeof buf, NULL)) != 0) {
            if (got < 0 || (size_t)got > n - at || memcmp(buf, p + at, (size_t)got) != 0)
                abort();
            at += (size_t)got;
        }
    }
    if (at != n || lfs_repack_finish(r, NULL) < 0)
        abort();
    lfs_repack_free(r);
}

static void check_same(const layer *a, const layer *b)
{
    off_t size = lseek(a->fd, 0, SEEK_END);
    void *x, *y;

    if (a->r != b->r || strcmp(a->error.msg, b->error.msg) != 0)
        abort();
    if (a->r < 0)
        return;
    if (a->rest_len != b->rest_len || memcmp(a->rest, b->rest, a->rest_len) != 0 ||
        lseek(b->fd, 0, SEEK_END) != size)
        abort();
    x = mmap(NULL, (size_t)size, PROT_READ, MAP_SHARED, a->fd, 0);
    y = mmap(NULL, (size_t)size, PROT_READ, MAP_SHARED, b->fd, 0);
    if (x == MAP_FAILED || y == MAP_FAILED)
        abort();
    if (size <= (64 << 20) && memcmp(x, y, (size_t)size) != 0) /* sparse files can be larger than memory */
        abort();
    munmap(x, (size_t)size);
    munmap(y, (size_t)size);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size);

static void fix_checksums(uint8_t *p, size_t n)
{
    for (; n >= 512; p += 512, n -= 512) {
        unsigned sum = 8 * ' ';

        if (memcmp(p + 257, "ustar", 5) != 0)
            continue;
        for (int i = 0; i < 512; i++)
            sum += i >= 148 && i < 156 ? 0 : p[i];
        snprintf((char *)p + 148, 8, "%06o", sum);
        p[155] = ' ';
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
    uint8_t *data;
    uint32_t block_size;
    layer whole, split;
    size_t step;

    if (size < 2)
        return 0;
    data = malloc(size);
    memcpy(data, input, size);
    fix_checksums(data + 2, size - 2);
    block_size = 512u << (data[0] & 3);
    step = data[1] + 1u;
    unpack(data + 2, size - 2, block_size, size, &whole);
    unpack(data + 2, size - 2, block_size, step, &split);
    check_same(&whole, &split);
    if (whole.r == 0) {
        check_repack(&whole, data + 2, size - 2, step);
        if (walk_layer(whole.fd, 5000) < 0)
            abort();
    }
    close(whole.fd);
    close(split.fd);
    free(whole.rest);
    free(split.rest);
    free(data);
    return 0;
}
