/* reader_dir.c - the directories of an EROFS layer; see reader.h. */
#define _GNU_SOURCE
#include "reader.h"

#define DIRENT 12
#define NAME_LIMIT 255

typedef struct dir_block {
    const uint8_t *p;
    uint32_t len;
    uint32_t count; /* entries, at least 1 */
} dir_block;

typedef struct dir_name {
    const char *p;
    size_t n;
} dir_name;

static int load_dir(const lfs_reader *r, uint64_t nid, lfs_inode *in, lfs_error *error)
{
    int e = lfs_inode_load(r, nid, in, error);

    if (e < 0)
        return e;
    if (!S_ISDIR(in->st.mode))
        return lfs_fail(error, ENOTDIR, "inode %" PRIu64, nid);
    return 0;
}

/* Blocks of a directory. Written so that no size overflows. */
static uint64_t dir_blocks(const lfs_reader *r, const lfs_inode *in)
{
    return in->st.size ? ((in->st.size - 1) >> r->bits) + 1 : 0;
}

static int load_block(const lfs_reader *r, const lfs_inode *in, uint64_t index, dir_block *b, lfs_error *error)
{
    uint64_t block = UINT64_C(1) << r->bits;
    uint64_t offset = index << r->bits;
    uint64_t left = in->st.size - offset;
    uint64_t where, length;
    uint32_t first;
    int e;

    b->len = (uint32_t)(left < block ? left : block);
    e = lfs_inode_map(r, in, offset, b->len, &where, &length, error);
    if (e < 0)
        return e;
    if (where == LFS_HOLE || length < b->len || b->len < DIRENT)
        return lfs_reader_bad(error, in->st.nid, "directory block cut short");
    b->p = r->map + where;
    first = lfs_get16(b->p + 8);
    if (first < DIRENT || first % DIRENT != 0 || first >= b->len)
        return lfs_reader_bad(error, in->st.nid, "malformed directory block");
    b->count = first / DIRENT;
    return 0;
}

static int load_name(const lfs_inode *in, const dir_block *b, uint32_t i, dir_name *name, lfs_error *error)
{
    const uint8_t *entry = b->p + (size_t)i * DIRENT;
    uint32_t begin = lfs_get16(entry + 8);
    uint32_t end = i + 1 < b->count ? lfs_get16(entry + DIRENT + 8) : b->len;

    if (begin < b->count * DIRENT || end > b->len || begin >= end)
        return lfs_reader_bad(error, in->st.nid, "malformed directory block");
    name->p = (const char *)b->p + begin;
    name->n = end - begin;
    if (i + 1 == b->count) /* the last name ends where the padding begins */
        name->n = strnlen(name->p, name->n);
    if (name->n == 0 || name->n > NAME_LIMIT || memchr(name->p, '/', name->n) != NULL ||
        memchr(name->p, 0, name->n) != NULL)
        return lfs_reader_bad(error, in->st.nid, "malformed name");
    return 0;
}

static int compare(const char *a, size_t an, const char *b, size_t bn)
{
    int c = memcmp(a, b, an < bn ? an : bn);

    return c != 0 ? c : (an > bn) - (an < bn);
}

/* The last block whose first name is not above name (or the first one). */
static int find_block(const lfs_reader *r, const lfs_inode *in, const char *name, size_t n, dir_block *b,
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
    lfs_inode in;
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

/* The name before entry i of block index: what every later one must be above, or names repeat. */
static int load_previous(const lfs_reader *r, const lfs_inode *in, const dir_block *b, uint64_t index, uint32_t i,
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
    lfs_inode in;
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
                e = lfs_reader_bad(error, nid, "malformed directory");
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
