/*
 * repack.c - a layer and its rest stream (see layerfs.h) back into the tar that it came from, byte for byte.
 *
 * The rest comes in any split and waits in one buffer until it is read, so memory is bounded by what was fed
 * and not yet read. An operation's head is taken whole or not at all; the bytes of RAW flow as they come.
 * File content goes from the page cache straight into the caller's buffer.
 *
 * A rest is as hostile as any file: content must lie inside the layer, paths stay beneath fs/ and dead/ and
 * pass no symbolic link. A ZERO of 2^60 bytes is only a long stream; the caller knows how long the tar is.
 */
#define _GNU_SOURCE
#include "util.h"

#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>

#define OP_RAW 0
#define OP_DATA 1
#define OP_ZERO 2
#define OP_FILE 3
#define PATH_LIMIT 65536 /* bytes in the path of a FILE */

struct lfs_repack {
    lfs_buf in;
    size_t pos;    /* what of in is done with */
    unsigned op;   /* the operation under way, where left > 0 */
    uint64_t left; /* its bytes still to be put out */
    int file;      /* where content comes from: the layer, or the current file of a directory */
    uint64_t size; /* of that file */
    uint64_t at;   /* where in it the next content byte lies */
    bool dir;
    int fs;
    int dead; /* -1 where there is no dead/ */
};

static int bad(lfs_error *error, const char *what)
{
    return lfs_fail(error, EBADMSG, "read rest: %s", what);
}

static int open_layer(lfs_repack *r, int fd, lfs_error *error)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return lfs_fail(error, errno, "open layer");
    if (!S_ISREG(st.st_mode))
        return lfs_fail(error, EINVAL, "open layer: not a regular file");
    r->size = (uint64_t)st.st_size;
    r->file = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    return r->file < 0 ? lfs_fail(error, errno, "duplicate descriptor of layer") : 0;
}

static int open_dirs(lfs_repack *r, int fd, lfs_error *error)
{
    r->fs = lfs_open_beneath(fd, "fs", O_PATH | O_DIRECTORY, 0);
    if (r->fs < 0)
        return lfs_fail(error, -r->fs, "open fs of layer");
    r->dead = lfs_open_beneath(fd, "dead", O_PATH | O_DIRECTORY, 0);
    if (r->dead < 0 && r->dead != -ENOENT)
        return lfs_fail(error, -r->dead, "open dead of layer");
    return 0;
}

int lfs_repack_open(int fd, uint32_t flags, lfs_repack **out, lfs_error *error)
{
    lfs_repack *r;
    int e;

    if (flags & ~(uint32_t)LFS_REPACK_DIR)
        return lfs_fail(error, EINVAL, "open layer: unknown flags %#x", flags);
    r = calloc(1, sizeof *r);
    if (r == NULL)
        return lfs_fail(error, ENOMEM, "open layer");
    r->file = r->fs = r->dead = -1;
    r->dir = flags & LFS_REPACK_DIR;
    e = r->dir ? open_dirs(r, fd, error) : open_layer(r, fd, error);
    if (e < 0) {
        lfs_repack_free(r);
        return e;
    }
    *out = r;
    return 0;
}

int lfs_repack_feed(lfs_repack *r, const void *buf, size_t n, lfs_error *error)
{
    /* Move what waits only when as much is done with: the cost stays linear for any split. */
    if (r->pos > 0 && r->pos >= r->in.len - r->pos) {
        r->in.len -= r->pos;
        memmove(r->in.data, r->in.data + r->pos, r->in.len);
        r->pos = 0;
    }
    if (lfs_buf_append(&r->in, buf, n) < 0)
        return lfs_fail(error, ENOMEM, "read rest: buffer of %zu bytes", r->in.len + n);
    return 0;
}

/* A file of the layer directory, beneath dir. The kernel takes 4095 bytes at once, an archive may name more:
 * then in steps, each of them beneath the one before. */
