/* erofs_write.c - the metadata of an EROFS layer, written as planned: directory blocks, shared attributes,
 * inodes, and the superblock last. */
#define _GNU_SOURCE
#include "erofs.h"

static uint8_t dirent_type(uint32_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFREG:
        return 1;
    case S_IFDIR:
        return 2;
    case S_IFCHR:
        return 3;
    case S_IFBLK:
        return 4;
    case S_IFIFO:
        return 5;
    case S_IFSOCK:
        return 6;
    default:
        return 7;
    }
}

/* The next block of a directory into buf, zero-filled; its bytes. */
static uint32_t dir_block(dir_walk *w, bool *pending, uint8_t *buf)
{
    const plan *p = w->p;
    dir_walk start = *w;
    bool start_pending = *pending;
    uint32_t used = 0;
    uint32_t count = 0;
    uint32_t at;

    memset(buf, 0, p->block);
    while (*pending || lfs_plan_next(w)) {
        *pending = used + 12 + w->len > p->block;
        if (*pending)
            break;
        used += 12 + w->len;
        count++;
    }
    at = 12 * count;
    for (uint32_t i = 0; i < count; i++) {
        const lfs_node *n;

        if (!start_pending)
            lfs_plan_next(&start);
        start_pending = false;
        n = lfs_tree_node(p->t, start.node);
        lfs_put64(buf + 12 * i, n->number);
        lfs_put16(buf + 12 * i + 8, (uint16_t)at);
        buf[12 * i + 10] = dirent_type(n->mode);
        memcpy(buf + at, start.text, start.len);
        at += start.len;
    }
    return used;
}

/* Where the walk stands before the entry it has already taken. The fields serve no other purpose any more. */
static void remember_walk(lfs_node *n, const dir_walk *w, bool pending)
{
    bool dot = pending && w->len == (uint32_t)w->dots && memcmp(w->text, "..", w->len) == 0;

    n->children = w->i - (pending && !dot);
    n->chunk_bits = (uint8_t)(w->dots - dot);
}

/* All directory blocks that are not inline, and the targets of links that are not. */
static int write_blocks(erofs_backend *b, const plan *p, uint8_t *buf, lfs_error *error)
{
    for (uint32_t i = 0; i < p->norder; i++) {
        lfs_node *n = lfs_tree_node(p->t, p->order[i]);
        dir_walk w = {.p = p, .dir = p->order[i]};
        bool pending = false;
        record r;
        int e = 0;

        if (!S_ISDIR(n->mode) && !S_ISLNK(n->mode))
            continue;
        lfs_plan_measure(p, n, &r);
        if (r.full == 0)
            continue;
        if (S_ISLNK(n->mode)) {
            uint64_t target = n->where;
            n->where = (b->pos - p->dir_base) / p->block;
            e = lfs_erofs_write(b, p->t->names.data + target, (size_t)n->size, error);
            if (e == 0)
                e = lfs_erofs_align(b, p->block, error);
        }
        for (uint64_t k = 0; S_ISDIR(n->mode) && k < r.full && e == 0; k++) {
            dir_block(&w, &pending, buf);
            e = lfs_erofs_write(b, buf, p->block, error);
        }
        if (e < 0)
            return e;
        if (S_ISDIR(n->mode))
            remember_walk(n, &w, pending);
    }
    return 0;
}

