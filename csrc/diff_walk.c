/* diff_walk.c - see diff.h. */
#define _GNU_SOURCE
#include "diff.h"

#include <fcntl.h>

int lfs_walk_fail(const lfs_walk *w, int err, const char *what, lfs_error *error)
{
    return lfs_fail(error, err, "%s %.200s", what, w->path.len > 0 ? w->path.data : ".");
}

/* ---- descriptors ---- */

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

int lfs_walk_opendir(int fd, const char *name)
{
    int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    int r = openat(fd, name, flags | O_NOATIME);

    if (r < 0 && errno == EPERM)
        r = openat(fd, name, flags);
    return r < 0 ? -errno : r;
}

/* Deep down, the directories far above are closed; the way back to them is "..". A directory whose child is
 * on this side no longer stays open, as there is no way back to it. */
static int close_distant(lfs_walk *w, lfs_error *error)
{
    lfs_walk_dir *dir;

    if (w->depth <= LFS_WALK_FDS)
        return 0;
    dir = &w->dirs[w->depth - 1 - LFS_WALK_FDS];
    for (int side = 0; side < 2; side++) {
        struct stat st;

        if (!dir[1].has[side])
            continue;
        if (fstat(dir->fd[side], &st) < 0)
            return lfs_walk_fail(w, errno, "stat", error);
        dir->dev[side] = st.st_dev;
        dir->ino[side] = st.st_ino;
        close_fd(&dir->fd[side]);
    }
    return 0;
}

static int reopen(lfs_walk *w, lfs_walk_dir *dir, const lfs_walk_dir *child, lfs_error *error)
{
    for (int side = 0; side < 2; side++) {
        struct stat st;

        if (!dir->has[side] || dir->fd[side] >= 0)
            continue;
        dir->fd[side] = lfs_walk_opendir(child->fd[side], "..");
        if (dir->fd[side] < 0)
            return lfs_walk_fail(w, -dir->fd[side], "open directory", error);
        if (fstat(dir->fd[side], &st) < 0)
            return lfs_walk_fail(w, errno, "open directory", error);
        if (st.st_dev != dir->dev[side] || st.st_ino != dir->ino[side])
            return lfs_walk_fail(w, EAGAIN, "directory moved while it was read:", error);
    }
    return 0;
}

/* ---- going down and up ---- */

static int grow_dirs(lfs_walk *w)
{
    size_t cap = w->cap == 0 ? 64 : w->cap * 2;
    lfs_walk_dir *dirs;

    if (w->depth < w->cap)
        return 0;
    dirs = realloc(w->dirs, cap * sizeof *dirs);
    if (dirs == NULL)
        return -ENOMEM;
    w->dirs = dirs;
    w->cap = cap;
    return 0;
}

static int load_items(lfs_walk *w, lfs_walk_dir *dir, lfs_error *error)
{
    int r;

    dir->items = w->items.len;
    r = lfs_walk_load(w, dir->fd[LFS_SIDE_TO], w->upper, LFS_ITEM_TO, error);
    if (r == 0 && dir->has[LFS_SIDE_FROM])
        r = lfs_walk_load(w, dir->fd[LFS_SIDE_FROM], false, LFS_ITEM_FROM, error);
    if (r < 0)
        return r;
    dir->count = (w->items.len - dir->items) / sizeof(lfs_walk_item);
    lfs_walk_sort(w, lfs_walk_items(w, dir), dir->count);
    if (dir->has[LFS_SIDE_FROM]) {
        dir->count = lfs_walk_join(w, lfs_walk_items(w, dir), dir->count);
        w->items.len = dir->items + dir->count * sizeof(lfs_walk_item);
    }
    return 0;
}

/* The directory becomes the top of the walk; the descriptors are taken over, also on failure. */
static int enter(lfs_walk *w, int fds[2], lfs_error *error)
{
    lfs_marks marks;
    lfs_walk_dir *dir;
    int r;

    if (w->depth > LFS_DIFF_MAX_DEPTH)
        return lfs_fail(error, ENAMETOOLONG, "diff %.150s: more than %u directories deep", w->path.data,
                        LFS_DIFF_MAX_DEPTH);
    if (grow_dirs(w) < 0)
        return lfs_fail(error, ENOMEM, "diff");
    dir = &w->dirs[w->depth++];
    *dir = (lfs_walk_dir){.names = w->names.len, .items = w->items.len, .path = w->path.len};
    for (int side = 0; side < 2; side++) {
        struct stat st = {0};

        dir->fd[side] = lfs_steal_fd(&fds[side]);
        dir->has[side] = dir->fd[side] >= 0;
        if (dir->has[side] && !w->light && fstat(dir->fd[side], &st) < 0)
            return lfs_walk_fail(w, errno, "stat", error);
        w->st[side] = st;
    }
    dir->st = w->st[LFS_SIDE_TO];
    r = close_distant(w, error);
    if (r < 0)
        return r;
    r = lfs_xattrs_read(&w->xattrs, dir->fd[LFS_SIDE_TO], false, &w->names, &marks);
    if (r < 0)
        return lfs_walk_fail(w, -r, "read extended attributes of", error);
    dir->xattrs = dir->names;
    dir->xattrs_len = w->names.len - dir->names;
    dir->opaque = marks.opaque;
    dir->whiteouts = marks.whiteouts;
    dir->hidden = marks.opaque || (w->depth > 1 && dir[-1].hidden);
    if (marks.redirect && !marks.opaque)
        return lfs_fail(error, EOPNOTSUPP,
                        "diff %.120s: renamed by overlayfs (redirect_dir), its content is in a lower layer",
                        w->path.data);
    return load_items(w, dir, error);
}