static int open_path(int dir, char *path, lfs_error *error)
{
    cleanup_close int step = -1;
    char *rest = path;
    int fd;

    while (strlen(rest) >= PATH_MAX) {
        char *cut = memrchr(rest, '/', PATH_MAX - 1);
        if (cut == NULL || cut == rest)
            return lfs_fail(error, EBADMSG, "open %.100s...: name too long", rest);
        *cut = '\0';
        fd = lfs_open_beneath(step < 0 ? dir : step, rest, O_PATH | O_DIRECTORY, 0);
        lfs_cleanup_close(&step);
        step = fd;
        if (fd < 0)
            return fd;
        rest = cut + 1;
    }
    /* O_NONBLOCK: whoever put a fifo in the place of a file must not stop us. */
    return lfs_open_beneath(step < 0 ? dir : step, rest, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
}

/* dead/<k> where that exists, else fs/<path>. */
static int open_file(lfs_repack *r, uint64_t k, char *path, lfs_error *error)
{
    char number[24];
    struct stat st;
    int fd = -ENOENT;

    lfs_cleanup_close(&r->file);
    r->file = -1;
    if (r->dead >= 0) {
        snprintf(number, sizeof number, "%" PRIu64, k);
        fd = lfs_open_beneath(r->dead, number, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
    }
    if (fd == -ENOENT)
        fd = open_path(r->fs, path, error);
    /* These say that the layer and its rest do not belong together, not that the system failed. */
    if (fd == -ENOENT || fd == -ENOTDIR || fd == -ELOOP || fd == -EXDEV || fd == -ENXIO ||
        fd == -ENAMETOOLONG)
        return lfs_fail(error, EBADMSG, "open %s: not a file of the layer", path);
    if (fd < 0)
        return fd == -EBADMSG ? fd : lfs_fail(error, -fd, "open %s", path);
    r->file = fd;
    if (fstat(fd, &st) < 0)
        return lfs_fail(error, errno, "open %s", path);
    if (!S_ISREG(st.st_mode))
        return lfs_fail(error, EBADMSG, "open %s: not a file of the layer", path);
    r->size = (uint64_t)st.st_size;
    return 0;
}

/* One varint of the head, *used bytes into what waits. 1, or 0 where it is not all there yet. */
static int take_number(const lfs_repack *r, size_t *used, uint64_t *v, lfs_error *error)
{
    size_t left = r->in.len - r->pos - *used;
    size_t n;

    if (left == 0)
        return 0;
    n = lfs_varint_get((const uint8_t *)r->in.data + r->pos + *used, left, v);
    if (n == 0)
        return left >= 10 ? bad(error, "malformed number") : 0;
    *used += n;
    return 1;
}

static int begin_data(lfs_repack *r, uint64_t n, uint64_t z, lfs_error *error)
{
    if (r->file < 0)
        return bad(error, "content of no file");
    if (r->dir) {
        r->at = z;
    } else {
        int64_t move = lfs_unzigzag(z);
        uint64_t back = move < 0 ? -(uint64_t)move : 0;
        if (back > r->at || (move > 0 && (uint64_t)move > r->size)) /* r->at <= r->size: no overflow below */
            return bad(error, "content outside the layer");
        r->at += (uint64_t)move;
    }
    if (r->at > r->size || n > r->size - r->at)
        return bad(error, "content outside the layer");
    return 0;
}

static int begin_file(lfs_repack *r, size_t n, size_t used, uint64_t k, lfs_error *error)
{
    cleanup_free char *path = malloc(n + 1);

    if (path == NULL)
        return lfs_fail(error, ENOMEM, "read rest: path of %zu bytes", n);
    memcpy(path, r->in.data + r->pos + used, n);
    path[n] = '\0';
    if (strlen(path) != n)
        return bad(error, "malformed path");
    return open_file(r, k, path, error);
}

/* Take the head of the next operation. 1, or 0 where it is not all there yet. */
static int begin(lfs_repack *r, lfs_error *error)
{
    uint64_t v, n, second = 0;
    size_t used = 0;
    int e = take_number(r, &used, &v, error);

    if (e <= 0)
        return e;
    n = v >> 2;
    r->op = v & 3;
    if (n == 0)
        return bad(error, "empty operation");
    if (r->op == OP_FILE && (!r->dir || n > PATH_LIMIT))
        return bad(error, r->dir ? "path too long" : "a file in a layer that is one");
    if (r->op == OP_DATA || r->op == OP_FILE) {
        e = take_number(r, &used, &second, error);
        if (e <= 0)
            return e;
    }
    if (r->op == OP_FILE) {
        if (n > r->in.len - r->pos - used)
            return 0;
        e = begin_file(r, (size_t)n, used, second, error);
        used += (size_t)n;
        n = 0; /* nothing to put out */
    } else if (r->op == OP_DATA) {
        e = begin_data(r, n, second, error);
    }
    if (e < 0)
        return e;
    r->pos += used;
    r->left = n;
    return 1;
}

/* At most n > 0 bytes of the operation under way; 0 where the rest has to bring more. */
static int64_t put(lfs_repack *r, char *out, size_t n, lfs_error *error)
{
    int64_t got;

    if (n > r->left)
        n = (size_t)r->left;
    if (r->op == OP_RAW) {
        if (n > r->in.len - r->pos)
            n = r->in.len - r->pos;
        if (n > 0)
            memcpy(out, r->in.data + r->pos, n);
        r->pos += n;
    } else if (r->op == OP_ZERO) {
        memset(out, 0, n);
    } else {
        got = lfs_pread_all(r->file, out, n, r->at);
        if (got < 0)
            return lfs_fail(error, (int)-got, "read content of layer");
        if ((size_t)got < n)
            return bad(error, "content outside the layer");
        r->at += n;
    }
    r->left -= n;
    return (int64_t)n;
}

int64_t lfs_repack_read(lfs_repack *r, void *buf, size_t cap, lfs_error *error)
{
    char *out = buf;
    size_t done = 0;

    while (done < cap) {
        bool going = r->left > 0;
        int64_t n = going ? put(r, out + done, cap - done, error) : begin(r, error);
        if (n < 0)
            return n;
        if (n == 0)
            break;
        if (going)
            done += (size_t)n;
    }
    return (int64_t)done;
}

int lfs_repack_finish(lfs_repack *r, lfs_error *error)
{
    if (r->left > 0 || r->pos < r->in.len)
        return bad(error, "an operation is cut short");
    return 0;
}

void lfs_repack_free(lfs_repack *r)
{
    if (r == NULL)
        return;
    lfs_buf_free(&r->in);
    lfs_cleanup_close(&r->file);
    lfs_cleanup_close(&r->fs);
    lfs_cleanup_close(&r->dead);
    free(r);
}
