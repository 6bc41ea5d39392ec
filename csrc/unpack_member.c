/* unpack_member.c - what each member of an archive means for the tree. */
#define _GNU_SOURCE
#include "unpack.h"

static int new_whiteout(lfs_unpack *u, uint32_t dir, const char *name, size_t n, lfs_error *error)
{
    uint32_t entry = lfs_tree_find(&u->tree, dir, name, n);
    uint32_t node;

    if (entry != 0) {
        lfs_node *there = lfs_tree_node(&u->tree, lfs_tree_entry(&u->tree, entry)->node);
        lfs_tree_entry(&u->tree, entry)->hidden = true;
        if (S_ISDIR(there->mode))
            there->flags |= LFS_NODE_OPAQUE;
        return 0;
    }
    node = lfs_tree_new_node(&u->tree, S_IFCHR);
    entry = node == 0 ? 0 : lfs_tree_add(&u->tree, dir, name, n, node);
    if (entry == 0)
        return unpack_oom(error);
    lfs_tree_entry(&u->tree, entry)->hidden = true;
    return u->backend->ops->add(u->backend, entry, 0, error);
}

/* Marks of the layer format itself: 1 when the member was one (or is AUFS metadata), 0 when it is not. */
static int place_mark(lfs_unpack *u, size_t parent_len, const char *base, size_t base_len, lfs_error *error)
{
    const char *p = u->path.data;
    size_t left = u->path.len;
    const char *name;
    size_t n;
    uint32_t dir;
    int r;

    while (lfs_path_next(&p, &left, &name, &n)) {
        bool last = name == base;

        if (!starts_with(name, n, WHITEOUT))
            continue;
        if (starts_with(name, n, WHITEOUT_META) &&
            !(last && n == strlen(WHITEOUT_OPAQUE) && memcmp(name, WHITEOUT_OPAQUE, n) == 0)) {
            u->result.skipped++;
            return 1;
        }
        if (!last)
            return unpack_refuse(error, u->path.data, "a whiteout cannot have anything below it");
    }
    if (!starts_with(base, base_len, WHITEOUT))
        return 0;
    r = lfs_unpack_parent(u, parent_len, &dir, error);
    if (r < 0)
        return r;
    if (starts_with(base, base_len, WHITEOUT_META)) {
        lfs_tree_node(&u->tree, dir)->flags |= LFS_NODE_OPAQUE;
        return 1;
    }
    base += strlen(WHITEOUT);
    base_len -= strlen(WHITEOUT);
    if (base_len == 0 || (base_len == 1 && base[0] == '.') || (base_len == 2 && memcmp(base, "..", 2) == 0))
        return unpack_refuse(error, u->path.data, "a whiteout of no name");
    r = new_whiteout(u, dir, base, base_len, error);
    return r < 0 ? r : 1;
}

static int place_hardlink(lfs_unpack *u, const lfs_tar_entry *e, uint32_t dir, const char *base,
                          size_t base_len, lfs_error *error)
{
    size_t parent_len;
    const char *name;
    size_t n;
    uint32_t target_dir;
    uint32_t target;
    uint32_t node;
    uint32_t entry;
    bool hidden = false;
    int r = lfs_path_clean(&e->link, &u->target, error);

    if (r < 0)
        return r;
    lfs_path_split(&u->target, &parent_len, &name, &n);
    r = lfs_unpack_walk(u, u->target.data, parent_len, false, &target_dir, error);
    if (r < 0 && r != -ENOENT)
        return r;
    target = r < 0 || n == 0 ? 0 : lfs_tree_find(&u->tree, target_dir, name, n);
    if (target == 0)
        return unpack_refuse(error, u->path.data, "hard link to a file that is not in this layer");
    node = lfs_tree_entry(&u->tree, target)->node;
    if (S_ISDIR(lfs_tree_node(&u->tree, node)->mode) || lfs_node_is_whiteout(lfs_tree_node(&u->tree, node)))
        return unpack_refuse(error, u->path.data, "hard link to a directory or a whiteout");

    entry = lfs_tree_find(&u->tree, dir, base, base_len);
    if (entry != 0) {
        if (lfs_tree_entry(&u->tree, entry)->node == node)
            return 0;
        hidden = lfs_tree_entry(&u->tree, entry)->hidden;
        r = lfs_unpack_remove(u, entry, error);
        if (r < 0)
            return r;
        if (lfs_tree_entry(&u->tree, target)->node == 0)
            return unpack_refuse(error, u->path.data, "hard link to a file below itself");
    }
    entry = lfs_tree_add(&u->tree, dir, base, base_len, node);
    if (entry == 0)
        return unpack_oom(error);
    lfs_tree_entry(&u->tree, entry)->hidden = hidden;
    return u->backend->ops->add(u->backend, entry, target, error);
}

static uint32_t node_type(char type)
{
    switch (type) {
    case '2':
        return S_IFLNK;
    case '3':
        return S_IFCHR;
    case '4':
        return S_IFBLK;
    case '5':
        return S_IFDIR;
    case '6':
        return S_IFIFO;
    default:
        return S_IFREG;
    }
}

/* What a member of this type needs to be true. */
static int check_member(lfs_unpack *u, const lfs_tar_entry *e, lfs_error *error)
{
    if (e->type == '3' && e->rdev_major == 0 && e->rdev_minor == 0)
        return unpack_refuse(error, u->path.data, "device 0:0 would be a whiteout");
    if (e->type == '2' && (e->link.len == 0 || e->link.len > 4095))
        return unpack_refuse(error, u->path.data, "symbolic link to an empty or too long path");
    return 0;
}

