/* tar_header.c - the fields of a header block: numbers, checksum, names; see tar.h. */
#define _GNU_SOURCE
#include "tar_state.h"

/* A number field: octal, spaces and NULs around it; or base-256, when the first bit is set. */
int lfs_tar_number(const uint8_t *p, size_t n, int64_t *out)
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

/* The sum of all bytes, the field itself counted as spaces. Some old writers summed signed bytes. */
bool lfs_tar_checksum_ok(const uint8_t *p)
{
    static const uint64_t even = UINT64_C(0x00ff00ff00ff00ff);
    uint64_t lanes = 0; /* four sums of 16 bits: at most 128 * 255 each */
    int64_t sum = 8 * ' ';
    int64_t want;

    if (lfs_tar_number(p + AT_CHKSUM, 8, &want) < 0)
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

int64_t lfs_tar_field(const lfs_tar *t, int at, size_t n, int *r)
{
    int64_t v = 0;

    if (lfs_tar_number(t->block + at, n, &v) < 0)
        *r = -EBADMSG;
    return v;
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
int lfs_tar_fill_entry(lfs_tar *t, bool posix, lfs_error *error)
{
    lfs_tar_entry *e = &t->entry;
    const pax_values *x = &t->pax;
    int r = 0;
    int64_t uid = x->set & SET_UID ? (int64_t)x->uid : lfs_tar_field(t, AT_UID, 8, &r);
    int64_t gid = x->set & SET_GID ? (int64_t)x->gid : lfs_tar_field(t, AT_GID, 8, &r);
    bool device = e->type == '3' || e->type == '4'; /* others have anything in these fields */
    int64_t major = device ? lfs_tar_field(t, AT_MAJOR, 8, &r) : 0;
    int64_t minor = device ? lfs_tar_field(t, AT_MINOR, 8, &r) : 0;
    int oom;

    e->mode = (uint32_t)lfs_tar_field(t, AT_MODE, 8, &r) & 07777;
    e->mtime = x->set & SET_MTIME ? x->mtime : lfs_tar_field(t, AT_MTIME, 12, &r);
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
