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

/* Offsets in a header block. */
enum {
    AT_NAME = 0, AT_MODE = 100, AT_UID = 108, AT_GID = 116, AT_SIZE = 124, AT_MTIME = 136, AT_CHKSUM = 148,
    AT_TYPE = 156, AT_LINK = 157, AT_MAGIC = 257, AT_MAJOR = 329, AT_MINOR = 337, AT_PREFIX = 345,
    AT_GNU_SPARSE = 386, AT_GNU_EXTENDED = 482, AT_GNU_REALSIZE = 483, AT_STAR_TRAILER = 508,
};

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

/* A number field: octal, spaces and NULs around it; or base-256, when the first bit is set. */
static int parse_number(const uint8_t *p, size_t n, int64_t *out)
{
    uint64_t v = 0;
    size_t i = 0;

    if (p[0] & 0x80) {
        bool negative = p[0] & 0x40;
        uint8_t fill = negative ? 0xff : 0;
        uint8_t first = negative ? p[0] : (uint8_t)(p[0] & 0x7f);

        for (i = 0; i < n; i++) {
            uint8_t byte = i == 0 ? first : p[i];
            if (n - i > 8) {
                if (byte != fill)
                    return -EBADMSG;
                continue;
            }
            v = v << 8 | byte;
        }
        if (n < 8 && negative)
            v |= ~UINT64_C(0) << (8 * n);
        if ((v >> 63) != negative)
            return -EBADMSG;
        *out = (int64_t)v;
        return 0;
    }
    while (i < n && (p[i] == ' ' || p[i] == '\0'))
        i++;
    for (; i < n && p[i] >= '0' && p[i] <= '7'; i++) {
        if (v >> 60)
            return -EBADMSG;
        v = v << 3 | (uint64_t)(p[i] - '0');
    }
    for (; i < n; i++)
        if (p[i] != ' ' && p[i] != '\0')
            return -EBADMSG;
    *out = (int64_t)v;
    return 0;
}

int lfs_tar_bad(lfs_error *error, const lfs_tar *t, const char *what)
{
    if (t->entry.path.len > 0)
        return lfs_fail(error, EBADMSG, "read archive near %.120s: %s", t->entry.path.data, what);
    return lfs_fail(error, EBADMSG, "read archive: %s", what);
}

int lfs_tar_add_segment(lfs_tar *t, uint64_t offset, uint64_t length, lfs_error *error)
{
    lfs_tar_segment segment = {offset, length};

    if (t->entry.map.len / sizeof segment >= LFS_TAR_MAX_SPARSE)
        return lfs_fail(error, EFBIG, "read archive: sparse file of more than %u segments",
                        LFS_TAR_MAX_SPARSE);
    if (lfs_buf_append(&t->entry.map, &segment, sizeof segment) < 0)
        return lfs_fail(error, ENOMEM, "read archive: sparse map");
    return 0;
}

/* The map ascends, stays within the file, and its segments add up to the content. */
static int check_map(lfs_tar *t, uint64_t content, lfs_error *error)
{
    const lfs_tar_segment *s = (const void *)t->entry.map.data;
    size_t n = t->entry.map.len / sizeof *s;
    uint64_t end = 0;
    uint64_t sum = 0;

    for (size_t i = 0; i < n; i++) {
        if (s[i].offset < end || s[i].length > t->entry.size || s[i].offset > t->entry.size - s[i].length)
            return lfs_tar_bad(error, t, "sparse map out of order or beyond the file");
        end = s[i].offset + s[i].length;
        sum += s[i].length;
    }
    if (sum != content)
        return lfs_tar_bad(error, t, "sparse map does not match the content's size");
    return 0;
}

static bool block_is_zero(const uint8_t *p)
{
    return p[0] == 0 && memcmp(p, p + 1, LFS_TAR_BLOCK - 1) == 0;
}

/* The sum of all bytes, the field itself counted as spaces. Some old writers summed signed bytes. */
static bool checksum_ok(const uint8_t *p)
{
    static const uint64_t even = UINT64_C(0x00ff00ff00ff00ff);
    uint64_t lanes = 0; /* four sums of 16 bits: at most 128 * 255 each */
    int64_t sum = 8 * ' ';
    int64_t want;

    if (parse_number(p + AT_CHKSUM, 8, &want) < 0)
        return false;
    for (int i = 0; i < LFS_TAR_BLOCK; i += 8) {
        uint64_t w;
        memcpy(&w, p + i, 8);
        lanes += (w & even) + (w >> 8 & even);
    }
    for (int i = 0; i < 4; i++)
        sum += (int64_t)(lanes >> 16 * i & 0xffff);
    for (int i = AT_CHKSUM; i < AT_CHKSUM + 8; i++)
        sum -= p[i];
    if (want == sum)
        return true;
    for (int i = 0; i < LFS_TAR_BLOCK; i++)
        if ((p[i] & 0x80) && (i < AT_CHKSUM || i >= AT_CHKSUM + 8))
            sum -= 256;
    return want == sum;
}

