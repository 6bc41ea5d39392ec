/*
 * diff_archive.c - the archive as a whole; see diff.h.
 *
 * The order: a directory before what is in it; in it first `.wh..wh..opq`, then the whiteouts, then all else
 * by the bytes of the names, each directory followed at once by its contents. Everything in an upper is
 * written, the root too ("./"), since overlayfs takes the root's attributes from there. Of two trees only
 * what differs is, and the directories above it, whose headers wait until something below them is due. The
 * second name of an inode is a hard link to the first and repeats its attributes, for readers that apply them
 * again.
 *
 * A socket is left out and counted. Where it hides something of a lower layer (known with lowers added, or
 * with two trees), a whiteout is written in its place.
 */
#define _GNU_SOURCE
#include "diff.h"

#include <sys/sysmacros.h>

/* ---- members ---- */

static void fill_member(const lfs_diff *d, const struct stat *st, lfs_member *m)
{
    m->mode = st->st_mode;
    m->uid = st->st_uid;
    m->gid = st->st_gid;
    m->mtime = st->st_mtim.tv_sec;
    m->mtime_nsec = (uint32_t)st->st_mtim.tv_nsec;
    if (m->mtime > d->options.clamp_mtime ||
        (m->mtime == d->options.clamp_mtime && m->mtime_nsec > 0 && m->mtime != INT64_MAX)) {
        m->mtime = d->options.clamp_mtime;
        m->mtime_nsec = 0;
    }
}

static int write_member(lfs_diff *d, const lfs_member *m, int *fd, bool sparse, lfs_error *error)
{
    int r = lfs_tar_writer_add(&d->out, m, fd, sparse, error);

    if (r == 0)
        d->stats.entries++;
    return r;
}

static int refuse_name(const char *name, const char *path, lfs_error *error)
{
    if (strncmp(name, LFS_WHITEOUT, strlen(LFS_WHITEOUT)) != 0)
        return 0;
    return lfs_fail(error, EINVAL, "write %.150s: a layer cannot hold a name that begins with .wh.", path);
}

/* d->path becomes the first n bytes of the path at hand, and then prefix and name. */
static int make_path(lfs_diff *d, size_t n, const char *prefix, const char *name, lfs_error *error)
{
    lfs_buf *b = &d->path;

    b->len = 0;
    if (lfs_buf_append(b, d->walk.path.data, n) < 0 || lfs_buf_append(b, "/", n > 0) < 0 ||
        lfs_buf_append(b, prefix, strlen(prefix)) < 0 || lfs_buf_append(b, name, strlen(name)) < 0 ||
        lfs_buf_append(b, "", 1) < 0)
        return lfs_fail(error, ENOMEM, "diff");
    b->len--;
    return 0;
}

/* An empty file whose name is the message, in the directory whose path is n bytes long. Nothing of the inode
 * that stands for it goes in, so that the same change gives the same bytes. */
static int write_mark(lfs_diff *d, size_t n, const char *prefix, const char *name, lfs_error *error)
{
    lfs_member m = {.type = '0', .mode = 0600};
    int none = -1;
    int r = make_path(d, n, prefix, name, error);

    if (r < 0)
        return r;
    m.path = d->path.data;
    m.path_len = d->path.len;
    return write_member(d, &m, &none, false, error);
}

static int write_whiteout(lfs_diff *d, lfs_error *error)
{
    const lfs_walk *w = &d->walk;
    int r = refuse_name(w->name, w->path.data, error);

    if (r < 0)
        return r;
    d->stats.whiteouts++;
    d->stats.sockets += w->type == DT_SOCK && !w->pair;
    return write_mark(d, lfs_walk_top(w)->path, LFS_WHITEOUT, w->name, error);
}

static int write_directory(lfs_diff *d, const lfs_walk_dir *dir, lfs_error *error)
{
    lfs_member m = {.type = '5'};
    const char *base;
    int none = -1;
    int r = make_path(d, dir->path, "", dir->path == 0 ? "./" : "", error);

    if (r < 0)
        return r;
    d->path.data[d->path.len - 1] = '\0';
    base = strrchr(d->path.data, '/');
    r = refuse_name(base == NULL ? d->path.data : base + 1, d->path.data, error);
    if (r < 0)
        return r;
    d->path.data[d->path.len - 1] = '/';
    fill_member(d, &dir->st, &m);
    m.path = d->path.data;
    m.path_len = d->path.len;
    m.xattrs = d->walk.names.data + dir->xattrs;
    m.xattrs_len = dir->xattrs_len;
    r = write_member(d, &m, &none, false, error);
    if (r < 0 || !d->walk.upper || !dir->opaque)
        return r;
    d->stats.opaques++;
    return write_mark(d, dir->path, "", LFS_WHITEOUT_OPAQUE, error);
}

