/*
 * reader.c - an EROFS layer file through its metadata: names, attributes and contents, with no mount.
 *
 * The file is mapped read-only. Every number in it is a claim: an offset is turned into a pointer by at()
 * alone, which knows the size that the file had when it was opened. File content is read with pread, so that
 * a file cut short afterwards gives -EBADMSG for content too. Nothing in a reader changes after
 * lfs_reader_open: one reader serves any number of threads.
 *
 * Understood: compact and extended inodes; the layouts plain, inline and chunks (8-byte indexes of device 0
 * and 4-byte maps); inline and shared attributes. Refused: compression, device tables, 48-bit addresses.
 *
 * What is not checked: that the directories form a tree. Who walks a file of unknown origin must bound the
 * walk; in a true tree there are fewer names than bytes of file / 12.
 */
#define _GNU_SOURCE
#include "util.h"

#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define SB_OFFSET 1024
#define SB_BYTES 128
#define SB_MAGIC 0xe0f5e1e2u
#define COMPAT_CHECKSUM 0x1u
#define INCOMPAT_CHUNKED 0x4u

#define SLOT 32 /* inodes begin at multiples of it; a nid counts them */
#define FORMAT_EXTENDED 0x01u
#define FORMAT_BIT4 0x10u /* compact, not a directory: one link, and i_nlink is part of the address */
#define FORMAT_ALL 0x1fu
#define PLAIN 0
#define INLINE 2
#define CHUNKED 4
#define CHUNK_BITS 0x1fu
#define CHUNK_INDEXES 0x20u
#define CHUNK_ALL 0x3fu
#define CHUNKS_JOINED 65536 /* most chunks that one look into a chunk table joins into an extent */

#define DIRENT 12
#define NAME_LIMIT 255
#define HOLE UINT64_MAX

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

typedef struct inode {
    lfs_stat st;
    uint64_t xattrs; /* byte offset of the attribute area */
    uint64_t xattr_bytes;
    uint64_t body; /* byte offset of what follows it: the inline tail, or the chunk table */
    uint32_t u;    /* start block, device number or chunk format */
    unsigned layout;
} inode;

typedef struct dir_block {
    const uint8_t *p;
    uint32_t len;
    uint32_t count; /* entries, at least 1 */
} dir_block;

typedef struct dir_name {
    const char *p;
    size_t n;
} dir_name;

static int bad(lfs_error *error, uint64_t nid, const char *what)
{
    return lfs_fail(error, EBADMSG, "inode %" PRIu64 ": %s", nid, what);
}

/* The n bytes at offset, or NULL where the file does not have them. */
static const uint8_t *at(const lfs_reader *r, uint64_t offset, uint64_t n)
{
    if (offset > r->size || n > r->size - offset)
        return NULL;
    return r->map + offset;
}

