/*
 * unpack.c - tar in, layer out: the rules of OCI layers over the parser (tar.h), the tree (tree.h) and the
 * two formats (backend.h).
 *
 * A layer is unpacked without its parents. So whiteouts and opaque marks become what overlayfs wants of an
 * upper layer, and every path is resolved in this layer's own tree, in memory: a symbolic link that an
 * archive planted cannot lead anywhere else. What the tree is does not depend on the format.
 *
 * Source: image-spec, layer.md ("Whiteouts", "Applying Changesets"); GNU tar where that is silent.
 */
#define _GNU_SOURCE
#include "unpack.h"

/* ---- content ---- */

/* The gap up to where the next content belongs. */
static int fill_gap(lfs_unpack *u, uint64_t to, lfs_error *error)
{
    int r = 0;

    if (to > u->file_pos)
        r = u->backend->ops->hole(u->backend, to - u->file_pos, error);
    u->file_pos = to;
    return r;
}

static int sparse_data(lfs_unpack *u, const lfs_tar_entry *e, const uint8_t *p, size_t n, lfs_error *error)
{
    const lfs_tar_segment *map = (const void *)e->map.data;
    size_t count = e->map.len / sizeof *map;

    while (n > 0 && u->segment < count) {
        const lfs_tar_segment *s = &map[u->segment];
        uint64_t left = s->length - u->segment_done;
        size_t k = left < n ? (size_t)left : n;
        int r = fill_gap(u, s->offset + u->segment_done, error);

        if (r == 0 && k > 0)
            r = u->backend->ops->data(u->backend, p, k, error);
        if (r < 0)
            return r;
        u->file_pos += k;
        u->segment_done += k;
        p += k;
        n -= k;
        if (u->segment_done == s->length) {
            u->segment++;
            u->segment_done = 0;
        }
    }
    return 0;
}

static int member_data(lfs_unpack *u, const uint8_t *p, size_t n, lfs_error *error)
{
    const lfs_tar_entry *e = lfs_tar_current(u->tar);

    if (u->content == CONTENT_RAW)
        return lfs_rest_raw(&u->rest, p, n) < 0 ? unpack_oom(error) : 0;
    if (e->sparse)
        return sparse_data(u, e, p, n, error);
    u->file_pos += n;
    return u->backend->ops->data(u->backend, p, n, error);
}

static int end_member(lfs_unpack *u, lfs_error *error)
{
    const lfs_tar_entry *e = lfs_tar_current(u->tar);
    int r = 0;

    if (u->content != CONTENT_FILE)
        return 0;
    if (e->sparse)
        r = fill_gap(u, e->size, error);
    return r < 0 ? r : u->backend->ops->end(u->backend, error);
}

/* ---- interface ---- */

int lfs_unpack_open(int fd, const lfs_unpack_options *options, lfs_unpack **out, lfs_error *error)
{
    static const uint32_t known = LFS_UNPACK_DIR | LFS_UNPACK_USERXATTR | LFS_UNPACK_NO_CHOWN;
    lfs_unpack *u;
    int r;

    if ((options->flags & ~known) != 0)
        return lfs_fail(error, EINVAL, "unpack: unknown flags %#x", options->flags & ~known);
    u = calloc(1, sizeof *u);
    if (u == NULL)
        return unpack_oom(error);
    u->options = *options;
    lfs_rest_init(&u->rest, options->flags & LFS_UNPACK_DIR);
    u->tar = lfs_tar_new();
    if (u->tar == NULL || lfs_tree_init(&u->tree) < 0)
        r = unpack_oom(error);
    else if (options->flags & LFS_UNPACK_DIR)
        r = lfs_dir_backend(fd, options->flags, &u->tree, &u->rest, &u->backend, error);
    else
        r = lfs_erofs_backend(fd, options->block_size, &u->tree, &u->rest, &u->backend, error);
    if (r < 0) {
        lfs_unpack_free(u);
        return r;
    }
    *out = u;
    return 0;
}

int lfs_unpack_write(lfs_unpack *u, const void *buf, size_t n, lfs_error *error)
{
    const uint8_t *p = buf;
    const uint8_t *span = NULL;
    size_t span_len = 0;

    u->result.tar_bytes += n;
    for (;;) {
        int r = lfs_tar_next(u->tar, &p, &n, &span, &span_len, error);

        switch (r) {
        case LFS_TAR_MORE:
            return 0;
        case LFS_TAR_RAW:
            r = lfs_rest_raw(&u->rest, span, span_len) < 0 ? unpack_oom(error) : 0;
            break;
        case LFS_TAR_ENTRY:
            r = lfs_unpack_member(u, lfs_tar_current(u->tar), error);
            break;
        case LFS_TAR_DATA:
            r = member_data(u, span, span_len, error);
            break;
        case LFS_TAR_DATA_END:
            r = end_member(u, error);
            break;
        default:
            break;
        }
        if (r < 0)
            return r;
    }
}

int64_t lfs_unpack_rest(lfs_unpack *u, void *buf, size_t cap, lfs_error *error)
{
    (void)error;
    return (int64_t)lfs_rest_take(&u->rest, buf, cap);
}

int lfs_unpack_finish(lfs_unpack *u, const uint8_t *uuid, lfs_unpack_result *result, lfs_error *error)
{
    int r = lfs_tar_finish(u->tar, error);

    if (r < 0)
        return r;
    if (lfs_rest_flush(&u->rest) < 0)
        return unpack_oom(error);
    r = lfs_unpack_mark(u, error);
    if (r < 0)
        return r;
    r = u->backend->ops->finish(u->backend, uuid, &u->result, error);
    if (r < 0)
        return r;
    *result = u->result;
    return 0;
}

int64_t lfs_unpack_own(lfs_unpack *u, lfs_error *error)
{
    if (u->backend->ops->own == NULL || !(u->options.flags & LFS_UNPACK_NO_CHOWN))
        return lfs_fail(error, EINVAL, "unpack: its owners were set");
    return u->backend->ops->own(u->backend, error);
}

void lfs_unpack_free(lfs_unpack *u)
{
    if (u == NULL)
        return;
    if (u->backend != NULL)
        u->backend->ops->free(u->backend);
    lfs_tar_free(u->tar);
    lfs_tree_free(&u->tree);
    lfs_rest_free(&u->rest);
    lfs_buf_free(&u->path);
    lfs_buf_free(&u->target);
    lfs_buf_free(&u->walk);
    lfs_buf_free(&u->cached);
    lfs_buf_free(&u->records);
    free(u);
}
