/*
 * diff_xattr.c - extended attributes of a tree, and the marks of overlayfs among them; see diff.h.
 *
 * Source: kernel, Documentation/filesystems/overlayfs.rst, "Nesting overlayfs mounts".
 */
#define _GNU_SOURCE
#include "diff.h"

#include <stdio.h>
#include <sys/xattr.h>

#define LIST_MAX 65536u  /* XATTR_LIST_MAX */
#define VALUE_MAX 65536u /* XATTR_SIZE_MAX */
#define FEW 512u         /* what most take: the kernel allocates for each call as much as is offered */
#define HEAD 6u
#define ESCAPE "overlay."

enum { KEEP, ESCAPED, MARK, PRIVATE };

static int classify(const lfs_xattrs *x, const char *name, size_t n)
{
    static const char *const marks[] = {"opaque", "redirect", "metacopy", "whiteout"};
    size_t own = x->own == NULL ? 0 : strlen(x->own);

    if (own == 0 || n < own || memcmp(name, x->own, own) != 0)
        return KEEP;
    name += own;
    n -= own;
    if (n > strlen(ESCAPE) && memcmp(name, ESCAPE, strlen(ESCAPE)) == 0)
        return ESCAPED;
    for (size_t i = 0; i < sizeof marks / sizeof marks[0]; i++)
        if (strlen(marks[i]) == n && memcmp(marks[i], name, n) == 0)
            return MARK;
    return PRIVATE;
}

static void note_mark(const lfs_xattrs *x, lfs_marks *marks, const char *name, const char *value, size_t m)
{
    switch (name[strlen(x->own)]) {
    case 'o':
        marks->opaque = m == 1 && value[0] == 'y';
        marks->whiteouts = m == 1 && value[0] == 'x';
        break;
    case 'r':
        marks->redirect = true;
        break;
    case 'm':
        marks->metacopy = true;
        break;
    default:
        marks->whiteout = true;
    }
}

/* Room for a record in raw, its head and (unescaped) name filled in; the offset of its value, or -ENOMEM. */
static int64_t begin_record(lfs_xattrs *x, int class, const char *name, size_t n, size_t room)
{
    uint64_t begin = x->raw.len;
    char head[HEAD] = {0};

    if (lfs_buf_reserve(&x->raw, HEAD + n + room) < 0 || lfs_buf_append(&x->order, &begin, sizeof begin) < 0)
        return -ENOMEM;
    lfs_buf_append(&x->raw, head, HEAD);
    if (class == ESCAPED) {
        size_t own = strlen(x->own);
        lfs_buf_append(&x->raw, name, own);
        lfs_buf_append(&x->raw, name + own + strlen(ESCAPE), n - own - strlen(ESCAPE));
    } else {
        lfs_buf_append(&x->raw, name, n);
    }
    lfs_put16(x->raw.data + begin, (uint16_t)(x->raw.len - begin - HEAD));
    return (int64_t)x->raw.len;
}

static void drop_record(lfs_xattrs *x)
{
    uint64_t begin;

    x->order.len -= sizeof begin;
    memcpy(&begin, x->order.data + x->order.len, sizeof begin);
    x->raw.len = begin;
}

/* The value of the record begun last stands at `at`, m bytes long. */
static void end_record(lfs_xattrs *x, int class, const char *name, int64_t at, size_t m, lfs_marks *marks)
{
    uint64_t begin;

    memcpy(&begin, x->order.data + x->order.len - sizeof begin, sizeof begin);
    if (class == MARK) {
        note_mark(x, marks, name, x->raw.data + at, m);
        drop_record(x);
        return;
    }
    lfs_put32(x->raw.data + begin + 2, (uint32_t)m);
    x->raw.len = (size_t)at + m;
}

static int compare_records(const void *a, const void *b, void *data)
{
    const char *raw = data;
    uint64_t i;
    uint64_t j;
    size_t n;
    size_t m;
    int r;

    memcpy(&i, a, sizeof i);
    memcpy(&j, b, sizeof j);
    n = lfs_get16(raw + i);
    m = lfs_get16(raw + j);
    r = memcmp(raw + i + HEAD, raw + j + HEAD, n < m ? n : m);
    return r != 0 ? r : (n > m) - (n < m);
}

