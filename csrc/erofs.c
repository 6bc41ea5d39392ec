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
 * The root is the first inode (nid 1), because the superblock has 16 bits for it. Then parents come before
 * children, and a directory's children lie together, which is the order in which they are read.
 *
 * Sources: the kernel's Documentation/filesystems/erofs.rst and fs/erofs/erofs_fs.h.
 */
#define _GNU_SOURCE
#include "backend.h"

#include <fcntl.h>

#define SUPERBLOCK 1024u
#define FIRST_DATA 4096u
#define ALIGN_LARGE 4096u         /* files of at least this size start on a multiple of it */
#define HOLE_MIN_SIZE (128u << 10) /* smaller files are not searched for zeros */
#define HOLE_CHUNK_BITS 16        /* a run of zeros counts when it fills a chunk of 64 KiB */
#define SPARSE_CHUNK_BITS 12
#define MAX_CHUNKS 4096u          /* of a file; its chunks get larger instead */
#define MAX_FILE (UINT64_C(1) << 50)
#define OUT_SIZE (1u << 20)
#define WRITEBACK_STEP (8u << 20) /* ask the kernel to start writing every so many bytes */
#define SLOT 32u                  /* inodes start on multiples of it; nids count them */

enum { FLAT_PLAIN = 0, FLAT_INLINE = 2, CHUNK_BASED = 4 };
enum { COMPAT_CHECKSUM = 1, COMPAT_MTIME = 2, INCOMPAT_CHUNKED = 4 };
#define CHUNK_INDEXES 0x20u
#define NO_BLOCK UINT32_MAX

typedef struct erofs_backend {
    lfs_backend base;
    int fd;
    uint32_t block;
    unsigned block_bits;
    /* Output: everything below `pos` is written or in `out`. */
    uint8_t *out;
    size_t out_len;
    uint64_t pos;         /* of the next byte */
    uint64_t synced;      /* write-back was asked for up to here */
    /* The file at hand. */
    uint32_t node;
    bool sparse;
    unsigned chunk_bits;  /* 0: not looked at for holes */
    uint64_t in_chunk;    /* bytes of the current chunk seen */
    bool chunk_empty;     /* all of them zero, nothing written yet */
    uint32_t nchunks;     /* complete ones in `chunks`, or the current one's number */
    bool holes;
    uint32_t chunks[MAX_CHUNKS];
    bool chunked;         /* some file has a chunk table */
} erofs_backend;

static erofs_backend *of(lfs_backend *b)
{
    return (erofs_backend *)b;
}

/* ---- output ---- */

static int io_error(int r, lfs_error *error)
{
    return lfs_fail(error, -r, "write layer");
}

/* Only a hint: the disk works while the next bytes are inflated. */
static void start_writeback(erofs_backend *b)
{
    if (b->pos - b->synced >= WRITEBACK_STEP) {
        sync_file_range(b->fd, (off_t)b->synced, (off_t)(b->pos - b->synced), SYNC_FILE_RANGE_WRITE);
        b->synced = b->pos;
    }
}

static int out_flush(erofs_backend *b, lfs_error *error)
{
    int r = lfs_pwrite_all(b->fd, b->out, b->out_len, b->pos - b->out_len);

    if (r < 0)
        return io_error(r, error);
    b->out_len = 0;
    start_writeback(b);
    return 0;
}

