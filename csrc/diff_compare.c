/*
 * diff_compare.c - whether a name of two trees means the same in both; see diff.h.
 *
 * Content is compared byte by byte whenever everything else agrees: equal times prove nothing. Which names
 * are one inode belongs to a tree too, and no name alone shows it: a layer that writes one name of an inode
 * cuts it off from the others. So a walk before the first counts, for names that are or were hard links,
 * which inode of one tree goes with which of the other; where they do not match one to one, or a name has
 * changed, all names of the inode are written.
 */
#define _GNU_SOURCE
#include "diff.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>

#define PIECE (128u << 10)

static bool same_attributes(const struct stat *a, const struct stat *b)
{
    if (a->st_mode != b->st_mode || a->st_uid != b->st_uid || a->st_gid != b->st_gid ||
        a->st_mtim.tv_sec != b->st_mtim.tv_sec || a->st_mtim.tv_nsec != b->st_mtim.tv_nsec)
        return false;
    if (S_ISCHR(a->st_mode) || S_ISBLK(a->st_mode))
        return a->st_rdev == b->st_rdev;
    return !S_ISREG(a->st_mode) || a->st_size == b->st_size;
}

static int compare_xattrs(lfs_diff *d, const int fd[2], bool opath, lfs_error *error)
{
    lfs_marks marks;

    for (int side = 0; side < 2; side++) {
        int r;
        d->xattrs[side].len = 0;
        r = lfs_xattrs_read(&d->walk.xattrs, fd[side], opath, &d->xattrs[side], &marks);
        if (r < 0)
            return lfs_walk_fail(&d->walk, -r, "read extended attributes of", error);
    }
    return d->xattrs[0].len != d->xattrs[1].len ||
           (d->xattrs[0].len > 0 && memcmp(d->xattrs[0].data, d->xattrs[1].data, d->xattrs[0].len) != 0);
}

static int compare_targets(lfs_diff *d, lfs_error *error)
{
    for (int side = 0; side < 2; side++) {
        int r = lfs_diff_readlink(&d->walk, d->walk.fd[side], &d->target[side], error);
        if (r < 0)
            return r;
    }
    return d->target[0].len != d->target[1].len ||
           memcmp(d->target[0].data, d->target[1].data, d->target[0].len) != 0;
}

static int compare_open(lfs_diff *d, const int fd[2], lfs_error *error)
{
    for (uint64_t offset = 0;; offset += PIECE) {
        int64_t a = lfs_pread_all(fd[0], d->compare, PIECE, offset);
        int64_t b = lfs_pread_all(fd[1], d->compare + PIECE, PIECE, offset);

        if (a < 0 || b < 0)
            return lfs_walk_fail(&d->walk, (int)-(a < 0 ? a : b), "read", error);
        if (a != b || memcmp(d->compare, d->compare + PIECE, (size_t)a) != 0)
            return 1;
        if (a < PIECE)
            return 0;
    }
}

static int compare_content(lfs_diff *d, lfs_error *error)
{
    cleanup_close int to = lfs_diff_reopen(&d->walk, LFS_SIDE_TO, error);
    cleanup_close int from = to < 0 ? -1 : lfs_diff_reopen(&d->walk, LFS_SIDE_FROM, error);
    int fd[2] = {to, from};

    if (to < 0 || from < 0)
        return to < 0 ? to : from;
    if (d->compare == NULL)
        d->compare = malloc(2 * (size_t)PIECE);
    if (d->compare == NULL)
        return lfs_fail(error, ENOMEM, "diff");
    return compare_open(d, fd, error);
}

