/*
 * erofs_plan.c - where each inode, directory and attribute of an EROFS layer will stand, and how large it is.
 * Nothing is written here.
 */
#define _GNU_SOURCE
#include "erofs.h"

void lfs_plan_free(plan *p)
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

static int compare_text(const char *a, size_t n, const char *b, size_t m)
{
    int r = memcmp(a, b, n < m ? n : m);

    return r != 0 ? r : (n > m) - (n < m);
}

bool lfs_plan_next(dir_walk *w)
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

    while (lfs_plan_next(&w)) {
        if (used + 12 + w.len > p->block) {
            full++;
            used = 0;
        }
        used += 12 + w.len;
    }
    return full * p->block + used;
}

uint32_t lfs_plan_xattr_bytes(const plan *p, const lfs_node *node)
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

bool lfs_plan_is_compact(const plan *p, const lfs_node *n)
{
    return n->uid < 65536 && n->gid < 65536 && n->nlink < 65536 && n->size <= UINT32_MAX &&
           n->mtime == p->epoch && n->mtime_nsec == p->epoch_nsec;
}

void lfs_plan_measure(const plan *p, const lfs_node *n, record *r)
{
    memset(r, 0, sizeof *r);
    r->head = (lfs_plan_is_compact(p, n) ? 32 : 64) + lfs_plan_xattr_bytes(p, n);
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
        lfs_plan_measure(p, n, &r);
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

int lfs_plan_make(plan *p, lfs_buf *records, uint64_t *inode_bytes, lfs_error *error)
{
    if (plan_order(p) < 0 || share_xattrs(p, records) < 0)
        return lfs_erofs_oom(error);
    plan_epoch(p);
    return plan_place(p, inode_bytes, error);
}
