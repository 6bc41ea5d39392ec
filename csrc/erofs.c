/*
 * erofs.c - the layer format erofs: a standard EROFS image in one pass.
 *
 *   0       1024        4096
 *   | ours  | superblock | file content, in the order it came | directory blocks | shared xattrs | inodes |
 *                                                             ^ meta_offset                      image_size ^
 *
 * Content is written as it arrives; the tree is read once, at the end; the superblock is written last, so that
 * a file that was cut short is no image. Files of 4 KiB and more start on 4 KiB, so that their pages can be
 * shared by reference between layers; no regular file is inlined. A whole chunk of zeros becomes a hole, and
 * its file is then described by a chunk table, which is parked among the content until the inodes are written.
 *
 * The root is the first inode, because the superblock has 16 bits for its nid: 1, or a few more where what it
 * lists would not end in the block that it begins in. Then parents come before
 * children, and a directory's children lie together, which is the order in which they are read.
 *
 * Sources: the kernel's Documentation/filesystems/erofs.rst and fs/erofs/erofs_fs.h.
 */
#define _GNU_SOURCE
#include "erofs.h"

#include <fcntl.h>

static erofs_backend *of(lfs_backend *b)
{
    return (erofs_backend *)b;
}

/* ---- output ---- */

/* Only a hint: the disk works while the next bytes are inflated. */
static void start_writeback(erofs_backend *b)
{
    if (b->pos - b->synced >= WRITEBACK_STEP) {
        sync_file_range(b->fd, (off_t)b->synced, (off_t)(b->pos - b->synced), SYNC_FILE_RANGE_WRITE);
        b->synced = b->pos;
    }
}

int lfs_erofs_flush(erofs_backend *b, lfs_error *error)
{
    int r = lfs_pwrite_all(b->fd, b->out, b->out_len, b->pos - b->out_len);

    if (r < 0)
        return lfs_erofs_io_error(r, error);
    b->out_len = 0;
    start_writeback(b);
    return 0;
}

int lfs_erofs_write(erofs_backend *b, const void *data, size_t n, lfs_error *error)
{
    const uint8_t *p = data;
    int r;

    if (n == 0) /* data may be NULL */
        return 0;
    if (b->out_len + n > OUT_SIZE) {
        r = lfs_erofs_flush(b, error);
        if (r < 0)
            return r;
    }
    if (n >= OUT_SIZE / 4) {
        if (b->out_len > 0 && (r = lfs_erofs_flush(b, error)) < 0)
            return r;
        r = lfs_pwrite_all(b->fd, p, n, b->pos);
        if (r < 0)
            return lfs_erofs_io_error(r, error);
        b->pos += n;
        start_writeback(b);
        return 0;
    }
    memcpy(b->out + b->out_len, p, n);
    b->out_len += n;
    b->pos += n;
    return 0;
}

/* Zeros; long runs of them are left unwritten, and read as zero. */
int lfs_erofs_skip(erofs_backend *b, uint64_t n, lfs_error *error)
{
    if (b->out_len + n > OUT_SIZE) {
        int r = lfs_erofs_flush(b, error);
        if (r < 0)
            return r;
        b->pos += n;
        return 0;
    }
    memset(b->out + b->out_len, 0, (size_t)n);
    b->out_len += (size_t)n;
    b->pos += n;
    return 0;
}

int lfs_erofs_align(erofs_backend *b, uint64_t to, lfs_error *error)
{
    return lfs_erofs_skip(b, lfs_align(b->pos, to) - b->pos, error);
}

int lfs_erofs_block(const erofs_backend *b, uint64_t pos, uint32_t *block, lfs_error *error)
{
    if (pos >> b->block_bits >= NO_BLOCK)
        return lfs_fail(error, EFBIG, "write layer: more than 2^32 blocks of %u bytes", b->block);
    *block = (uint32_t)(pos >> b->block_bits);
    return 0;
}

/* ---- content ---- */

static unsigned log2_ceil(uint64_t v)
{
    return v <= 1 ? 0 : 64 - (unsigned)__builtin_clzll(v - 1);
}

