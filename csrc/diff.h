/*
 * diff.h - the parts of lfs_diff_* (layerfs.h) and what they share.
 *
 *   diff_walk.c     the names of one tree, or of two side by side, in the order of the archive
 *   diff_names.c    the names of one directory, sorted
 *   diff_xattr.c    extended attributes: which belong to the tree and which are marks of overlayfs
 *   diff_lower.c    what the layers below an upper show at a path
 *   diff_links.c    a table of inodes: hard links
 *   diff_compare.c  whether a name of two trees means the same in both
 *   diff_tar.c      one member of the archive
 *   diff_content.c  its bytes, as they are asked for
 *   diff_list.c     the list of changes
 *   diff_archive.c  the archive as a whole
 *   diff.c          the handle
 */
#ifndef LAYERFS_DIFF_H
#define LAYERFS_DIFF_H

#include <sys/stat.h>

#include "util.h"

#define LFS_DIFF_MAX_DEPTH 4096u /* as deep as unpack goes */
#define LFS_WHITEOUT ".wh."
#define LFS_WHITEOUT_OPAQUE ".wh..wh..opq"

/* ---- extended attributes ---- */

/* What overlayfs has noted at an inode of an upper directory or of a layer in that form. */
typedef struct lfs_marks {
    bool opaque;
    bool whiteouts; /* of a directory: files in it may be whiteouts */
    bool redirect;
    bool metacopy;
    bool whiteout;
} lfs_marks;

typedef struct lfs_xattrs {
    const char *own; /* "trusted.overlay." or "user.overlay."; NULL: no marks, all are the tree's */
    lfs_buf list;    /* scratch, like the rest */
    lfs_buf raw;
    lfs_buf order;
} lfs_xattrs;

/* Append the attributes, sorted by name, to out: records {u16 n, u32 m, n bytes full name, m bytes value}.
 * fd is open for reading, or O_PATH when `opath` is set. 0 or -errno. */
int lfs_xattrs_read(lfs_xattrs *x, int fd, bool opath, lfs_buf *out, lfs_marks *marks);
/* The same of an inode in a layer file. */
int lfs_xattrs_layer(lfs_xattrs *x, const lfs_reader *reader, uint64_t nid, lfs_buf *out, lfs_marks *marks,
                     lfs_error *error);
void lfs_xattrs_free(lfs_xattrs *x);

/* ---- the walk ---- */

enum { LFS_SIDE_TO = 0, LFS_SIDE_FROM = 1 };

enum { LFS_ITEM_TO = 1, LFS_ITEM_FROM = 2, LFS_ITEM_WHITEOUT = 4 };

/* A name in a directory that is being walked. */
typedef struct lfs_walk_item {
    uint64_t key;  /* the first 8 bytes of the name, big-endian, to compare most names at once */
    uint64_t name; /* offset in `names`, NUL-terminated */
    uint8_t len;
    uint8_t type;      /* DT_* */
    uint8_t from_type; /* of two trees: the type in the other one */
    uint8_t flags;
} lfs_walk_item;

/* A directory on the way from the root to where the walk is. */
typedef struct lfs_walk_dir {
    struct stat st;  /* not of a light walk */
    uint64_t items; /* its first one in `items` (a byte offset), how many, and the next one to visit */
    uint64_t count;
    uint64_t at;
    uint64_t names;  /* length of `names` before it */
    uint64_t xattrs; /* its attributes, in `names` */
    uint64_t xattrs_len;
    uint64_t path; /* length of its path */
    int fd[2];     /* of each side; -1: closed for now, or not there */
    bool has[2];
    dev_t dev[2];   /* of what is closed for now */
    ino_t ino[2];
    bool second;  /* whiteouts come first, all else in a second pass */
    bool opaque;
    bool whiteouts; /* upper: files in it may be whiteouts */
    bool hidden;  /* upper: opaque, or below such a one: nothing of the lowers shows */
    char kind;    /* list: what it is listed as in any case, or 0 */
    uint64_t refs; /* the lowers that have it too (diff_lower.c) */
    uint64_t nrefs;
    uint64_t listed; /* list: how many changes were known before it */
} lfs_walk_dir;

enum { LFS_WALK_DIR = 1, LFS_WALK_FILE, LFS_WALK_WHITEOUT, LFS_WALK_LEAVE, LFS_WALK_END };

/*
 * Directories are read whole and sorted; memory holds those on the way from the root. At most
 * 2 * LFS_WALK_FDS descriptors stay open, whatever the depth. A name that has gone by the time it is
 * visited never was.
 */
