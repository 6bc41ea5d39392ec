/* check.h - what the C tests share: a check that says where it failed, and archives by hand. */
#ifndef LAYERFS_TESTS_CHECK_H
#define LAYERFS_TESTS_CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util.h"

#define CHECK(condition)                                                         \
    do {                                                                         \
        if (!(condition)) {                                                      \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);      \
            exit(1);                                                             \
        }                                                                        \
    } while (0)

/* Append a ustar header (type, name, size, link), and the content filled up to whole blocks. */
static inline void add_member(lfs_buf *b, char type, const char *name, const void *data, size_t n,
                              const char *link)
{
    static const char zero[512];
    char block[512] = {0};
    unsigned sum = 8 * ' ';

    snprintf(block, 100, "%s", name);
    snprintf(block + 100, 8, "%07o", 0644u);
    snprintf(block + 108, 8, "%07o", 0u);
    snprintf(block + 116, 8, "%07o", 0u);
    snprintf(block + 124, 12, "%011zo", n);
    snprintf(block + 136, 12, "%011o", 1000000000u);
    block[156] = type;
    if (link != NULL)
        snprintf(block + 157, 100, "%s", link);
    memcpy(block + 257, "ustar\00000", 8);
    for (int i = 0; i < 512; i++)
        sum += (unsigned char)block[i];
    snprintf(block + 148, 8, "%06o", sum);
    block[155] = ' ';
    CHECK(lfs_buf_append(b, block, sizeof block) == 0);
    CHECK(lfs_buf_append(b, data, n) == 0);
    CHECK(lfs_buf_append(b, zero, -n & 511) == 0);
}

static inline void add_end(lfs_buf *b)
{
    static const char zero[1024];

    CHECK(lfs_buf_append(b, zero, sizeof zero) == 0);
}

#endif