static int out_write(erofs_backend *b, const void *data, size_t n, lfs_error *error)
{
    const uint8_t *p = data;
    int r;

    if (n == 0) /* data may be NULL */
        return 0;
    if (b->out_len + n > OUT_SIZE) {
        r = out_flush(b, error);
        if (r < 0)
            return r;
    }
    if (n >= OUT_SIZE / 4) {
        if (b->out_len > 0 && (r = out_flush(b, error)) < 0)
            return r;
        r = lfs_pwrite_all(b->fd, p, n, b->pos);
        if (r < 0)
            return io_error(r, error);
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
static int out_skip(erofs_backend *b, uint64_t n, lfs_error *error)
{
    if (b->out_len + n > OUT_SIZE) {
        int r = out_flush(b, error);
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

static int out_align(erofs_backend *b, uint64_t to, lfs_error *error)
{
    return out_skip(b, lfs_align(b->pos, to) - b->pos, error);
}

static int block_of(const erofs_backend *b, uint64_t pos, uint32_t *block, lfs_error *error)
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
    r = out_align(b, node->size >= ALIGN_LARGE || bits ? ALIGN_LARGE : b->block, error);
    if (r == 0)
        r = block_of(b, b->pos, &block, error);
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

static int oom(lfs_error *error)
{
    return lfs_fail(error, ENOMEM, "write layer");
}

/* The current chunk gets content: give it a place, and write the zeros it began with. */
static int chunk_start(erofs_backend *b, lfs_error *error)
{
    uint64_t start;
    int r = out_align(b, ALIGN_LARGE, error);

    if (r < 0 || (r = block_of(b, b->pos, &b->chunks[b->nchunks], error)) < 0)
        return r;
    start = b->pos;
    b->chunk_empty = false;
    r = out_skip(b, b->in_chunk, error);
    if (r == 0 && !b->sparse && lfs_rest_data(b->base.rest, start, b->in_chunk) < 0)
        return oom(error);
    return r;
}

static int chunk_end(erofs_backend *b, lfs_error *error)
{
    if (b->chunk_empty) {
        b->chunks[b->nchunks] = NO_BLOCK;
        b->holes = true;
        if (!b->sparse && lfs_rest_zero(b->base.rest, b->in_chunk) < 0)
            return oom(error);
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
            r = block_of(b, pos, &b->chunks[b->nchunks], error);
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
                return oom(error);
            if (r == 0)
                r = out_write(b, p, k, error);
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
        return oom(error);
    return out_write(b, p, n, error);
}

static int erofs_hole(lfs_backend *base, uint64_t n, lfs_error *error)
{
    erofs_backend *b = of(base);
    uint64_t size = UINT64_C(1) << b->chunk_bits;

    while (n > 0) {
        uint64_t k = size - b->in_chunk < n ? size - b->in_chunk : n;
        int r = 0;

        if (!b->chunk_empty)
            r = out_skip(b, k, error);
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
    r = out_align(b, 8, error);
    node->where = b->pos;
    node->flags |= LFS_NODE_HOLES;
    node->chunk_bits = (uint8_t)b->chunk_bits;
    b->chunked = true;
    for (uint32_t i = 0; i < b->nchunks && r == 0; i++) {
        uint8_t index[8] = {0};
        lfs_put32(index + 4, b->chunks[i]);
        r = out_write(b, index, sizeof index, error);
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

/* ---- metadata ---- */

/* The finished tree in the order in which it is written. */
typedef struct plan {
    const lfs_tree *t;
    uint32_t block;
    uint32_t *names;      /* live names, the children of a directory together and sorted */
    uint32_t *order;      /* inodes by nid */
    uint32_t norder;
    uint32_t *first;      /* by inode: where a directory's children begin in names */
    uint32_t *shared;     /* by position in `sets`/8: id of a set in the shared area, +1 */
    lfs_buf shared_area;
    uint64_t dir_blocks;  /* full directory blocks, all together */
    uint64_t dir_base;    /* where they begin */
    uint64_t xattr_base;
    uint64_t inode_base;
    int64_t epoch;
    uint32_t epoch_nsec;
} plan;

static void plan_free(plan *p)
{
    free(p->names);
    free(p->order);
    free(p->first);
    free(p->shared);
    lfs_buf_free(&p->shared_area);
}

typedef struct sort_key {
    uint64_t prefix; /* eight bytes behind the part that all names of the directory share, big-endian */
    const char *text;
    uint32_t entry;
    uint32_t len;
} sort_key;

static int compare_keys(const void *a, const void *b)
{
    const sort_key *x = a;
    const sort_key *y = b;
    size_t n = x->len < y->len ? x->len : y->len;
    int r;

    if (x->prefix != y->prefix)
        return x->prefix < y->prefix ? -1 : 1;
    r = memcmp(x->text, y->text, n);
    if (r != 0)
        return r;
    return (x->len > y->len) - (x->len < y->len);
}

static void set_prefixes(sort_key *keys, uint32_t n)
{
    size_t common = keys[0].len;

    for (uint32_t i = 1; i < n; i++) {
        size_t k = 0;
        while (k < common && k < keys[i].len && keys[i].text[k] == keys[0].text[k])
            k++;
        common = k;
    }
    for (uint32_t i = 0; i < n; i++) {
        uint64_t v = 0;
        for (size_t k = common; k < common + 8; k++)
            v = v << 8 | (k < keys[i].len ? (uint8_t)keys[i].text[k] : 0);
        keys[i].prefix = v;
    }
}

/* The live names of a directory, sorted by bytes, to out. Archives are mostly sorted already, in one
 * direction or (the list is newest first) the other. */
static int sort_children(const lfs_tree *t, uint32_t dir, uint32_t *out)
{
    const lfs_node *node = lfs_tree_node(t, dir);
    uint32_t n = node->nchildren;
    cleanup_free sort_key *keys = NULL;
    uint32_t k = n;
    bool sorted = true;

    if (n == 0)
        return 0;
    keys = malloc(n * sizeof *keys);
    if (keys == NULL)
        return -ENOMEM;
    for (uint32_t i = node->children; i != 0; i = lfs_tree_entry(t, i)->next) {
        if (lfs_tree_entry(t, i)->node == 0)
            continue;
        k--;
        keys[k].entry = i;
        keys[k].text = lfs_tree_text(t, i);
        keys[k].len = lfs_tree_entry(t, i)->len;
    }
    set_prefixes(keys, n);
    for (uint32_t i = 1; i < n && sorted; i++)
        sorted = compare_keys(&keys[i - 1], &keys[i]) < 0;
    if (!sorted)
        qsort(keys, n, sizeof *keys, compare_keys);
    for (uint32_t i = 0; i < n; i++)
        out[i] = keys[i].entry;
    return 0;
}

/* The entries of a directory with "." and "..", which sort among the others. */
typedef struct dir_walk {
    const plan *p;
    uint32_t dir;
    uint32_t i;   /* of the children */
    int dots;     /* how many of "." and ".." are given */
    const char *text;
    uint32_t len;
    uint32_t node;
} dir_walk;

static int compare_text(const char *a, size_t n, const char *b, size_t m)
{
    int r = memcmp(a, b, n < m ? n : m);

    return r != 0 ? r : (n > m) - (n < m);
}

static bool dir_next(dir_walk *w)
{
    static const char dots[] = "..";
    const lfs_tree *t = w->p->t;
    uint32_t n = lfs_tree_node(t, w->dir)->nchildren;

    if (w->i < n) {
        uint32_t e = w->p->names[w->p->first[w->dir] + w->i];
        w->text = lfs_tree_text(t, e);
        w->len = lfs_tree_entry(t, e)->len;
        w->node = lfs_tree_entry(t, e)->node;
        if (w->dots == 2 || compare_text(w->text, w->len, dots, (size_t)w->dots + 1) < 0) {
            w->i++;
            return true;
        }
    } else if (w->dots == 2) {
        return false;
    }
    w->text = dots;
    w->len = (uint32_t)++w->dots;
    w->node = w->dots == 1 ? w->dir : lfs_tree_parent(t, w->dir);
    return true;
}

/* The size of a directory: blocks filled one after another, each padded but the last. */
static uint64_t dir_size(const plan *p, uint32_t dir)
{
    dir_walk w = {.p = p, .dir = dir};
    uint64_t full = 0;
    uint32_t used = 0;

    while (dir_next(&w)) {
        if (used + 12 + w.len > p->block) {
            full++;
            used = 0;
        }
        used += 12 + w.len;
    }
    return full * p->block + used;
}

static uint32_t xattr_bytes(const plan *p, const lfs_node *node)
{
    size_t n;

    if (node->xattrs == 0)
        return 0;
    if (p->shared[node->xattrs / 8] != 0) {
        uint32_t count = lfs_get32(p->shared_area.data + p->shared[node->xattrs / 8] - 1);
        return 12 + 4 * count;
    }
    lfs_tree_set(p->t, node->xattrs, &n, NULL);
    return 12 + (uint32_t)n;
}

/*
 * A set that several inodes have goes to the shared area. There each record stands by itself, and an inode
 * lists their ids (offset / 4). shared_area is laid out as {u32 count, u32 id...} lists in front of nothing:
 * the lists are kept here only, the records are appended to `records`.
 */
static int share_xattrs(plan *p, lfs_buf *records)
{
    const lfs_tree *t = p->t;

    p->shared = calloc(t->sets.len / 8 + 1, sizeof *p->shared);
    if (p->shared == NULL)
        return -ENOMEM;
    for (size_t at = 0; at < t->sets.len;) {
        uint32_t refs;
        size_t n;
        const char *set = lfs_tree_set(t, (uint32_t)at + 1, &n, &refs);
        size_t list = p->shared_area.len;
        size_t mark = records->len;
        uint32_t count = 0;

        if (refs >= 2 && records->len + n < UINT32_MAX) {
            if (lfs_buf_append(&p->shared_area, &count, sizeof count) < 0)
                return -ENOMEM;
            for (size_t i = 0; i < n;) {
                lfs_xattr_record r;
                uint32_t id = htole32((uint32_t)(records->len / 4));
                size_t size;

                memcpy(&r, set + i, sizeof r);
                size = lfs_align(sizeof r + r.name_len + le16toh(r.value_len), 4);
                if (lfs_buf_append(&p->shared_area, &id, sizeof id) < 0 ||
                    lfs_buf_append(records, set + i, size) < 0)
                    return -ENOMEM;
                i += size;
                count++;
            }
            if (count <= 255) {
                lfs_put32(p->shared_area.data + list, count);
                p->shared[(at + 1) / 8] = (uint32_t)list + 1;
            } else {
                p->shared_area.len = list; /* too many to list: they stay with the inodes */
                records->len = mark;
            }
        }
        at += lfs_align(8 + n, 8);
    }
    return 0;
}

/* Live directories breadth first, each one's children sorted and numbered together. */
static int plan_order(plan *p)
{
    const lfs_tree *t = p->t;
    uint32_t used = 0;

    p->names = malloc((t->live + 1) * sizeof *p->names);
    p->order = malloc((t->live + 1) * sizeof *p->order);
    p->first = malloc(t->nnodes * sizeof *p->first);
    if (p->names == NULL || p->order == NULL || p->first == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i < t->nnodes; i++)
        lfs_tree_node(t, i)->number = 0;
    p->order[p->norder++] = LFS_TREE_ROOT;
    lfs_tree_node(t, LFS_TREE_ROOT)->number = 1;
    for (uint32_t i = 0; i < p->norder; i++) {
        uint32_t dir = p->order[i];
        uint32_t n = lfs_tree_node(t, dir)->nchildren;

        if (!S_ISDIR(lfs_tree_node(t, dir)->mode))
            continue;
        p->first[dir] = used;
        if (sort_children(t, dir, p->names + used) < 0)
            return -ENOMEM;
        for (uint32_t k = used; k < used + n; k++) {
            uint32_t node = lfs_tree_entry(t, p->names[k])->node;
            if (lfs_tree_node(t, node)->number == 0) { /* else a hard link seen before */
                lfs_tree_node(t, node)->number = 1;
                p->order[p->norder++] = node;
            }
        }
        used += n;
    }
    return 0;
}

/* The most frequent time; inodes that have it need half the space. Counted in 4096 classes, which is exact
 * enough: what is not equal to the result is simply stored in full. */
static void plan_epoch(plan *p)
{
    enum { CLASSES = 4096 };
    static const uint64_t mix = UINT64_C(0x9e3779b97f4a7c15);
    uint32_t counts[CLASSES] = {0};
    uint32_t most = 0;

    for (uint32_t i = 0; i < p->norder; i++) {
        const lfs_node *n = lfs_tree_node(p->t, p->order[i]);
        uint32_t class = (uint32_t)((((uint64_t)n->mtime * mix) ^ n->mtime_nsec) * mix >> 52);

        if (++counts[class] > most) {
            most = counts[class];
            p->epoch = n->mtime;
            p->epoch_nsec = n->mtime_nsec;
        }
    }
}

static bool is_compact(const plan *p, const lfs_node *n)
{
    return n->uid < 65536 && n->gid < 65536 && n->nlink < 65536 && n->size <= UINT32_MAX &&
           n->mtime == p->epoch && n->mtime_nsec == p->epoch_nsec;
}

/* What of an inode lies behind it, and where the record can stand. */
typedef struct record {
    uint32_t head;    /* inode and attributes */
    uint32_t tail;    /* inline bytes, or the chunk table with the gap before it */
    uint32_t gap;     /* before the chunk table */
    int layout;
    uint64_t full;    /* directory blocks */
    uint32_t last;    /* bytes of the last one */
} record;

static void measure(const plan *p, const lfs_node *n, record *r)
{
    memset(r, 0, sizeof *r);
    r->head = (is_compact(p, n) ? 32 : 64) + xattr_bytes(p, n);
    if (S_ISDIR(n->mode)) {
        r->last = (uint32_t)((n->size - 1) % p->block) + 1;
        r->full = (n->size - r->last) / p->block;
        /* Any tail up to 28 bytes less than a block finds a place; a longer one becomes a block. */
        if (r->last <= p->block - 28) {
            r->layout = FLAT_INLINE;
            r->tail = r->last;
        } else {
            r->full++;
        }
    } else if (S_ISLNK(n->mode)) {
        /* Inode and target in one block, which is what the kernel's fast path and old kernels ask for. */
        if (r->head + n->size <= p->block) {
            r->layout = FLAT_INLINE;
            r->tail = (uint32_t)n->size;
        } else {
            r->full = (n->size + p->block - 1) / p->block;
        }
    } else if (n->flags & LFS_NODE_HOLES) {
        uint64_t chunks = (n->size + (UINT64_C(1) << n->chunk_bits) - 1) >> n->chunk_bits;
        r->layout = CHUNK_BASED;
        r->gap = -r->head & 7;
        r->tail = r->gap + (uint32_t)chunks * 8;
    }
}

/* The first slot from `at` on where the record's inline part does not cross a block. */
static uint64_t place_record(const plan *p, const lfs_node *n, const record *r, uint64_t at)
{
    uint64_t mask = p->block - 1;

    if (r->layout == FLAT_INLINE)
        while (S_ISLNK(n->mode) ? (at & mask) + r->head + r->tail > p->block
                                : ((at + r->head) & mask) + r->tail > p->block)
            at += SLOT;
    return at;
}

/* Number the inodes: nids, and how many blocks directories and long links take in front of them. */
static int plan_place(plan *p, uint64_t *inode_bytes, lfs_error *error)
{
    uint64_t at = SLOT; /* nid 0 would hide "." from listings */

    for (uint32_t i = 0; i < p->norder; i++) {
        lfs_node *n = lfs_tree_node(p->t, p->order[i]);
        record r;

        if (S_ISDIR(n->mode)) {
            n->size = dir_size(p, p->order[i]);
            n->where = p->dir_blocks;
        }
        measure(p, n, &r);
        p->dir_blocks += r.full;
        at = place_record(p, n, &r, at);
        if (at / SLOT > UINT32_MAX)
            return lfs_fail(error, EFBIG, "write layer: more than 128 GiB of metadata");
        n->number = (uint32_t)(at / SLOT);
        at = lfs_align(at + r.head + r.tail, SLOT);
    }
    *inode_bytes = at;
    return 0;
}

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
    while (*pending || dir_next(w)) {
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
            dir_next(&start);
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
        measure(p, n, &r);
        if (r.full == 0)
            continue;
        if (S_ISLNK(n->mode)) {
            uint64_t target = n->where;
            n->where = (b->pos - p->dir_base) / p->block;
            e = out_write(b, p->t->names.data + target, (size_t)n->size, error);
            if (e == 0)
                e = out_align(b, p->block, error);
        }
        for (uint64_t k = 0; S_ISDIR(n->mode) && k < r.full && e == 0; k++) {
            dir_block(&w, &pending, buf);
            e = out_write(b, buf, p->block, error);
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
    bool compact = is_compact(p, n);
    uint32_t xattrs = xattr_bytes(p, n);
    uint32_t unit = 0;
    int e = 0;

    if (S_ISCHR(n->mode) || S_ISBLK(n->mode))
        unit = (n->rdev_minor & 0xff) | n->rdev_major << 8 | (n->rdev_minor & ~0xffu) << 12;
    else if (r->layout == CHUNK_BASED)
        unit = CHUNK_INDEXES | (n->chunk_bits - b->block_bits);
    else if (r->full > 0)
        e = block_of(b, p->dir_base + n->where * p->block, &unit, error);
    else if (S_ISREG(n->mode) && n->size > 0)
        e = block_of(b, n->where, &unit, error);
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
        return out_write(b, inode, 32, error);
    }
    lfs_put64(inode + 8, n->size);
    lfs_put32(inode + 24, n->uid);
    lfs_put32(inode + 28, n->gid);
    lfs_put64(inode + 32, (uint64_t)n->mtime);
    lfs_put32(inode + 40, n->mtime_nsec);
    lfs_put32(inode + 44, n->nlink);
    return out_write(b, inode, 64, error);
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
        r = out_write(b, head, sizeof head, error);
        return r < 0 ? r : out_write(b, set, len, error);
    }
    set = p->shared_area.data + shared - 1;
    head[4] = (uint8_t)lfs_get32(set);
    r = out_write(b, head, sizeof head, error);
    for (uint32_t i = 1; i <= head[4] && r == 0; i++) {
        uint8_t id[4];
        lfs_put32(id, lfs_get32(set + 4 * i));
        r = out_write(b, id, sizeof id, error);
    }
    return r;
}

static int write_chunk_table(erofs_backend *b, const lfs_node *n, const record *r, lfs_error *error)
{
    static const uint8_t zero[8];
    uint8_t table[MAX_CHUNKS * 8];
    uint32_t bytes = r->tail - r->gap;
    int64_t got;
    int e = out_write(b, zero, r->gap, error);

    if (e < 0)
        return e;
    got = lfs_pread_all(b->fd, table, bytes, n->where);
    if (got != bytes)
        return lfs_fail(error, got < 0 ? (int)-got : EIO, "write layer: read back a chunk table");
    return out_write(b, table, bytes, error);
}

static int write_inodes(erofs_backend *b, const plan *p, uint8_t *buf, lfs_error *error)
{
    for (uint32_t i = 0; i < p->norder; i++) {
        lfs_node *n = lfs_tree_node(p->t, p->order[i]);
        uint64_t at = p->inode_base + (uint64_t)n->number * SLOT;
        record r;
        int e;

        measure(p, n, &r);
        e = out_skip(b, at - b->pos, error);
        if (e == 0)
            e = write_inode(b, p, n, &r, i + 1, error);
        if (e == 0)
            e = write_xattrs(b, p, n, error);
        if (e == 0 && r.layout == CHUNK_BASED)
            e = write_chunk_table(b, n, &r, error);
        if (e == 0 && r.layout == FLAT_INLINE && S_ISLNK(n->mode))
            e = out_write(b, p->t->names.data + n->where, (size_t)n->size, error);
        if (e == 0 && r.layout == FLAT_INLINE && S_ISDIR(n->mode)) {
            dir_walk w = {.p = p, .dir = p->order[i]};
            bool pending = false;
            if (r.full > 0) {
                w.i = n->children;
                w.dots = n->chunk_bits;
            }
            dir_block(&w, &pending, buf);
            e = out_write(b, buf, r.last, error);
        }
        if (e < 0)
            return e;
    }
    return out_align(b, FIRST_DATA, error);
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
    lfs_put16(sb + 0x0e, 1);
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
    return r < 0 ? io_error(r, error) : 0;
}

static int plan_write(erofs_backend *b, plan *p, lfs_unpack_result *result, lfs_error *error)
{
    cleanup_buf lfs_buf records = {0};
    cleanup_free uint8_t *buf = malloc(b->block);
    uint64_t inode_bytes = 0;
    uint32_t block;
    int r;

    if (buf == NULL || plan_order(p) < 0 || share_xattrs(p, &records) < 0)
        return oom(error);
    plan_epoch(p);
    r = plan_place(p, &inode_bytes, error);
    if (r == 0)
        r = out_align(b, FIRST_DATA, error);
    if (r < 0)
        return r;
    p->dir_base = result->meta_offset = b->pos;
    p->xattr_base = p->dir_base + p->dir_blocks * p->block;
    p->inode_base = lfs_align(p->xattr_base + records.len, p->block);
    r = block_of(b, p->inode_base + inode_bytes, &block, error);
    if (r == 0)
        r = write_blocks(b, p, buf, error);
    if (r == 0)
        r = out_write(b, records.data, records.len, error);
    if (r == 0)
        r = out_skip(b, p->inode_base - b->pos, error);
    if (r == 0 && b->chunked)
        r = out_flush(b, error); /* parked chunk tables are read back from the file */
    if (r == 0)
        r = write_inodes(b, p, buf, error);
    if (r == 0)
        r = out_flush(b, error);
    return r;
}

static int erofs_finish(lfs_backend *base, const uint8_t *uuid, lfs_unpack_result *result, lfs_error *error)
{
    erofs_backend *b = of(base);
    plan p = {.t = base->tree, .block = b->block};
    int r = plan_write(b, &p, result, error);

    if (r == 0)
        r = write_superblock(b, &p, uuid, error);
    /* The end may be zeros that were skipped. */
    if (r == 0 && ftruncate(b->fd, (off_t)b->pos) < 0)
        r = io_error(-errno, error);
    result->image_size = b->pos;
    result->inodes = p.norder;
    plan_free(&p);
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
        return oom(error);
    b->out = malloc(OUT_SIZE);
    if (b->out == NULL) {
        free(b);
        return oom(error);
    }
    b->base = (lfs_backend){.ops = &ops, .tree = tree, .rest = rest};
    b->fd = fd;
    b->block = block_size;
    b->block_bits = (unsigned)__builtin_ctz(block_size);
    b->pos = b->synced = FIRST_DATA;
    *out = &b->base;
    return 0;
}
