#define _GNU_SOURCE
#include "tree.h"

#include <sys/random.h>
#include <time.h>

#define FIRST_SLOTS 1024u
#define REMOVED UINT32_MAX

static const struct {
    int prefix;
    const char *name;
} prefixes[] = {
    {LFS_XATTR_USER, "user."},
    {LFS_XATTR_ACL_ACCESS, "system.posix_acl_access"},
    {LFS_XATTR_ACL_DEFAULT, "system.posix_acl_default"},
    {LFS_XATTR_TRUSTED, "trusted."},
    {LFS_XATTR_SECURITY, "security."},
};

int lfs_xattr_prefix(const char *name, size_t n, size_t *prefix_len)
{
    for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++) {
        size_t len = strlen(prefixes[i].name);
        bool acl = prefixes[i].name[len - 1] != '.';

        if (n >= len && memcmp(name, prefixes[i].name, len) == 0 && (acl ? n == len : n > len)) {
            *prefix_len = len;
            return prefixes[i].prefix;
        }
    }
    return 0;
}

const char *lfs_xattr_prefix_name(int prefix)
{
    for (size_t i = 0; i < sizeof prefixes / sizeof prefixes[0]; i++)
        if (prefixes[i].prefix == prefix)
            return prefixes[i].name;
    return "";
}

