/* tar_pax.c - the records of PAX headers, with those of star and GNU tar among them. */
#define _GNU_SOURCE
#include "acl.h"
#include "tar_state.h"

/* All of p[0..n) is a decimal number below 2^63. */
static int parse_decimal(const char *p, size_t n, uint64_t *out)
{
    uint64_t v = 0;

    if (n == 0)
        return -EBADMSG;
    for (size_t i = 0; i < n; i++) {
        if (p[i] < '0' || p[i] > '9' || v > (INT64_MAX - 9) / 10)
            return -EBADMSG;
        v = v * 10 + (uint64_t)(p[i] - '0');
    }
    *out = v;
    return 0;
}

/* Seconds with a fraction; digits after the ninth are cut off, towards the past. */
static int parse_time(const char *p, size_t n, int64_t *seconds, uint32_t *nanoseconds)
{
    bool negative = n > 0 && p[0] == '-';
    const char *dot;
    size_t whole;
    uint64_t s = 0;
    uint32_t ns = 0;
    bool more = false;

    if (negative) {
        p++;
        n--;
    }
    dot = memchr(p, '.', n);
    whole = dot == NULL ? n : (size_t)(dot - p);
    if (!(whole == 0 && dot != NULL && n > 1) && parse_decimal(p, whole, &s) < 0)
        return -EBADMSG;
    if (dot != NULL) {
        uint32_t unit = 100000000;
        for (size_t i = whole + 1; i < n; i++) {
            if (p[i] < '0' || p[i] > '9')
                return -EBADMSG;
            ns += unit * (uint32_t)(p[i] - '0');
            if (unit == 0 && p[i] != '0')
                more = true;
            unit /= 10;
        }
    }
    if (negative) {
        ns += more;
        *seconds = -(int64_t)s - (ns > 0);
        *nanoseconds = ns > 0 ? 1000000000 - ns : 0;
    } else {
        *seconds = (int64_t)s;
        *nanoseconds = ns;
    }
    return 0;
}

static bool key_is(const char *key, size_t n, const char *name)
{
    return strlen(name) == n && memcmp(key, name, n) == 0;
}

static int pax_number(lfs_tar *t, const char *v, size_t n, unsigned bit, uint64_t *out, lfs_error *error)
{
    if (n == 0) {
        t->pax.set &= ~bit;
        return 0;
    }
    if (parse_decimal(v, n, out) < 0)
        return lfs_tar_bad(error, t, "number in an extended header");
    t->pax.set |= bit;
    return 0;
}

static int pax_string(lfs_tar *t, const char *v, size_t n, unsigned bit, lfs_buf *out, lfs_error *error)
{
    if (n == 0) {
        t->pax.set &= ~bit;
        return 0;
    }
    if (memchr(v, '\0', n) != NULL)
        return lfs_tar_bad(error, t, "NUL in an extended header's name");
    if (lfs_tar_set_string(out, v, n) < 0)
        return lfs_fail(error, ENOMEM, "read archive: extended header");
    t->pax.set |= bit;
    return 0;
}

static int pax_xattr(lfs_tar *t, const char *name, size_t n, const char *v, size_t m, lfs_error *error)
{
    char head[6];

    if (n == 0 || n > 255)
        return 0;
    if (memchr(name, '\0', n) != NULL)
        return lfs_tar_bad(error, t, "NUL in an extended attribute's name");
    if (m > 65535)
        return lfs_tar_bad(error, t, "extended attribute of more than 65535 bytes");
    lfs_put16(head, (uint16_t)n);
    lfs_put32(head + 2, (uint32_t)m);
    if (lfs_buf_append(&t->entry.xattrs, head, sizeof head) < 0 ||
        lfs_buf_append(&t->entry.xattrs, name, n) < 0 || lfs_buf_append(&t->entry.xattrs, v, m) < 0)
        return lfs_fail(error, ENOMEM, "read archive: extended attributes");
    return 0;
}

/* SCHILY.acl.access and .default: the text becomes the attribute it stands for. Names of users that say no
 * number mean nothing here: then the key itself goes on, which is no attribute, and is counted as dropped. */
static int pax_acl(lfs_tar *t, const char *key, size_t k, const char *v, size_t n, lfs_error *error)
{
    bool access = key_is(key, k, "SCHILY.acl.access");
    const char *name = access ? "system.posix_acl_access" : "system.posix_acl_default";
    cleanup_buf lfs_buf value = {0};
    int r = lfs_acl_parse(v, n, &value);

    if (r == -ENOMEM)
        return lfs_fail(error, ENOMEM, "read archive: access control list");
    if (r < 0)
        return pax_xattr(t, key, k, "", 0, error);
    return pax_xattr(t, name, strlen(name), value.data, value.len, error);
}

