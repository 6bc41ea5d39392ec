/* unpack_mark.c - what can only be done when the whole archive is known: marks for overlayfs, and counts. */
#define _GNU_SOURCE
#include "unpack.h"

/*
 * Whiteouts below an opaque directory hide nothing, and overlayfs would list them in a directory that no other
 * layer has a part in. Parents have lower numbers than what is in them.
 */
static int drop_moot_whiteouts(lfs_unpack *u, lfs_error *error)
{
    for (uint32_t i = LFS_TREE_ROOT + 1; i < u->tree.nnodes; i++) {
        lfs_node *n = lfs_tree_node(&u->tree, i);
        int r;

        if (n->nlink == 0 || !(S_ISDIR(n->mode) || lfs_node_is_whiteout(n)) ||
            !(lfs_tree_node(&u->tree, lfs_tree_parent(&u->tree, i))->flags &
              (LFS_NODE_OPAQUE | LFS_NODE_FRESH)))
            continue;
        if (S_ISDIR(n->mode)) {
            n->flags |= LFS_NODE_FRESH;
            continue;
        }
        r = lfs_unpack_remove(u, n->name, error);
        if (r < 0)
            return r;
    }
    return 0;
}

static void count_nodes(lfs_unpack *u)
{
    u->result.entries = u->tree.live;
    for (uint32_t i = LFS_TREE_ROOT; i < u->tree.nnodes; i++) {
        const lfs_node *n = lfs_tree_node(&u->tree, i);

        if (n->nlink == 0)
            continue;
        u->result.data_bytes += S_ISREG(n->mode) ? n->size : 0;
        u->result.opaques += S_ISDIR(n->mode) && n->flags & LFS_NODE_OPAQUE;
        u->result.whiteouts += lfs_node_is_whiteout(n);
    }
}

/* Add a mark of overlayfs, which no archive can bring itself, to a directory's attributes. */
static int add_mark(lfs_unpack *u, uint32_t node, const char *name, const char *value, lfs_error *error)
{
    int prefix = u->options.flags & LFS_UNPACK_USERXATTR ? LFS_XATTR_USER : LFS_XATTR_TRUSTED;
    lfs_node *n = lfs_tree_node(&u->tree, node);
    uint32_t set;

    u->records.len = 0;
    if (n->xattrs != 0) {
        size_t len;
        const char *have = lfs_tree_set(&u->tree, n->xattrs, &len, NULL);
        if (lfs_buf_append(&u->records, have, len) < 0)
            return unpack_oom(error);
    }
    if (lfs_unpack_record(&u->records, prefix, name, strlen(name), value, strlen(value)) < 0 ||
        lfs_tree_intern(&u->tree, u->records.data, u->records.len, &set) < 0)
        return unpack_oom(error);
    n = lfs_tree_node(&u->tree, node);
    lfs_tree_set_ref(&u->tree, n->xattrs, -1);
    lfs_tree_set_ref(&u->tree, set, 1);
    n->xattrs = set;
    return 0;
}

/*
 * Opaque directories, and those with whiteouts. In a directory that only one layer has, overlayfs looks for
 * whiteouts only if it takes the directory for one that was copied up: with an origin, empty for unknown.
 * Without that mark they would be listed as names that nobody can stat or remove.
 */
static int mark_directories(lfs_unpack *u, lfs_error *error)
{
    for (uint32_t i = LFS_TREE_ROOT + 1; i < u->tree.nnodes; i++) {
        const lfs_node *n = lfs_tree_node(&u->tree, i);

        if (n->nlink > 0 && lfs_node_is_whiteout(n))
            lfs_tree_node(&u->tree, lfs_tree_parent(&u->tree, i))->flags |= LFS_NODE_WHITEOUTS;
    }
    for (uint32_t i = LFS_TREE_ROOT; i < u->tree.nnodes; i++) {
        const lfs_node *n = lfs_tree_node(&u->tree, i);
        uint8_t flags = n->nlink > 0 ? n->flags : 0;
        int r = 0;

        if (flags & LFS_NODE_OPAQUE)
            r = add_mark(u, i, "overlay.opaque", "y", error);
        else if (flags & LFS_NODE_WHITEOUTS)
            r = add_mark(u, i, "overlay.origin", "", error);
        if (r < 0)
            return r;
    }
    return 0;
}

int lfs_unpack_mark(lfs_unpack *u, lfs_error *error)
{
    int r = drop_moot_whiteouts(u, error);

    if (r == 0)
        r = mark_directories(u, error);
    if (r == 0)
        count_nodes(u);
    return r;
}
