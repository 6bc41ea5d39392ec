/* reader_xattr.c - the extended attributes of inodes in an EROFS layer; see reader.h. */
#define _GNU_SOURCE
#include "reader.h"

/* Puts the attribute at offset, which must end before end, into out; returns its length in the file. */
static int64_t put_xattr(const lfs_reader *r, uint64_t nid, uint64_t offset, uint64_t end, lfs_buf *out,
                         lfs_error *error)
{
    static const char *const prefixes[7] = {
        NULL, "user.", "system.posix_acl_access", "system.posix_acl_default", "trusted.", NULL, "security.",
    };
    const uint8_t *p = offset <= end && end - offset >= 4 ? lfs_reader_at(r, offset, 4) : NULL;
    const char *prefix;
    size_t name, value, whole, n;
    char *q;

    if (p == NULL)
        return lfs_reader_bad(error, nid, "attribute cut short");
    prefix = p[1] < 7 ? prefixes[p[1]] : NULL;
    name = p[0];
    value = lfs_get16(p + 2);
    whole = 4 + name + value;
    if (whole > end - offset || lfs_reader_at(r, offset, whole) == NULL)
        return lfs_reader_bad(error, nid, "attribute cut short");
    /* The two of ACLs have no name of their own, all others must. */
    if (prefix == NULL || (name == 0) != (p[1] == 2 || p[1] == 3) || memchr(p + 4, 0, name) != NULL)
        return lfs_reader_bad(error, nid, "malformed attribute name");
    n = strlen(prefix) + name;
    if (6 + n + value > out->cap - out->len)
        return lfs_fail(error, ERANGE, "read attributes of inode %" PRIu64, nid);
    q = out->data + out->len;
    lfs_put16(q, (uint16_t)n);
    lfs_put32(q + 2, (uint32_t)value);
    memcpy(q + 6, prefix, n - name);
    memcpy(q + 6 + n - name, p + 4, name + value);
    out->len += 6 + n + value;
    return (int64_t)lfs_align(whole, 4);
}

int64_t lfs_reader_xattrs(const lfs_reader *r, uint64_t nid, void *buf, size_t cap, lfs_error *error)
{
    lfs_buf out = {.data = buf, .cap = cap};
    uint64_t offset, end, ids;
    const uint8_t *area;
    lfs_inode in;
    int64_t n = lfs_inode_load(r, nid, &in, error);

    if (n < 0 || in.xattr_bytes == 0)
        return n;
    area = r->map + in.xattrs; /* load_inode saw to it that it is all there */
    ids = 4 * (uint64_t)area[4];
    if (in.xattr_bytes == 12 || ids > in.xattr_bytes - 12)
        return lfs_reader_bad(error, nid, "malformed attributes");
    for (uint64_t i = 12; i < 12 + ids; i += 4) {
        n = put_xattr(r, nid, r->shared + 4 * (uint64_t)lfs_get32(area + i), UINT64_MAX, &out, error);
        if (n < 0)
            return n;
    }
    end = in.body;
    for (offset = in.xattrs + 12 + ids; offset < end; offset += (uint64_t)n) {
        n = put_xattr(r, nid, offset, end, &out, error);
        if (n < 0)
            return n;
    }
    return (int64_t)out.len;
}
