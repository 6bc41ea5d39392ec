/* util.h - what every file of the core shares: errors, cleanup attributes, growable buffers, varints. */
#ifndef LAYERFS_UTIL_H
#define LAYERFS_UTIL_H

#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "layerfs.h"

/* Fill *error (where there is one) and return -err. The message names operation and object. */
int lfs_fail(lfs_error *error, int err, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* Put "outer: " before the message of a failure that is passed on; returns r. */
int lfs_prefix(lfs_error *error, int r, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Ownership: released at the end of the scope, errno kept; lfs_steal_* is the only way out. */
static inline void lfs_cleanup_close(int *fd)
{
    if (*fd >= 0) {
        int saved = errno;
        close(*fd);
        errno = saved;
    }
}

static inline void lfs_cleanup_free(void *p)
{
    int saved = errno;
    free(*(void **)p);
    errno = saved;
}

static inline void lfs_cleanup_closedir(DIR **dir)
{
    if (*dir != NULL) {
        int saved = errno;
        closedir(*dir);
        errno = saved;
    }
}

#define cleanup_close __attribute__((cleanup(lfs_cleanup_close)))
#define cleanup_free __attribute__((cleanup(lfs_cleanup_free)))
#define cleanup_closedir __attribute__((cleanup(lfs_cleanup_closedir)))

static inline int lfs_steal_fd(int *fd)
{
    int r = *fd;
    *fd = -1;
    return r;
}

#define lfs_steal_ptr(p)            \
    __extension__({                 \
        __typeof__(*(p)) *_p = (p); \
        __typeof__(*(p)) _v = *_p;  \
        *_p = NULL;                 \
        _v;                         \
    })

/* A growable byte buffer. Zero-initialised is empty. */
typedef struct lfs_buf {
    char *data;
    size_t len;
    size_t cap;
} lfs_buf;

int lfs_buf_reserve(lfs_buf *b, size_t more); /* 0 or -ENOMEM */
int lfs_buf_append(lfs_buf *b, const void *data, size_t n);
void lfs_buf_free(lfs_buf *b);
#define cleanup_buf __attribute__((cleanup(lfs_buf_free)))

/* Little-endian numbers at any address. */
static inline uint16_t lfs_get16(const void *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return le16toh(v);
}

static inline uint32_t lfs_get32(const void *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return le32toh(v);
}

static inline uint64_t lfs_get64(const void *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return le64toh(v);
}

static inline void lfs_put16(void *p, uint16_t v)
{
    v = htole16(v);
    memcpy(p, &v, sizeof v);
}

static inline void lfs_put32(void *p, uint32_t v)
{
    v = htole32(v);
    memcpy(p, &v, sizeof v);
}

static inline void lfs_put64(void *p, uint64_t v)
{
    v = htole64(v);
    memcpy(p, &v, sizeof v);
}

/* LEB128. put returns the bytes used (at most 10); get returns them, or 0 if the number is cut short or
 * too long. */
size_t lfs_varint_put(uint8_t *p, uint64_t v);
size_t lfs_varint_get(const uint8_t *p, size_t n, uint64_t *v);

static inline uint64_t lfs_zigzag(int64_t v)
{
    return ((uint64_t)v << 1) ^ (uint64_t)(v >> 63);
}

static inline int64_t lfs_unzigzag(uint64_t v)
{
    return (int64_t)(v >> 1) ^ -(int64_t)(v & 1);
}

static inline uint64_t lfs_align(uint64_t v, uint64_t to)
{
    return (v + to - 1) / to * to;
}

/* All of it, through EINTR and short counts; 0 or -errno. */
int lfs_pwrite_all(int fd, const void *buf, size_t n, uint64_t offset);
/* Bytes read (fewer than n only at the end of the file) or -errno. */
int64_t lfs_pread_all(int fd, void *buf, size_t n, uint64_t offset);

/* openat2(2) beneath dirfd: no "..", no absolute, no symbolic link at any component, O_CLOEXEC. fd or -errno. */
int lfs_open_beneath(int dirfd, const char *path, int flags, unsigned mode);

#endif
