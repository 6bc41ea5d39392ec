/* diff_links.c - see diff.h. Open addressing; at most half full. */
#define _GNU_SOURCE
#include "diff.h"

static size_t slot_of(const lfs_links *t, uint64_t dev, uint64_t ino)
{
    uint64_t h = (ino ^ dev << 40 ^ dev >> 24) * UINT64_C(0x9e3779b97f4a7c15);
    size_t i = (size_t)(h >> 20) & (t->cap - 1);

    while (t->slots[i].used && (t->slots[i].dev != dev || t->slots[i].ino != ino))
        i = (i + 1) & (t->cap - 1);
    return i;
}

static int grow(lfs_links *t)
{
    lfs_links bigger = {.cap = t->cap == 0 ? 256 : t->cap * 2, .count = t->count};

    bigger.slots = calloc(bigger.cap, sizeof *bigger.slots);
    if (bigger.slots == NULL)
        return -ENOMEM;
    for (size_t i = 0; i < t->cap; i++)
        if (t->slots[i].used)
            bigger.slots[slot_of(&bigger, t->slots[i].dev, t->slots[i].ino)] = t->slots[i];
    free(t->slots);
    *t = bigger;
    return 0;
}

lfs_link *lfs_links_at(lfs_links *t, uint64_t dev, uint64_t ino, bool *made)
{
    lfs_link *slot;

    if (2 * (t->count + 1) > t->cap && grow(t) < 0)
        return NULL;
    slot = &t->slots[slot_of(t, dev, ino)];
    *made = !slot->used;
    if (*made) {
        *slot = (lfs_link){.dev = dev, .ino = ino, .used = true};
        t->count++;
    }
    return slot;
}

void lfs_links_free(lfs_links *t)
{
    free(t->slots);
    memset(t, 0, sizeof *t);
}