typedef struct lfs_walk {
    bool upper;      /* device 0:0 is a whiteout */
    bool pair;       /* two trees */
    int root[2];
    bool light;      /* upper: of files nothing but name and type is asked for; see lfs_walk_open */
    lfs_xattrs xattrs;
    lfs_buf names;   /* a stack: names and attributes of the directories at hand */
    lfs_buf items;   /* a stack of lfs_walk_item */
    lfs_walk_dir *dirs;
    size_t depth;    /* directories at hand; the root is dirs[0] */
    size_t cap;
    lfs_buf path;    /* of the entry at hand, without leading slash, NUL-terminated */
    char *dents;
    int last;        /* the event given last; 0: at the beginning */
    /* The entry at hand: of a FILE, O_PATH descriptors and attributes (of a light walk: its type alone); of both,
     * whether `from` has it. */
    uint8_t type;    /* of a WHITEOUT: of what stands there, or stood there in `from` */
    int fd[2];
    struct stat st[2];
    bool in_from;
    const char *name;
    size_t name_len;
} lfs_walk;

#define LFS_WALK_FDS 64
#define LFS_WALK_DENTS (64u << 10) /* bytes of `dents` */

int lfs_walk_init(lfs_walk *w, int to, int from, lfs_error *error);
void lfs_walk_rewind(lfs_walk *w);
int lfs_walk_next(lfs_walk *w, lfs_error *error); /* LFS_WALK_* or -errno */
/* Of a light walk: open the FILE at hand, so that it is as any walk gives it. 1, 0 if it is gone, or -errno. */
int lfs_walk_open(lfs_walk *w, lfs_error *error);
void lfs_walk_free(lfs_walk *w);
/* Fail with "what PATH", of the entry at hand. */
int lfs_walk_fail(const lfs_walk *w, int err, const char *what, lfs_error *error);

static inline lfs_walk_dir *lfs_walk_top(const lfs_walk *w)
{
    return &w->dirs[w->depth - 1];
}

static inline lfs_walk_item *lfs_walk_items(const lfs_walk *w, const lfs_walk_dir *dir)
{
    return (lfs_walk_item *)(void *)(w->items.data + dir->items);
}

/* Append the names of an open directory to w->names and, as items with `flags`, to w->items. With
 * `whiteouts`, devices 0:0 get LFS_ITEM_WHITEOUT. */
int lfs_walk_load(lfs_walk *w, int fd, bool whiteouts, uint8_t flags, lfs_error *error);
/* Append one name and its item. 0 or -ENOMEM. */
int lfs_walk_add(lfs_walk *w, const char *name, size_t n, uint8_t type, uint8_t flags);
void lfs_walk_sort(const lfs_walk *w, lfs_walk_item *items, size_t n);
/* Of two trees: the sorted names of both become one item each; how many. What only `from` has is a whiteout.
 * */
size_t lfs_walk_join(const lfs_walk *w, lfs_walk_item *items, size_t n);
int lfs_walk_compare(const lfs_walk *w, const lfs_walk_item *a, const lfs_walk_item *b);
/* Open a directory for reading, beneath fd, leaving its access time alone where that is allowed. */
int lfs_walk_opendir(int fd, const char *name);

/* ---- hard links ---- */

typedef struct lfs_link {
    uint64_t dev;
    uint64_t ino;
    uint64_t a; /* the user's */
    uint64_t b;
    bool used;
    bool flag;
} lfs_link;

typedef struct lfs_links {
    lfs_link *slots;
    size_t cap;
    size_t count;
} lfs_links;

/* The entry of an inode; *made when it was not there. NULL: no memory. Valid until the next call. */
lfs_link *lfs_links_at(lfs_links *t, uint64_t dev, uint64_t ino, bool *made);
void lfs_links_free(lfs_links *t);

/* ---- lowers ---- */

typedef struct lfs_lower {
    const lfs_reader *reader; /* or NULL: */
    int fd;
} lfs_lower;

typedef struct lfs_lowers {
    lfs_lower *list;
    size_t count;
    lfs_buf refs;    /* a stack: which lowers have the directories at hand */
    lfs_buf xattrs;  /* scratch */
} lfs_lowers;

/* What the lowers together show under a name. */
typedef struct lfs_lower_found {
    bool exists;
    uint32_t mode;
    uint32_t uid;
    uint32_t gid;
    int64_t mtime;
    uint32_t mtime_nsec;
    lfs_buf *xattrs; /* where its attributes go, if it is a directory and they are wanted; else NULL */
} lfs_lower_found;

/* Look `name` up below `dir`. */
int lfs_lowers_find(lfs_lowers *l, lfs_walk *w, const lfs_walk_dir *dir, const char *name, size_t n,
                    lfs_lower_found *found, lfs_error *error);
