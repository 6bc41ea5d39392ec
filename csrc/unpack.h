/*
 * unpack.h - what the files of unpacking share: the handle and content (unpack.c), paths (unpack_path.c),
 * members (unpack_member.c), their attributes (unpack_attr.c), and what is done when all are there
 * (unpack_mark.c).
 */
#ifndef LAYERFS_UNPACK_H
#define LAYERFS_UNPACK_H

#include "backend.h"
#include "tar.h"

#define WHITEOUT ".wh."
#define WHITEOUT_META ".wh..wh."
#define WHITEOUT_OPAQUE ".wh..wh..opq"

/* What becomes of the content of the member at hand. */
enum { CONTENT_RAW, CONTENT_FILE };

struct lfs_unpack {
    lfs_unpack_options options;
    lfs_tar *tar;
    lfs_tree tree;
    lfs_rest rest;
    lfs_backend *backend;
    lfs_buf path;       /* of the member: clean, relative */
    lfs_buf target;     /* of a hard link, clean */
    lfs_buf walk;       /* what is left to walk while links are followed */
    lfs_buf cached;     /* the last parent directory looked up, and what it led to */
    uint32_t cached_node;
    uint32_t cached_removals;
    int content;
    size_t segment;     /* sparse: which segment of the map, and how much of it is done */
    uint64_t segment_done;
    uint64_t file_pos;
    uint64_t members;
    uint64_t data_bytes; /* of all members, replaced ones too: what the limit counts */
    lfs_buf records;    /* scratch for attribute sets */
    lfs_unpack_result result;
};

static inline int unpack_oom(lfs_error *error)
{
    return lfs_fail(error, ENOMEM, "unpack");
}

static inline int unpack_refuse(lfs_error *error, const char *path, const char *why)
{
    return lfs_fail(error, EBADMSG, "unpack %.150s: %s", path, why);
}

static inline bool starts_with(const char *p, size_t n, const char *prefix)
{
    size_t m = strlen(prefix);

    return n >= m && memcmp(p, prefix, m) == 0;
}

/* The next component of *p, *left; leading and repeated slashes and "." passed over. false: none left. */
bool lfs_path_next(const char **p, size_t *left, const char **name, size_t *n);
int lfs_path_clean(const lfs_buf *raw, lfs_buf *clean, lfs_error *error);
void lfs_path_split(const lfs_buf *path, size_t *parent_len, const char **base, size_t *base_len);
/* Take a name away, on disk and in the tree. */
int lfs_unpack_remove(lfs_unpack *u, uint32_t entry, lfs_error *error);
int lfs_unpack_walk(lfs_unpack *u, const char *path, size_t len, bool make, uint32_t *out, lfs_error *error);
int lfs_unpack_parent(lfs_unpack *u, size_t len, uint32_t *out, lfs_error *error);

/* Append an attribute to a set; 0 or -ENOMEM. */
int lfs_unpack_record(lfs_buf *b, int prefix, const char *name, size_t n, const char *value, size_t m);
/* Owner, mode, time and extended attributes of a member to its inode. */
int lfs_unpack_attributes(lfs_unpack *u, const lfs_tar_entry *e, uint32_t node, lfs_error *error);

/* One more member, or a directory that a path implies: -EFBIG beyond the limit. */
int lfs_unpack_count(lfs_unpack *u, lfs_error *error);
/* A member begins: what it says is done, and u->content says what becomes of its content. */
int lfs_unpack_member(lfs_unpack *u, const lfs_tar_entry *e, lfs_error *error);

/* The archive has ended: moot whiteouts go, overlayfs's marks are set, and the result is counted. */
int lfs_unpack_mark(lfs_unpack *u, lfs_error *error);

#endif