static int write_inode(erofs_backend *b, const plan *p, const lfs_node *n, const record *r, uint32_t serial,
                       lfs_error *error)
{
    uint8_t inode[64] = {0};
    bool compact = lfs_plan_is_compact(p, n);
    uint32_t xattrs = lfs_plan_xattr_bytes(p, n);
    uint32_t unit = 0;
    int e = 0;

    if (S_ISCHR(n->mode) || S_ISBLK(n->mode))
        unit = (n->rdev_minor & 0xff) | n->rdev_major << 8 | (n->rdev_minor & ~0xffu) << 12;
    else if (r->layout == CHUNK_BASED)
        unit = CHUNK_INDEXES | (n->chunk_bits - b->block_bits);
    else if (r->full > 0)
        e = lfs_erofs_block(b, p->dir_base + n->where * p->block, &unit, error);
    else if (S_ISREG(n->mode) && n->size > 0)
        e = lfs_erofs_block(b, n->where, &unit, error);
    if (e < 0)
        return e;

    lfs_put16(inode, (uint16_t)((compact ? 0 : 1) | r->layout << 1));
    lfs_put16(inode + 2, (uint16_t)(xattrs > 0 ? (xattrs - 12) / 4 + 1 : 0));
    lfs_put16(inode + 4, (uint16_t)n->mode);
    lfs_put32(inode + 16, unit);
    lfs_put32(inode + 20, serial);
    if (compact) {
        lfs_put16(inode + 6, (uint16_t)n->nlink);
        lfs_put32(inode + 8, (uint32_t)n->size);
        lfs_put16(inode + 24, (uint16_t)n->uid);
        lfs_put16(inode + 26, (uint16_t)n->gid);
        return lfs_erofs_write(b, inode, 32, error);
    }
    lfs_put64(inode + 8, n->size);
    lfs_put32(inode + 24, n->uid);
    lfs_put32(inode + 28, n->gid);
    lfs_put64(inode + 32, (uint64_t)n->mtime);
    lfs_put32(inode + 40, n->mtime_nsec);
    lfs_put32(inode + 44, n->nlink);
    return lfs_erofs_write(b, inode, 64, error);
}

static int write_xattrs(erofs_backend *b, const plan *p, const lfs_node *n, lfs_error *error)
{
    uint8_t head[12] = {0};
    uint32_t shared;
    const char *set;
    size_t len;
    int r;

    if (n->xattrs == 0)
        return 0;
    shared = p->shared[n->xattrs / 8];
    if (shared == 0) {
        set = lfs_tree_set(p->t, n->xattrs, &len, NULL);
        r = lfs_erofs_write(b, head, sizeof head, error);
        return r < 0 ? r : lfs_erofs_write(b, set, len, error);
    }
    set = p->shared_area.data + shared - 1;
    head[4] = (uint8_t)lfs_get32(set);
    r = lfs_erofs_write(b, head, sizeof head, error);
    for (uint32_t i = 1; i <= head[4] && r == 0; i++) {
        uint8_t id[4];
        lfs_put32(id, lfs_get32(set + 4 * i));
        r = lfs_erofs_write(b, id, sizeof id, error);
    }
    return r;
}

static int write_chunk_table(erofs_backend *b, const lfs_node *n, const record *r, lfs_error *error)
{
    static const uint8_t zero[8];
    uint8_t table[MAX_CHUNKS * 8];
    uint32_t bytes = r->tail - r->gap;
    int64_t got;
    int e = lfs_erofs_write(b, zero, r->gap, error);

    if (e < 0)
        return e;
    got = lfs_pread_all(b->fd, table, bytes, n->where);
    if (got != bytes)
        return lfs_fail(error, got < 0 ? (int)-got : EIO, "write layer: read back a chunk table");
    return lfs_erofs_write(b, table, bytes, error);
}

static int write_inodes(erofs_backend *b, const plan *p, uint8_t *buf, lfs_error *error)
{
    for (uint32_t i = 0; i < p->norder; i++) {
        lfs_node *n = lfs_tree_node(p->t, p->order[i]);
        uint64_t at = p->inode_base + (uint64_t)n->number * SLOT;
        record r;
        int e;

        lfs_plan_measure(p, n, &r);
        e = lfs_erofs_skip(b, at - b->pos, error);
        if (e == 0)
            e = write_inode(b, p, n, &r, i + 1, error);
        if (e == 0)
            e = write_xattrs(b, p, n, error);
        if (e == 0 && r.layout == CHUNK_BASED)
            e = write_chunk_table(b, n, &r, error);
        if (e == 0 && r.layout == FLAT_INLINE && S_ISLNK(n->mode))
            e = lfs_erofs_write(b, p->t->names.data + n->where, (size_t)n->size, error);
        if (e == 0 && r.layout == FLAT_INLINE && S_ISDIR(n->mode)) {
            dir_walk w = {.p = p, .dir = p->order[i]};
            bool pending = false;
            if (r.full > 0) {
                w.i = n->children;
                w.dots = n->chunk_bits;
            }
            dir_block(&w, &pending, buf);
            e = lfs_erofs_write(b, buf, r.last, error);
        }
        if (e < 0)
            return e;
    }
    return lfs_erofs_align(b, FIRST_DATA, error);
}