/* CRC-32C as EROFS wants it: no final inversion, the checksum field (4 bytes at 4) taken as zero. */
static uint32_t superblock_crc(const uint8_t *p, size_t n)
{
    uint32_t crc = UINT32_MAX;

    for (size_t i = 0; i < n; i++) {
        crc ^= i >= 4 && i < 8 ? 0 : p[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
    }
    return crc;
}

static int read_superblock(lfs_reader *r, lfs_error *error)
{
    const uint8_t *sb = at(r, SB_OFFSET, SB_BYTES);
    uint64_t block, covered, blocks;

    if (sb == NULL || lfs_get32(sb) != SB_MAGIC)
        return lfs_fail(error, EBADMSG, "read superblock: not an EROFS image");
    r->bits = sb[0x0c];
    if (r->bits < 9 || r->bits > 12)
        return lfs_fail(error, EBADMSG, "read superblock: block size 2^%u", r->bits);
    block = UINT64_C(1) << r->bits;
    covered = block > SB_OFFSET ? block - SB_OFFSET : block;
    if (at(r, SB_OFFSET, covered) == NULL)
        return lfs_fail(error, EBADMSG, "read superblock: cut short");
    if (lfs_get32(sb + 0x08) & COMPAT_CHECKSUM && superblock_crc(sb, covered) != lfs_get32(sb + 0x04))
        return lfs_fail(error, EBADMSG, "read superblock: wrong checksum");
    if (lfs_get32(sb + 0x50) & ~INCOMPAT_CHUNKED)
        return lfs_fail(error, EBADMSG, "read superblock: unknown features %#x", lfs_get32(sb + 0x50));
    if (sb[0x5a] != 0)
        return lfs_fail(error, EBADMSG, "read superblock: directory blocks of another size");
    blocks = lfs_get32(sb + 0x24);
    if (blocks > r->size >> r->bits)
        return lfs_fail(error, EBADMSG, "read superblock: %" PRIu64 " blocks in a file of %" PRIu64 " bytes",
                        blocks, r->size);
    r->root = lfs_get16(sb + 0x0e);
    r->epoch = (int64_t)lfs_get64(sb + 0x18);
    r->nsec = lfs_get32(sb + 0x20);
    r->meta = (uint64_t)lfs_get32(sb + 0x28) << r->bits;
    r->shared = (uint64_t)lfs_get32(sb + 0x2c) << r->bits;
    if (r->nsec >= 1000000000 || r->meta > r->size)
        return lfs_fail(error, EBADMSG, "read superblock: number out of range");
    return 0;
}

static void fill_compact(const lfs_reader *r, const uint8_t *p, unsigned format, lfs_stat *st)
{
    st->mode = lfs_get16(p + 4);
    st->nlink = !S_ISDIR(st->mode) && format & FORMAT_BIT4 ? 1 : lfs_get16(p + 6);
    st->size = lfs_get32(p + 8);
    /* Unsigned, for a hostile epoch may overflow. Writers before Linux 6.15 leave the difference 0. */
    st->mtime = (int64_t)((uint64_t)r->epoch + lfs_get32(p + 12));
    st->mtime_nsec = r->nsec;
    st->uid = lfs_get16(p + 24);
    st->gid = lfs_get16(p + 26);
}

static void fill_extended(const uint8_t *p, lfs_stat *st)
{
    st->mode = lfs_get16(p + 4);
    st->size = lfs_get64(p + 8);
    st->uid = lfs_get32(p + 24);
    st->gid = lfs_get32(p + 28);
    st->mtime = (int64_t)lfs_get64(p + 32);
    st->mtime_nsec = lfs_get32(p + 40);
    st->nlink = lfs_get32(p + 44);
}

/* Whether the mode has one of the seven types; fills the device number of those that have one. */
static bool fill_type(inode *in)
{
    switch (in->st.mode & S_IFMT) {
    case S_IFCHR:
    case S_IFBLK:
        in->st.rdev_major = in->u >> 8 & 0xfff;
        in->st.rdev_minor = (in->u & 0xff) | (in->u >> 12 & 0xfff00);
        return true;
    case S_IFREG:
    case S_IFDIR:
    case S_IFLNK:
    case S_IFIFO:
    case S_IFSOCK:
        return true;
    default:
        return false;
    }
}

static int load_inode(const lfs_reader *r, uint64_t nid, inode *in, lfs_error *error)
{
    const uint8_t *p;
    uint64_t offset, bytes;
    unsigned format, icount;

    memset(in, 0, sizeof *in);
    if (nid > (r->size - r->meta) / SLOT)
        return bad(error, nid, "beyond the end of the file");
    offset = r->meta + nid * SLOT;
    p = at(r, offset, SLOT);
    if (p == NULL)
        return bad(error, nid, "beyond the end of the file");
    format = lfs_get16(p);
    bytes = format & FORMAT_EXTENDED ? 2 * SLOT : SLOT;
    icount = lfs_get16(p + 2);
    in->layout = format >> 1 & 7;
    in->xattrs = offset + bytes;
    in->xattr_bytes = icount ? 12 + 4 * (uint64_t)(icount - 1) : 0;
    in->body = in->xattrs + in->xattr_bytes;
    if (at(r, offset, bytes + in->xattr_bytes) == NULL)
        return bad(error, nid, "beyond the end of the file");
    if (format & ~FORMAT_ALL || (in->layout != PLAIN && in->layout != INLINE && in->layout != CHUNKED))
        return bad(error, nid, "unknown inode format");
    in->u = lfs_get32(p + 16);
    in->st.nid = nid;
    if (format & FORMAT_EXTENDED)
        fill_extended(p, &in->st);
    else
        fill_compact(r, p, format, &in->st);
    /* Where they are no link count, these two bytes are the high part of a 48-bit address. */
    if (lfs_get16(p + 6) != 0 &&
        (format & FORMAT_EXTENDED || (!S_ISDIR(in->st.mode) && format & FORMAT_BIT4)))
        return bad(error, nid, "48-bit address");
    if (!fill_type(in) || in->st.size > INT64_MAX || in->st.mtime_nsec >= 1000000000)
        return bad(error, nid, "number out of range");
    return 0;
}

static int map_flat(const lfs_reader *r, const inode *in, uint64_t offset, uint64_t *where, uint64_t *length,
                    lfs_error *error)
{
    uint64_t block = UINT64_C(1) << r->bits;
    uint64_t size = in->st.size;
    uint64_t tail = in->layout == INLINE ? (size - 1) / block * block : size; /* where it begins */

    if (offset < tail) {
        *where = ((uint64_t)in->u << r->bits) + offset;
        *length = tail - offset;
    } else {
        if (in->body % block + (size - tail) > block)
            return bad(error, in->st.nid, "inline data cross a block");
        *where = in->body + (offset - tail);
        *length = size - offset;
    }
    if (at(r, *where, *length) == NULL)
        return bad(error, in->st.nid, "content beyond the end of the file");
    return 0;
}

static int chunk_start(const lfs_reader *r, const inode *in, uint64_t number, uint64_t *start,
                       lfs_error *error)
{
    uint64_t unit = in->u & CHUNK_INDEXES ? 8 : 4;
    uint64_t table = lfs_align(in->body, unit);
    const uint8_t *p = number <= r->size / unit ? at(r, table + number * unit, unit) : NULL;
    uint32_t block;

    if (p == NULL)
        return bad(error, in->st.nid, "chunk table beyond the end of the file");
    if (unit == 8 && lfs_get32(p) != 0)
        return bad(error, in->st.nid, "chunk of another device");
    block = lfs_get32(p + unit - 4);
    *start = block == UINT32_MAX ? HOLE : (uint64_t)block << r->bits;
    return 0;
}

static int map_chunks(const lfs_reader *r, const inode *in, uint64_t offset, uint64_t want, uint64_t *where,
                      uint64_t *length, lfs_error *error)
{
    unsigned bits = r->bits + (in->u & CHUNK_BITS);
    uint64_t chunk = UINT64_C(1) << bits;
    uint64_t number = offset >> bits, skip = offset & (chunk - 1);
    uint64_t left = in->st.size - offset;
    uint64_t start, next;
    int e;

    if ((in->u & 0xffff) & ~CHUNK_ALL)
        return bad(error, in->st.nid, "unknown chunk format");
    e = chunk_start(r, in, number, &start, error);
    if (e < 0)
        return e;
    *where = start == HOLE ? HOLE : start + skip;
    *length = chunk - skip;
    for (uint64_t i = 1; i <= CHUNKS_JOINED && *length < left && *length < want; i++) {
        if (chunk_start(r, in, number + i, &next, NULL) < 0)
            break; /* an error for who comes there */
        if (next != (start == HOLE ? HOLE : start + i * chunk))
            break;
        *length += chunk;
    }
    if (*length > left)
        *length = left;
    if (*where != HOLE && at(r, *where, *length) == NULL)
        return bad(error, in->st.nid, "content beyond the end of the file");
    return 0;
}

/* Where the content from offset (< size) on lies, for *length >= 1 bytes; want is as much as is of use. */
static int map_content(const lfs_reader *r, const inode *in, uint64_t offset, uint64_t want, uint64_t *where,
                       uint64_t *length, lfs_error *error)
{
    if (in->layout == CHUNKED)
        return map_chunks(r, in, offset, want, where, length, error);
    return map_flat(r, in, offset, where, length, error);
}

static int64_t read_content(const lfs_reader *r, const inode *in, uint64_t offset, void *buf, size_t cap,
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
        int e = map_content(r, in, offset + done, cap - done, &where, &length, error);
        if (e < 0)
            return e;
        if (length > cap - done)
            length = cap - done;
        if (where == HOLE) {
            memset(out + done, 0, (size_t)length);
        } else {
            int64_t got = lfs_pread_all(r->fd, out + done, (size_t)length, where);
            if (got < 0)
                return lfs_fail(error, (int)-got, "read inode %" PRIu64, in->st.nid);
            if ((uint64_t)got < length)
                return bad(error, in->st.nid, "content beyond the end of the file");
        }
        done += (size_t)length;
    }
    return (int64_t)done;
}