static char member_type(mode_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFLNK:
        return '2';
    case S_IFCHR:
        return '3';
    case S_IFBLK:
        return '4';
    case S_IFIFO:
        return '6';
    default:
        return '0';
    }
}

/* Another name of an inode that has been written: m becomes a hard link. Else the name is kept. */
static int link_member(lfs_diff *d, lfs_member *m, lfs_error *error)
{
    const struct stat *st = &d->walk.st[LFS_SIDE_TO];
    bool made;
    lfs_link *link;

    if (st->st_nlink < 2)
        return 0;
    link = lfs_links_at(&d->links, st->st_dev, st->st_ino, &made);
    if (link == NULL)
        return lfs_fail(error, ENOMEM, "diff");
    if (made) {
        link->a = d->link_paths.len;
        link->b = m->path_len;
        if (lfs_buf_append(&d->link_paths, m->path, m->path_len) < 0)
            return lfs_fail(error, ENOMEM, "diff");
        return 0;
    }
    m->type = '1';
    m->link = d->link_paths.data + link->a;
    m->link_len = link->b;
    return 0;
}

int lfs_diff_check_marks(const lfs_diff *d, const lfs_marks *marks, lfs_error *error)
{
    if (!marks->metacopy)
        return 0;
    return lfs_fail(error, EOPNOTSUPP, "diff %.150s: overlayfs has copied up its attributes only (metacopy)",
                    d->walk.path.data);
}

/* What goes with the type of the member: target, device, content. */
static int fill_body(lfs_diff *d, lfs_member *m, int *fd, lfs_error *error)
{
    const struct stat *st = &d->walk.st[LFS_SIDE_TO];
    int r = 0;

    if (m->type == '2') {
        r = lfs_diff_readlink(&d->walk, d->walk.fd[LFS_SIDE_TO], &d->target[0], error);
        m->link = d->target[0].data;
        m->link_len = d->target[0].len;
    } else if (m->type == '3' || m->type == '4') {
        m->rdev_major = major(st->st_rdev);
        m->rdev_minor = minor(st->st_rdev);
        if (m->type == '3' && st->st_rdev == 0)
            return lfs_fail(error, EINVAL, "write %.150s: device 0:0 would be a whiteout", m->path);
    } else if (m->type == '0') {
        m->size = (uint64_t)st->st_size;
        d->stats.bytes += m->size;
        if (m->size > 0 && *fd < 0)
            *fd = r = lfs_diff_reopen(&d->walk, LFS_SIDE_TO, error);
    }
    return r < 0 ? r : 0;
}

/* The attributes of the file at hand. One whose content is written for sure is opened already: its own descriptor
 * spares the way through /proc. */
static int file_xattrs(lfs_diff *d, int *fd, lfs_marks *marks, lfs_error *error)
{
    lfs_walk *w = &d->walk;
    const struct stat *st = &w->st[LFS_SIDE_TO];
    int r;

    if (S_ISREG(st->st_mode) && st->st_size > 0 && st->st_nlink < 2) {
        *fd = lfs_diff_reopen(w, LFS_SIDE_TO, error);
        if (*fd < 0)
            return *fd;
    }
    d->xattrs[0].len = 0;
    r = lfs_xattrs_read(&w->xattrs, *fd >= 0 ? *fd : w->fd[LFS_SIDE_TO], *fd < 0, &d->xattrs[0], marks);
    return r < 0 ? lfs_walk_fail(w, -r, "read extended attributes of", error) : 0;
}

