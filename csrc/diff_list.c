/*
 * diff_list.c - the list of changes; see diff.h.
 *
 * A directory that both sides have is listed (C) when its own attributes differ or something in it is listed;
 * what is gone is listed once (D), not all that was below it. What an upper hides without a whiteout, by an
 * opaque directory, is listed as gone too. Everything else in an upper is there because it was written to,
 * and is listed as added or changed by whether the lowers show the name. With no lowers all of it is added.
 *
 * Of files it is enough to know that they are there, so that only directories are opened. A file whose content
 * overlayfs has left below has changed all the same; and whiteouts by attribute are looked for only in directories
 * marked for such, as the kernel does and its documentation demands.
 *
 * The list is held in memory, because it is sorted by path, and no walk comes in that order ("a", "a.b",
 * "a/b").
 */
#define _GNU_SOURCE
#include "diff.h"

#define HEAD 4u

static int add_change(lfs_diff *d, char kind, uint8_t type, const char *path, size_t n, lfs_error *error)
{
    uint64_t at = d->list.len;
    char head[HEAD] = {kind, (char)type};

    if (n > UINT16_MAX)
        return lfs_fail(error, ENAMETOOLONG, "list %.200s", path);
    lfs_put16(head + 2, (uint16_t)n);
    if (lfs_buf_append(&d->list, head, HEAD) < 0 || lfs_buf_append(&d->list, path, n) < 0 ||
        lfs_buf_append(&d->order, &at, sizeof at) < 0)
        return lfs_fail(error, ENOMEM, "diff");
    d->stats.entries++;
    d->stats.whiteouts += kind == 'D';
    return 0;
}

static int add_entry(lfs_diff *d, char kind, uint8_t type, lfs_error *error)
{
    return add_change(d, kind, type, d->walk.path.data, d->walk.path.len, error);
}

/* The lowers' directory under the one that has been entered: its attributes are in found, and d->xattrs[1]. */
static int lower_differs(const lfs_diff *d, const lfs_lower_found *found, lfs_error *error)
{
    const lfs_walk_dir *dir = lfs_walk_top(&d->walk);
    struct stat stat;
    const struct stat *st = &stat;

    if (fstat(dir->fd[LFS_SIDE_TO], &stat) < 0)
        return lfs_walk_fail(&d->walk, errno, "stat", error);
    return st->st_mode != found->mode || st->st_uid != found->uid || st->st_gid != found->gid ||
           st->st_mtim.tv_sec != found->mtime || (uint32_t)st->st_mtim.tv_nsec != found->mtime_nsec ||
           dir->xattrs_len != d->xattrs[1].len ||
           (dir->xattrs_len > 0 &&
            memcmp(d->walk.names.data + dir->xattrs, d->xattrs[1].data, dir->xattrs_len) != 0);
}

/* The directory's kind, 0 for one that is listed only with something in it, or -errno. */
static int directory_kind(lfs_diff *d, const lfs_lower_found *found, lfs_error *error)
{
    if (d->walk.pair) {
        int r = d->walk.in_from ? lfs_diff_differs(d, error) : 0;
        if (r < 0)
            return r;
        return !d->walk.in_from ? 'A' : r == 1 ? 'C' : 0;
    }
    if (d->lowers.count == 0 || !found->exists)
        return 'A';
    if (S_ISDIR(found->mode)) {
        int r = lower_differs(d, found, error);
        return r < 0 ? r : r ? 'C' : 0;
    }
    return 'C';
}

/* What the lowers show in a directory that hides them. */
static int list_hidden(lfs_diff *d, lfs_error *error)
{
    lfs_walk *w = &d->walk;
    const lfs_walk_dir *dir = lfs_walk_top(w);
    size_t names = w->names.len;
    uint64_t first;
    int r = lfs_lowers_names(&d->lowers, w, &first, error);

    for (uint64_t at = first; r == 0 && at < w->items.len; at += sizeof(lfs_walk_item)) {
        const lfs_walk_item *item = (const lfs_walk_item *)(const void *)(w->items.data + at);
        const char *name = w->names.data + item->name;
        lfs_lower_found found = {0};

        r = lfs_lowers_find(&d->lowers, w, dir, name, item->len, &found, error);
        if (r < 0 || !found.exists)
            continue;
        d->path.len = 0;
        if (lfs_buf_append(&d->path, w->path.data, dir->path) < 0 ||
            lfs_buf_append(&d->path, "/", dir->path > 0) < 0 || lfs_buf_append(&d->path, name, item->len) < 0)
            r = lfs_fail(error, ENOMEM, "diff");
        else
            r = add_change(d, 'D', (uint8_t)IFTODT(found.mode), d->path.data, d->path.len, error);
    }
    if (r == 0) {
        w->names.len = names;
        w->items.len = first;
    }
    return r;
}

static int on_directory(lfs_diff *d, lfs_error *error)
{
    lfs_walk_dir *dir = lfs_walk_top(&d->walk);
    lfs_lower_found found = {.xattrs = &d->xattrs[1]};
    int r = 0;

    dir->listed = d->stats.entries;
    d->xattrs[1].len = 0;
    if (d->lowers.count > 0)
        r = lfs_lowers_enter(&d->lowers, &d->walk, &found, error);
    if (r == 0)
        r = directory_kind(d, &found, error);
    if (r < 0)
        return r;
    dir->kind = (char)r;
    return dir->hidden && dir->nrefs > 0 ? list_hidden(d, error) : 0;
}