static int load_regular(const lfs_reader *r, uint64_t nid, inode *in, lfs_error *error)
{
    int e = load_inode(r, nid, in, error);

    if (e < 0)
        return e;
    if (!S_ISREG(in->st.mode))
        return lfs_fail(error, S_ISDIR(in->st.mode) ? EISDIR : EINVAL, "read inode %" PRIu64, nid);
    return 0;
}

static int load_dir(const lfs_reader *r, uint64_t nid, inode *in, lfs_error *error)
{
    int e = load_inode(r, nid, in, error);

    if (e < 0)
        return e;
    if (!S_ISDIR(in->st.mode))
        return lfs_fail(error, ENOTDIR, "inode %" PRIu64, nid);
    return 0;
}

/* Blocks of a directory. Written so that no size overflows. */
static uint64_t dir_blocks(const lfs_reader *r, const inode *in)
{
    return in->st.size ? ((in->st.size - 1) >> r->bits) + 1 : 0;
}

static int load_block(const lfs_reader *r, const inode *in, uint64_t index, dir_block *b, lfs_error *error)
{
    uint64_t block = UINT64_C(1) << r->bits;
    uint64_t offset = index << r->bits;
    uint64_t left = in->st.size - offset;
    uint64_t where, length;
    uint32_t first;
    int e;

    b->len = (uint32_t)(left < block ? left : block);
    e = map_content(r, in, offset, b->len, &where, &length, error);
    if (e < 0)
        return e;
    if (where == HOLE || length < b->len || b->len < DIRENT)
        return bad(error, in->st.nid, "directory block cut short");
    b->p = r->map + where;
    first = lfs_get16(b->p + 8);
    if (first < DIRENT || first % DIRENT != 0 || first >= b->len)
        return bad(error, in->st.nid, "malformed directory block");
    b->count = first / DIRENT;
    return 0;
}

