/*
 * diff_tar.c - one member of the archive; see diff.h.
 *
 * A plain ustar header where that can say it all, else a PAX header 'x' before it with what it cannot: in
 * this order path, linkpath, size, uid, gid, mtime, GNU.sparse.*, SCHILY.xattr.*. No user or group names.
 * Fields that a PAX record overrides are 0, or the beginning of the name.
 *
 * A file is as long as it was when its header was written. What it grows by afterwards is left out; when it
 * shrinks, that is -EAGAIN, because zeros in place of its end would look like its content.
 *
 * Sources: POSIX.1-2024 pax; GNU tar manual, "PAX Format, Version 1.0".
 */
#define _GNU_SOURCE
#include "diff.h"

#include <inttypes.h>
#include <stdio.h>

#define BLOCK 512u
#define NAME_MAX_USTAR 100u
#define PREFIX_MAX_USTAR 155u
#define MAX_SEGMENTS (1u << 20) /* as many as the parser takes; a file of more is written with its holes */

enum {
    AT_NAME = 0, AT_MODE = 100, AT_UID = 108, AT_GID = 116, AT_SIZE = 124, AT_MTIME = 136, AT_CHKSUM = 148,
    AT_TYPE = 156, AT_LINK = 157, AT_MAGIC = 257, AT_MAJOR = 329, AT_MINOR = 337, AT_PREFIX = 345,
};

/* ---- headers ---- */

/* n - 1 octal digits and a NUL; 0 if it does not fit. */
static void put_octal(uint8_t *p, size_t n, uint64_t v)
{
    if (v >> (3 * (n - 1)) != 0)
        v = 0;
    for (size_t i = n - 1; i-- > 0; v >>= 3)
        p[i] = (uint8_t)('0' + (v & 7));
}

static void seal(uint8_t *p)
{
    unsigned sum = 0;

    memcpy(p + AT_MAGIC, "ustar\0" "00", 8);
    memset(p + AT_CHKSUM, ' ', 8);
    for (unsigned i = 0; i < BLOCK; i++)
        sum += p[i];
    put_octal(p + AT_CHKSUM, 7, sum);
    p[AT_CHKSUM + 6] = '\0';
}

static void put_short(uint8_t *p, const char *s, size_t n)
{
    memcpy(p, s, n < NAME_MAX_USTAR ? n : NAME_MAX_USTAR);
}

/* The name, whole or split into prefix and name at a slash; false if neither does. */
static bool put_name(uint8_t *block, const char *name, size_t n)
{
    size_t i = n < PREFIX_MAX_USTAR + 2 ? n : PREFIX_MAX_USTAR + 2;

    if (n <= NAME_MAX_USTAR) {
        put_short(block + AT_NAME, name, n);
        return true;
    }
    while (i-- > 1) {
        if (name[i] != '/' || i == n - 1 || i > PREFIX_MAX_USTAR)
            continue;
        if (n - i - 1 > NAME_MAX_USTAR)
            break;
        memcpy(block + AT_PREFIX, name, i);
        put_short(block + AT_NAME, name + i + 1, n - i - 1);
        return true;
    }
    put_short(block + AT_NAME, name, n);
    return false;
}

/* ---- PAX records ---- */

static size_t digits(size_t n)
{
    size_t d = 1;

    while (n >= 10) {
        n /= 10;
        d++;
    }
    return d;
}

static int add_record(lfs_buf *b, const char *prefix, const char *key, size_t k, const char *value, size_t n)
{
    size_t body = strlen(prefix) + k + n + 3; /* the space, "=" and the newline */
    size_t total = body + digits(body);
    char head[24];

    if (digits(total) != digits(body))
        total = body + digits(total);
    snprintf(head, sizeof head, "%zu ", total);
    if (lfs_buf_append(b, head, strlen(head)) < 0 || lfs_buf_append(b, prefix, strlen(prefix)) < 0 ||
        lfs_buf_append(b, key, k) < 0 || lfs_buf_append(b, "=", 1) < 0 || lfs_buf_append(b, value, n) < 0 ||
        lfs_buf_append(b, "\n", 1) < 0)
        return -ENOMEM;
    return 0;
}

static int add_number(lfs_buf *b, const char *key, uint64_t v)
{
    char text[24];

    snprintf(text, sizeof text, "%" PRIu64, v);
    return add_record(b, "", key, strlen(key), text, strlen(text));
}

static int add_time(lfs_buf *b, int64_t seconds, uint32_t nanoseconds)
{
    char text[40];
    bool negative = seconds < 0;
    uint64_t whole = negative ? -(uint64_t)seconds : (uint64_t)seconds;
    size_t n;

    if (negative && nanoseconds > 0) {
        whole--;
        nanoseconds = 1000000000 - nanoseconds;
    }
    snprintf(text, sizeof text, "%s%" PRIu64 ".%09" PRIu32, negative ? "-" : "", whole, nanoseconds);
    n = strlen(text);
    while (text[n - 1] == '0')
        n--;
    if (text[n - 1] == '.')
        n--;
    return add_record(b, "", "mtime", 5, text, n);
}