static uint32_t crc32c(const uint8_t *p, size_t n)
{
    uint32_t c = UINT32_MAX;

    while (n-- > 0) {
        c ^= *p++;
        for (int i = 0; i < 8; i++)
            c = c >> 1 ^ (c & 1 ? 0x82f63b78u : 0);
    }
    return c;
}

static int write_superblock(erofs_backend *b, const plan *p, const uint8_t *uuid, lfs_error *error)
{
    uint8_t block[FIRST_DATA] = {0};
    uint8_t *sb = block + SUPERBLOCK;
    size_t covered = b->block > SUPERBLOCK ? b->block - SUPERBLOCK : b->block;
    int r;

    lfs_put32(sb, 0xe0f5e1e2u);
    lfs_put32(sb + 0x08, COMPAT_CHECKSUM | COMPAT_MTIME);
    sb[0x0c] = (uint8_t)b->block_bits;
    lfs_put16(sb + 0x0e, (uint16_t)lfs_tree_node(p->t, LFS_TREE_ROOT)->number);
    lfs_put64(sb + 0x10, p->norder);
    lfs_put64(sb + 0x18, (uint64_t)p->epoch);
    lfs_put32(sb + 0x20, p->epoch_nsec);
    lfs_put32(sb + 0x24, (uint32_t)(b->pos >> b->block_bits));
    lfs_put32(sb + 0x28, (uint32_t)(p->inode_base >> b->block_bits));
    if (p->shared_area.len > 0)
        lfs_put32(sb + 0x2c, (uint32_t)(p->xattr_base >> b->block_bits));
    memcpy(sb + 0x30, uuid, 16);
    lfs_put32(sb + 0x50, b->chunked ? INCOMPAT_CHUNKED : 0);
    lfs_put32(sb + 0x04, crc32c(sb, covered));
    r = lfs_pwrite_all(b->fd, sb, FIRST_DATA - SUPERBLOCK, SUPERBLOCK);
    return r < 0 ? lfs_erofs_io_error(r, error) : 0;
}

int lfs_plan_write(erofs_backend *b, plan *p, const uint8_t *uuid, lfs_unpack_result *result,
                   lfs_error *error)
{
    cleanup_buf lfs_buf records = {0};
    cleanup_free uint8_t *buf = malloc(b->block);
    uint64_t inode_bytes = 0;
    uint32_t block;
    int r;

    if (buf == NULL)
        return lfs_erofs_oom(error);
    r = lfs_plan_make(p, &records, &inode_bytes, error);
    if (r == 0)
        r = lfs_erofs_align(b, FIRST_DATA, error);
    if (r < 0)
        return r;
    p->dir_base = result->meta_offset = b->pos;
    p->xattr_base = p->dir_base + p->dir_blocks * p->block;
    p->inode_base = lfs_align(p->xattr_base + records.len, p->block);
    r = lfs_erofs_block(b, p->inode_base + inode_bytes, &block, error);
    if (r == 0)
        r = write_blocks(b, p, buf, error);
    if (r == 0)
        r = lfs_erofs_write(b, records.data, records.len, error);
    if (r == 0)
        r = lfs_erofs_skip(b, p->inode_base - b->pos, error);
    if (r == 0 && b->chunked)
        r = lfs_erofs_flush(b, error); /* parked chunk tables are read back from the file */
    if (r == 0)
        r = write_inodes(b, p, buf, error);
    if (r == 0)
        r = lfs_erofs_flush(b, error);
    return r < 0 ? r : write_superblock(b, p, uuid, error);
}