static int new_member(lfs_unpack *u, const lfs_tar_entry *e, uint32_t dir, const char *base, size_t base_len,
                      bool hidden, lfs_error *error)
{
    uint32_t type = node_type(e->type);
    uint32_t node;
    uint32_t entry;
    lfs_node *n;
    int r;

    if (type == S_IFDIR && lfs_tree_node(&u->tree, dir)->depth >= LFS_TREE_MAX_DEPTH)
        return lfs_fail(error, EFBIG, "unpack %.150s: more than %d directories deep", u->path.data,
                        LFS_TREE_MAX_DEPTH);
    node = lfs_tree_new_node(&u->tree, type);
    if (node == 0)
        return unpack_oom(error);
    r = lfs_unpack_attributes(u, e, node, error);
    if (r < 0)
        return r;
    n = lfs_tree_node(&u->tree, node);
    if (type == S_IFCHR || type == S_IFBLK) {
        n->rdev_major = e->rdev_major;
        n->rdev_minor = e->rdev_minor;
    } else if (type == S_IFLNK) {
        n->size = e->link.len;
        n->where = lfs_tree_store(&u->tree, e->link.data, e->link.len);
        if (n->where == UINT64_MAX)
            return unpack_oom(error);
    } else if (type == S_IFREG) {
        n->size = e->size;
        n->number = (uint32_t)u->members;
    }
    entry = lfs_tree_add(&u->tree, dir, base, base_len, node);
    if (entry == 0)
        return unpack_oom(error);
    lfs_tree_entry(&u->tree, entry)->hidden = hidden;
    if (type == S_IFDIR && hidden)
        lfs_tree_node(&u->tree, node)->flags |= LFS_NODE_OPAQUE;
    if (type != S_IFREG)
        return u->backend->ops->add(u->backend, entry, 0, error);
    u->content = CONTENT_FILE;
    u->segment = 0;
    u->segment_done = 0;
    u->file_pos = 0;
    return u->backend->ops->begin(u->backend, entry, e->sparse, error);
}

static int place_member(lfs_unpack *u, const lfs_tar_entry *e, lfs_error *error)
{
    size_t parent_len;
    const char *base;
    size_t base_len;
    uint32_t dir;
    uint32_t entry;
    bool hidden = false;
    int r = lfs_path_clean(&e->path, &u->path, error);

    if (r < 0)
        return r;
    if (u->path.len == 0) {
        if (e->type != '5')
            return unpack_refuse(error, e->path.data, "only a directory can stand for the root");
        return lfs_unpack_attributes(u, e, LFS_TREE_ROOT, error);
    }
    lfs_path_split(&u->path, &parent_len, &base, &base_len);
    r = place_mark(u, parent_len, base, base_len, error);
    if (r != 0)
        return r < 0 ? r : 0;
    r = check_member(u, e, error);
    if (r == 0)
        r = lfs_unpack_parent(u, parent_len, &dir, error);
    if (r < 0)
        return r;
    if (e->type == '1')
        return place_hardlink(u, e, dir, base, base_len, error);

    entry = lfs_tree_find(&u->tree, dir, base, base_len);
    if (entry != 0) {
        uint32_t node = lfs_tree_entry(&u->tree, entry)->node;

        if (e->type == '5' && S_ISDIR(lfs_tree_node(&u->tree, node)->mode))
            return lfs_unpack_attributes(u, e, node, error);
        hidden = lfs_tree_entry(&u->tree, entry)->hidden;
        r = lfs_unpack_remove(u, entry, error);
        if (r < 0)
            return r;
    }
    return new_member(u, e, dir, base, base_len, hidden, error);
}

int lfs_unpack_count(lfs_unpack *u, lfs_error *error)
{
    if (++u->members >= UINT32_MAX || (u->options.max_entries > 0 && u->members > u->options.max_entries))
        return lfs_fail(error, EFBIG, "unpack: more than %llu archive members",
                        (unsigned long long)(u->options.max_entries ? u->options.max_entries : UINT32_MAX));
    return 0;
}

static int check_metadata(const lfs_unpack *u, lfs_error *error)
{
    uint64_t limit = u->options.max_metadata;

    if (limit == 0 || u->tree.names.len + u->tree.sets.len <= limit)
        return 0;
    return lfs_fail(error, EFBIG, "unpack %.120s: more than %llu bytes of names, link targets and attributes",
                    u->path.data, (unsigned long long)limit);
}

int lfs_unpack_member(lfs_unpack *u, const lfs_tar_entry *e, lfs_error *error)
{
    int r;

    u->content = CONTENT_RAW;
    if (e->type == 'V') {
        u->result.skipped++;
        return 0;
    }
    r = lfs_unpack_count(u, error);
    if (r < 0)
        return r;
    if (u->options.max_bytes > 0 && (e->size > u->options.max_bytes ||
                                     u->data_bytes > u->options.max_bytes - e->size))
        return lfs_fail(error, EFBIG, "unpack %.150s: more than %llu bytes of file content", e->path.data,
                        (unsigned long long)u->options.max_bytes);
    u->data_bytes += e->size;
    r = place_member(u, e, error);
    return r < 0 ? r : check_metadata(u, error);
}