static int load_name(const inode *in, const dir_block *b, uint32_t i, dir_name *name, lfs_error *error)
{
    const uint8_t *entry = b->p + (size_t)i * DIRENT;
    uint32_t begin = lfs_get16(entry + 8);
    uint32_t end = i + 1 < b->count ? lfs_get16(entry + DIRENT + 8) : b->len;

    if (begin < b->count * DIRENT || end > b->len || begin >= end)
        return bad(error, in->st.nid, "malformed directory block");
    name->p = (const char *)b->p + begin;
    name->n = end - begin;
    if (i + 1 == b->count) /* the last name ends where the padding begins */
        name->n = strnlen(name->p, name->n);
    if (name->n == 0 || name->n > NAME_LIMIT || memchr(name->p, '/', name->n) != NULL ||
        memchr(name->p, 0, name->n) != NULL)
        return bad(error, in->st.nid, "malformed name");
    return 0;
}

static int compare(const char *a, size_t an, const char *b, size_t bn)
{
    int c = memcmp(a, b, an < bn ? an : bn);

    return c != 0 ? c : (an > bn) - (an < bn);
}

/* The last block whose first name is not above name (or the first one). */
static int find_block(const lfs_reader *r, const inode *in, const char *name, size_t n, dir_block *b,
                      lfs_error *error)
{
    uint64_t low = 0, high = dir_blocks(r, in);
    dir_name first;
    int e;

    while (high - low > 1) {
        uint64_t middle = low + (high - low) / 2;
        e = load_block(r, in, middle, b, error);
        if (e == 0)
            e = load_name(in, b, 0, &first, error);
        if (e < 0)
            return e;
        if (compare(name, n, first.p, first.n) < 0)
            high = middle;
        else
            low = middle;
    }
    return load_block(r, in, low, b, error);
}