static int on_leave(lfs_diff *d, lfs_error *error)
{
    lfs_walk_dir *dir = lfs_walk_top(&d->walk);

    lfs_lowers_leave(&d->lowers, dir);
    if (d->walk.depth == 1 || (dir->kind == 0 && dir->listed == d->stats.entries))
        return 0;
    return add_entry(d, dir->kind != 0 ? dir->kind : 'C', DT_DIR, error);
}

static int find(lfs_diff *d, lfs_lower_found *found, lfs_error *error)
{
    lfs_walk *w = &d->walk;

    if (d->lowers.count == 0)
        return 0;
    return lfs_lowers_find(&d->lowers, w, lfs_walk_top(w), w->name, w->name_len, found, error);
}

static int on_whiteout(lfs_diff *d, lfs_error *error)
{
    lfs_lower_found found = {0};
    int r = find(d, &found, error);

    if (r < 0)
        return r;
    if (d->walk.pair)
        return add_entry(d, 'D', d->walk.type, error);
    if (d->lowers.count > 0 && !found.exists)
        return 0;
    return add_entry(d, 'D', found.exists ? (uint8_t)IFTODT(found.mode) : DT_UNKNOWN, error);
}

/* Whether the file at hand is a whiteout by its attribute: -ENOENT if it is gone. */
static int is_whiteout(lfs_diff *d, lfs_error *error)
{
    lfs_walk *w = &d->walk;
    lfs_marks marks;
    int r = w->fd[LFS_SIDE_TO] >= 0 ? 1 : lfs_walk_open(w, error);

    if (r <= 0)
        return r == 0 ? -ENOENT : r;
    if (w->type != DT_REG || w->st[LFS_SIDE_TO].st_size > 0)
        return 0;
    d->xattrs[0].len = 0;
    r = lfs_xattrs_read(&w->xattrs, w->fd[LFS_SIDE_TO], true, &d->xattrs[0], &marks);
    return r < 0 ? lfs_walk_fail(w, -r, "read extended attributes of", error) : marks.whiteout;
}

static int on_file(lfs_diff *d, lfs_error *error)
{
    lfs_walk *w = &d->walk;
    lfs_lower_found found = {.exists = w->in_from};
    int r = 0;

    if (w->pair) {
        r = lfs_diff_differs(d, error);
        return r <= 0 ? r : add_entry(d, w->in_from ? 'C' : 'A', w->type, error);
    }
    if (w->type == DT_REG && lfs_walk_top(w)->whiteouts)
        r = is_whiteout(d, error);
    if (r != 0)
        return r == -ENOENT ? 0 : r < 0 ? r : on_whiteout(d, error);
    r = find(d, &found, error);
    return r < 0 ? r : add_entry(d, found.exists ? 'C' : 'A', w->type, error);
}

static int compare_changes(const void *a, const void *b, void *data)
{
    const char *list = data;
    uint64_t i;
    uint64_t j;
    size_t n;
    size_t m;
    int r;

    memcpy(&i, a, sizeof i);
    memcpy(&j, b, sizeof j);
    n = lfs_get16(list + i + 2);
    m = lfs_get16(list + j + 2);
    r = memcmp(list + i + HEAD, list + j + HEAD, n < m ? n : m);
    return r != 0 ? r : (n > m) - (n < m);
}

int lfs_diff_collect(lfs_diff *d, lfs_error *error)
{
    int event;
    int r = 0;

    d->walk.light = d->walk.upper;
    while ((event = lfs_walk_next(&d->walk, error)) != LFS_WALK_END && r == 0) {
        if (event < 0)
            return event;
        if (event == LFS_WALK_DIR)
            r = on_directory(d, error);
        else if (event == LFS_WALK_LEAVE)
            r = on_leave(d, error);
        else
            r = event == LFS_WALK_FILE ? on_file(d, error) : on_whiteout(d, error);
        if (r < 0)
            return r;
    }
    if (d->order.len > sizeof(uint64_t))
        qsort_r(d->order.data, d->order.len / sizeof(uint64_t), sizeof(uint64_t), compare_changes,
                d->list.data);
    return 0;
}

int64_t lfs_diff_take(lfs_diff *d, char *buf, size_t cap, lfs_error *error)
{
    size_t done = 0;

    while (d->list_at < d->order.len) {
        uint64_t at;
        size_t n;

        memcpy(&at, d->order.data + d->list_at, sizeof at);
        n = HEAD + lfs_get16(d->list.data + at + 2);
        if (n > cap - done) {
            if (done == 0)
                return lfs_fail(error, ERANGE, "list %.200s: a path longer than the buffer",
                                d->list.data + at + HEAD);
            break;
        }
        memcpy(buf + done, d->list.data + at, n);
        done += n;
        d->list_at += sizeof at;
    }
    return (int64_t)done;
}
