/*
 * reader.h - what the files of the reader share: the file and its inodes (reader.c), content (reader_data.c),
 * directories (reader_dir.c), extended attributes (reader_xattr.c).
 */
#ifndef LAYERFS_READER_H
#define LAYERFS_READER_H

#include <inttypes.h>
#include <sys/stat.h>

#include "util.h"

/* Of an inode's content. */
enum { LFS_LAYOUT_PLAIN = 0, LFS_LAYOUT_INLINE = 2, LFS_LAYOUT_CHUNKED = 4 };
#define LFS_HOLE UINT64_MAX

struct lfs_reader {
    const uint8_t *map;
    uint64_t size; /* of the file and of the map */
    uint64_t meta; /* byte offset of nid 0 */
    uint64_t shared; /* byte offset of shared attribute 0 */
    uint64_t root;
    int64_t epoch;
    uint32_t nsec; /* of all compact inodes */
    unsigned bits; /* log2 of the block size */
    int fd;
};

typedef struct lfs_inode {
    lfs_stat st;
    uint64_t xattrs; /* byte offset of the attribute area */
    uint64_t xattr_bytes;
    uint64_t body; /* byte offset of what follows it: the inline tail, or the chunk table */
    uint32_t u;    /* start block, device number or chunk format */
    unsigned layout;
} lfs_inode;

/* The n bytes at offset, or NULL where the file does not have them. */
static inline const uint8_t *lfs_reader_at(const lfs_reader *r, uint64_t offset, uint64_t n)
{
    if (offset > r->size || n > r->size - offset)
        return NULL;
    return r->map + offset;
}

/* -EBADMSG, naming the inode. */
int lfs_reader_bad(lfs_error *error, uint64_t nid, const char *what);
int lfs_inode_load(const lfs_reader *r, uint64_t nid, lfs_inode *in, lfs_error *error);
/* Where the content from offset (< size) on lies, for *length >= 1 bytes; want is as much as is of use. */
int lfs_inode_map(const lfs_reader *r, const lfs_inode *in, uint64_t offset, uint64_t want, uint64_t *where,
                  uint64_t *length, lfs_error *error);
/* At most cap bytes of the content; 0 at its end. */
int64_t lfs_inode_read(const lfs_reader *r, const lfs_inode *in, uint64_t offset, void *buf, size_t cap,
                       lfs_error *error);

#endif
