/*
 * tar.c - see tar.h.
 *
 * States: HEADER collects a block. An extended header is collected whole (EXTENDED) and waits for the
 * member it describes. A sparse member first completes its map (OLD_MAP: GNU extension blocks; PAX_MAP: the
 * text in front of the data). DATA, then PADDING to the block, then HEADER again. A zero block leads to END,
 * where everything is RAW: GNU tar, too, reads nothing behind a single one.
 */
#define _GNU_SOURCE
#include "tar_state.h"

lfs_tar *lfs_tar_new(void)
{
    return calloc(1, sizeof(lfs_tar));
}

void lfs_tar_free(lfs_tar *t)
{
    if (t == NULL)
        return;
    lfs_buf_free(&t->extended);
    lfs_buf_free(&t->global);
    lfs_buf_free(&t->local);
    lfs_buf_free(&t->long_name);
    lfs_buf_free(&t->long_link);
    lfs_buf_free(&t->pax.path);
    lfs_buf_free(&t->pax.link);
    lfs_buf_free(&t->pax.sparse_name);
    lfs_buf_free(&t->pax.map);
    lfs_buf_free(&t->entry.path);
    lfs_buf_free(&t->entry.link);
    lfs_buf_free(&t->entry.xattrs);
    lfs_buf_free(&t->entry.map);
    free(t);
}

const lfs_tar_entry *lfs_tar_current(const lfs_tar *t)
{
    return &t->entry;
}

int lfs_tar_set_string(lfs_buf *b, const void *data, size_t n)
{
    b->len = 0;
    if (lfs_buf_reserve(b, n + 1) < 0)
        return -ENOMEM;
    memcpy(b->data, data, n);
    b->data[n] = '\0';
    b->len = n;
    return 0;
}

int lfs_tar_bad(lfs_error *error, const lfs_tar *t, const char *what)
{
    if (t->entry.path.len > 0)
        return lfs_fail(error, EBADMSG, "read archive near %.120s: %s", t->entry.path.data, what);
    return lfs_fail(error, EBADMSG, "read archive: %s", what);
}

static bool block_is_zero(const uint8_t *p)
{
    return p[0] == 0 && memcmp(p, p + 1, LFS_TAR_BLOCK - 1) == 0;
}

/* An 'x', 'g', 'L' or 'K' block: its content is collected before anything else happens. */
static int begin_extended(lfs_tar *t, char type, int64_t size, lfs_error *error)
{
    if (size < 0 || size > LFS_TAR_MAX_EXTENDED)
        return lfs_fail(error, EFBIG, "read archive: extended header of %lld bytes, more than %u",
                        (long long)size, LFS_TAR_MAX_EXTENDED);
    t->extended.len = 0;
    t->extended_type = type;
    t->left = (uint64_t)size;
    t->padding = (unsigned)(-(uint64_t)size & (LFS_TAR_BLOCK - 1));
    t->state = EXTENDED;
    return 0;
}

static int end_extended(lfs_tar *t, lfs_error *error)
{
    const char *p = t->extended.data;
    size_t n = t->extended.len;
    size_t name = n > 0 ? strnlen(p, n) : 0;
    int r = 0;

    switch (t->extended_type) {
    case 'L':
        r = lfs_tar_set_string(&t->long_name, n > 0 ? p : "", name);
        t->has_long_name = true;
        break;
    case 'K':
        r = lfs_tar_set_string(&t->long_link, n > 0 ? p : "", name);
        t->has_long_link = true;
        break;
    case 'g':
        if (t->global.len + n > LFS_TAR_MAX_GLOBAL)
            return lfs_fail(error, EFBIG, "read archive: global extended headers of more than %u bytes",
                            LFS_TAR_MAX_GLOBAL);
        r = lfs_buf_append(&t->global, p, n);
        break;
    default:
        t->local.len = 0;
        r = lfs_buf_append(&t->local, p, n);
    }
    if (r < 0)
        return lfs_fail(error, ENOMEM, "read archive: extended header");
    t->state = PADDING;
    return 0;
}