static int differs(lfs_diff *d, lfs_error *error)
{
    const lfs_walk *w = &d->walk;
    const struct stat *st = w->st;
    bool dir = S_ISDIR(st[0].st_mode);
    int r;

    if (!w->in_from)
        return 1;
    if (st[0].st_dev == st[1].st_dev && st[0].st_ino == st[1].st_ino)
        return 0;
    if (!same_attributes(&st[0], &st[1]))
        return 1;
    r = dir ? compare_xattrs(d, lfs_walk_top(w)->fd, false, error) : compare_xattrs(d, w->fd, true, error);
    if (r == 0 && S_ISLNK(st[0].st_mode))
        r = compare_targets(d, error);
    if (r == 0 && S_ISREG(st[0].st_mode) && st[0].st_size > 0)
        r = compare_content(d, error);
    return r;
}

static bool is_linked(const lfs_walk *w)
{
    return w->st[LFS_SIDE_TO].st_nlink > 1 || (w->in_from && w->st[LFS_SIDE_FROM].st_nlink > 1);
}

int lfs_diff_differs(lfs_diff *d, lfs_error *error)
{
    const struct stat *st = d->walk.st;
    bool made;

    if (d->grouped && !S_ISDIR(st[0].st_mode) && is_linked(&d->walk)) {
        const lfs_link *group = lfs_links_at(&d->groups, st[0].st_dev, st[0].st_ino, &made);
        if (group == NULL)
            return lfs_fail(error, ENOMEM, "diff");
        if (made || group->flag)
            return 1;
    }
    return differs(d, error);
}

/* Two inodes of `to` that both stand where one of `from` stood: that one was taken apart. */
static int claim(lfs_diff *d, lfs_link *group, lfs_error *error)
{
    const struct stat *st = d->walk.st;
    bool made;
    lfs_link *claim = lfs_links_at(&d->claims, st[1].st_dev, st[1].st_ino, &made);

    if (claim == NULL)
        return lfs_fail(error, ENOMEM, "diff");
    if (made) {
        claim->a = st[0].st_dev;
        claim->b = st[0].st_ino;
    } else if (claim->a != st[0].st_dev || claim->b != st[0].st_ino) {
        group->flag = true;
    }
    return 0;
}

static int note_link(lfs_diff *d, lfs_error *error)
{
    const struct stat *st = d->walk.st;
    int changed = differs(d, error);
    bool made;
    lfs_link *group;

    if (changed < 0)
        return changed;
    group = lfs_links_at(&d->groups, st[0].st_dev, st[0].st_ino, &made);
    if (group == NULL)
        return lfs_fail(error, ENOMEM, "diff");
    if (changed) {
        group->flag = true;
        return 0;
    }
    if (made) {
        group->a = st[1].st_dev;
        group->b = st[1].st_ino;
    } else if (group->a != st[1].st_dev || group->b != st[1].st_ino) {
        group->flag = true;
    }
    return claim(d, group, error);
}

int lfs_diff_group(lfs_diff *d, lfs_error *error)
{
    int event;

    while ((event = lfs_walk_next(&d->walk, error)) != LFS_WALK_END) {
        int r = event == LFS_WALK_FILE && is_linked(&d->walk) ? note_link(d, error) : 0;
        if (event < 0 || r < 0)
            return event < 0 ? event : r;
    }
    lfs_walk_rewind(&d->walk);
    d->grouped = true;
    return 0;
}

/* ---- what stands at the entry at hand ---- */

int lfs_diff_reopen(const lfs_walk *w, int side, lfs_error *error)
{
    char path[32];
    int fd;

    snprintf(path, sizeof path, "/proc/self/fd/%d", w->fd[side]);
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOATIME);
    if (fd < 0 && errno == EPERM)
        fd = open(path, O_RDONLY | O_CLOEXEC);
    return fd < 0 ? lfs_walk_fail(w, errno, "open", error) : fd;
}

int lfs_diff_readlink(const lfs_walk *w, int fd, lfs_buf *target, lfs_error *error)
{
    ssize_t n;

    target->len = 0;
    if (lfs_buf_reserve(target, PATH_MAX) < 0)
        return lfs_fail(error, ENOMEM, "diff");
    n = readlinkat(fd, "", target->data, PATH_MAX);
    if (n < 0)
        return lfs_walk_fail(w, errno, "read link", error);
    target->len = (size_t)n;
    return 0;
}
