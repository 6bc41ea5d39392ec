/*
 * diff_lower.c - what the layers below an upper show at a path; see diff.h.
 *
 * For each directory on the way the lowers that have it are noted, top-most first, as far down as overlayfs
 * would merge: a whiteout, an opaque directory or anything that is no directory ends the list. Lowers that
 * are directories are held open only for the directory on top of the walk, and opened again by path when the
 * walk comes back, so that depth times layers does not count.
 */
#define _GNU_SOURCE
#include "diff.h"

#include <fcntl.h>
#include <sys/sysmacros.h>

#define PIECE 1024u /* bytes of a path opened at once */

typedef struct lower_ref {
    uint64_t nid;   /* of a reader */
    uint32_t lower; /* index in the list */
    int fd;         /* of a directory: O_PATH; -1: not open now */
} lower_ref;

static lower_ref *ref_at(const lfs_lowers *l, const lfs_walk_dir *dir, uint64_t i)
{
    return (lower_ref *)(void *)(l->refs.data + dir->refs) + i;
}

static int add_ref(lfs_lowers *l, lfs_walk_dir *dir, lower_ref ref)
{
    if (lfs_buf_append(&l->refs, &ref, sizeof ref) < 0)
        return -ENOMEM;
    dir->nrefs++;
    return 0;
}

/* The directory of a ref, opened by its path where it is not open. */
static int ref_fd(const lfs_lowers *l, const lfs_walk *w, const lfs_walk_dir *dir, lower_ref *ref,
                  lfs_error *error)
{
    cleanup_free char *path = NULL;
    cleanup_close int fd = -1;
    char *p;

    if (ref->fd >= 0)
        return 0;
    path = strndup(w->path.data, dir->path);
    if (path == NULL)
        return lfs_fail(error, ENOMEM, "diff");
    p = path;
    do {
        size_t left = strlen(p);
        char *cut = left > PIECE ? memrchr(p, '/', PIECE) : NULL;
        int next;

        if (cut != NULL)
            *cut = '\0';
        next = lfs_open_beneath(fd >= 0 ? fd : l->list[ref->lower].fd, left == 0 ? "." : p,
                                O_PATH | O_DIRECTORY, 0);
        if (next < 0)
            return lfs_fail(error, -next, "open directory %.200s of a lower layer", p);
        if (fd >= 0)
            close(fd);
        fd = next;
        p = cut != NULL ? cut + 1 : p + left;
    } while (*p != '\0');
    ref->fd = lfs_steal_fd(&fd);
    return 0;
}

/* ---- one name in one lower ---- */

typedef struct lower_entry {
    lfs_stat st;
    lower_ref ref; /* of a directory */
    bool opaque;
    bool whiteout;
} lower_entry;

static int find_in_reader(lfs_lowers *l, lfs_walk *w, const lower_ref *dir, const char *name, size_t n,
                          lower_entry *e, lfs_error *error)
{
    const lfs_reader *reader = l->list[dir->lower].reader;
    lfs_marks marks = {0};
    int r = lfs_reader_lookup(reader, dir->nid, name, n, &e->ref.nid, error);

    if (r < 0)
        return r;
    r = lfs_reader_stat(reader, e->ref.nid, &e->st, error);
    if (r < 0)
        return r;
    if (S_ISDIR(e->st.mode) || (S_ISREG(e->st.mode) && e->st.size == 0)) {
        l->xattrs.len = 0;
        r = lfs_xattrs_layer(&w->xattrs, reader, e->ref.nid, &l->xattrs, &marks, error);
    }
    e->opaque = marks.opaque;
    e->whiteout = marks.whiteout;
    return r;
}

