/* tar_sparse.c - the maps of sparse members: GNU's old form, and PAX 0.0, 0.1 and 1.0; see tar.h. */
#define _GNU_SOURCE
#include "tar_state.h"

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
int lfs_tar_check_map(lfs_tar *t, uint64_t content, lfs_error *error)
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

static int old_sparse_segments(lfs_tar *t, const uint8_t *p, int n, lfs_error *error)
{
    for (int i = 0; i < n; i++, p += 24) {
        int64_t offset;
        int64_t length;
        int r;

        if (p[0] == '\0' || p[12] == '\0')
            break;
        if (lfs_tar_number(p, 12, &offset) < 0 || lfs_tar_number(p + 12, 12, &length) < 0 || offset < 0 ||
            length < 0)
            return lfs_tar_bad(error, t, "sparse map");
        r = lfs_tar_add_segment(t, (uint64_t)offset, (uint64_t)length, error);
        if (r < 0)
            return r;
    }
    return 0;
}

int lfs_tar_begin_sparse(lfs_tar *t, char type, uint64_t content, lfs_error *error)
{
    const pax_values *x = &t->pax;
    int r = 0;

    t->entry.sparse = true;
    if (type == 'S') {
        int64_t realsize = lfs_tar_field(t, AT_GNU_REALSIZE, 12, &r);
        if (r < 0 || realsize < 0)
            return lfs_tar_bad(error, t, "size of a sparse file");
        t->entry.size = (uint64_t)realsize;
        t->entry.map.len = 0;
        r = old_sparse_segments(t, t->block + AT_GNU_SPARSE, 4, error);
        if (r < 0)
            return r;
        if (!t->block[AT_GNU_EXTENDED])
            return lfs_tar_begin_data(t, content, error);
        t->left = content;
        t->have = 0;
        t->state = OLD_MAP;
        return 0;
    }
    if (!(x->set & SET_REALSIZE))
        return lfs_tar_bad(error, t, "sparse file without a size");
    t->entry.size = x->realsize;
    if (x->set & SET_MAP)
        return lfs_tar_begin_data(t, content, error);
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

int lfs_tar_old_map_block(lfs_tar *t, lfs_error *error)
{
    uint64_t content = t->left;
    int r = old_sparse_segments(t, t->block, 21, error);

    t->have = 0;
    if (r < 0)
        return r;
    if (t->block[504])
        return 0;
    r = lfs_tar_begin_data(t, content, error);
    lfs_tar_forget_extended(t);
    return r;
}

/* A block of the text in front of a PAX 1.0 sparse member: a count, then offset and length in turn, a
 * decimal number a line, filled up with NULs to the block. */
int lfs_tar_pax_map_block(lfs_tar *t, lfs_error *error)
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
            r = lfs_tar_begin_data(t, t->left, error);
            lfs_tar_forget_extended(t);
            return r;
        }
    }
    if (t->left < LFS_TAR_BLOCK)
        return lfs_tar_bad(error, t, "sparse map longer than its member");
    return 0;
}