static int append_sorted(lfs_xattrs *x, lfs_buf *out)
{
    size_t count = x->order.len / sizeof(uint64_t);

    if (count > 1)
        qsort_r(x->order.data, count, sizeof(uint64_t), compare_records, x->raw.data);
    for (size_t i = 0; i < count; i++) {
        uint64_t at;
        memcpy(&at, x->order.data + i * sizeof at, sizeof at);
        if (lfs_buf_append(out, x->raw.data + at,
                           HEAD + lfs_get16(x->raw.data + at) + lfs_get32(x->raw.data + at + 2)) < 0)
            return -ENOMEM;
    }
    return 0;
}

/* An inode whose attributes are read. An O_PATH descriptor has no such calls of its own; its magic link leads to
 * the very inode, be it a symbolic link. */
typedef struct holder {
    int fd;
    char path[32]; /* "": by the descriptor */
} holder;

static ssize_t list_names(const holder *h, char *buf, size_t cap)
{
    return h->path[0] != '\0' ? listxattr(h->path, buf, cap) : flistxattr(h->fd, buf, cap);
}

static ssize_t get_value(const holder *h, const char *name, char *buf, size_t cap)
{
    return h->path[0] != '\0' ? getxattr(h->path, name, buf, cap) : fgetxattr(h->fd, name, buf, cap);
}

/* One attribute to raw; 0 or -errno. */
static int read_value(lfs_xattrs *x, const holder *h, const char *name, lfs_marks *marks)
{
    int class = classify(x, name, strlen(name));
    int64_t at;
    ssize_t m;

    if (class == PRIVATE)
        return 0;
    at = begin_record(x, class, name, strlen(name), VALUE_MAX);
    if (at < 0)
        return (int)at;
    m = get_value(h, name, x->raw.data + at, FEW);
    if (m < 0 && errno == ERANGE)
        m = get_value(h, name, x->raw.data + at, VALUE_MAX);
    if (m < 0 && errno != ENODATA)
        return -errno;
    if (m < 0)
        drop_record(x);
    else
        end_record(x, class, name, at, (size_t)m, marks);
    return 0;
}

int lfs_xattrs_read(lfs_xattrs *x, int fd, bool opath, lfs_buf *out, lfs_marks *marks)
{
    holder h = {.fd = fd};
    ssize_t n;

    memset(marks, 0, sizeof *marks);
    if (opath)
        snprintf(h.path, sizeof h.path, "/proc/self/fd/%d", fd);
    if (lfs_buf_reserve(&x->list, LIST_MAX) < 0)
        return -ENOMEM;
    n = list_names(&h, x->list.data, FEW);
    if (n < 0 && errno == ERANGE)
        n = list_names(&h, x->list.data, LIST_MAX);
    if (n <= 0)
        return n == 0 || errno == ENOTSUP ? 0 : -errno;
    x->raw.len = x->order.len = 0;
    for (const char *name = x->list.data; name < x->list.data + n; name += strlen(name) + 1) {
        int r = read_value(x, &h, name, marks);
        if (r < 0)
            return r;
    }
    return append_sorted(x, out);
}

int lfs_xattrs_layer(lfs_xattrs *x, const lfs_reader *reader, uint64_t nid, lfs_buf *out, lfs_marks *marks,
                     lfs_error *error)
{
    int64_t n;

    memset(marks, 0, sizeof *marks);
    x->list.len = 0;
    if (lfs_buf_reserve(&x->list, LIST_MAX) < 0)
        return lfs_fail(error, ENOMEM, "diff");
    while ((n = lfs_reader_xattrs(reader, nid, x->list.data, x->list.cap, error)) == -ERANGE)
        if (lfs_buf_reserve(&x->list, x->list.cap * 2) < 0)
            return lfs_fail(error, ENOMEM, "diff");
    if (n <= 0)
        return (int)n;
    x->raw.len = x->order.len = 0;
    for (const char *p = x->list.data; p < x->list.data + n;) {
        size_t k = lfs_get16(p);
        size_t m = lfs_get32(p + 2);
        int class = classify(x, p + HEAD, k);

        if (class != PRIVATE) {
            int64_t at = begin_record(x, class, p + HEAD, k, m);
            if (at < 0)
                return lfs_fail(error, ENOMEM, "diff");
            memcpy(x->raw.data + at, p + HEAD + k, m);
            end_record(x, class, p + HEAD, at, m, marks);
        }
        p += HEAD + k + m;
    }
    return append_sorted(x, out) < 0 ? lfs_fail(error, ENOMEM, "diff") : 0;
}

void lfs_xattrs_free(lfs_xattrs *x)
{
    lfs_buf_free(&x->list);
    lfs_buf_free(&x->raw);
    lfs_buf_free(&x->order);
}