static int write_file(lfs_diff *d, lfs_error *error)
{
    lfs_walk *w = &d->walk;
    const struct stat *st = &w->st[LFS_SIDE_TO];
    lfs_member m = {.path = w->path.data, .path_len = w->path.len, .type = member_type(st->st_mode)};
    cleanup_close int fd = -1;
    lfs_marks marks;
    bool sparse;
    int r;

    if (S_ISSOCK(st->st_mode)) {
        d->stats.sockets++;
        return 0;
    }
    r = refuse_name(w->name, w->path.data, error);
    if (r < 0)
        return r;
    r = file_xattrs(d, &fd, &marks, error);
    if (r < 0)
        return r;
    if (marks.whiteout && S_ISREG(st->st_mode) && st->st_size == 0)
        return write_whiteout(d, error);
    r = lfs_diff_check_marks(d, &marks, error);
    if (r == 0)
        r = link_member(d, &m, error);
    if (r == 0)
        r = fill_body(d, &m, &fd, error);
    if (r < 0)
        return r;
    fill_member(d, st, &m);
    m.xattrs = d->xattrs[0].data;
    m.xattrs_len = d->xattrs[0].len;
    sparse = d->options.sparse_min > 0 && m.size >= d->options.sparse_min &&
             (uint64_t)st->st_blocks * 512 < m.size;
    return write_member(d, &m, &fd, sparse, error);
}

/* ---- the walk ---- */

/* A socket that hides something becomes a whiteout, which has to come before the other names. */
static int hide_sockets(lfs_diff *d, lfs_walk_dir *dir, lfs_error *error)
{
    lfs_walk *w = &d->walk;

    if (!w->pair && (d->lowers.count == 0 || dir->hidden))
        return 0;
    for (uint64_t i = 0; i < dir->count; i++) {
        lfs_walk_item *item = &lfs_walk_items(w, dir)[i];
        lfs_lower_found found = {0};
        int r = 0;

        if (item->type != DT_SOCK || (item->flags & LFS_ITEM_WHITEOUT))
            continue;
        if (w->pair)
            found.exists = (item->flags & LFS_ITEM_FROM) && item->from_type != DT_SOCK;
        else
            r = lfs_lowers_find(&d->lowers, w, dir, w->names.data + item->name, item->len, &found, error);
        if (r < 0)
            return r;
        if (found.exists)
            item->flags |= LFS_ITEM_WHITEOUT;
        d->stats.sockets += found.exists && w->pair;
    }
    return 0;
}

static int on_directory(lfs_diff *d, lfs_error *error)
{
    lfs_lower_found found = {0};
    int r = d->lowers.count == 0 ? 0 : lfs_lowers_enter(&d->lowers, &d->walk, &found, error);

    if (r == 0)
        r = hide_sockets(d, lfs_walk_top(&d->walk), error);
    if (r < 0)
        return r;
    return d->walk.pair ? lfs_diff_differs(d, error) : 1;
}

/* A member of what is due: the directories that wait come first. */
static int write_due(lfs_diff *d, lfs_error *error)
{
    int event = d->walk.last;

    if (d->written < d->walk.depth) {
        int r = write_directory(d, &d->walk.dirs[d->written], error);
        d->written++;
        d->due = event != LFS_WALK_DIR || d->written < d->walk.depth;
        return r;
    }
    d->due = false;
    return event == LFS_WALK_WHITEOUT ? write_whiteout(d, error) : write_file(d, error);
}

/* One step of the walk; sets d->due when there is something to write. */
static int advance(lfs_diff *d, lfs_error *error)
{
    int event = lfs_walk_next(&d->walk, error);
    int r = event < 0 ? event : 0;

    switch (event) {
    case LFS_WALK_DIR:
        r = on_directory(d, error);
        break;
    case LFS_WALK_FILE:
        r = d->walk.pair ? lfs_diff_differs(d, error) : 1;
        if (r == 1 && S_ISSOCK(d->walk.st[LFS_SIDE_TO].st_mode) && d->walk.pair) {
            d->stats.sockets++;
            r = 0;
        }
        break;
    case LFS_WALK_WHITEOUT:
        r = 1;
        break;
    case LFS_WALK_LEAVE:
        lfs_lowers_leave(&d->lowers, lfs_walk_top(&d->walk));
        if (d->written == d->walk.depth)
            d->written--;
        break;
    case LFS_WALK_END:
        d->ended = true;
        if (lfs_tar_writer_end(&d->out) < 0)
            r = lfs_fail(error, ENOMEM, "diff");
        break;
    default:
        break;
    }
    d->due = r == 1;
    return r < 0 ? r : 0;
}

int lfs_diff_step(lfs_diff *d, lfs_error *error)
{
    return d->due ? write_due(d, error) : advance(d, error);
}