int lfs_reader_lookup(const lfs_reader *r, uint64_t dir, const char *name, size_t n, uint64_t *nid,
                      lfs_error *error)
{
    uint32_t low = 0, high;
    dir_block b;
    dir_name entry;
    inode in;
    int e = load_dir(r, dir, &in, error);

    if (e < 0)
        return e;
    if (n == 1 && name[0] == '.') { /* which a directory may leave out */
        *nid = dir;
        return 0;
    }
    if (n > 0 && n <= NAME_LIMIT && in.st.size > 0) {
        e = find_block(r, &in, name, n, &b, error);
        if (e < 0)
            return e;
        high = b.count;
        while (low < high) {
            uint32_t middle = low + (high - low) / 2;
            e = load_name(&in, &b, middle, &entry, error);
            if (e < 0)
                return e;
            e = compare(name, n, entry.p, entry.n);
            if (e == 0) {
                *nid = lfs_get64(b.p + (size_t)middle * DIRENT);
                return 0;
            }
            if (e < 0)
                high = middle;
            else
                low = middle + 1;
        }
    }
    return lfs_fail(error, ENOENT, "look up %.*s", (int)(n < NAME_LIMIT ? n : NAME_LIMIT), name);
}

int lfs_reader_stat(const lfs_reader *r, uint64_t nid, lfs_stat *st, lfs_error *error)
{
    inode in;
    int e = load_inode(r, nid, &in, error);

    if (e == 0)
        *st = in.st;
    return e;
}

/* The name before entry i of block index: what every later one must be above, or names repeat. */
static int load_previous(const lfs_reader *r, const inode *in, const dir_block *b, uint64_t index, uint32_t i,
                         dir_name *name, lfs_error *error)
{
    dir_block before;
    int e;

    name->p = "";
    name->n = 0;
    if (i > 0)
        return load_name(in, b, i - 1, name, error);
    if (index == 0)
        return 0;
    e = load_block(r, in, index - 1, &before, error);
    return e < 0 ? e : load_name(in, &before, before.count - 1, name, error);
}

static size_t put_entry(uint8_t *out, const uint8_t *entry, const dir_name *name)
{
    static const uint8_t types[8] = {DT_UNKNOWN, DT_REG, DT_DIR, DT_CHR, DT_BLK, DT_FIFO, DT_SOCK, DT_LNK};

    memcpy(out, entry, 8); /* the nid, little-endian here and there */
    out[8] = types[entry[10]];
    out[9] = (uint8_t)name->n;
    memcpy(out + 10, name->p, name->n);
    return 10 + name->n;
}

