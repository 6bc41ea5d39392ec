/* unpack_path.c - the paths of an archive and where in the layer they lead: links are followed in the tree. */
#define _GNU_SOURCE
#include "unpack.h"

#define MAX_LINKS 40 /* as the kernel's path walk */

bool lfs_path_next(const char **p, size_t *left, const char **name, size_t *n)
{
    while (*left > 0) {
        const char *slash;

        if (**p == '/') {
            ++*p;
            --*left;
            continue;
        }
        slash = memchr(*p, '/', *left);
        *name = *p;
        *n = slash == NULL ? *left : (size_t)(slash - *p);
        *p += *n;
        *left -= *n;
        if (!(*n == 1 && **name == '.'))
            return true;
    }
    return false;
}

/* A clean relative path: no empty component, no ".", no slash at either end. ".." is refused, because what it
 * means would depend on links; so is a component that no directory can hold. */
int lfs_path_clean(const lfs_buf *raw, lfs_buf *clean, lfs_error *error)
{
    const char *p = raw->data;
    size_t left = raw->len;
    const char *name;
    size_t n;

    clean->len = 0;
    if (lfs_buf_reserve(clean, raw->len + 1) < 0)
        return unpack_oom(error);
    while (lfs_path_next(&p, &left, &name, &n)) {
        if (n == 2 && memcmp(name, "..", 2) == 0)
            return unpack_refuse(error, raw->data, "the path has a \"..\" in it");
        /* A whiteout's name is longer than the name it stands for, and no directory has to hold it. */
        if (n > 255 + (starts_with(name, n, WHITEOUT) ? strlen(WHITEOUT) : 0))
            return unpack_refuse(error, raw->data, "a name of more than 255 bytes");
        if (clean->len > 0)
            clean->data[clean->len++] = '/';
        memcpy(clean->data + clean->len, name, n);
        clean->len += n;
    }
    clean->data[clean->len] = '\0';
    return 0;
}

void lfs_path_split(const lfs_buf *path, size_t *parent_len, const char **base, size_t *base_len)
{
    const char *slash = path->len > 0 ? memrchr(path->data, '/', path->len) : NULL;

    *parent_len = slash == NULL ? 0 : (size_t)(slash - path->data);
    *base = slash == NULL ? path->data : slash + 1;
    *base_len = path->len - (size_t)(*base - path->data);
}

int lfs_unpack_remove(lfs_unpack *u, uint32_t entry, lfs_error *error)
{
    int r = u->backend->ops->remove(u->backend, entry, error);

    if (r < 0)
        return r;
    return lfs_tree_remove(&u->tree, entry) < 0 ? unpack_oom(error) : 0;
}

/* A directory that the archive implies: no member of its own (yet). */
static int implied_directory(lfs_unpack *u, uint32_t parent, const char *name, size_t n, bool opaque,
                             uint32_t *node, lfs_error *error)
{
    uint32_t entry;
    int r = lfs_unpack_count(u, error);

    if (r < 0)
        return r;
    if (lfs_tree_node(&u->tree, parent)->depth >= LFS_TREE_MAX_DEPTH)
        return lfs_fail(error, EFBIG, "unpack %.150s: more than %d directories deep", u->path.data,
                        LFS_TREE_MAX_DEPTH);
    *node = lfs_tree_new_node(&u->tree, S_IFDIR | 0755);
    entry = *node == 0 ? 0 : lfs_tree_add(&u->tree, parent, name, n, *node);
    if (entry == 0)
        return unpack_oom(error);
    if (opaque) {
        lfs_tree_entry(&u->tree, entry)->hidden = true;
        lfs_tree_node(&u->tree, *node)->flags |= LFS_NODE_OPAQUE;
    }
    return u->backend->ops->add(u->backend, entry, 0, error);
}

/* Put a link's target in front of what is left to walk. Bytes up to `own` from the end belong to the path
 * itself, where missing directories may be made. */