static int erofs_begin(lfs_backend *base, uint32_t entry, bool sparse, lfs_error *error)
{
    erofs_backend *b = of(base);
    lfs_node *node;
    unsigned bits = 0;
    uint32_t block;
    int r;

    b->node = lfs_tree_entry(base->tree, entry)->node;
    node = lfs_tree_node(base->tree, b->node);
    if (node->size > MAX_FILE)
        return lfs_fail(error, EFBIG, "write layer: file of more than 2^50 bytes");
    if (sparse || node->size >= HOLE_MIN_SIZE) {
        bits = log2_ceil((node->size + MAX_CHUNKS - 1) / MAX_CHUNKS);
        if (bits < (sparse ? SPARSE_CHUNK_BITS : HOLE_CHUNK_BITS))
            bits = sparse ? SPARSE_CHUNK_BITS : HOLE_CHUNK_BITS;
    }
    r = lfs_erofs_align(b, node->size >= ALIGN_LARGE || bits ? ALIGN_LARGE : b->block, error);
    if (r == 0)
        r = lfs_erofs_block(b, b->pos, &block, error);
    b->sparse = sparse;
    b->chunk_bits = bits;
    b->in_chunk = 0;
    b->chunk_empty = true;
    b->nchunks = 0;
    b->holes = false;
    node->where = b->pos;
    return r;
}

