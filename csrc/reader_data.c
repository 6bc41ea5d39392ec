/* reader_data.c - the content of files in an EROFS layer: where it lies, and its bytes; see reader.h. */
#define _GNU_SOURCE
#include "reader.h"

#include <limits.h>

#define CHUNK_BITS 0x1fu
#define CHUNK_INDEXES 0x20u
#define CHUNK_ALL 0x3fu
#define CHUNKS_JOINED 65536 /* most chunks that one look into a chunk table joins into an extent */

static int map_flat(const lfs_reader *r, const lfs_inode *in, uint64_t offset, uint64_t *where, uint64_t *length,
                    lfs_error *error)
{
    uint64_t block = UINT64_C(1) << r->bits;
    uint64_t size = in->st.size;
    uint64_t tail = in->layout == LFS_LAYOUT_INLINE ? (size - 1) / block * block : size; /* where it begins */

    if (offset < tail) {
        *where = ((uint64_t)in->u << r->bits) + offset;
        *length = tail - offset;
    } else {
        if (in->body % block + (size - tail) > block)
            return lfs_reader_bad(error, in->st.nid, "inline data cross a block");
        *where = in->body + (offset - tail);
        *length = size - offset;
    }
    if (lfs_reader_at(r, *where, *length) == NULL)
        return lfs_reader_bad(error, in->st.nid, "content beyond the end of the file");
    return 0;
}

static int chunk_start(const lfs_reader *r, const lfs_inode *in, uint64_t number, uint64_t *start,
                       lfs_error *error)
{
    uint64_t unit = in->u & CHUNK_INDEXES ? 8 : 4;
    uint64_t table = lfs_align(in->body, unit);
    const uint8_t *p = number <= r->size / unit ? lfs_reader_at(r, table + number * unit, unit) : NULL;
    uint32_t block;

    if (p == NULL)
        return lfs_reader_bad(error, in->st.nid, "chunk table beyond the end of the file");
    if (unit == 8 && lfs_get32(p) != 0)
        return lfs_reader_bad(error, in->st.nid, "chunk of another device");
    block = lfs_get32(p + unit - 4);
    *start = block == UINT32_MAX ? LFS_HOLE : (uint64_t)block << r->bits;
    return 0;
}

static int map_chunks(const lfs_reader *r, const lfs_inode *in, uint64_t offset, uint64_t want, uint64_t *where,
                      uint64_t *length, lfs_error *error)
{
    unsigned bits = r->bits + (in->u & CHUNK_BITS);
    uint64_t chunk = UINT64_C(1) << bits;
    uint64_t number = offset >> bits, skip = offset & (chunk - 1);
    uint64_t left = in->st.size - offset;
    uint64_t start, next;
    int e;

    if ((in->u & 0xffff) & ~CHUNK_ALL)
        return lfs_reader_bad(error, in->st.nid, "unknown chunk format");
    e = chunk_start(r, in, number, &start, error);
    if (e < 0)
        return e;
    *where = start == LFS_HOLE ? LFS_HOLE : start + skip;
    *length = chunk - skip;
    for (uint64_t i = 1; i <= CHUNKS_JOINED && *length < left && *length < want; i++) {
        if (chunk_start(r, in, number + i, &next, NULL) < 0)
            break; /* an error for who comes there */
        if (next != (start == LFS_HOLE ? LFS_HOLE : start + i * chunk))
            break;
        *length += chunk;
    }
    if (*length > left)
        *length = left;
    if (*where != LFS_HOLE && lfs_reader_at(r, *where, *length) == NULL)
        return lfs_reader_bad(error, in->st.nid, "content beyond the end of the file");
    return 0;
}

int lfs_inode_map(const lfs_reader *r, const lfs_inode *in, uint64_t offset, uint64_t want, uint64_t *where,
                  uint64_t *length, lfs_error *error)
{
    if (in->layout == LFS_LAYOUT_CHUNKED)
        return map_chunks(r, in, offset, want, where, length, error);
    return map_flat(r, in, offset, where, length, error);
}

int64_t lfs_inode_read(const lfs_reader *r, const lfs_inode *in, uint64_t offset, void *buf, size_t cap,
                       lfs_error *error)
{
    char *out = buf;
    size_t done = 0;

    if (offset >= in->st.size)
        return 0;
    if (cap > in->st.size - offset)
        cap = (size_t)(in->st.size - offset);
    while (done < cap) {
        uint64_t where, length;
        int e = lfs_inode_map(r, in, offset + done, cap - done, &where, &length, error);
        if (e < 0)
            return e;
        if (length > cap - done)
            length = cap - done;
        if (where == LFS_HOLE) {
            memset(out + done, 0, (size_t)length);
        } else {
            int64_t got = lfs_pread_all(r->fd, out + done, (size_t)length, where);
            if (got < 0)
                return lfs_fail(error, (int)-got, "read inode %" PRIu64, in->st.nid);
            if ((uint64_t)got < length)
                return lfs_reader_bad(error, in->st.nid, "content beyond the end of the file");
        }
        done += (size_t)length;
    }
    return (int64_t)done;
}

static int load_regular(const lfs_reader *r, uint64_t nid, lfs_inode *in, lfs_error *error)
{
    int e = lfs_inode_load(r, nid, in, error);

    if (e < 0)
        return e;
    if (!S_ISREG(in->st.mode))
        return lfs_fail(error, S_ISDIR(in->st.mode) ? EISDIR : EINVAL, "read inode %" PRIu64, nid);
    return 0;
}

int64_t lfs_reader_read(const lfs_reader *r, uint64_t nid, uint64_t offset, void *buf, size_t cap,
                        lfs_error *error)
{
    lfs_inode in;
    int e = load_regular(r, nid, &in, error);

    return e < 0 ? e : lfs_inode_read(r, &in, offset, buf, cap, error);
}

int lfs_reader_extent(const lfs_reader *r, uint64_t nid, uint64_t offset, uint64_t *where, uint64_t *length,
                      lfs_error *error)
{
    lfs_inode in;
    int e = load_regular(r, nid, &in, error);

    if (e < 0)
        return e;
    *where = LFS_HOLE;
    *length = 0;
    if (offset >= in.st.size)
        return 0;
    return lfs_inode_map(r, &in, offset, UINT64_MAX, where, length, error);
}

int64_t lfs_reader_readlink(const lfs_reader *r, uint64_t nid, void *buf, size_t cap, lfs_error *error)
{
    lfs_inode in;
    int e = lfs_inode_load(r, nid, &in, error);

    if (e < 0)
        return e;
    if (!S_ISLNK(in.st.mode))
        return lfs_fail(error, EINVAL, "read link inode %" PRIu64, nid);
    if (in.st.size == 0 || in.st.size >= PATH_MAX)
        return lfs_reader_bad(error, nid, "symbolic link of impossible length");
    if (in.st.size > cap)
        return lfs_fail(error, ERANGE, "read link inode %" PRIu64, nid);
    return lfs_inode_read(r, &in, 0, buf, cap, error);
}