static int push_target(lfs_unpack *u, uint32_t node, const char *left, size_t n, lfs_error *error)
{
    const lfs_node *link = lfs_tree_node(&u->tree, node);
    cleanup_buf lfs_buf joined = {0};

    if (link->size + n > LFS_TAR_MAX_PATH)
        return unpack_refuse(error, u->path.data, "its directory is behind too long a symbolic link");
    if (lfs_buf_append(&joined, u->tree.names.data + link->where, (size_t)link->size) < 0 ||
        lfs_buf_append(&joined, "/", 1) < 0 || lfs_buf_append(&joined, left, n) < 0)
        return unpack_oom(error);
    lfs_buf_free(&u->walk);
    u->walk = joined;
    memset(&joined, 0, sizeof joined);
    return 0;
}

/*
 * The directory that path leads to, in this layer. Missing ones are made when `make` is set (else -ENOENT),
 * links are followed inside the layer, ".." in their targets stops at the root.
 */
int lfs_unpack_walk(lfs_unpack *u, const char *path, size_t len, bool make, uint32_t *out,
                          lfs_error *error)
{
    uint32_t dir = LFS_TREE_ROOT;
    size_t own = len; /* bytes at the end of what is left that are the path's own */
    const char *p = path;
    size_t left = len;
    const char *name;
    size_t n;
    int links = 0;

    while (lfs_path_next(&p, &left, &name, &n)) {
        bool from_link = left + n > own;
        uint32_t entry;
        uint32_t node;
        int r;

        if (n == 2 && memcmp(name, "..", 2) == 0) {
            dir = lfs_tree_parent(&u->tree, dir);
            continue;
        }
        entry = n > 255 ? 0 : lfs_tree_find(&u->tree, dir, name, n);
        node = entry == 0 ? 0 : lfs_tree_entry(&u->tree, entry)->node;
        if (entry != 0 && S_ISDIR(lfs_tree_node(&u->tree, node)->mode)) {
            dir = node;
            continue;
        }
        if (entry != 0 && S_ISLNK(lfs_tree_node(&u->tree, node)->mode)) {
            if (++links > MAX_LINKS)
                return unpack_refuse(error, u->path.data, "too many symbolic links in its path");
            if (left < own)
                own = left;
            if (u->tree.names.data[lfs_tree_node(&u->tree, node)->where] == '/')
                dir = LFS_TREE_ROOT;
            r = push_target(u, node, p, left, error);
            if (r < 0)
                return r;
            p = u->walk.data;
            left = u->walk.len;
            continue;
        }
        if (entry != 0 && !lfs_node_is_whiteout(lfs_tree_node(&u->tree, node)))
            return unpack_refuse(error, u->path.data, "its parent is not a directory");
        if (!make)
            return -ENOENT;
        if (from_link)
            return unpack_refuse(error, u->path.data,
                                 "its parent is a symbolic link that leads nowhere in this layer");
        if (entry != 0) {
            r = lfs_unpack_remove(u, entry, error);
            if (r < 0)
                return r;
        }
        r = implied_directory(u, dir, name, n, entry != 0, &dir, error);
        if (r < 0)
            return r;
    }
    *out = dir;
    return 0;
}

/* The parent directory of a member. Most members have the one that the member before had. */
int lfs_unpack_parent(lfs_unpack *u, size_t len, uint32_t *out, lfs_error *error)
{
    int r;

    if (u->cached_node != 0 && u->cached_removals == u->tree.removals && u->cached.len == len &&
        memcmp(u->cached.data, u->path.data, len) == 0) {
        *out = u->cached_node;
        return 0;
    }
    r = lfs_unpack_walk(u, u->path.data, len, true, out, error);
    if (r < 0)
        return r;
    u->cached.len = 0;
    if (lfs_buf_append(&u->cached, u->path.data, len + 1) < 0)
        return unpack_oom(error);
    u->cached.len = len;
    u->cached_node = *out;
    u->cached_removals = u->tree.removals;
    return 0;
}