/* The cookie is block << 9 | entry of what comes next: a block of 4096 bytes holds at most 341. */
int64_t lfs_reader_readdir(const lfs_reader *r, uint64_t nid, uint64_t *cookie, void *buf, size_t cap,
                           lfs_error *error)
{
    uint64_t index = *cookie >> 9;
    uint32_t i = *cookie & 511;
    size_t used = 0;
    dir_name previous, name;
    dir_block b;
    inode in;
    int e = load_dir(r, nid, &in, error);

    if (e < 0)
        return e;
    if (cap < 512)
        return lfs_fail(error, EINVAL, "read directory inode %" PRIu64 ": buffer of %zu bytes", nid, cap);
    for (; index < dir_blocks(r, &in); index++, i = 0) {
        e = load_block(r, &in, index, &b, error);
        if (e == 0 && i > b.count)
            e = lfs_fail(error, EINVAL, "read directory inode %" PRIu64 ": wrong cookie", nid);
        if (e == 0)
            e = load_previous(r, &in, &b, index, i, &previous, error);
        for (; e == 0 && i < b.count; i++, previous = name) {
            const uint8_t *entry = b.p + (size_t)i * DIRENT;
            e = load_name(&in, &b, i, &name, error);
            if (e == 0 && (compare(previous.p, previous.n, name.p, name.n) >= 0 || entry[10] > 7))
                e = bad(error, nid, "malformed directory");
            if (e < 0)
                return e;
            if (name.p[0] == '.' && (name.n == 1 || (name.n == 2 && name.p[1] == '.')))
                continue;
            if (10 + name.n > cap - used) {
                *cookie = index << 9 | i;
                return (int64_t)used;
            }
            used += put_entry((uint8_t *)buf + used, entry, &name);
        }
        if (e < 0)
            return e;
    }
    *cookie = index << 9;
    return (int64_t)used;
}

int64_t lfs_reader_readlink(const lfs_reader *r, uint64_t nid, void *buf, size_t cap, lfs_error *error)
{
    inode in;
    int e = load_inode(r, nid, &in, error);

    if (e < 0)
        return e;
    if (!S_ISLNK(in.st.mode))
        return lfs_fail(error, EINVAL, "read link inode %" PRIu64, nid);
    if (in.st.size == 0 || in.st.size >= PATH_MAX)
        return bad(error, nid, "symbolic link of impossible length");
    if (in.st.size > cap)
        return lfs_fail(error, ERANGE, "read link inode %" PRIu64, nid);
    return read_content(r, &in, 0, buf, cap, error);
}

/* Puts the attribute at offset, which must end before end, into out; returns its length in the file. */
static int64_t put_xattr(const lfs_reader *r, uint64_t nid, uint64_t offset, uint64_t end, lfs_buf *out,
                         lfs_error *error)
{
    static const char *const prefixes[7] = {
        NULL, "user.", "system.posix_acl_access", "system.posix_acl_default", "trusted.", NULL, "security.",
    };
    const uint8_t *p = offset <= end && end - offset >= 4 ? at(r, offset, 4) : NULL;
    const char *prefix;
    size_t name, value, whole, n;
    char *q;

    if (p == NULL)
        return bad(error, nid, "attribute cut short");
    prefix = p[1] < 7 ? prefixes[p[1]] : NULL;
    name = p[0];
    value = lfs_get16(p + 2);
    whole = 4 + name + value;
    if (whole > end - offset || at(r, offset, whole) == NULL)
        return bad(error, nid, "attribute cut short");
    /* The two of ACLs have no name of their own, all others must. */
    if (prefix == NULL || (name == 0) != (p[1] == 2 || p[1] == 3) || memchr(p + 4, 0, name) != NULL)
        return bad(error, nid, "malformed attribute name");
    n = strlen(prefix) + name;
    if (6 + n + value > out->cap - out->len)
        return lfs_fail(error, ERANGE, "read attributes of inode %" PRIu64, nid);
    q = out->data + out->len;
    lfs_put16(q, (uint16_t)n);
    lfs_put32(q + 2, (uint32_t)value);
    memcpy(q + 6, prefix, n - name);
    memcpy(q + 6 + n - name, p + 4, name + value);
    out->len += 6 + n + value;
    return (int64_t)lfs_align(whole, 4);
}