static uint64_t fold(uint64_t a, uint64_t b)
{
    __extension__ typedef unsigned __int128 wide;
    wide product = (wide)a * b;

    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* Multiply and fold, keyed: who chooses the names must not be able to choose names that collide. What is
 * written never depends on the key. */
static uint32_t hash_bytes(const lfs_tree *t, uint32_t parent, const char *p, size_t n)
{
    uint64_t h = fold(t->key[0] ^ parent, t->key[1] ^ n);
    uint64_t w;

    for (; n > 8; p += 8, n -= 8) {
        memcpy(&w, p, 8);
        h = fold(h ^ w, t->key[1]);
    }
    w = 0;
    if (n > 0) /* else p may be NULL */
        memcpy(&w, p, n);
    h = fold(h ^ w, t->key[1]);
    return (uint32_t)(fold(h, t->key[0]) >> 16);
}

/* Room for one more element; grows by half, so that memory stays near what is used. */
static int grow(void **array, uint32_t *cap, uint32_t used, size_t size)
{
    uint64_t want;
    void *p;

    if (used < *cap)
        return 0;
    want = *cap == 0 ? 256 : (uint64_t)*cap + *cap / 2;
    if (want > UINT32_MAX)
        return -ENOMEM;
    p = realloc(*array, (size_t)want * size);
    if (p == NULL)
        return -ENOMEM;
    *array = p;
    *cap = (uint32_t)want;
    return 0;
}

int lfs_tree_init(lfs_tree *t)
{
    memset(t, 0, sizeof *t);
    if (getrandom(t->key, sizeof t->key, GRND_NONBLOCK) != (ssize_t)sizeof t->key) {
        t->key[0] = (uintptr_t)t; /* before the system has any randomness: better than nothing */
        t->key[1] = (uint64_t)time(NULL);
    }
    t->key[0] |= 1;
    t->key[1] |= UINT64_C(1) << 63 | 1;
    t->nnodes = t->nentries = 1;
    t->nslots = t->nset_buckets = FIRST_SLOTS;
    t->slots = calloc(t->nslots, sizeof *t->slots);
    t->set_buckets = calloc(t->nset_buckets, sizeof *t->set_buckets);
    if (t->slots == NULL || t->set_buckets == NULL || lfs_tree_new_node(t, S_IFDIR | 0755) == 0) {
        lfs_tree_free(t);
        return -ENOMEM;
    }
    t->nodes[LFS_TREE_ROOT].nlink = 2;
    return 0;
}

void lfs_tree_free(lfs_tree *t)
{
    free(t->nodes);
    free(t->entries);
    free(t->slots);
    free(t->set_buckets);
    lfs_buf_free(&t->names);
    lfs_buf_free(&t->sets);
    memset(t, 0, sizeof *t);
}

uint32_t lfs_tree_parent(const lfs_tree *t, uint32_t node)
{
    uint32_t name = t->nodes[node].name;

    return name == 0 ? LFS_TREE_ROOT : t->entries[name].parent;
}

uint32_t lfs_tree_find(const lfs_tree *t, uint32_t parent, const char *name, size_t n)
{
    uint32_t hash = hash_bytes(t, parent, name, n);

    for (uint32_t i = hash & (t->nslots - 1); t->slots[i].entry != 0; i = (i + 1) & (t->nslots - 1)) {
        const lfs_slot *slot = &t->slots[i];
        const lfs_name *e;

        if (slot->hash != hash || slot->entry == REMOVED)
            continue;
        e = &t->entries[slot->entry];
        if (e->parent == parent && e->len == n && memcmp(t->names.data + e->text, name, n) == 0)
            return slot->entry;
    }
    return 0;
}

uint32_t lfs_tree_new_node(lfs_tree *t, uint32_t mode)
{
    if (grow((void **)&t->nodes, &t->node_cap, t->nnodes, sizeof *t->nodes) < 0)
        return 0;
    memset(&t->nodes[t->nnodes], 0, sizeof *t->nodes);
    t->nodes[t->nnodes].mode = mode;
    return t->nnodes++;
}

static void put_slot(lfs_tree *t, uint32_t hash, uint32_t entry)
{
    uint32_t i = hash & (t->nslots - 1);

    while (t->slots[i].entry != 0)
        i = (i + 1) & (t->nslots - 1);
    t->slots[i] = (lfs_slot){hash, entry};
    t->used++;
}

/* At most two thirds of the slots are in use; removed ones go when all are laid out anew. */
static int grow_slots(lfs_tree *t)
{
    lfs_slot *old = t->slots;
    uint32_t n = t->nslots;
    uint32_t want = t->live > n / 3 ? n * 2 : n;
    lfs_slot *slots;

    if (t->used < n / 3 * 2)
        return 0;
    slots = want == 0 ? NULL : calloc(want, sizeof *slots);
    if (slots == NULL)
        return -ENOMEM;
    t->slots = slots;
    t->nslots = want;
    t->used = 0;
    for (uint32_t i = 0; i < n; i++)
        if (old[i].entry != 0 && old[i].entry != REMOVED)
            put_slot(t, old[i].hash, old[i].entry);
    free(old);
    return 0;
}

uint64_t lfs_tree_store(lfs_tree *t, const char *data, size_t n)
{
    uint64_t at = t->names.len;

    return lfs_buf_append(&t->names, data, n) < 0 ? UINT64_MAX : at;
}

uint32_t lfs_tree_add(lfs_tree *t, uint32_t parent, const char *name, size_t n, uint32_t node)
{
    uint32_t i = t->nentries;
    lfs_name *e;
    lfs_node *dir;

    if (grow((void **)&t->entries, &t->entry_cap, i, sizeof *t->entries) < 0 || grow_slots(t) < 0)
        return 0;
    e = &t->entries[i];
    memset(e, 0, sizeof *e);
    e->text = lfs_tree_store(t, name, n);
    if (e->text == UINT64_MAX)
        return 0;
    t->nentries++;
    t->live++;
    e->parent = parent;
    e->node = node;
    e->len = (uint8_t)n;
    put_slot(t, hash_bytes(t, parent, name, n), i);

    dir = &t->nodes[parent];
    e->next = dir->children;
    dir->children = i;
    dir->nchildren++;
    if (t->nodes[node].name == 0)
        t->nodes[node].name = i;
    if (S_ISDIR(t->nodes[node].mode)) {
        dir->nlink++;
        t->nodes[node].nlink = 2;
        t->nodes[node].depth = (uint16_t)(dir->depth + 1);
    } else {
        t->nodes[node].nlink++;
    }
    return i;
}

static void unlink_one(lfs_tree *t, uint32_t i)
{
    lfs_name *e = &t->entries[i];
    lfs_node *node = &t->nodes[e->node];
    lfs_node *dir = &t->nodes[e->parent];
    uint32_t slot = hash_bytes(t, e->parent, t->names.data + e->text, e->len) & (t->nslots - 1);

    while (t->slots[slot].entry != i)
        slot = (slot + 1) & (t->nslots - 1);
    t->slots[slot].entry = REMOVED;
    dir->nchildren--;
    if (S_ISDIR(node->mode)) {
        if (dir->nlink > 0) /* else it went first, and this is below it */
            dir->nlink--;
        node->nlink = 0;
    } else {
        node->nlink--;
    }
    if (node->nlink == 0 && node->xattrs != 0)
        lfs_tree_set_ref(t, node->xattrs, -1);
    e->node = 0;
    t->live--;
}

int lfs_tree_remove(lfs_tree *t, uint32_t entry)
{
    cleanup_buf lfs_buf stack = {0};

    t->removals++;
    if (lfs_buf_append(&stack, &entry, sizeof entry) < 0)
        return -ENOMEM;
    while (stack.len > 0) {
        uint32_t i;
        uint32_t node;

        stack.len -= sizeof i;
        memcpy(&i, stack.data + stack.len, sizeof i);
        node = t->entries[i].node;
        if (S_ISDIR(t->nodes[node].mode)) {
            for (uint32_t c = t->nodes[node].children; c != 0; c = t->entries[c].next)
                if (t->entries[c].node != 0 && lfs_buf_append(&stack, &c, sizeof c) < 0)
                    return -ENOMEM;
        }
        unlink_one(t, i);
    }
    return 0;
}

int lfs_tree_intern(lfs_tree *t, const char *records, size_t n, uint32_t *set)
{
    uint32_t slot = hash_bytes(t, 0, records, n) & (t->nset_buckets - 1);
    uint32_t head[2] = {(uint32_t)n, 0};
    static const char zero[8];

    *set = 0;
    if (n == 0)
        return 0;
    for (; t->set_buckets[slot] != 0; slot = (slot + 1) & (t->nset_buckets - 1)) {
        uint32_t at = t->set_buckets[slot];
        size_t len;
        const char *have = lfs_tree_set(t, at, &len, NULL);
        if (len == n && memcmp(have, records, n) == 0) {
            *set = at;
            return 0;
        }
    }
    if (t->sets.len + n + 16 > UINT32_MAX)
        return -ENOMEM;
    *set = (uint32_t)t->sets.len + 1;
    if (lfs_buf_append(&t->sets, head, sizeof head) < 0 || lfs_buf_append(&t->sets, records, n) < 0 ||
        lfs_buf_append(&t->sets, zero, -n & 7) < 0)
        return -ENOMEM;
    t->set_buckets[slot] = *set;
    if (++t->nsets > t->nset_buckets / 2) {
        uint32_t cap = t->nset_buckets * 2;
        uint32_t *buckets = calloc(cap, sizeof *buckets);

        if (buckets == NULL)
            return -ENOMEM;
        for (uint32_t i = 0; i < t->nset_buckets; i++) {
            size_t len;
            const char *have;
            if (t->set_buckets[i] == 0)
                continue;
            have = lfs_tree_set(t, t->set_buckets[i], &len, NULL);
            slot = hash_bytes(t, 0, have, len) & (cap - 1);
            while (buckets[slot] != 0)
                slot = (slot + 1) & (cap - 1);
            buckets[slot] = t->set_buckets[i];
        }
        free(t->set_buckets);
        t->set_buckets = buckets;
        t->nset_buckets = cap;
    }
    return 0;
}

const char *lfs_tree_set(const lfs_tree *t, uint32_t set, size_t *n, uint32_t *refs)
{
    const char *p = t->sets.data + (set - 1);
    uint32_t head[2];

    memcpy(head, p, sizeof head);
    *n = head[0];
    if (refs != NULL)
        *refs = head[1];
    return p + sizeof head;
}

void lfs_tree_set_ref(lfs_tree *t, uint32_t set, int by)
{
    char *p;
    uint32_t refs;

    if (set == 0)
        return;
    p = t->sets.data + (set - 1) + 4;
    memcpy(&refs, p, sizeof refs);
    refs += (uint32_t)by;
    memcpy(p, &refs, sizeof refs);
}

int lfs_tree_path(const lfs_tree *t, uint32_t entry, lfs_buf *b)
{
    size_t total = 0;
    char *p;

    for (uint32_t i = entry; i != 0; i = t->nodes[t->entries[i].parent].name)
        total += t->entries[i].len + 1u;
    b->len = 0;
    if (lfs_buf_reserve(b, total + 1) < 0)
        return -ENOMEM;
    b->len = total > 0 ? total - 1 : 0;
    p = b->data + b->len;
    *p = '\0';
    for (uint32_t i = entry; i != 0; i = t->nodes[t->entries[i].parent].name) {
        p -= t->entries[i].len;
        memcpy(p, t->names.data + t->entries[i].text, t->entries[i].len);
        if (p != b->data)
            *--p = '/';
    }
    return 0;
}