static bool all_zero(const uint8_t *p, size_t n)
{
    return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

/* The current chunk gets content: give it a place, and write the zeros it began with. */
static int chunk_start(erofs_backend *b, lfs_error *error)
{
    uint64_t start;
    int r = lfs_erofs_align(b, ALIGN_LARGE, error);

    if (r < 0 || (r = lfs_erofs_block(b, b->pos, &b->chunks[b->nchunks], error)) < 0)
        return r;
    start = b->pos;
    b->chunk_empty = false;
    r = lfs_erofs_skip(b, b->in_chunk, error);
    if (r == 0 && !b->sparse && lfs_rest_data(b->base.rest, start, b->in_chunk) < 0)
        return lfs_erofs_oom(error);
    return r;
}

static int chunk_end(erofs_backend *b, lfs_error *error)
{
    if (b->chunk_empty) {
        b->chunks[b->nchunks] = NO_BLOCK;
        b->holes = true;
        if (!b->sparse && lfs_rest_zero(b->base.rest, b->in_chunk) < 0)
            return lfs_erofs_oom(error);
    }
    b->nchunks++;
    b->in_chunk = 0;
    b->chunk_empty = true;
    return 0;
}

/* Note k bytes of the file, written at b->pos - k and on if they are content. */
static int chunk_pass(erofs_backend *b, size_t k, bool content, lfs_error *error)
{
    uint64_t size = UINT64_C(1) << b->chunk_bits;
    uint64_t pos = b->pos - k;
    int r = 0;

    while (k > 0 && r == 0) {
        uint64_t step = size - b->in_chunk < k ? size - b->in_chunk : k;

        if (content && b->chunk_empty) {
            r = lfs_erofs_block(b, pos, &b->chunks[b->nchunks], error);
            b->chunk_empty = false;
        }
        b->in_chunk += step;
        pos += step;
        k -= (size_t)step;
        if (r == 0 && b->in_chunk == size)
            r = chunk_end(b, error);
    }
    return r;
}

/* Content of a file with chunks; in a sparse one what the archive holds counts as content even if it is
 * zero, and only the gaps of its map become holes. Chunks of content that follow each other are written
 * as one piece. */
static int chunk_data(erofs_backend *b, const uint8_t *p, size_t n, lfs_error *error)
{
    uint64_t size = UINT64_C(1) << b->chunk_bits;
    int r = 0;

    while (n > 0 && r == 0) {
        size_t k = size - b->in_chunk < n ? (size_t)(size - b->in_chunk) : n;
        bool content = !b->chunk_empty || b->sparse || !all_zero(p, k);

        if (content) {
            while (k < n) {
                size_t more = size < n - k ? (size_t)size : n - k;
                if (!b->sparse && all_zero(p + k, more))
                    break;
                k += more;
            }
            if (b->chunk_empty)
                r = chunk_start(b, error);
            if (r == 0 && lfs_rest_data(b->base.rest, b->pos, k) < 0)
                return lfs_erofs_oom(error);
            if (r == 0)
                r = lfs_erofs_write(b, p, k, error);
        }
        if (r == 0)
            r = chunk_pass(b, k, content, error);
        p += k;
        n -= k;
    }
    return r;
}

static int erofs_data(lfs_backend *base, const uint8_t *p, size_t n, lfs_error *error)
{
    erofs_backend *b = of(base);

    if (b->chunk_bits > 0)
        return chunk_data(b, p, n, error);
    if (lfs_rest_data(base->rest, b->pos, n) < 0)
        return lfs_erofs_oom(error);
    return lfs_erofs_write(b, p, n, error);
}

static int erofs_hole(lfs_backend *base, uint64_t n, lfs_error *error)
{
    erofs_backend *b = of(base);
    uint64_t size = UINT64_C(1) << b->chunk_bits;

    while (n > 0) {
        uint64_t k = size - b->in_chunk < n ? size - b->in_chunk : n;
        int r = 0;

        if (!b->chunk_empty)
            r = lfs_erofs_skip(b, k, error);
        b->in_chunk += k;
        n -= k;
        if (r == 0 && b->in_chunk == size)
            r = chunk_end(b, error);
        if (r < 0)
            return r;
    }
    return 0;
}

/* Without a hole the chunks lie one after another: a plain file. */
static int erofs_end(lfs_backend *base, lfs_error *error)
{
    erofs_backend *b = of(base);
    lfs_node *node = lfs_tree_node(base->tree, b->node);
    int r = 0;

    if (b->chunk_bits == 0)
        return 0;
    if (b->in_chunk > 0)
        r = chunk_end(b, error);
    if (r < 0 || !b->holes)
        return r;
    r = lfs_erofs_align(b, 8, error);
    node->where = b->pos;
    node->flags |= LFS_NODE_HOLES;
    node->chunk_bits = (uint8_t)b->chunk_bits;
    b->chunked = true;
    for (uint32_t i = 0; i < b->nchunks && r == 0; i++) {
        uint8_t index[8] = {0};
        lfs_put32(index + 4, b->chunks[i]);
        r = lfs_erofs_write(b, index, sizeof index, error);
    }
    return r;
}

static int erofs_add(lfs_backend *base, uint32_t entry, uint32_t source, lfs_error *error)
{
    (void)base, (void)entry, (void)source, (void)error;
    return 0;
}

static int erofs_remove(lfs_backend *base, uint32_t entry, lfs_error *error)
{
    (void)base, (void)entry, (void)error;
    return 0;
}

/* ---- end ---- */

static int erofs_finish(lfs_backend *base, const uint8_t *uuid, lfs_unpack_result *result, lfs_error *error)
{
    erofs_backend *b = of(base);
    plan p = {.t = base->tree, .block = b->block};
    int r = lfs_plan_write(b, &p, uuid, result, error);

    /* The end may be zeros that were skipped. */
    if (r == 0 && ftruncate(b->fd, (off_t)b->pos) < 0)
        r = lfs_erofs_io_error(-errno, error);
    result->image_size = b->pos;
    result->inodes = p.norder;
    lfs_plan_free(&p);
    return r;
}

static void erofs_free(lfs_backend *base)
{
    erofs_backend *b = of(base);

    free(b->out);
    free(b);
}

int lfs_erofs_backend(int fd, uint32_t block_size, lfs_tree *tree, lfs_rest *rest, lfs_backend **out,
                      lfs_error *error)
{
    static const lfs_backend_ops ops = {
        .begin = erofs_begin, .data = erofs_data, .hole = erofs_hole, .end = erofs_end, .add = erofs_add,
        .remove = erofs_remove, .finish = erofs_finish, .free = erofs_free,
    };
    erofs_backend *b;

    if (block_size < 512 || block_size > 4096 || (block_size & (block_size - 1)) != 0)
        return lfs_fail(error, EINVAL, "unpack: block size %u is not 512, 1024, 2048 or 4096", block_size);
    b = calloc(1, sizeof *b);
    if (b == NULL)
        return lfs_erofs_oom(error);
    b->out = malloc(OUT_SIZE);
    if (b->out == NULL) {
        free(b);
        return lfs_erofs_oom(error);
    }
    b->base = (lfs_backend){.ops = &ops, .tree = tree, .rest = rest};
    b->fd = fd;
    b->block = block_size;
    b->block_bits = (unsigned)__builtin_ctz(block_size);
    b->pos = b->synced = FIRST_DATA;
    *out = &b->base;
    return 0;
}