static int add_xattrs(lfs_buf *b, const lfs_member *m, lfs_error *error)
{
    for (size_t i = 0; i < m->xattrs_len;) {
        const char *name = m->xattrs + i + 6;
        size_t n = lfs_get16(m->xattrs + i);
        size_t k = lfs_get32(m->xattrs + i + 2);

        if (memchr(name, '=', n) != NULL)
            return lfs_fail(error, EINVAL, "write %.120s: no tar can hold the attribute %.*s (\"=\")",
                            m->path, (int)n, name);
        if (add_record(b, "SCHILY.xattr.", name, n, name + n, k) < 0)
            return lfs_fail(error, ENOMEM, "diff");
        i += 6 + n + k;
    }
    return 0;
}

/* ---- sparse files ---- */

static int add_segment(lfs_buf *map, uint64_t offset, uint64_t length)
{
    lfs_segment s = {offset, length};

    return lfs_buf_append(map, &s, sizeof s);
}

static size_t segments(const lfs_tar_writer *t)
{
    return t->map.len / sizeof(lfs_segment);
}

/* Where the file has data. As GNU tar does, an empty segment at its end stands for a hole there. With too
 * many segments, or none that the file system tells of, the file is one. */
static int find_data(lfs_tar_writer *t, int fd, uint64_t size)
{
    uint64_t at = 0;

    t->map.len = 0;
    while (at < size && segments(t) < MAX_SEGMENTS) {
        off_t data = lseek(fd, (off_t)at, SEEK_DATA);
        off_t hole = data < 0 ? -1 : lseek(fd, data, SEEK_HOLE);

        if ((data < 0 && errno == ENXIO) || (data >= 0 && (uint64_t)data >= size)) {
            at = size;
            if (add_segment(&t->map, size, 0) < 0)
                return -ENOMEM;
        } else if (data < 0 || hole <= data) {
            break;
        } else {
            at = (uint64_t)hole < size ? (uint64_t)hole : size;
            if (add_segment(&t->map, (uint64_t)data, at - (uint64_t)data) < 0)
                return -ENOMEM;
        }
    }
    if (at == size)
        return 0;
    t->map.len = 0;
    return add_segment(&t->map, 0, size);
}

static bool has_holes(const lfs_tar_writer *t, uint64_t size)
{
    const lfs_segment *s = (const void *)t->map.data;

    return segments(t) != 1 || s->offset != 0 || s->length != size;
}

/* The map as text, filled up to a block. */
static int map_text(const lfs_tar_writer *t, lfs_buf *text)
{
    const lfs_segment *s = (const void *)t->map.data;
    char line[48];

    snprintf(line, sizeof line, "%zu\n", segments(t));
    if (lfs_buf_append(text, line, strlen(line)) < 0)
        return -ENOMEM;
    for (size_t i = 0; i < segments(t); i++) {
        snprintf(line, sizeof line, "%" PRIu64 "\n%" PRIu64 "\n", s[i].offset, s[i].length);
        if (lfs_buf_append(text, line, strlen(line)) < 0)
            return -ENOMEM;
    }
    if (lfs_buf_reserve(text, BLOCK) < 0)
        return -ENOMEM;
    memset(text->data + text->len, 0, -text->len % BLOCK);
    text->len += -text->len % BLOCK;
    return 0;
}

static int sparse_records(lfs_buf *b, const lfs_member *m)
{
    if (add_number(b, "GNU.sparse.major", 1) < 0 || add_number(b, "GNU.sparse.minor", 0) < 0 ||
        add_record(b, "", "GNU.sparse.name", 15, m->path, m->path_len) < 0)
        return -ENOMEM;
    return add_number(b, "GNU.sparse.realsize", m->size);
}

/* ---- a member ---- */

static uint8_t *new_block(lfs_buf *b)
{
    uint8_t *p;

    if (lfs_buf_reserve(b, BLOCK) < 0)
        return NULL;
    p = (uint8_t *)b->data + b->len;
    memset(p, 0, BLOCK);
    b->len += BLOCK;
    return p;
}

static int add_pax(lfs_tar_writer *t)
{
    uint8_t *p = t->pax.len == 0 ? NULL : new_block(&t->head);

    if (t->pax.len == 0)
        return 0;
    if (p == NULL)
        return -ENOMEM;
    memcpy(p + AT_NAME, "././@PaxHeader", 14);
    put_octal(p + AT_MODE, 8, 0644);
    put_octal(p + AT_UID, 8, 0);
    put_octal(p + AT_GID, 8, 0);
    put_octal(p + AT_SIZE, 12, t->pax.len);
    put_octal(p + AT_MTIME, 12, 0);
    p[AT_TYPE] = 'x';
    seal(p);
    if (lfs_buf_append(&t->head, t->pax.data, t->pax.len) < 0 || lfs_buf_reserve(&t->head, BLOCK) < 0)
        return -ENOMEM;
    memset(t->head.data + t->head.len, 0, -t->pax.len % BLOCK);
    t->head.len += -t->pax.len % BLOCK;
    return 0;
}

