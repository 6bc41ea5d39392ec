/* diff_content.c - the archive's bytes as they are asked for: headers, content, padding; see diff.h. */
#define _GNU_SOURCE
#include "diff.h"

static size_t read_head(lfs_tar_writer *t, char *buf, size_t cap)
{
    size_t n = t->head.len - t->head_at;

    if (n > cap)
        n = cap;
    if (n > 0)
        memcpy(buf, t->head.data + t->head_at, n);
    t->head_at += n;
    if (t->head_at == t->head.len)
        t->head_at = t->head.len = 0;
    return n;
}

/* Some of the segment at hand, straight into the caller's buffer. */
static int64_t read_segment(lfs_tar_writer *t, const lfs_segment *s, char *buf, size_t cap, lfs_error *error)
{
    uint64_t left = s->length - t->done;
    size_t n = left < cap ? (size_t)left : cap;
    int64_t got = n == 0 ? 0 : lfs_pread_all(t->fd, buf, n, s->offset + t->done);

    if (got < 0)
        return lfs_fail(error, (int)-got, "read %.200s", t->name.data);
    if ((size_t)got < n)
        return lfs_fail(error, EAGAIN, "read %.180s: it became shorter while it was read", t->name.data);
    t->done += n;
    if (t->done == s->length) {
        t->done = 0;
        t->segment++;
    }
    return got;
}

static int64_t read_content(lfs_tar_writer *t, char *buf, size_t cap, lfs_error *error)
{
    size_t done = 0;

    while (t->segment < t->map.len / sizeof(lfs_segment)) {
        const lfs_segment *s = (const lfs_segment *)(const void *)t->map.data + t->segment;
        int64_t n;

        if (done == cap && s->length > t->done)
            return (int64_t)done;
        n = read_segment(t, s, buf + done, cap - done, error);
        if (n < 0)
            return n;
        done += (size_t)n;
    }
    close(t->fd);
    t->fd = -1;
    return (int64_t)done;
}

int64_t lfs_tar_writer_read(lfs_tar_writer *t, void *buf, size_t cap, lfs_error *error)
{
    char *out = buf;
    size_t done = read_head(t, out, cap);
    size_t pad;

    if (t->head.len > 0)
        return (int64_t)done;
    if (t->fd >= 0) {
        int64_t n = read_content(t, out + done, cap - done, error);
        if (n < 0)
            return n;
        done += (size_t)n;
        if (t->fd >= 0)
            return (int64_t)done;
    }
    pad = t->padding < cap - done ? t->padding : cap - done;
    memset(out + done, 0, pad);
    t->padding -= (unsigned)pad;
    return (int64_t)(done + pad);
}

void lfs_tar_writer_free(lfs_tar_writer *t)
{
    if (t->fd >= 0)
        close(t->fd);
    lfs_buf_free(&t->head);
    lfs_buf_free(&t->pax);
    lfs_buf_free(&t->name);
    lfs_buf_free(&t->map);
}
