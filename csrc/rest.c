#define _GNU_SOURCE
#include "backend.h"

#define RAW_MAX 65536u /* a RAW operation is closed when it has this many bytes */

void lfs_rest_init(lfs_rest *r, bool absolute)
{
    memset(r, 0, sizeof *r);
    r->pending = -1;
    r->absolute = absolute;
}

void lfs_rest_free(lfs_rest *r)
{
    lfs_buf_free(&r->out);
    lfs_buf_free(&r->raw);
}

static int put_varint(lfs_buf *b, uint64_t v)
{
    uint8_t bytes[10];

    return lfs_buf_append(b, bytes, lfs_varint_put(bytes, v));
}

int lfs_rest_flush(lfs_rest *r)
{
    int e = 0;

    switch (r->pending) {
    case LFS_REST_RAW:
        e |= put_varint(&r->out, r->raw.len << 2 | LFS_REST_RAW);
        e |= lfs_buf_append(&r->out, r->raw.data, r->raw.len);
        r->raw.len = 0;
        break;
    case LFS_REST_DATA:
        e |= put_varint(&r->out, r->length << 2 | LFS_REST_DATA);
        e |= put_varint(&r->out, r->absolute ? r->where : lfs_zigzag((int64_t)(r->where - r->end)));
        r->end = r->where + r->length;
        break;
    case LFS_REST_ZERO:
        e |= put_varint(&r->out, r->length << 2 | LFS_REST_ZERO);
        break;
    default:
        break;
    }
    r->pending = -1;
    return e < 0 ? -ENOMEM : 0;
}

/* Make `op` the operation at hand; whether it can go on from what is there is the caller's to say. */
static int turn_to(lfs_rest *r, int op, bool joins)
{
    if (r->pending == op && joins)
        return 0;
    if (lfs_rest_flush(r) < 0)
        return -ENOMEM;
    r->pending = op;
    r->length = 0;
    return 0;
}

int lfs_rest_raw(lfs_rest *r, const void *data, size_t n)
{
    const char *p = data;

    while (n > 0) {
        size_t k;

        if (turn_to(r, LFS_REST_RAW, r->raw.len < RAW_MAX) < 0)
            return -ENOMEM;
        k = RAW_MAX - r->raw.len < n ? RAW_MAX - r->raw.len : n;
        if (lfs_buf_append(&r->raw, p, k) < 0)
            return -ENOMEM;
        p += k;
        n -= k;
    }
    return 0;
}

int lfs_rest_data(lfs_rest *r, uint64_t where, uint64_t n)
{
    if (n == 0)
        return 0;
    if (turn_to(r, LFS_REST_DATA, where == r->where + r->length) < 0)
        return -ENOMEM;
    if (r->length == 0)
        r->where = where;
    r->length += n;
    return 0;
}

int lfs_rest_zero(lfs_rest *r, uint64_t n)
{
    if (n == 0)
        return 0;
    if (turn_to(r, LFS_REST_ZERO, true) < 0)
        return -ENOMEM;
    r->length += n;
    return 0;
}

/* What is left moves down only when as much has been taken: the cost stays linear for any cap. */
size_t lfs_rest_take(lfs_rest *r, void *buf, size_t cap)
{
    size_t n = r->out.len - r->taken < cap ? r->out.len - r->taken : cap;

    if (n == 0)
        return 0;
    memcpy(buf, r->out.data + r->taken, n);
    r->taken += n;
    if (r->taken >= r->out.len - r->taken) {
        r->out.len -= r->taken;
        memmove(r->out.data, r->out.data + r->taken, r->out.len);
        r->taken = 0;
    }
    return n;
}

int lfs_rest_file(lfs_rest *r, uint32_t number, const char *path, size_t n)
{
    if (lfs_rest_flush(r) < 0 || put_varint(&r->out, (uint64_t)n << 2 | LFS_REST_FILE) < 0 ||
        put_varint(&r->out, number) < 0 || lfs_buf_append(&r->out, path, n) < 0)
        return -ENOMEM;
    return 0;
}
