/* diff.c - the handle of lfs_diff_*; see diff.h. */
#define _GNU_SOURCE
#include "diff.h"

#include <fcntl.h>

static int begin(lfs_diff *d, int use, lfs_error *error)
{
    if (d->use == use)
        return 0;
    if (d->use != 0)
        return lfs_fail(error, EINVAL, "diff: a handle gives an archive or a list, not both");
    d->use = use;
    return d->walk.pair ? lfs_diff_group(d, error) : 0;
}

int64_t lfs_diff_read(lfs_diff *d, void *buf, size_t cap, lfs_error *error)
{
    char *out = buf;
    size_t done = 0;
    int r = cap == 0 ? lfs_fail(error, EINVAL, "diff: no buffer") : begin(d, 'r', error);

    if (r < 0)
        return r;
    for (;;) {
        int64_t n = lfs_tar_writer_read(&d->out, out + done, cap - done, error);

        if (n < 0)
            return n;
        done += (size_t)n;
        if (done == cap || d->ended)
            return (int64_t)done;
        r = lfs_diff_step(d, error);
        if (r < 0)
            return r;
    }
}

int64_t lfs_diff_changes(lfs_diff *d, void *buf, size_t cap, lfs_error *error)
{
    int r = begin(d, 'l', error);

    if (r == 0 && !d->ended)
        r = lfs_diff_collect(d, error);
    d->ended = true;
    return r < 0 ? r : lfs_diff_take(d, buf, cap, error);
}

/* ---- the handle ---- */

static int diff_open(int from, int to, const lfs_diff_options *options, lfs_diff **out, lfs_error *error)
{
    lfs_diff *d;
    bool tree = from >= 0 || (options->flags & LFS_DIFF_TREE);
    int r;

    if (options->flags & ~(uint32_t)(LFS_DIFF_USERXATTR | LFS_DIFF_TREE))
        return lfs_fail(error, EINVAL, "diff: unknown flags %#x", options->flags);
    d = calloc(1, sizeof *d);
    if (d == NULL)
        return lfs_fail(error, ENOMEM, "diff");
    d->options = *options;
    d->out.fd = -1;
    d->walk.upper = !tree;
    if (!tree)
        d->walk.xattrs.own = options->flags & LFS_DIFF_USERXATTR ? "user.overlay." : "trusted.overlay.";
    r = lfs_walk_init(&d->walk, to, from, error);
    if (r < 0) {
        lfs_diff_free(d);
        return r;
    }
    *out = d;
    return 0;
}

int lfs_diff_open(int fd, const lfs_diff_options *options, lfs_diff **out, lfs_error *error)
{
    return diff_open(-1, fd, options, out, error);
}

int lfs_diff_open_trees(int from, int to, const lfs_diff_options *options, lfs_diff **out, lfs_error *error)
{
    if (from < 0)
        return lfs_fail(error, EBADF, "open directory");
    return diff_open(from, to, options, out, error);
}

static int add_lower(lfs_diff *d, lfs_lower lower, lfs_error *error)
{
    lfs_lower *list;

    if (!d->walk.upper || d->use != 0)
        return lfs_fail(error, EINVAL, "diff: lowers are added to an upper, and before anything is read");
    list = realloc(d->lowers.list, (d->lowers.count + 1) * sizeof *list);
    if (list == NULL)
        return lfs_fail(error, ENOMEM, "diff");
    list[d->lowers.count++] = lower;
    d->lowers.list = list;
    return 0;
}

int lfs_diff_add_lower(lfs_diff *d, const lfs_reader *lower, lfs_error *error)
{
    return add_lower(d, (lfs_lower){.reader = lower, .fd = -1}, error);
}

int lfs_diff_add_lower_dir(lfs_diff *d, int fd, lfs_error *error)
{
    cleanup_close int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    int r;

    if (copy < 0)
        return lfs_fail(error, errno, "open lower directory");
    r = add_lower(d, (lfs_lower){.fd = copy}, error);
    if (r == 0)
        (void)lfs_steal_fd(&copy);
    return r;
}

void lfs_diff_stats_get(const lfs_diff *d, lfs_diff_stats *stats)
{
    *stats = d->stats;
}

void lfs_diff_free(lfs_diff *d)
{
    if (d == NULL)
        return;
    lfs_walk_free(&d->walk);
    lfs_lowers_free(&d->lowers);
    lfs_tar_writer_free(&d->out);
    lfs_links_free(&d->links);
    lfs_links_free(&d->groups);
    lfs_links_free(&d->claims);
    lfs_buf_free(&d->link_paths);
    for (int side = 0; side < 2; side++) {
        lfs_buf_free(&d->xattrs[side]);
        lfs_buf_free(&d->target[side]);
    }
    lfs_buf_free(&d->path);
    lfs_buf_free(&d->list);
    lfs_buf_free(&d->order);
    free(d->compare);
    free(d);
}
