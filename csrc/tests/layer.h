/* layer.h - unpacks an archive into a layer in memory, for the tests of what comes after. */
#ifndef LAYERFS_TESTS_LAYER_H
#define LAYERFS_TESTS_LAYER_H

#include <sys/mman.h>

#include "check.h"

typedef struct layer {
    int fd;
    lfs_buf rest;
    lfs_unpack_result result;
} layer;

static inline void drain(lfs_unpack *u, lfs_buf *rest)
{
    char buf[1000];
    int64_t n;

    while ((n = lfs_unpack_rest(u, buf, sizeof buf, NULL)) > 0)
        CHECK(lfs_buf_append(rest, buf, (size_t)n) == 0);
    CHECK(n == 0);
}

static inline layer make_layer(const lfs_buf *archive, size_t step, uint32_t block_size)
{
    static const uint8_t uuid[16] = {1, 2, 3};
    lfs_unpack_options options = {.block_size = block_size};
    layer l = {.fd = memfd_create("layer", MFD_CLOEXEC)};
    lfs_error error = {0};
    lfs_unpack *u;

    CHECK(l.fd >= 0 && lfs_unpack_open(l.fd, &options, &u, &error) == 0);
    for (size_t at = 0; at < archive->len; at += step) {
        size_t n = step < archive->len - at ? step : archive->len - at;
        CHECK(lfs_unpack_write(u, archive->data + at, n, &error) == 0);
        drain(u, &l.rest);
    }
    CHECK(lfs_unpack_finish(u, uuid, &l.result, &error) == 0);
    drain(u, &l.rest);
    lfs_unpack_free(u);
    return l;
}

static inline void free_layer(layer *l)
{
    close(l->fd);
    lfs_buf_free(&l->rest);
}

/* A small archive with something of everything that content can be. */
static inline void sample_archive(lfs_buf *a)
{
    cleanup_free char *big = calloc(1, 400000);

    CHECK(big != NULL);
    memset(big + 70000, 'x', 60000);
    add_member(a, '5', "d", "", 0, NULL);
    add_member(a, '0', "d/small", "hello", 5, NULL);
    add_member(a, '0', "d/holes", big, 400000, NULL);
    add_member(a, '0', "d/page", big + 65000, 9000, NULL);
    add_member(a, '1', "hard", "", 0, "d/page");
    add_member(a, '2', "link", "", 0, "d/small");
    add_member(a, '0', "d/small", "again", 5, NULL);
    add_member(a, '0', ".wh.gone", "", 0, NULL);
    add_end(a);
}

#endif