static int enter_root(lfs_walk *w, lfs_error *error)
{
    int fds[2] = {-1, -1};
    int r;

    w->in_from = w->pair;
    w->name = "";
    w->name_len = 0;
    for (int side = 0; side <= w->pair; side++) {
        fds[side] = lfs_walk_opendir(w->root[side], ".");
        if (fds[side] < 0) {
            r = -fds[side];
            close_fd(&fds[LFS_SIDE_TO]);
            return lfs_fail(error, r, "open directory");
        }
    }
    r = enter(w, fds, error);
    close_fd(&fds[LFS_SIDE_TO]);
    close_fd(&fds[LFS_SIDE_FROM]);
    return r < 0 ? r : LFS_WALK_DIR;
}

static void pop(lfs_walk *w)
{
    lfs_walk_dir *dir = lfs_walk_top(w);

    close_fd(&dir->fd[LFS_SIDE_TO]);
    close_fd(&dir->fd[LFS_SIDE_FROM]);
    w->names.len = dir->names;
    w->items.len = dir->items;
    w->depth--;
}

static int leave(lfs_walk *w, lfs_error *error)
{
    int r = 0;

    if (w->depth > 1)
        r = reopen(w, lfs_walk_top(w) - 1, lfs_walk_top(w), error);
    pop(w);
    return r;
}

/* ---- one name ---- */

static int set_path(lfs_walk *w, const lfs_walk_dir *dir, const lfs_walk_item *item)
{
    w->path.len = dir->path;
    if (lfs_buf_reserve(&w->path, item->len + 2u) < 0)
        return -ENOMEM;
    if (w->path.len > 0)
        w->path.data[w->path.len++] = '/';
    w->name = w->path.data + w->path.len;
    w->name_len = item->len;
    memcpy(w->path.data + w->path.len, w->names.data + item->name, item->len + 1u);
    w->path.len += item->len;
    return 0;
}

