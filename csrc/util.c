#define _GNU_SOURCE
#include "util.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/syscall.h>

int lfs_fail(lfs_error *error, int err, const char *format, ...)
{
    if (error != NULL) {
        va_list args;
        error->err = err;
        va_start(args, format);
        vsnprintf(error->msg, sizeof error->msg, format, args);
        va_end(args);
    }
    return -err;
}

int lfs_prefix(lfs_error *error, int r, const char *format, ...)
{
    if (error != NULL) {
        char inner[sizeof error->msg];
        va_list args;
        size_t used;

        memcpy(inner, error->msg, sizeof inner);
        va_start(args, format);
        vsnprintf(error->msg, sizeof error->msg, format, args);
        va_end(args);
        used = strlen(error->msg);
        snprintf(error->msg + used, sizeof error->msg - used, ": %s", inner);
    }
    return r;
}

int lfs_buf_reserve(lfs_buf *b, size_t more)
{
    size_t cap = b->cap ? b->cap : 256;
    char *data;

    if (more <= b->cap - b->len)
        return 0;
    while (cap - b->len < more) {
        if (cap > SIZE_MAX / 2)
            return -ENOMEM;
        cap *= 2;
    }
    data = realloc(b->data, cap);
    if (data == NULL)
        return -ENOMEM;
    b->data = data;
    b->cap = cap;
    return 0;
}

int lfs_buf_append(lfs_buf *b, const void *data, size_t n)
{
    if (lfs_buf_reserve(b, n) < 0)
        return -ENOMEM;
    if (n > 0)
        memcpy(b->data + b->len, data, n);
    b->len += n;
    return 0;
}

void lfs_buf_free(lfs_buf *b)
{
    free(b->data);
    memset(b, 0, sizeof *b);
}

size_t lfs_varint_put(uint8_t *p, uint64_t v)
{
    size_t n = 0;

    while (v >= 0x80) {
        p[n++] = (uint8_t)(v | 0x80);
        v >>= 7;
    }
    p[n++] = (uint8_t)v;
    return n;
}

size_t lfs_varint_get(const uint8_t *p, size_t n, uint64_t *v)
{
    uint64_t value = 0;

    for (size_t i = 0; i < n && i < 10; i++) {
        if (i == 9 && p[i] > 1)
            return 0;
        value |= (uint64_t)(p[i] & 0x7f) << (7 * i);
        if (!(p[i] & 0x80)) {
            *v = value;
            return i + 1;
        }
    }
    return 0;
}

int lfs_pwrite_all(int fd, const void *buf, size_t n, uint64_t offset)
{
    const char *p = buf;

    while (n > 0) {
        ssize_t r = pwrite(fd, p, n, (off_t)offset);
        if (r < 0) {
            if (errno == EINTR)
                continue;
            return -errno;
        }
        p += r;
        n -= (size_t)r;
        offset += (uint64_t)r;
    }
    return 0;
}

int64_t lfs_pread_all(int fd, void *buf, size_t n, uint64_t offset)
{
    size_t done = 0;

    while (done < n) {
        ssize_t r = pread(fd, (char *)buf + done, n - done, (off_t)(offset + done));
        if (r < 0) {
            if (errno == EINTR)
                continue;
            return -errno;
        }
        if (r == 0)
            break;
        done += (size_t)r;
    }
    return (int64_t)done;
}

int lfs_open_beneath(int dirfd, const char *path, int flags, unsigned mode)
{
    struct open_how how = {
        .flags = (uint64_t)(unsigned)(flags | O_CLOEXEC),
        .mode = mode,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
    };
    long fd;

    do
        fd = syscall(SYS_openat2, dirfd, path, &how, sizeof how);
    while (fd < 0 && (errno == EINTR || errno == EAGAIN));
    return fd < 0 ? -errno : (int)fd;
}
