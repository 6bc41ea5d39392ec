/*
 * tree.h - the names of a layer while it is being unpacked: inodes, names, attributes; no content.
 *
 * About 140 bytes an entry beyond its name. Numbers, not pointers, so that the arrays can grow. Number 0 is
 * "none"; inode 1 is the root directory. Nothing is reused: an entry that is removed leaves its slot behind,
 * so memory is bounded by the number of members in the archive.
 */
#ifndef LAYERFS_TREE_H
#define LAYERFS_TREE_H

#include <sys/stat.h>

#include "util.h"

#define LFS_TREE_ROOT 1u
#define LFS_TREE_MAX_DEPTH 4096 /* directories above an entry; no system call can name a deeper one */

enum {
    LFS_NODE_OPAQUE = 1,   /* directory that hides what lower layers have in it */
    LFS_NODE_HOLES = 2,    /* file whose content is described by a chunk table at `where` */
    LFS_NODE_DEAD = 4,     /* dir format: its content has moved to dead/ */
    LFS_NODE_FRESH = 8,    /* directory below an opaque one: no lower layer has anything in it */
    LFS_NODE_WHITEOUTS = 16, /* directory with whiteouts */
};

/* An inode. */
typedef struct lfs_node {
    uint64_t size;
    uint64_t where;      /* file: offset of its content (or chunk table); symlink: of its target in `names` */
    int64_t mtime;
    uint32_t mtime_nsec;
    uint32_t mode;       /* type and permissions */
    uint32_t uid;
    uint32_t gid;
    uint32_t nlink;      /* names; of directories: 2 + subdirectories */
    uint32_t rdev_major;
    uint32_t rdev_minor;
    uint32_t xattrs;     /* offset in `sets` + 1; 0: none */
    uint32_t name;       /* its first name; the only one of a directory */
    uint32_t children;   /* directory: its last name added, then by `next`; dead ones among them */
    uint32_t nchildren;
    uint32_t number;     /* file: number of the archive member, for dead/; when written: nid */
    uint16_t depth;
    uint8_t flags;
    uint8_t chunk_bits;  /* LFS_NODE_HOLES: log2 of the chunk size */
} lfs_node;

/* A name in a directory. */
typedef struct lfs_name {
    uint64_t text;   /* offset in `names` */
    uint32_t parent; /* inode of the directory */
    uint32_t node;   /* 0: removed */
    uint32_t next;   /* in the directory */
    uint8_t len;
    bool hidden;     /* a whiteout of this name stands in the archive: a directory here is opaque */
} lfs_name;

/* Of the hash table, open and probed in line: the hash here spares a look at names that do not match. */
typedef struct lfs_slot {
    uint32_t hash;
    uint32_t entry; /* 0: never used, UINT32_MAX: removed */
} lfs_slot;

typedef struct lfs_tree {
    uint64_t key[2];   /* of the hash tables */
    lfs_node *nodes;
    lfs_name *entries;
    uint32_t nnodes;   /* in use, number 0 included */
    uint32_t nentries;
    uint32_t node_cap;
    uint32_t entry_cap;
    lfs_slot *slots;
    uint32_t nslots;   /* a power of two */
    uint32_t used;     /* slots that are not free, removed ones among them */
    uint32_t live;     /* names that exist, the root not counted */
    uint32_t removals; /* changes whenever a path may have come to mean something else */
    lfs_buf names;
    lfs_buf sets;      /* interned attribute sets: {u32 len, u32 refs, len bytes}, 8-aligned */
    uint32_t *set_buckets;
    uint32_t nset_buckets;
    uint32_t nsets;
} lfs_tree;

/* An attribute set's record: as EROFS stores it, padded to 4 bytes. */
typedef struct lfs_xattr_record {
    uint8_t name_len; /* without the prefix */
    uint8_t prefix;   /* LFS_XATTR_* */
    uint16_t value_len;
} lfs_xattr_record;

enum {
    LFS_XATTR_USER = 1,
    LFS_XATTR_ACL_ACCESS = 2,
    LFS_XATTR_ACL_DEFAULT = 3,
    LFS_XATTR_TRUSTED = 4,
    LFS_XATTR_SECURITY = 6,
};

/* The prefix number of a full attribute name and the length of that prefix; 0 for foreign namespaces. */
int lfs_xattr_prefix(const char *name, size_t n, size_t *prefix_len);
/* "user." and so on; of the ACLs the whole name. */
const char *lfs_xattr_prefix_name(int prefix);

int lfs_tree_init(lfs_tree *t); /* 0 or -ENOMEM; makes the root: 0755 0:0, time 0 */
void lfs_tree_free(lfs_tree *t);

static inline lfs_node *lfs_tree_node(const lfs_tree *t, uint32_t node)
{
    return &t->nodes[node];
}

static inline lfs_name *lfs_tree_entry(const lfs_tree *t, uint32_t entry)
{
    return &t->entries[entry];
}

static inline const char *lfs_tree_text(const lfs_tree *t, uint32_t entry)
{
    return t->names.data + t->entries[entry].text;
}

static inline bool lfs_node_is_whiteout(const lfs_node *n)
{
    return S_ISCHR(n->mode) && n->rdev_major == 0 && n->rdev_minor == 0;
}

/* The directory above a directory; the root's is the root. */
uint32_t lfs_tree_parent(const lfs_tree *t, uint32_t node);
/* 0: no such name. */
uint32_t lfs_tree_find(const lfs_tree *t, uint32_t parent, const char *name, size_t n);
/* A new inode / a new name for an inode. Both return its number, or 0 when memory is out. */
uint32_t lfs_tree_new_node(lfs_tree *t, uint32_t mode);
uint32_t lfs_tree_add(lfs_tree *t, uint32_t parent, const char *name, size_t n, uint32_t node);
/* Take a name away; of a directory, all below it. */
int lfs_tree_remove(lfs_tree *t, uint32_t entry);
/* Store bytes beside the names; their offset, or UINT64_MAX. */
uint64_t lfs_tree_store(lfs_tree *t, const char *data, size_t n);
/* Intern records (sorted, padded); *set is then the node's `xattrs`. 0 or -ENOMEM. */
int lfs_tree_intern(lfs_tree *t, const char *records, size_t n, uint32_t *set);
/* The records of a set, and in how many inodes it is used. */
const char *lfs_tree_set(const lfs_tree *t, uint32_t set, size_t *n, uint32_t *refs);
void lfs_tree_set_ref(lfs_tree *t, uint32_t set, int by);
/* The path of a name, without leading slash, into b, NUL-terminated. 0 or -ENOMEM. */
int lfs_tree_path(const lfs_tree *t, uint32_t entry, lfs_buf *b);

#endif