static int find_in_dir(lfs_lowers *l, lfs_walk *w, const lower_ref *dir, const char *name, lower_entry *e,
                       lfs_error *error)
{
    cleanup_close int fd = openat(dir->fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    lfs_marks marks = {0};
    struct stat st;
    int r = 0;

    if (fd < 0 && errno == ENOENT)
        return -ENOENT;
    if (fd < 0 || fstat(fd, &st) < 0)
        return lfs_walk_fail(w, errno, "look up in a lower layer", error);
    e->st = (lfs_stat){
        .size = (uint64_t)st.st_size, .mtime = st.st_mtim.tv_sec, .mtime_nsec = (uint32_t)st.st_mtim.tv_nsec,
        .mode = st.st_mode, .uid = st.st_uid, .gid = st.st_gid,
        .rdev_major = major(st.st_rdev), .rdev_minor = minor(st.st_rdev),
    };
    if (S_ISDIR(st.st_mode) || (S_ISREG(st.st_mode) && st.st_size == 0)) {
        l->xattrs.len = 0;
        r = lfs_xattrs_read(&w->xattrs, fd, true, &l->xattrs, &marks);
        if (r < 0)
            return lfs_walk_fail(w, -r, "read extended attributes in a lower layer of", error);
    }
    e->opaque = marks.opaque;
    e->whiteout = marks.whiteout;
    if (S_ISDIR(st.st_mode))
        e->ref.fd = lfs_steal_fd(&fd);
    return 0;
}

static int find_in_lower(lfs_lowers *l, lfs_walk *w, const lfs_walk_dir *dir, lower_ref *ref,
                         const char *name, size_t n, lower_entry *e, lfs_error *error)
{
    int r;

    *e = (lower_entry){.ref = {.lower = ref->lower, .fd = -1}};
    if (l->list[ref->lower].reader != NULL) {
        r = find_in_reader(l, w, ref, name, n, e, error);
    } else {
        r = ref_fd(l, w, dir, ref, error);
        if (r == 0)
            r = find_in_dir(l, w, ref, name, e, error);
    }
    if (r == 0 && S_ISCHR(e->st.mode) && e->st.rdev_major == 0 && e->st.rdev_minor == 0)
        e->whiteout = true;
    if (r == 0 && S_ISREG(e->st.mode) && e->st.size != 0)
        e->whiteout = false;
    return r;
}

static int note_found(const lfs_lowers *l, const lower_entry *e, lfs_lower_found *found)
{
    found->exists = true;
    found->mode = e->st.mode;
    found->uid = e->st.uid;
    found->gid = e->st.gid;
    found->mtime = e->st.mtime;
    found->mtime_nsec = e->st.mtime_nsec;
    if (found->xattrs == NULL || !S_ISDIR(e->st.mode))
        return 0;
    found->xattrs->len = 0;
    return lfs_buf_append(found->xattrs, l->xattrs.data, l->xattrs.len);
}

/* Through the lowers of `dir`, from the top: fill *found; with `into`, note there those that have the name as
 * a directory. */
static int search(lfs_lowers *l, lfs_walk *w, const lfs_walk_dir *dir, const char *name, size_t n,
                  lfs_lower_found *found, lfs_walk_dir *into, lfs_error *error)
{
    found->exists = false;
    for (uint64_t i = 0; i < dir->nrefs; i++) {
        lower_entry e;
        int r = find_in_lower(l, w, dir, ref_at(l, dir, i), name, n, &e, error);

        if (r == -ENOENT)
            continue;
        if (r < 0)
            return r;
        if (e.whiteout)
            break;
        if (!found->exists && note_found(l, &e, found) < 0)
            r = lfs_fail(error, ENOMEM, "diff");
        if (r == 0 && into != NULL && S_ISDIR(e.st.mode))
            r = add_ref(l, into, e.ref) < 0 ? lfs_fail(error, ENOMEM, "diff") : 0;
        else if (e.ref.fd >= 0)
            close(e.ref.fd);
        if (r < 0)
            return r;
        if (into == NULL || !S_ISDIR(e.st.mode) || e.opaque)
            break;
    }
    return 0;
}

/* ---- the interface ---- */

int lfs_lowers_find(lfs_lowers *l, lfs_walk *w, const lfs_walk_dir *dir, const char *name, size_t n,
                    lfs_lower_found *found, lfs_error *error)
{
    return search(l, w, dir, name, n, found, NULL, error);
}

static void close_refs(lfs_lowers *l, const lfs_walk_dir *dir)
{
    for (uint64_t i = 0; i < dir->nrefs; i++) {
        lower_ref *ref = ref_at(l, dir, i);
        if (ref->fd >= 0)
            close(ref->fd);
        ref->fd = -1;
    }
}

int lfs_lowers_enter(lfs_lowers *l, lfs_walk *w, lfs_lower_found *found, lfs_error *error)
{
    lfs_walk_dir *dir = lfs_walk_top(w);
    int r;

    dir->refs = l->refs.len;
    dir->nrefs = 0;
    if (w->depth > 1) {
        r = search(l, w, dir - 1, w->name, w->name_len, found, dir, error);
        close_refs(l, dir - 1);
        return r;
    }
    found->exists = true;
    for (size_t i = 0; i < l->count; i++) {
        const lfs_reader *reader = l->list[i].reader;
        lower_ref ref = {.lower = (uint32_t)i, .fd = -1, .nid = reader == NULL ? 0 : lfs_reader_root(reader)};
        if (add_ref(l, dir, ref) < 0)
            return lfs_fail(error, ENOMEM, "diff");
    }
    return 0;
}

void lfs_lowers_leave(lfs_lowers *l, lfs_walk_dir *dir)
{
    close_refs(l, dir);
    l->refs.len = dir->refs;
    dir->nrefs = 0;
}

static int load_reader_names(lfs_walk *w, const lfs_reader *reader, uint64_t nid, lfs_error *error)
{
    uint64_t cookie = 0;
    int64_t n;

    while ((n = lfs_reader_readdir(reader, nid, &cookie, w->dents, LFS_WALK_DENTS, error)) > 0) {
        for (const char *p = w->dents; p < w->dents + n;) {
            uint8_t len = (uint8_t)p[9];
            int r = lfs_walk_add(w, p + 10, len, (uint8_t)p[8], 0);
            if (r < 0)
                return lfs_fail(error, ENOMEM, "diff");
            p += 10 + len;
        }
    }
    return (int)n;
}

static int load_dir_names(lfs_walk *w, int dir, lfs_error *error)
{
    cleanup_close int fd = lfs_walk_opendir(dir, ".");

    if (fd < 0)
        return lfs_walk_fail(w, -fd, "open in a lower layer directory", error);
    return lfs_walk_load(w, fd, false, 0, error);
}

static bool in_upper(const lfs_walk *w, const lfs_walk_dir *dir, const lfs_walk_item *item)
{
    uint64_t low = 0;
    uint64_t high = dir->count;

    while (low < high) {
        uint64_t mid = low + (high - low) / 2;
        int r = lfs_walk_compare(w, item, &lfs_walk_items(w, dir)[mid]);
        if (r == 0)
            return true;
        if (r < 0)
            high = mid;
        else
            low = mid + 1;
    }
    return false;
}

int lfs_lowers_names(lfs_lowers *l, lfs_walk *w, uint64_t *first, lfs_error *error)
{
    const lfs_walk_dir *dir = lfs_walk_top(w);
    lfs_walk_item *items;
    size_t n;
    size_t k = 0;

    *first = w->items.len;
    for (uint64_t i = 0; i < dir->nrefs; i++) {
        lower_ref *ref = ref_at(l, dir, i);
        const lfs_reader *reader = l->list[ref->lower].reader;
        int r = reader != NULL ? load_reader_names(w, reader, ref->nid, error)
                               : ref_fd(l, w, dir, ref, error);

        if (r == 0 && reader == NULL)
            r = load_dir_names(w, ref->fd, error);
        if (r < 0)
            return r;
    }
    n = (w->items.len - *first) / sizeof *items;
    items = (lfs_walk_item *)(void *)(w->items.data + *first);
    lfs_walk_sort(w, items, n);
    for (size_t i = 0; i < n; i++)
        if ((k == 0 || lfs_walk_compare(w, &items[k - 1], &items[i]) != 0) && !in_upper(w, dir, &items[i]))
            items[k++] = items[i];
    w->items.len = *first + k * sizeof *items;
    return 0;
}

void lfs_lowers_free(lfs_lowers *l)
{
    for (size_t i = 0; i < l->refs.len / sizeof(lower_ref); i++) {
        const lower_ref *ref = (const lower_ref *)(const void *)l->refs.data + i;
        if (ref->fd >= 0)
            close(ref->fd);
    }
    for (size_t i = 0; i < l->count; i++)
        if (l->list[i].reader == NULL)
            close(l->list[i].fd);
    free(l->list);
    lfs_buf_free(&l->refs);
    lfs_buf_free(&l->xattrs);
}