static int64_t field(const lfs_tar *t, int at, size_t n, int *r)
{
    int64_t v = 0;

    if (parse_number(t->block + at, n, &v) < 0)
        *r = -EBADMSG;
    return v;
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

static int header_path(lfs_tar *t, bool posix)
{
    const char *name = (const char *)t->block + AT_NAME;
    const char *prefix = (const char *)t->block + AT_PREFIX;
    size_t n = strnlen(name, 100);
    bool star = memcmp(t->block + AT_STAR_TRAILER, "tar", 4) == 0;
    size_t m = posix ? strnlen(prefix, star ? 131 : 155) : 0;
    char path[100 + 155 + 1];

    if (m > 0) {
        memcpy(path, prefix, m);
        path[m++] = '/';
    }
    memcpy(path + m, name, n);
    return lfs_tar_set_string(&t->entry.path, path, m + n);
}

/* Name, link and numbers of the member: the header, and over it GNU's long names, and over those PAX. */
static int fill_entry(lfs_tar *t, bool posix, lfs_error *error)
{
    lfs_tar_entry *e = &t->entry;
    const pax_values *x = &t->pax;
    int r = 0;
    int64_t uid = x->set & SET_UID ? (int64_t)x->uid : field(t, AT_UID, 8, &r);
    int64_t gid = x->set & SET_GID ? (int64_t)x->gid : field(t, AT_GID, 8, &r);
    bool device = e->type == '3' || e->type == '4'; /* others have anything in these fields */
    int64_t major = device ? field(t, AT_MAJOR, 8, &r) : 0;
    int64_t minor = device ? field(t, AT_MINOR, 8, &r) : 0;
    int oom;

    e->mode = (uint32_t)field(t, AT_MODE, 8, &r) & 07777;
    e->mtime = x->set & SET_MTIME ? x->mtime : field(t, AT_MTIME, 12, &r);
    e->mtime_nsec = x->set & SET_MTIME ? x->mtime_nsec : 0;

    if (x->set & SET_SPARSE_NAME)
        oom = lfs_tar_set_string(&e->path, x->sparse_name.data, x->sparse_name.len);
    else if (x->set & SET_PATH)
        oom = lfs_tar_set_string(&e->path, x->path.data, x->path.len);
    else if (t->has_long_name)
        oom = lfs_tar_set_string(&e->path, t->long_name.data, t->long_name.len);
    else
        oom = header_path(t, posix);
    if (x->set & SET_LINK)
        oom |= lfs_tar_set_string(&e->link, x->link.data, x->link.len);
    else if (t->has_long_link)
        oom |= lfs_tar_set_string(&e->link, t->long_link.data, t->long_link.len);
    else
        oom |= lfs_tar_set_string(&e->link, t->block + AT_LINK, strnlen((char *)t->block + AT_LINK, 100));
    if (oom < 0)
        return lfs_fail(error, ENOMEM, "read archive: names");

    if (r < 0)
        return lfs_tar_bad(error, t, "number in a header");
    if (e->path.len > LFS_TAR_MAX_PATH || e->link.len > LFS_TAR_MAX_PATH)
        return lfs_tar_bad(error, t, "name of more than 65536 bytes");
    if (uid < 0 || uid >= UINT32_MAX || gid < 0 || gid >= UINT32_MAX)
        return lfs_tar_bad(error, t, "owner out of range");
    e->uid = (uint32_t)uid;
    e->gid = (uint32_t)gid;
    e->rdev_major = (uint32_t)major;
    e->rdev_minor = (uint32_t)minor;
    if (major < 0 || major > 4095 || minor < 0 || minor > 1048575)
        return lfs_tar_bad(error, t, "device number out of range");
    return 0;
}

static void forget_extended(lfs_tar *t)
{
    t->local.len = 0;
    t->has_long_name = false;
    t->has_long_link = false;
    t->pax.set = 0;
    t->pax.pending_offset = false;
}

/* The member's header is complete: ENTRY next, then `content` bytes of DATA. */
static int begin_data(lfs_tar *t, uint64_t content, lfs_error *error)
{
    if (t->entry.sparse) {
        int r = check_map(t, content, error);
        if (r < 0)
            return r;
    }
    t->left = content;
    t->entry_due = true;
    t->state = DATA;
    return 0;
}

static int old_sparse_segments(lfs_tar *t, const uint8_t *p, int n, lfs_error *error)
{
    for (int i = 0; i < n; i++, p += 24) {
        int64_t offset;
        int64_t length;
        int r;

        if (p[0] == '\0' || p[12] == '\0')
            break;
        if (parse_number(p, 12, &offset) < 0 || parse_number(p + 12, 12, &length) < 0 || offset < 0 ||
            length < 0)
            return lfs_tar_bad(error, t, "sparse map");
        r = lfs_tar_add_segment(t, (uint64_t)offset, (uint64_t)length, error);
        if (r < 0)
            return r;
    }
    return 0;
}

static int begin_sparse(lfs_tar *t, char type, uint64_t content, lfs_error *error)
{
    const pax_values *x = &t->pax;
    int r = 0;

    t->entry.sparse = true;
    if (type == 'S') {
        int64_t realsize = field(t, AT_GNU_REALSIZE, 12, &r);
        if (r < 0 || realsize < 0)
            return lfs_tar_bad(error, t, "size of a sparse file");
        t->entry.size = (uint64_t)realsize;
        t->entry.map.len = 0;
        r = old_sparse_segments(t, t->block + AT_GNU_SPARSE, 4, error);
        if (r < 0)
            return r;
        if (!t->block[AT_GNU_EXTENDED])
            return begin_data(t, content, error);
        t->left = content;
        t->have = 0;
        t->state = OLD_MAP;
        return 0;
    }
    if (!(x->set & SET_REALSIZE))
        return lfs_tar_bad(error, t, "sparse file without a size");
    t->entry.size = x->realsize;
    if (x->set & SET_MAP)
        return begin_data(t, content, error);
    if (x->sparse_major != 1 || x->sparse_minor != 0)
        return lfs_tar_bad(error, t, "unknown sparse format");
    t->entry.map.len = 0;
    t->map_entries = 0;
    t->map_counted = false;
    t->map_number = 0;
    t->map_digits = false;
    t->left = content;
    t->have = 0;
    t->state = PAX_MAP;
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
    r = fill_entry(t, posix, error);
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
        r = begin_sparse(t, type, content, error);
    else
        r = begin_data(t, content, error);
    if (t->state == DATA)
        forget_extended(t);
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
    if (!checksum_ok(p)) {
        /* Few writers put a file's content behind its hard links as well, most readers take the size of a
         * link for a slip. A block that is no header tells which it is. */
        if (link_size == 0)
            return lfs_tar_bad(error, t, "not a tar header (wrong checksum)");
        t->left = lfs_align(link_size, LFS_TAR_BLOCK) - LFS_TAR_BLOCK;
        t->state = BODY;
        return 0;
    }
    if (parse_number(p + AT_SIZE, 12, &size) < 0 || size < 0)
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
        forget_extended(t);
        return 0;
    default:
        return begin_member(t, type, posix, size, error);
    }
}

