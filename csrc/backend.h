/*
 * backend.h - between the rules of unpacking (unpack.c) and the two layer formats (erofs.c, dirout.c).
 *
 * unpack.c decides what the tree is; a backend makes it so. The erofs backend takes content as it comes and
 * reads the finished tree once, at the end. The dir backend does each step on disk as it is told.
 */
#ifndef LAYERFS_BACKEND_H
#define LAYERFS_BACKEND_H

#include "tree.h"

/* The rest stream being written (layerfs.h says its format). Where an operation ends depends on the archive
 * alone and never on how it was split, so that the same archive gives the same rest. */
typedef struct lfs_rest {
    lfs_buf out;      /* finished operations */
    size_t taken;     /* bytes of it that were handed out */
    lfs_buf raw;      /* the RAW operation at hand */
    int pending;      /* LFS_REST_*, or -1 */
    uint64_t where;   /* DATA */
    uint64_t length;  /* DATA, ZERO */
    uint64_t end;     /* where the last finished DATA ended */
    bool absolute;    /* dir: positions in the current file, not relative ones in the layer */
} lfs_rest;

enum { LFS_REST_RAW = 0, LFS_REST_DATA = 1, LFS_REST_ZERO = 2, LFS_REST_FILE = 3 };

void lfs_rest_init(lfs_rest *r, bool absolute);
void lfs_rest_free(lfs_rest *r);
/* All return 0 or -ENOMEM. */
int lfs_rest_raw(lfs_rest *r, const void *data, size_t n);
int lfs_rest_data(lfs_rest *r, uint64_t where, uint64_t n);
int lfs_rest_zero(lfs_rest *r, uint64_t n);
int lfs_rest_file(lfs_rest *r, uint32_t number, const char *path, size_t n);
int lfs_rest_flush(lfs_rest *r);
/* Hand out finished operations; bytes put into buf. */
size_t lfs_rest_take(lfs_rest *r, void *buf, size_t cap);

typedef struct lfs_backend lfs_backend;

typedef struct lfs_backend_ops {
    /* A new regular file stands at `entry`, its node filled in; content follows, then end. */
    int (*begin)(lfs_backend *b, uint32_t entry, bool sparse, lfs_error *error);
    int (*data)(lfs_backend *b, const uint8_t *p, size_t n, lfs_error *error);
    int (*hole)(lfs_backend *b, uint64_t n, lfs_error *error);
    int (*end)(lfs_backend *b, lfs_error *error);
    /* Anything else stands at `entry`; `source` is another name of the same inode for a hard link, or 0. */
    int (*add)(lfs_backend *b, uint32_t entry, uint32_t source, lfs_error *error);
    /* The name, and all below it, is about to go. */
    int (*remove)(lfs_backend *b, uint32_t entry, lfs_error *error);
    int (*finish)(lfs_backend *b, const uint8_t *uuid, lfs_unpack_result *result, lfs_error *error);
    int64_t (*own)(lfs_backend *b, lfs_error *error); /* see lfs_unpack_own; NULL: there is nothing to do */
    void (*free)(lfs_backend *b);
} lfs_backend_ops;

struct lfs_backend {
    const lfs_backend_ops *ops;
    lfs_tree *tree;
    lfs_rest *rest;
};

int lfs_erofs_backend(int fd, uint32_t block_size, lfs_tree *tree, lfs_rest *rest, lfs_backend **out,
                      lfs_error *error);
int lfs_dir_backend(int fd, uint32_t flags, lfs_tree *tree, lfs_rest *rest, lfs_backend **out,
                    lfs_error *error);

#endif
