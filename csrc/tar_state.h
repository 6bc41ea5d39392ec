/* tar_state.h - what the parser (tar.c) and its extended headers (tar_pax.c) share. */
#ifndef LAYERFS_TAR_STATE_H
#define LAYERFS_TAR_STATE_H

#include "tar.h"

enum state { HEADER, EXTENDED, OLD_MAP, PAX_MAP, DATA, PADDING, BODY, END };

/* What extended headers say of a member; a field counts only when its bit is in `set`. */
enum {
    SET_PATH = 1, SET_LINK = 2, SET_SIZE = 4, SET_UID = 8, SET_GID = 16, SET_MTIME = 32, SET_REALSIZE = 64,
    SET_SPARSE_NAME = 128, SET_MAP = 256, SET_MAJOR = 512, SET_MINOR = 1024,
};

typedef struct pax_values {
    unsigned set;
    lfs_buf path;
    lfs_buf link;
    lfs_buf sparse_name;
    lfs_buf map;
    uint64_t size;
    uint64_t realsize;
    uint64_t uid;
    uint64_t gid;
    uint64_t sparse_major;
    uint64_t sparse_minor;
    int64_t mtime;
    uint32_t mtime_nsec;
    bool pending_offset; /* GNU.sparse.offset (0.0) seen, its numbytes not yet */
    uint64_t offset;
} pax_values;

struct lfs_tar {
    enum state state;
    uint8_t block[LFS_TAR_BLOCK];
    size_t have;         /* bytes in block */
    bool entry_due;      /* ENTRY has to be given before DATA */
    bool data_end_due;
    char extended_type;
    uint64_t left;       /* bytes of content (DATA, BODY) or extended header still to come */
    uint64_t link_size;  /* what a hard link says of content behind it; see on_header */
    unsigned padding;
    lfs_buf extended;    /* content of the extended header at hand */
    lfs_buf global;      /* records of all 'g' headers so far */
    lfs_buf local;       /* records of the 'x' header of the next member */
    lfs_buf long_name;   /* 'L' */
    lfs_buf long_link;   /* 'K' */
    bool has_long_name;
    bool has_long_link;
    pax_values pax;
    uint64_t map_entries; /* PAX_MAP: announced, 0 before the number is known */
    bool map_counted;
    uint64_t map_number;  /* the decimal being read */
    bool map_digits;
    lfs_tar_entry entry;
};

/* -EBADMSG, naming the member at hand. */
int lfs_tar_bad(lfs_error *error, const lfs_tar *t, const char *what);
int lfs_tar_set_string(lfs_buf *b, const void *data, size_t n); /* 0 or -ENOMEM; NUL-terminated */
int lfs_tar_add_segment(lfs_tar *t, uint64_t offset, uint64_t length, lfs_error *error);
/* Go through "length key=value\n" records; what they say goes to t->pax and t->entry. */
int lfs_pax_records(lfs_tar *t, const char *p, size_t n, lfs_error *error);

#endif