static int on_old_map_block(lfs_tar *t, lfs_error *error)
{
    uint64_t content = t->left;
    int r = old_sparse_segments(t, t->block, 21, error);

    t->have = 0;
    if (r < 0)
        return r;
    if (t->block[504])
        return 0;
    r = begin_data(t, content, error);
    forget_extended(t);
    return r;
}

/* A block of the text in front of a PAX 1.0 sparse member: a count, then offset and length in turn, a
 * decimal number a line, filled up with NULs to the block. */
static int on_pax_map_block(lfs_tar *t, lfs_error *error)
{
    int r;

    t->have = 0;
    t->left -= LFS_TAR_BLOCK;
    for (int i = 0; i < LFS_TAR_BLOCK; i++) {
        uint8_t c = t->block[i];
        size_t numbers = t->entry.map.len / sizeof(uint64_t);

        if (c >= '0' && c <= '9' && t->map_number < INT64_MAX / 10 - 9) {
            t->map_number = t->map_number * 10 + (uint64_t)(c - '0');
            t->map_digits = true;
            continue;
        }
        if (c != '\n' || !t->map_digits)
            return lfs_tar_bad(error, t, "sparse map");
        if (!t->map_counted) {
            t->map_counted = true;
            t->map_entries = t->map_number;
            if (t->map_entries > LFS_TAR_MAX_SPARSE)
                return lfs_fail(error, EFBIG, "read archive: sparse file of more than %u segments",
                                LFS_TAR_MAX_SPARSE);
        } else {
            if (lfs_buf_append(&t->entry.map, &t->map_number, sizeof t->map_number) < 0)
                return lfs_fail(error, ENOMEM, "read archive: sparse map");
            numbers++;
        }
        t->map_number = 0;
        t->map_digits = false;
        if (numbers == 2 * t->map_entries) {
            r = begin_data(t, t->left, error);
            forget_extended(t);
            return r;
        }
    }
    if (t->left < LFS_TAR_BLOCK)
        return lfs_tar_bad(error, t, "sparse map longer than its member");
    return 0;
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
                r = t->state == OLD_MAP ? on_old_map_block(t, error) : on_pax_map_block(t, error);
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