/* The directory on top of the walk has been entered: find out which lowers have it. */
int lfs_lowers_enter(lfs_lowers *l, lfs_walk *w, lfs_lower_found *found, lfs_error *error);
void lfs_lowers_leave(lfs_lowers *l, lfs_walk_dir *dir);
/* Append to w->items, sorted, the names that the lowers have in the top directory and the upper has not.
 * *first is the (byte) offset of the first of them; the caller cuts names and items back. */
int lfs_lowers_names(lfs_lowers *l, lfs_walk *w, uint64_t *first, lfs_error *error);
void lfs_lowers_free(lfs_lowers *l);

/* ---- the archive ---- */

typedef struct lfs_segment {
    uint64_t offset;
    uint64_t length;
} lfs_segment;

typedef struct lfs_member {
    const char *path; /* whole, as it is to stand there: directories with a slash at the end */
    size_t path_len;
    const char *link; /* types 1 and 2 */
    size_t link_len;
    const char *xattrs; /* records as lfs_xattrs_read makes them */
    size_t xattrs_len;
    uint64_t size;
    int64_t mtime;
    uint32_t mtime_nsec;
    uint32_t mode;
    uint32_t uid;
    uint32_t gid;
    uint32_t rdev_major;
    uint32_t rdev_minor;
    char type;
} lfs_member;

typedef struct lfs_tar_writer {
    lfs_buf head;    /* headers that wait to be read */
    size_t head_at;
    lfs_buf pax;     /* scratch */
    lfs_buf name;    /* path of the file whose content is read, for errors */
    lfs_buf map;     /* lfs_segment[]: what of the file is written; one of all, or the data of a sparse one */
    size_t segment;
    uint64_t done;   /* of the segment */
    int fd;          /* the content; -1: none */
    unsigned padding;
} lfs_tar_writer;

/* Append the member's headers. Content follows from *fd (taken over) for type 0 with size > 0; as a sparse
 * file when `sparse` is set and it has holes. */
int lfs_tar_writer_add(lfs_tar_writer *t, const lfs_member *m, int *fd, bool sparse, lfs_error *error);
int lfs_tar_writer_end(lfs_tar_writer *t); /* the two blocks of zeros */
/* What is ready, up to cap bytes. */
int64_t lfs_tar_writer_read(lfs_tar_writer *t, void *buf, size_t cap, lfs_error *error);
void lfs_tar_writer_free(lfs_tar_writer *t);

/* ---- the handle ---- */

struct lfs_diff {
    lfs_diff_options options;
    lfs_diff_stats stats;
    lfs_walk walk;
    lfs_lowers lowers;
    lfs_tar_writer out;
    lfs_links links;   /* inode -> path of its first name (offset and length in link_paths) */
    lfs_buf link_paths;
    lfs_links groups;  /* two trees: inode of `to` -> that of `from`; flag: changed */
    lfs_links claims;  /* two trees: inode of `from` -> that of `to` */
    lfs_buf xattrs[2]; /* scratch */
    lfs_buf target[2];
    lfs_buf path;
    lfs_buf list;      /* changes: records, and where each begins */
    lfs_buf order;
    size_t list_at;
    char *compare;     /* two pieces of content */
    int use;           /* 0, 'r' read, 'l' list */
    size_t written;    /* of the directories at hand, those whose members are written */
    bool due;          /* the entry at hand is to be written */
    bool grouped;
    bool ended;
};

/* The entry at hand in both trees (a directory: itself alone): 1 if it differs, 0 if not. */
int lfs_diff_differs(lfs_diff *d, lfs_error *error);
/* Walk both trees once to find hard links that have changed; then rewind. */
int lfs_diff_group(lfs_diff *d, lfs_error *error);
/* One step of the archive: walk on, or write a member that is due. */
int lfs_diff_step(lfs_diff *d, lfs_error *error);
/* Fill and sort the list; take some of it. */
int lfs_diff_collect(lfs_diff *d, lfs_error *error);
int64_t lfs_diff_take(lfs_diff *d, char *buf, size_t cap, lfs_error *error);
/* Open for reading what the O_PATH descriptor of a side is: that very inode, known to be a regular file, so
 * that nobody can put a device in its place. */
int lfs_diff_reopen(const lfs_walk *w, int side, lfs_error *error);
int lfs_diff_readlink(const lfs_walk *w, int fd, lfs_buf *target, lfs_error *error);
/* Refuse a file whose content overlayfs has left in a lower layer. */
int lfs_diff_check_marks(const lfs_diff *d, const lfs_marks *marks, lfs_error *error);

#endif
