/*
 * reader.c - an EROFS layer file through its metadata: names, attributes and contents, with no mount.
 *
 * The file is mapped read-only. Every number in it is a claim: an offset is turned into a pointer by
 * lfs_reader_at alone, which knows the size that the file had when it was opened. File content is read with
 * pread, so that a file cut short afterwards gives -EBADMSG for content too. Nothing in a reader changes after
 * lfs_reader_open: one reader serves any number of threads.
 *
 * Understood: compact and extended inodes; the layouts plain, inline and chunks (8-byte indexes of device 0
 * and 4-byte maps); inline and shared attributes. Refused: compression, device tables, 48-bit addresses.
 *
 * What is not checked: that the directories form a tree. Who walks a file of unknown origin must bound the
 * walk; in a true tree there are fewer names than bytes of file / 12.
 */
#define _GNU_SOURCE
#include "reader.h"

#include <fcntl.h>
#include <sys/mman.h>

#define SB_OFFSET 1024
#define SB_BYTES 128
#define SB_MAGIC 0xe0f5e1e2u
#define COMPAT_CHECKSUM 0x1u
#define INCOMPAT_CHUNKED 0x4u

#define SLOT 32 /* inodes begin at multiples of it; a nid counts them */
#define FORMAT_EXTENDED 0x01u
#define FORMAT_BIT4 0x10u /* compact, not a directory: one link, and i_nlink is part of the address */
#define FORMAT_ALL 0x1fu

int lfs_reader_bad(lfs_error *error, uint64_t nid, const char *what)
{
    return lfs_fail(error, EBADMSG, "inode %" PRIu64 ": %s", nid, what);
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
    const uint8_t *sb = lfs_reader_at(r, SB_OFFSET, SB_BYTES);
    uint64_t block, covered, blocks;

    if (sb == NULL || lfs_get32(sb) != SB_MAGIC)
        return lfs_fail(error, EBADMSG, "read superblock: not an EROFS image");
    r->bits = sb[0x0c];
    if (r->bits < 9 || r->bits > 12)
        return lfs_fail(error, EBADMSG, "read superblock: block size 2^%u", r->bits);
    block = UINT64_C(1) << r->bits;
    covered = block > SB_OFFSET ? block - SB_OFFSET : block;
    if (lfs_reader_at(r, SB_OFFSET, covered) == NULL)
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
static bool fill_type(lfs_inode *in)
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

int lfs_inode_load(const lfs_reader *r, uint64_t nid, lfs_inode *in, lfs_error *error)
{
    const uint8_t *p;
    uint64_t offset, bytes;
    unsigned format, icount;

    memset(in, 0, sizeof *in);
    if (nid > (r->size - r->meta) / SLOT)
        return lfs_reader_bad(error, nid, "beyond the end of the file");
    offset = r->meta + nid * SLOT;
    p = lfs_reader_at(r, offset, SLOT);
    if (p == NULL)
        return lfs_reader_bad(error, nid, "beyond the end of the file");
    format = lfs_get16(p);
    bytes = format & FORMAT_EXTENDED ? 2 * SLOT : SLOT;
    icount = lfs_get16(p + 2);
    in->layout = format >> 1 & 7;
    in->xattrs = offset + bytes;
    in->xattr_bytes = icount ? 12 + 4 * (uint64_t)(icount - 1) : 0;
    in->body = in->xattrs + in->xattr_bytes;
    if (lfs_reader_at(r, offset, bytes + in->xattr_bytes) == NULL)
        return lfs_reader_bad(error, nid, "beyond the end of the file");
    if (format & ~FORMAT_ALL || (in->layout != LFS_LAYOUT_PLAIN && in->layout != LFS_LAYOUT_INLINE &&
                                 in->layout != LFS_LAYOUT_CHUNKED))
        return lfs_reader_bad(error, nid, "unknown inode format");
    in->u = lfs_get32(p + 16);
    in->st.nid = nid;
    if (format & FORMAT_EXTENDED)
        fill_extended(p, &in->st);
    else
        fill_compact(r, p, format, &in->st);
    /* Where they are no link count, these two bytes are the high part of a 48-bit address. */
    if (lfs_get16(p + 6) != 0 &&
        (format & FORMAT_EXTENDED || (!S_ISDIR(in->st.mode) && format & FORMAT_BIT4)))
        return lfs_reader_bad(error, nid, "48-bit address");
    if (!fill_type(in) || in->st.size > INT64_MAX || in->st.mtime_nsec >= 1000000000)
        return lfs_reader_bad(error, nid, "number out of range");
    return 0;
}

int lfs_reader_stat(const lfs_reader *r, uint64_t nid, lfs_stat *st, lfs_error *error)
{
    lfs_inode in;
    int e = lfs_inode_load(r, nid, &in, error);

    if (e == 0)
        *st = in.st;
    return e;
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
    lfs_inode root;
    int e;

    if (r == NULL)
        return lfs_fail(error, ENOMEM, "open layer");
    r->fd = -1;
    e = open_map(r, fd, error);
    if (e == 0)
        e = read_superblock(r, error);
    if (e == 0)
        e = lfs_inode_load(r, r->root, &root, error);
    if (e == 0 && !S_ISDIR(root.st.mode))
        e = lfs_reader_bad(error, r->root, "the root is not a directory");
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