/* GNU.sparse.map of format 0.1: "offset,length,offset,length". */
static int pax_map(lfs_tar *t, const char *v, size_t n, lfs_error *error)
{
    uint64_t numbers[2];
    int k = 0;

    t->entry.map.len = 0;
    while (n > 0) {
        const char *comma = memchr(v, ',', n);
        size_t len = comma == NULL ? n : (size_t)(comma - v);
        int r;

        if (parse_decimal(v, len, &numbers[k]) < 0 || n == len + 1) /* nothing behind a comma */
            return lfs_tar_bad(error, t, "sparse map");
        if (++k == 2) {
            k = 0;
            r = lfs_tar_add_segment(t, numbers[0], numbers[1], error);
            if (r < 0)
                return r;
        }
        v += len + (comma != NULL);
        n -= len + (comma != NULL);
    }
    if (k != 0)
        return lfs_tar_bad(error, t, "sparse map");
    t->pax.set |= SET_MAP;
    return 0;
}

static int pax_sparse(lfs_tar *t, const char *key, size_t k, const char *v, size_t n, lfs_error *error)
{
    pax_values *x = &t->pax;
    uint64_t number;

    if (key_is(key, k, "GNU.sparse.major"))
        return pax_number(t, v, n, SET_MAJOR, &x->sparse_major, error);
    if (key_is(key, k, "GNU.sparse.minor"))
        return pax_number(t, v, n, SET_MINOR, &x->sparse_minor, error);
    if (key_is(key, k, "GNU.sparse.name"))
        return pax_string(t, v, n, SET_SPARSE_NAME, &x->sparse_name, error);
    if (key_is(key, k, "GNU.sparse.size") || key_is(key, k, "GNU.sparse.realsize"))
        return pax_number(t, v, n, SET_REALSIZE, &x->realsize, error);
    if (key_is(key, k, "GNU.sparse.map"))
        return pax_map(t, v, n, error);
    if (key_is(key, k, "GNU.sparse.offset")) {
        if (x->pending_offset || parse_decimal(v, n, &x->offset) < 0)
            return lfs_tar_bad(error, t, "sparse map");
        x->pending_offset = true;
    } else if (key_is(key, k, "GNU.sparse.numbytes")) {
        if (!x->pending_offset || parse_decimal(v, n, &number) < 0)
            return lfs_tar_bad(error, t, "sparse map");
        x->pending_offset = false;
        x->set |= SET_MAP;
        return lfs_tar_add_segment(t, x->offset, number, error);
    }
    return 0;
}

static int pax_record(lfs_tar *t, const char *key, size_t k, const char *v, size_t n, lfs_error *error)
{
    static const char xattr_prefix[] = "SCHILY.xattr.";
    pax_values *x = &t->pax;
    size_t prefix = sizeof xattr_prefix - 1;

    if (key_is(key, k, "path"))
        return pax_string(t, v, n, SET_PATH, &x->path, error);
    if (key_is(key, k, "linkpath"))
        return pax_string(t, v, n, SET_LINK, &x->link, error);
    if (key_is(key, k, "size"))
        return pax_number(t, v, n, SET_SIZE, &x->size, error);
    if (key_is(key, k, "uid"))
        return pax_number(t, v, n, SET_UID, &x->uid, error);
    if (key_is(key, k, "gid"))
        return pax_number(t, v, n, SET_GID, &x->gid, error);
    if (key_is(key, k, "mtime")) {
        x->set &= ~(unsigned)SET_MTIME;
        if (n == 0)
            return 0;
        if (parse_time(v, n, &x->mtime, &x->mtime_nsec) < 0)
            return lfs_tar_bad(error, t, "time in an extended header");
        x->set |= SET_MTIME;
        return 0;
    }
    if (k > prefix && memcmp(key, xattr_prefix, prefix) == 0)
        return pax_xattr(t, key + prefix, k - prefix, v, n, error);
    if (key_is(key, k, "SCHILY.acl.access") || key_is(key, k, "SCHILY.acl.default"))
        return pax_acl(t, key, k, v, n, error);
    if (k > 11 && memcmp(key, "GNU.sparse.", 11) == 0)
        return pax_sparse(t, key, k, v, n, error);
    return 0;
}

/* "length key=value\n", length counting the whole record in decimal. */
int lfs_pax_records(lfs_tar *t, const char *p, size_t n, lfs_error *error)
{
    while (n > 0) {
        const char *space = memchr(p, ' ', n < 20 ? n : 20);
        const char *equals;
        uint64_t length;
        size_t head;
        int r;

        if (space == NULL || parse_decimal(p, (size_t)(space - p), &length) < 0)
            return lfs_tar_bad(error, t, "record of an extended header");
        head = (size_t)(space - p) + 1;
        if (length > n || length < head + 2 || p[length - 1] != '\n')
            return lfs_tar_bad(error, t, "record of an extended header");
        equals = memchr(space + 1, '=', (size_t)length - head - 1);
        if (equals == NULL || equals == space + 1)
            return lfs_tar_bad(error, t, "record of an extended header");
        r = pax_record(t, space + 1, (size_t)(equals - space - 1), equals + 1,
                       (size_t)(p + length - 1 - (equals + 1)), error);
        if (r < 0)
            return r;
        p += length;
        n -= (size_t)length;
    }
    return 0;
}