/* The header proper, and in t->pax what it cannot say; stored is the content's size in the archive. */
static int fill_header(lfs_tar_writer *t, uint8_t *p, const lfs_member *m, uint64_t stored, bool sparse,
                       lfs_error *error)
{
    static const char sparse_dir[] = "GNUSparseFile.0/";
    size_t before = sizeof sparse_dir - 1;
    const char *base = memrchr(m->path, '/', m->path_len);
    size_t base_len;
    int r = 0;

    base = base == NULL ? m->path : base + 1;
    base_len = m->path_len - (size_t)(base - m->path);
    t->pax.len = 0;
    if (sparse) {
        memcpy(p + AT_NAME, sparse_dir, before);
        memcpy(p + AT_NAME + before, base, base_len < 100 - before ? base_len : 100 - before);
    } else if (!put_name(p, m->path, m->path_len)) {
        r |= add_record(&t->pax, "", "path", 4, m->path, m->path_len);
    }
    if (m->link_len > 0)
        put_short(p + AT_LINK, m->link, m->link_len);
    if (m->link_len > NAME_MAX_USTAR)
        r |= add_record(&t->pax, "", "linkpath", 8, m->link, m->link_len);
    if (stored >> 33 != 0)
        r |= add_number(&t->pax, "size", stored);
    if (m->uid >> 21 != 0)
        r |= add_number(&t->pax, "uid", m->uid);
    if (m->gid >> 21 != 0)
        r |= add_number(&t->pax, "gid", m->gid);
    if (m->mtime < 0 || m->mtime >> 33 != 0 || m->mtime_nsec != 0)
        r |= add_time(&t->pax, m->mtime, m->mtime_nsec);
    if (sparse)
        r |= sparse_records(&t->pax, m);
    if (r < 0)
        return lfs_fail(error, ENOMEM, "diff");
    put_octal(p + AT_MODE, 8, m->mode & 07777);
    put_octal(p + AT_UID, 8, m->uid);
    put_octal(p + AT_GID, 8, m->gid);
    put_octal(p + AT_SIZE, 12, stored);
    put_octal(p + AT_MTIME, 12, m->mtime < 0 ? 0 : (uint64_t)m->mtime);
    p[AT_TYPE] = (uint8_t)m->type;
    if (m->type == '3' || m->type == '4') {
        put_octal(p + AT_MAJOR, 8, m->rdev_major);
        put_octal(p + AT_MINOR, 8, m->rdev_minor);
    }
    seal(p);
    return add_xattrs(&t->pax, m, error);
}

/* The map of the content: all of it, or where the file has data; in `text` the map as it is written. */
static int plan_content(lfs_tar_writer *t, const lfs_member *m, int fd, bool sparse, lfs_buf *text,
                        uint64_t *stored)
{
    const lfs_segment *s;

    t->map.len = 0;
    t->segment = 0;
    t->done = 0;
    *stored = fd < 0 ? 0 : m->size;
    if (fd < 0)
        return 0;
    if (!sparse)
        return add_segment(&t->map, 0, m->size);
    if (find_data(t, fd, m->size) < 0)
        return -ENOMEM;
    if (!has_holes(t, m->size))
        return 0;
    if (map_text(t, text) < 0)
        return -ENOMEM;
    s = (const void *)t->map.data;
    *stored = text->len;
    for (size_t i = 0; i < segments(t); i++)
        *stored += s[i].length;
    return 0;
}

int lfs_tar_writer_add(lfs_tar_writer *t, const lfs_member *m, int *fd, bool sparse, lfs_error *error)
{
    cleanup_buf lfs_buf text = {0};
    uint8_t block[BLOCK] = {0};
    uint64_t stored;
    int r;

    if (plan_content(t, m, *fd, sparse, &text, &stored) < 0)
        return lfs_fail(error, ENOMEM, "diff");
    r = fill_header(t, block, m, stored, text.len > 0, error);
    if (r < 0)
        return r;
    t->name.len = 0;
    if (add_pax(t) < 0 || lfs_buf_append(&t->head, block, BLOCK) < 0 ||
        lfs_buf_append(&t->head, text.data, text.len) < 0 ||
        lfs_buf_append(&t->name, m->path, m->path_len) < 0 || lfs_buf_append(&t->name, "", 1) < 0)
        return lfs_fail(error, ENOMEM, "diff");
    t->padding = (unsigned)(-stored % BLOCK);
    t->fd = lfs_steal_fd(fd);
    return 0;
}

int lfs_tar_writer_end(lfs_tar_writer *t)
{
    return new_block(&t->head) == NULL || new_block(&t->head) == NULL ? -ENOMEM : 0;
}