void lfs_tar_forget_extended(lfs_tar *t)
{
    t->local.len = 0;
    t->has_long_name = false;
    t->has_long_link = false;
    t->pax.set = 0;
    t->pax.pending_offset = false;
}

/* The member's header is complete: ENTRY next, then `content` bytes of DATA. */
int lfs_tar_begin_data(lfs_tar *t, uint64_t content, lfs_error *error)
{
    if (t->entry.sparse) {
        int r = lfs_tar_check_map(t, content, error);
        if (r < 0)
            return r;
    }
    t->left = content;
    t->entry_due = true;
    t->state = DATA;
    return 0;
}

/* A header block that is not an extended one, with all that came before it. */
static int begin_member(lfs_tar *t, char type, bool posix, int64_t size, lfs_error *error)
{
    lfs_tar_entry *e = &t->entry;
    uint64_t content;
    bool sparse;
    int r;

    e->xattrs.len = 0;
    e->map.len = 0;
    t->pax.set = 0;
    t->pax.sparse_major = t->pax.sparse_minor = 0;
    r = lfs_pax_records(t, t->global.data, t->global.len, error);
    if (r == 0)
        r = lfs_pax_records(t, t->local.data, t->local.len, error);
    if (r < 0)
        return r;
    if (t->pax.pending_offset)
        return lfs_tar_bad(error, t, "sparse map");
    e->type = type;
    r = lfs_tar_fill_entry(t, posix, error);
    if (r < 0)
        return r;

    content = t->pax.set & SET_SIZE ? t->pax.size : (uint64_t)size;
    sparse = type == 'S' || (t->pax.set & (SET_MAJOR | SET_MAP));
    if ((type == '\0' || type == '0' || type == '7') && e->path.len > 0 &&
        e->path.data[e->path.len - 1] == '/')
        e->type = '5'; /* V7 had no type for directories, and BSD wrote them so */
    else if (type == 'D')
        e->type = '5';
    else if (type < '1' || type > '6')
        e->type = '0';
    else { /* types 1 to 6 are header only, whatever the size says */
        t->link_size = type == '1' ? content : 0;
        content = 0;
    }
    t->padding = (unsigned)(-content & (LFS_TAR_BLOCK - 1));
    e->has_data = e->type == '0';
    e->sparse = false;
    e->size = e->has_data ? content : 0;
    if (e->has_data && sparse)
        r = lfs_tar_begin_sparse(t, type, content, error);
    else
        r = lfs_tar_begin_data(t, content, error);
    if (t->state == DATA)
        lfs_tar_forget_extended(t);
    return r;
}

static int on_header(lfs_tar *t, lfs_error *error)
{
    const uint8_t *p = t->block;
    bool posix = memcmp(p + AT_MAGIC, "ustar\0", 6) == 0;
    char type = (char)p[AT_TYPE];
    uint64_t link_size = t->link_size;
    int64_t size;

    t->have = 0;
    t->link_size = 0;
    if (block_is_zero(p)) {
        t->state = END;
        return 0;
    }
    if (!lfs_tar_checksum_ok(p)) {
        /* Few writers put a file's content behind its hard links as well, most readers take the size of a
         * link for a slip. A block that is no header tells which it is. */
        if (link_size == 0)
            return lfs_tar_bad(error, t, "not a tar header (wrong checksum)");
        t->left = lfs_align(link_size, LFS_TAR_BLOCK) - LFS_TAR_BLOCK;
        t->state = BODY;
        return 0;
    }
    if (lfs_tar_number(p + AT_SIZE, 12, &size) < 0 || size < 0)
        return lfs_tar_bad(error, t, "size in a header");
    switch (type) {
    case 'x':
    case 'X':
    case 'g':
    case 'L':
    case 'K':
        return begin_extended(t, type, size, error);
    case 'M':
        return lfs_tar_bad(error, t, "continued from another volume");
    case 'V': /* a volume label, and old GNU name lists: no member of the tree */
    case 'N':
        t->entry.path.len = 0;
        t->entry.has_data = false;
        t->entry.type = 'V';
        t->entry.sparse = false;
        t->left = (uint64_t)size;
        t->padding = (unsigned)(-(uint64_t)size & (LFS_TAR_BLOCK - 1));
        t->entry_due = true;
        t->state = DATA;
        lfs_tar_forget_extended(t);
        return 0;
    default:
        return begin_member(t, type, posix, size, error);
    }
}

