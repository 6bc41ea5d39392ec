/* tar_state.h - what the parser (tar.c), its headers (tar_header.c, tar_pax.c) and sparse maps (tar_sparse.c) share. */
#ifndef LAYERFS_TAR_STATE_H
#define LAYERFS_TAR_STATE_H

#include "tar.h"

/* Offsets in a header block. */
enum {
    AT_NAME = 0, AT_MODE = 100, AT_UID = 108, AT_GID = 116, AT_SIZE = 124, AT_MTIME = 136, AT_CHKSUM = 148,
    AT_TYPE = 156, AT_LINK = 157, AT_MAGIC = 257, AT_MAJOR = 329, AT_MINOR = 337, AT_PREFIX = 345,
    AT_GNU_SPARSE = 386, AT_GNU_EXTENDED = 482, AT_GNU_REALSIZE = 483, AT_STAR_TRAILER = 508,
};

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

/* ---- tar_header.c ---- */

/* A number field of n bytes; 0 or -EBADMSG. The second leaves *r alone where it can be read. */
int lfs_tar_number(const uint8_t *p, size_t n, int64_t *out);
int64_t lfs_tar_field(const lfs_tar *t, int at, size_t n, int *r);
bool lfs_tar_checksum_ok(const uint8_t *block);
/* Name, link and numbers of the member: the header, and over it GNU's long names, and over those PAX. */
int lfs_tar_fill_entry(lfs_tar *t, bool posix, lfs_error *error);

/* ---- tar_sparse.c ---- */

int lfs_tar_check_map(lfs_tar *t, uint64_t content, lfs_error *error);
int lfs_tar_begin_sparse(lfs_tar *t, char type, uint64_t content, lfs_error *error);
/* A block of a map is complete. */
int lfs_tar_old_map_block(lfs_tar *t, lfs_error *error);
int lfs_tar_pax_map_block(lfs_tar *t, lfs_error *error);
int lfs_tar_add_segment(lfs_tar *t, uint64_t offset, uint64_t length, lfs_error *error);

/* ---- tar.c ---- */

/* The member's header is complete: ENTRY next, then `content` bytes of DATA. */
int lfs_tar_begin_data(lfs_tar *t, uint64_t content, lfs_error *error);
void lfs_tar_forget_extended(lfs_tar *t);
/* -EBADMSG, naming the member at hand. */
int lfs_tar_bad(lfs_error *error, const lfs_tar *t, const char *what);
int lfs_tar_set_string(lfs_buf *b, const void *data, size_t n); /* 0 or -ENOMEM; NUL-terminated */

/* ---- tar_pax.c ---- */

/* Go through "length key=value\n" records; what they say goes to t->pax and t->entry. */
int lfs_pax_records(lfs_tar *t, const char *p, size_t n, lfs_error *error);

#endif
