/* unpack_attr.c - the attributes of members; ACLs are kept as a file system would keep them. */
#define _GNU_SOURCE
#include "unpack.h"

#include "acl.h"

typedef struct xattr {
    const char *name;
    const char *value;
    uint32_t value_len;
    uint16_t name_len;
    uint8_t prefix;
    uint8_t prefix_len;
    uint32_t order;
} xattr;

static int compare_xattrs(const void *a, const void *b)
{
    const xattr *x = a;
    const xattr *y = b;
    size_t n = x->name_len < y->name_len ? x->name_len : y->name_len;
    int r = memcmp(x->name, y->name, n);

    if (r == 0)
        r = (x->name_len > y->name_len) - (x->name_len < y->name_len);
    return r != 0 ? r : (x->order > y->order) - (x->order < y->order);
}

/* overlayfs would obey these. */
static bool is_overlay_xattr(const char *name, size_t n)
{
    return starts_with(name, n, "trusted.overlay.") || starts_with(name, n, "user.overlay.");
}

int lfs_unpack_record(lfs_buf *b, int prefix, const char *name, size_t n, const char *value, size_t m)
{
    static const char zero[4];
    lfs_xattr_record r = {.name_len = (uint8_t)n, .prefix = (uint8_t)prefix};
    size_t size = sizeof r + n + m;

    r.value_len = htole16((uint16_t)m);
    if (lfs_buf_append(b, &r, sizeof r) < 0 || lfs_buf_append(b, name, n) < 0 ||
        lfs_buf_append(b, value, m) < 0 || lfs_buf_append(b, zero, -size & 3) < 0)
        return -ENOMEM;
    return 0;
}

static bool is_acl(const xattr *x)
{
    return x->prefix == LFS_XATTR_ACL_ACCESS || x->prefix == LFS_XATTR_ACL_DEFAULT;
}

/*
 * An ACL as a file system would keep it: only a valid one, the default kind on directories alone; the access
 * kind sets the permission bits, and one that says no more than these do is not stored.
 */
static bool keep_acl(lfs_unpack *u, const xattr *x, uint32_t type, uint32_t *mode)
{
    uint32_t permissions;
    int r = lfs_acl_check(x->value, x->value_len, &permissions);

    if (r < 0 || S_ISLNK(type) || (x->prefix == LFS_XATTR_ACL_DEFAULT && !S_ISDIR(type))) {
        u->result.xattrs_dropped++;
        return false;
    }
    if (x->prefix == LFS_XATTR_ACL_DEFAULT)
        return true;
    *mode = (*mode & ~(uint32_t)0777) | permissions;
    return r > 0;
}

/* The member's attributes as a set of the tree: sorted, the last of each name, what no layer can hold left
 * out and counted. */
static int member_xattrs(lfs_unpack *u, const lfs_tar_entry *e, uint32_t type, uint32_t *mode, uint32_t *set,
                         lfs_error *error)
{
    cleanup_free xattr *list = NULL;
    size_t count = 0;
    size_t k = 0;

    *set = 0;
    if (e->xattrs.len == 0)
        return 0;
    for (size_t i = 0; i < e->xattrs.len; count++)
        i += 6u + lfs_get16(e->xattrs.data + i) + lfs_get32(e->xattrs.data + i + 2);
    list = calloc(count, sizeof *list);
    if (list == NULL)
        return unpack_oom(error);
    for (size_t i = 0; i < e->xattrs.len;) {
        xattr *x = &list[k];
        size_t prefix_len = 0;

        x->name_len = lfs_get16(e->xattrs.data + i);
        x->value_len = lfs_get32(e->xattrs.data + i + 2);
        x->name = e->xattrs.data + i + 6;
        x->value = x->name + x->name_len;
        x->order = (uint32_t)k;
        x->prefix = (uint8_t)lfs_xattr_prefix(x->name, x->name_len, &prefix_len);
        x->prefix_len = (uint8_t)prefix_len;
        i += 6u + x->name_len + x->value_len;
        if (x->prefix == 0 || is_overlay_xattr(x->name, x->name_len))
            u->result.xattrs_dropped++;
        else
            k++;
    }
    qsort(list, k, sizeof *list, compare_xattrs);
    u->records.len = 0;
    for (size_t i = 0; i < k; i++) {
        const xattr *x = &list[i];
        if (i + 1 < k && x[1].name_len == x->name_len && memcmp(x[1].name, x->name, x->name_len) == 0)
            continue;
        if (is_acl(x) && !keep_acl(u, x, type, mode))
            continue;
        if (lfs_unpack_record(&u->records, x->prefix, x->name + x->prefix_len,
                          (size_t)x->name_len - x->prefix_len, x->value, x->value_len) < 0)
            return unpack_oom(error);
    }
    if (u->records.len > 65535u * 4 - 4096)
        return unpack_refuse(error, u->path.data, "more than 256 KiB of extended attributes");
    return lfs_tree_intern(&u->tree, u->records.data, u->records.len, set) < 0 ? unpack_oom(error) : 0;
}

int lfs_unpack_attributes(lfs_unpack *u, const lfs_tar_entry *e, uint32_t node, lfs_error *error)
{
    uint32_t set;
    uint32_t mode = e->mode;
    int r = member_xattrs(u, e, lfs_tree_node(&u->tree, node)->mode, &mode, &set, error);
    lfs_node *n = lfs_tree_node(&u->tree, node);

    if (r < 0)
        return r;
    lfs_tree_set_ref(&u->tree, n->xattrs, -1);
    lfs_tree_set_ref(&u->tree, set, 1);
    n->xattrs = set;
    n->mode = (n->mode & S_IFMT) | (S_ISLNK(n->mode) ? 0777 : mode); /* no system keeps a link's mode */
    n->uid = e->uid;
    n->gid = e->gid;
    n->mtime = e->mtime;
    n->mtime_nsec = e->mtime_nsec;
    return 0;
}