static size_t take(const uint8_t **p, size_t *n, uint64_t want, const uint8_t **span, size_t *span_len)
{
    size_t k = *n < want ? *n : (size_t)want;

    *span = *p;
    *span_len = k;
    *p += k;
    *n -= k;
    return k;
}

/* Collect a block; 1 when it is full, 0 when more is needed. The bytes are RAW either way. */
static int collect(lfs_tar *t, const uint8_t **p, size_t *n, const uint8_t **span, size_t *span_len)
{
    size_t k = take(p, n, LFS_TAR_BLOCK - t->have, span, span_len);

    memcpy(t->block + t->have, *span, k);
    t->have += k;
    return t->have == LFS_TAR_BLOCK;
}

int lfs_tar_next(lfs_tar *t, const uint8_t **p, size_t *n, const uint8_t **span, size_t *span_len,
                 lfs_error *error)
{
    int r;

    if (t->entry_due) {
        t->entry_due = false;
        t->data_end_due = true;
        return LFS_TAR_ENTRY;
    }
    if (t->state == DATA && t->left == 0 && t->data_end_due) {
        t->data_end_due = false;
        t->have = 0;
        t->state = t->padding > 0 ? PADDING : HEADER;
        return LFS_TAR_DATA_END;
    }
    if (t->state == EXTENDED && t->left == 0) {
        r = end_extended(t, error);
        if (r < 0)
            return r;
    }
    if ((t->state == PADDING && t->padding == 0) || (t->state == BODY && t->left == 0)) {
        t->have = 0;
        t->state = HEADER;
    }
    if (t->state == PAX_MAP && t->have == 0 && t->left < LFS_TAR_BLOCK)
        return lfs_tar_bad(error, t, "sparse map longer than its member");
    if (*n == 0)
        return LFS_TAR_MORE;

    switch (t->state) {
    case HEADER:
    case OLD_MAP:
    case PAX_MAP:
        r = collect(t, p, n, span, span_len);
        if (r == 1) {
            if (t->state == HEADER)
                r = on_header(t, error);
            else
                r = t->state == OLD_MAP ? lfs_tar_old_map_block(t, error) : lfs_tar_pax_map_block(t, error);
            if (r < 0)
                return r;
        }
        return LFS_TAR_RAW;
    case EXTENDED:
        t->left -= take(p, n, t->left, span, span_len);
        if (lfs_buf_append(&t->extended, *span, *span_len) < 0)
            return lfs_fail(error, ENOMEM, "read archive: extended header");
        return LFS_TAR_RAW;
    case DATA:
        t->left -= take(p, n, t->left, span, span_len);
        return t->entry.has_data ? LFS_TAR_DATA : LFS_TAR_RAW;
    case PADDING:
        t->padding -= (unsigned)take(p, n, t->padding, span, span_len);
        return LFS_TAR_RAW;
    case BODY:
        t->left -= take(p, n, t->left, span, span_len);
        return LFS_TAR_RAW;
    case END:
        take(p, n, SIZE_MAX, span, span_len);
        return LFS_TAR_RAW;
    }
    return -EINVAL;
}

int lfs_tar_finish(const lfs_tar *t, lfs_error *error)
{
    switch (t->state) {
    case END:
    case PADDING:
        return 0;
    case HEADER: /* a part of a zero block is an end as well */
        if (t->have == 0 || (t->block[0] == 0 && memcmp(t->block, t->block + 1, t->have - 1) == 0))
            return 0;
        return lfs_tar_bad(error, t, "ends in the middle of a header");
    case DATA:
    case BODY:
        return t->left == 0 ? 0 : lfs_tar_bad(error, t, "ends in the middle of a file's content");
    case EXTENDED:
    case OLD_MAP:
    case PAX_MAP:
        break;
    }
    return lfs_tar_bad(error, t, "ends in the middle of a header");
}
