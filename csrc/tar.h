/*
 * tar.h - a push parser for tar: ustar, PAX, GNU, old V7, and the sparse forms of GNU tar.
 *
 * The caller gives bytes as they come and takes events. Nothing is looked at twice and nothing is kept but
 * one header block, the extended headers of the member at hand, and its sparse map; each is bounded. Every
 * byte of the input appears in exactly one RAW or DATA span, in order, so that what is not file content
 * can be kept (the "rest").
 *
 * Sources: POSIX.1-2024 pax; GNU tar manual, "Basic Tar Format" and "Sparse Formats".
 */
#ifndef LAYERFS_TAR_H
#define LAYERFS_TAR_H

#include "util.h"

#define LFS_TAR_BLOCK 512
#define LFS_TAR_MAX_EXTENDED (4u << 20) /* bytes of one extended header */
#define LFS_TAR_MAX_GLOBAL (64u << 10)  /* bytes of all global ones together, which every member goes through */
#define LFS_TAR_MAX_PATH 65536u         /* bytes of a path or link target */
#define LFS_TAR_MAX_SPARSE (1u << 20)   /* segments of one sparse file */

typedef struct lfs_tar_segment {
    uint64_t offset;
    uint64_t length;
} lfs_tar_segment;

typedef struct lfs_tar_entry {
    char type;     /* '0' to '6', as ustar numbers them; '0' also for contiguous and unknown ones */
    bool has_data; /* spans of DATA belong to a file (else they are ignored content) */
    bool sparse;   /* DATA fills the segments of the map, one after another */
    lfs_buf path;  /* both NUL-terminated, the NUL not counted */
    lfs_buf link;
    uint32_t mode; /* permission bits only */
    uint32_t uid;
    uint32_t gid;
    uint32_t rdev_major;
    uint32_t rdev_minor;
    int64_t mtime;
    uint32_t mtime_nsec;
    uint64_t size;   /* of the file, holes included */
    lfs_buf xattrs;  /* records {u16 n, u32 m, n bytes name, m bytes value}, later ones override */
    lfs_buf map;     /* lfs_tar_segment[], ascending */
} lfs_tar_entry;

typedef enum lfs_tar_event {
    LFS_TAR_MORE,     /* all input is used up */
    LFS_TAR_RAW,      /* a span of headers, padding, or ignored content */
    LFS_TAR_ENTRY,    /* a member begins: t->entry */
    LFS_TAR_DATA,     /* a span of its content */
    LFS_TAR_DATA_END, /* its content is complete; comes after each ENTRY */
} lfs_tar_event;

typedef struct lfs_tar lfs_tar;

lfs_tar *lfs_tar_new(void); /* NULL: out of memory */
void lfs_tar_free(lfs_tar *t);
const lfs_tar_entry *lfs_tar_current(const lfs_tar *t);

/* Use up some of the *n bytes at *p; returns an lfs_tar_event or -errno. A span points into the input. */
int lfs_tar_next(lfs_tar *t, const uint8_t **p, size_t *n, const uint8_t **span, size_t *span_len,
                 lfs_error *error);

/* The input has ended: -EBADMSG if that was inside a member. */
int lfs_tar_finish(const lfs_tar *t, lfs_error *error);

#endif
