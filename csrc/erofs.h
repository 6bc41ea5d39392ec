/*
 * erofs.h - what the three files of the layer format erofs share: output and the file at hand (erofs.c), the
 * plan of the metadata (erofs_plan.c), and its writing (erofs_write.c).
 */
#ifndef LAYERFS_EROFS_H
#define LAYERFS_EROFS_H

#include "backend.h"

#define SUPERBLOCK 1024u
#define FIRST_DATA 4096u
#define ALIGN_LARGE 4096u         /* files of at least this size start on a multiple of it */
#define HOLE_MIN_SIZE (128u << 10) /* smaller files are not searched for zeros */
#define HOLE_CHUNK_BITS 16        /* a run of zeros counts when it fills a chunk of 64 KiB */
#define SPARSE_CHUNK_BITS 12
#define MAX_CHUNKS 4096u          /* of a file; its chunks get larger instead */
#define MAX_FILE (UINT64_C(1) << 50)
#define OUT_SIZE (1u << 20)
#define WRITEBACK_STEP (8u << 20) /* ask the kernel to start writing every so many bytes */
#define SLOT 32u                  /* inodes start on multiples of it; nids count them */

enum { FLAT_PLAIN = 0, FLAT_INLINE = 2, CHUNK_BASED = 4 };
enum { COMPAT_CHECKSUM = 1, COMPAT_MTIME = 2, INCOMPAT_CHUNKED = 4 };
#define CHUNK_INDEXES 0x20u
#define NO_BLOCK UINT32_MAX

typedef struct erofs_backend {
    lfs_backend base;
    int fd;
    uint32_t block;
    unsigned block_bits;
    /* Output: everything below `pos` is written or in `out`. */
    uint8_t *out;
    size_t out_len;
    uint64_t pos;         /* of the next byte */
    uint64_t synced;      /* write-back was asked for up to here */
    /* The file at hand. */
    uint32_t node;
    bool sparse;
    unsigned chunk_bits;  /* 0: not looked at for holes */
    uint64_t in_chunk;    /* bytes of the current chunk seen */
    bool chunk_empty;     /* all of them zero, nothing written yet */
    uint32_t nchunks;     /* complete ones in `chunks`, or the current one's number */
    bool holes;
    uint32_t chunks[MAX_CHUNKS];
    bool chunked;         /* some file has a chunk table */
} erofs_backend;

static inline int lfs_erofs_io_error(int r, lfs_error *error)
{
    return lfs_fail(error, -r, "write layer");
}

static inline int lfs_erofs_oom(lfs_error *error)
{
    return lfs_fail(error, ENOMEM, "write layer");
}

/* The output: append bytes, or zeros (long runs stay unwritten), or zeros up to a multiple. 0 or -errno. */
int lfs_erofs_write(erofs_backend *b, const void *data, size_t n, lfs_error *error);
int lfs_erofs_skip(erofs_backend *b, uint64_t n, lfs_error *error);
int lfs_erofs_align(erofs_backend *b, uint64_t to, lfs_error *error);
int lfs_erofs_flush(erofs_backend *b, lfs_error *error);
/* The number of the block at a position; -EFBIG when it has none. */
int lfs_erofs_block(const erofs_backend *b, uint64_t pos, uint32_t *block, lfs_error *error);

/* The finished tree in the order in which it is written. */
typedef struct plan {
    const lfs_tree *t;
    uint32_t block;
    uint32_t *names;      /* live names, the children of a directory together and sorted */
    uint32_t *order;      /* inodes by nid */
    uint32_t norder;
    uint32_t *first;      /* by inode: where a directory's children begin in names */
    uint32_t *shared;     /* by position in `sets`/8: id of a set in the shared area, +1 */
    lfs_buf shared_area;
    uint64_t dir_blocks;  /* full directory blocks, all together */
    uint64_t dir_base;    /* where they begin */
    uint64_t xattr_base;
    uint64_t inode_base;
    int64_t epoch;
    uint32_t epoch_nsec;
} plan;

/* The entries of a directory with "." and "..", which sort among the others. */
typedef struct dir_walk {
    const plan *p;
    uint32_t dir;
    uint32_t i;   /* of the children */
    int dots;     /* how many of "." and ".." are given */
    const char *text;
    uint32_t len;
    uint32_t node;
} dir_walk;

/* What of an inode lies behind it, and where the record can stand. */
typedef struct record {
    uint32_t head;    /* inode and attributes */
    uint32_t tail;    /* inline bytes, or the chunk table with the gap before it */
    uint32_t gap;     /* before the chunk table */
    int layout;
    uint64_t full;    /* directory blocks */
    uint32_t last;    /* bytes of the last one */
} record;

/* Order the tree, share its attributes (their records go to `records`), choose the epoch and number the
 * inodes, which take *inode_bytes. 0 or -errno. */
int lfs_plan_make(plan *p, lfs_buf *records, uint64_t *inode_bytes, lfs_error *error);
void lfs_plan_free(plan *p);
/* The next entry of a directory, in order; false at the end. */
bool lfs_plan_next(dir_walk *w);
uint32_t lfs_plan_xattr_bytes(const plan *p, const lfs_node *node);
/* Whether an inode fits into 32 bytes. */
bool lfs_plan_is_compact(const plan *p, const lfs_node *n);
void lfs_plan_measure(const plan *p, const lfs_node *n, record *r);

/* All that follows the content, and the superblock. */
int lfs_plan_write(erofs_backend *b, plan *p, const uint8_t *uuid, lfs_unpack_result *result,
                   lfs_error *error);

#endif