int64_t lfs_reader_xattrs(const lfs_reader *r, uint64_t nid, void *buf, size_t cap, lfs_error *error)
{
    lfs_buf out = {.data = buf, .cap = cap};
    uint64_t offset, end, ids;
    const uint8_t *area;
    inode in;
    int64_t n = load_inode(r, nid, &in, error);

    if (n < 0 || in.xattr_bytes == 0)
        return n;
    area = r->map + in.xattrs; /* load_inode saw to it that it is all there */
    ids = 4 * (uint64_t)area[4];
    if (in.xattr_bytes == 12 || ids > in.xattr_bytes - 12)
        return bad(error, nid, "malformed attributes");
    for (uint64_t i = 12; i < 12 + ids; i += 4) {
        n = put_xattr(r, nid, r->shared + 4 * (uint64_t)lfs_get32(area + i), UINT64_MAX, &out, error);
        if (n < 0)
            return n;
    }
    end = in.body;
    for (offset = in.xattrs + 12 + ids; offset < end; offset += (uint64_t)n) {
        n = put_xattr(r, nid, offset, end, &out, error);
        if (n < 0)
            return n;
    }
    return (int64_t)out.len;
}

int64_t lfs_reader_read(const lfs_reader *r, uint64_t nid, uint64_t offset, void *buf, size_t cap,
                        lfs_error *error)
{
    inode in;
    int e = load_regular(r, nid, &in, error);

    return e < 0 ? e : read_content(r, &in, offset, buf, cap, error);
}

int lfs_reader_extent(const lfs_reader *r, uint64_t nid, uint64_t offset, uint64_t *where, uint64_t *length,
                      lfs_error *error)
{
    inode in;
    int e = load_regular(r, nid, &in, error);

    if (e < 0)
        return e;
    *where = HOLE;
    *length = 0;
    if (offset >= in.st.size)
        return 0;
    return map_content(r, &in, offset, UINT64_MAX, where, length, error);
}

uint64_t lfs_reader_root(const lfs_reader *r)
{
    return r->root;
}

static int open_map(lfs_reader *r, int fd, lfs_error *error)
{
    struct stat st;
    void *map;

    if (fstat(fd, &st) < 0)
        return lfs_fail(error, errno, "open layer");
    if (!S_ISREG(st.st_mode))
        return lfs_fail(error, EINVAL, "open layer: not a regular file");
    if (st.st_size < SB_OFFSET + SB_BYTES)
        return lfs_fail(error, EBADMSG, "open layer: not an EROFS image");
    if ((uint64_t)st.st_size > SIZE_MAX)
        return lfs_fail(error, EOVERFLOW, "map layer");
    map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        return lfs_fail(error, errno, "map layer");
    r->map = map;
    r->size = (uint64_t)st.st_size;
    r->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    return r->fd < 0 ? lfs_fail(error, errno, "duplicate descriptor of layer") : 0;
}

int lfs_reader_open(int fd, lfs_reader **out, lfs_error *error)
{
    lfs_reader *r = calloc(1, sizeof *r);
    inode root;
    int e;

    if (r == NULL)
        return lfs_fail(error, ENOMEM, "open layer");
    r->fd = -1;
    e = open_map(r, fd, error);
    if (e == 0)
        e = read_superblock(r, error);
    if (e == 0)
        e = load_inode(r, r->root, &root, error);
    if (e == 0 && !S_ISDIR(root.st.mode))
        e = bad(error, r->root, "the root is not a directory");
    if (e < 0) {
        lfs_reader_free(r);
        return e;
    }
    *out = r;
    return 0;
}

void lfs_reader_free(lfs_reader *r)
{
    int saved = errno;

    if (r == NULL)
        return;
    if (r->map != NULL)
        munmap((void *)(uintptr_t)r->map, (size_t)r->size);
    if (r->fd >= 0)
        close(r->fd);
    free(r);
    errno = saved;
}