static int open_entry(lfs_walk *w, const lfs_walk_dir *dir, int side, lfs_error *error)
{
    w->fd[side] = openat(dir->fd[side], w->name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (w->fd[side] < 0)
        return errno == ENOENT ? -ENOENT : lfs_walk_fail(w, errno, "open", error);
    if (fstat(w->fd[side], &w->st[side]) < 0)
        return lfs_walk_fail(w, errno, "stat", error);
    return 0;
}

int lfs_walk_open(lfs_walk *w, lfs_error *error)
{
    int r = open_entry(w, lfs_walk_top(w), LFS_SIDE_TO, error);

    if (r < 0)
        return r == -ENOENT ? 0 : r;
    w->type = (uint8_t)IFTODT(w->st[LFS_SIDE_TO].st_mode);
    return 1;
}

/* Open the directory under the name at hand. -ENOENT, or -ENOTDIR: it is gone, or something else stands there by now. */
static int open_directory(lfs_walk *w, const lfs_walk_dir *dir, int side, int *fd, lfs_error *error)
{
    int r = lfs_walk_opendir(dir->fd[side], w->name);

    if (r == -ELOOP)
        r = -ENOTDIR;
    if (r < 0)
        return r == -ENOENT || r == -ENOTDIR ? r : lfs_walk_fail(w, -r, "open directory", error);
    *fd = r;
    return 0;
}

/* The entry at hand is a directory, in `from` too if it is one there. */
static int enter_entry(lfs_walk *w, const lfs_walk_dir *dir, const lfs_walk_item *item, lfs_error *error)
{
    int fds[2] = {-1, -1};
    int r = open_directory(w, dir, LFS_SIDE_TO, &fds[LFS_SIDE_TO], error);

    if (r == 0 && w->in_from && item->from_type == DT_DIR) {
        r = open_directory(w, dir, LFS_SIDE_FROM, &fds[LFS_SIDE_FROM], error);
        if (r == -ENOENT)
            w->in_from = false;
        if (r == -ENOENT || r == -ENOTDIR)
            r = 0;
    }
    if (r == 0)
        r = enter(w, fds, error);
    close_fd(&fds[LFS_SIDE_TO]);
    close_fd(&fds[LFS_SIDE_FROM]);
    return r == 0 ? LFS_WALK_DIR : r;
}

static int visit_file(lfs_walk *w, const lfs_walk_dir *dir, const lfs_walk_item *item, lfs_error *error)
{
    int r = open_entry(w, dir, LFS_SIDE_TO, error);

    if (r == 0 && w->in_from) {
        r = open_entry(w, dir, LFS_SIDE_FROM, error);
        if (r == -ENOENT) {
            w->in_from = false;
            r = 0;
        }
    }
    if (r < 0)
        return r;
    w->type = (uint8_t)IFTODT(w->st[LFS_SIDE_TO].st_mode);
    if (w->type != DT_DIR)
        return LFS_WALK_FILE;
    close_fd(&w->fd[LFS_SIDE_TO]);
    close_fd(&w->fd[LFS_SIDE_FROM]);
    return enter_entry(w, dir, item, error);
}

/* The event of a name, or 0 if there is nothing there any more. What it was when its directory was read is what it
 * is taken for, but something else may stand there by now. */
static int visit(lfs_walk *w, const lfs_walk_dir *dir, const lfs_walk_item *item, lfs_error *error)
{
    int r = -ENOTDIR;

    if (set_path(w, dir, item) < 0)
        return lfs_fail(error, ENOMEM, "diff");
    w->in_from = item->flags & LFS_ITEM_FROM;
    w->type = item->type;
    if (item->flags & LFS_ITEM_WHITEOUT)
        return LFS_WALK_WHITEOUT;
    if (w->light && item->type != DT_DIR)
        return LFS_WALK_FILE;
    if (item->type == DT_DIR)
        r = enter_entry(w, dir, item, error);
    if (r == -ENOTDIR)
        r = visit_file(w, dir, item, error);
    return r == -ENOENT || r == -ENOTDIR ? 0 : r;
}

static int step(lfs_walk *w, lfs_error *error)
{
    int event = 0;

    while (event == 0) {
        lfs_walk_dir *dir = lfs_walk_top(w);

        close_fd(&w->fd[LFS_SIDE_TO]);
        close_fd(&w->fd[LFS_SIDE_FROM]);
        if (dir->at < dir->count) {
            lfs_walk_item item = lfs_walk_items(w, dir)[dir->at++];
            if (!(item.flags & LFS_ITEM_WHITEOUT) == dir->second)
                event = visit(w, dir, &item, error);
        } else if (!dir->second) {
            dir->second = true;
            dir->at = 0;
        } else {
            w->path.len = dir->path;
            w->path.data[w->path.len] = '\0';
            event = LFS_WALK_LEAVE;
        }
    }
    return event;
}

int lfs_walk_next(lfs_walk *w, lfs_error *error)
{
    int r = 0;

    if (w->last == LFS_WALK_LEAVE)
        r = leave(w, error);
    if (r < 0 || w->last == LFS_WALK_END)
        return r < 0 ? r : LFS_WALK_END;
    if (w->last == 0)
        w->last = enter_root(w, error);
    else
        w->last = w->depth == 0 ? LFS_WALK_END : step(w, error);
    return w->last;
}

int lfs_walk_init(lfs_walk *w, int to, int from, lfs_error *error)
{
    w->fd[0] = w->fd[1] = -1;
    w->root[LFS_SIDE_TO] = fcntl(to, F_DUPFD_CLOEXEC, 3);
    w->root[LFS_SIDE_FROM] = from < 0 ? -1 : fcntl(from, F_DUPFD_CLOEXEC, 3);
    if (w->root[LFS_SIDE_TO] < 0 || (from >= 0 && w->root[LFS_SIDE_FROM] < 0))
        return lfs_fail(error, errno, "open directory");
    w->pair = from >= 0;
    w->dents = malloc(LFS_WALK_DENTS);
    if (w->dents == NULL || lfs_buf_append(&w->path, "", 1) < 0)
        return lfs_fail(error, ENOMEM, "diff");
    w->path.len = 0;
    return 0;
}

void lfs_walk_rewind(lfs_walk *w)
{
    close_fd(&w->fd[LFS_SIDE_TO]);
    close_fd(&w->fd[LFS_SIDE_FROM]);
    while (w->depth > 0)
        pop(w);
    w->path.len = 0;
    w->path.data[0] = '\0';
    w->last = 0;
}

void lfs_walk_free(lfs_walk *w)
{
    if (w->path.data != NULL)
        lfs_walk_rewind(w);
    close_fd(&w->root[LFS_SIDE_TO]);
    close_fd(&w->root[LFS_SIDE_FROM]);
    lfs_xattrs_free(&w->xattrs);
    lfs_buf_free(&w->names);
    lfs_buf_free(&w->items);
    lfs_buf_free(&w->path);
    free(w->dirs);
    free(w->dents);
}
