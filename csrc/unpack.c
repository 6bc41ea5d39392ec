/*
 * unpack.c - tar in, layer out: the rules of OCI layers over the parser (tar.h), the tree (tree.h) and the
 * two formats (backend.h).
 *
 * A layer is unpacked without its parents. So whiteouts and opaque marks become what overlayfs wants of an
 * upper layer, and every path is resolved in this layer's own tree, in memory: a symbolic link that an
 * archive planted cannot lead anywhere else. What the tree is does not depend on the format.
 *
 * Source: image-spec, layer.md ("Whiteouts", "Applying Changesets"); GNU tar where that is silent.
 */
#define _GNU_SOURCE
#include "acl.h"
#include "backend.h"
#include "tar.h"

#define MAX_LINKS 40 /* as the kernel's path walk */
#define WHITEOUT ".wh."
#define WHITEOUT_META ".wh..wh."
#define WHITEOUT_OPAQUE ".wh..wh..opq"

/* What becomes of the content of the member at hand. */
enum { CONTENT_RAW, CONTENT_FILE };

struct lfs_unpack {
    lfs_unpack_options options;
    lfs_tar *tar;
    lfs_tree tree;
    lfs_rest rest;
    lfs_backend *backend;
    lfs_buf path;       /* of the member: clean, relative */
    lfs_buf target;     /* of a hard link, clean */
    lfs_buf walk;       /* what is left to walk while links are followed */
    lfs_buf cached;     /* the last parent directory looked up, and what it led to */
    uint32_t cached_node;
    uint32_t cached_removals;
    int content;
    size_t segment;     /* sparse: which segment of the map, and how much of it is done */
    uint64_t segment_done;
    uint64_t file_pos;
    uint64_t members;
    uint64_t data_bytes; /* of all members, replaced ones too: what the limit counts */
    lfs_buf records;    /* scratch for attribute sets */
    lfs_unpack_result result;
};

static int oom(lfs_error *error)
{
    return lfs_fail(error, ENOMEM, "unpack");
}

static int refuse(lfs_error *error, const char *path, const char *why)
{
    return lfs_fail(error, EBADMSG, "unpack %.150s: %s", path, why);
}

static bool starts_with(const char *p, size_t n, const char *prefix)
{
    size_t m = strlen(prefix);

    return n >= m && memcmp(p, prefix, m) == 0;
}

/* ---- paths ---- */

/* The next component of *p, *left; leading and repeated slashes and "." passed over. false: none left. */
static bool next_component(const char **p, size_t *left, const char **name, size_t *n)
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
static int clean_path(const lfs_buf *raw, lfs_buf *clean, lfs_error *error)
{
    const char *p = raw->data;
    size_t left = raw->len;
    const char *name;
    size_t n;

    clean->len = 0;
    if (lfs_buf_reserve(clean, raw->len + 1) < 0)
        return oom(error);
    while (next_component(&p, &left, &name, &n)) {
        if (n == 2 && memcmp(name, "..", 2) == 0)
            return refuse(error, raw->data, "the path has a \"..\" in it");
        /* A whiteout's name is longer than the name it stands for, and no directory has to hold it. */
        if (n > 255 + (starts_with(name, n, WHITEOUT) ? strlen(WHITEOUT) : 0))
            return refuse(error, raw->data, "a name of more than 255 bytes");
        if (clean->len > 0)
            clean->data[clean->len++] = '/';
        memcpy(clean->data + clean->len, name, n);
        clean->len += n;
    }
    clean->data[clean->len] = '\0';
    return 0;
}

static void split(const lfs_buf *path, size_t *parent_len, const char **base, size_t *base_len)
{
    const char *slash = path->len > 0 ? memrchr(path->data, '/', path->len) : NULL;

    *parent_len = slash == NULL ? 0 : (size_t)(slash - path->data);
    *base = slash == NULL ? path->data : slash + 1;
    *base_len = path->len - (size_t)(*base - path->data);
}

static int remove_entry(lfs_unpack *u, uint32_t entry, lfs_error *error)
{
    int r = u->backend->ops->remove(u->backend, entry, error);

    if (r < 0)
        return r;
    return lfs_tree_remove(&u->tree, entry) < 0 ? oom(error) : 0;
}

/* A directory that the archive implies: no member of its own (yet). */
static int implied_directory(lfs_unpack *u, uint32_t parent, const char *name, size_t n, bool opaque,
                             uint32_t *node, lfs_error *error)
{
    uint32_t entry;

    if (lfs_tree_node(&u->tree, parent)->depth >= LFS_TREE_MAX_DEPTH)
        return lfs_fail(error, EFBIG, "unpack %.150s: more than %d directories deep", u->path.data,
                        LFS_TREE_MAX_DEPTH);
    *node = lfs_tree_new_node(&u->tree, S_IFDIR | 0755);
    entry = *node == 0 ? 0 : lfs_tree_add(&u->tree, parent, name, n, *node);
    if (entry == 0)
        return oom(error);
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
        return refuse(error, u->path.data, "its directory is behind too long a symbolic link");
    if (lfs_buf_append(&joined, u->tree.names.data + link->where, (size_t)link->size) < 0 ||
        lfs_buf_append(&joined, "/", 1) < 0 || lfs_buf_append(&joined, left, n) < 0)
        return oom(error);
    lfs_buf_free(&u->walk);
    u->walk = joined;
    memset(&joined, 0, sizeof joined);
    return 0;
}

/*
 * The directory that path leads to, in this layer. Missing ones are made when `make` is set (else -ENOENT),
 * links are followed inside the layer, ".." in their targets stops at the root.
 */
static int walk_directory(lfs_unpack *u, const char *path, size_t len, bool make, uint32_t *out,
                          lfs_error *error)
{
    uint32_t dir = LFS_TREE_ROOT;
    size_t own = len; /* bytes at the end of what is left that are the path's own */
    const char *p = path;
    size_t left = len;
    const char *name;
    size_t n;
    int links = 0;

    while (next_component(&p, &left, &name, &n)) {
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
                return refuse(error, u->path.data, "too many symbolic links in its path");
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
            return refuse(error, u->path.data, "its parent is not a directory");
        if (!make)
            return -ENOENT;
        if (from_link)
            return refuse(error, u->path.data, "its parent is a symbolic link that leads nowhere in this layer");
        if (entry != 0) {
            r = remove_entry(u, entry, error);
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
static int parent_directory(lfs_unpack *u, size_t len, uint32_t *out, lfs_error *error)
{
    int r;

    if (u->cached_node != 0 && u->cached_removals == u->tree.removals && u->cached.len == len &&
        memcmp(u->cached.data, u->path.data, len) == 0) {
        *out = u->cached_node;
        return 0;
    }
    r = walk_directory(u, u->path.data, len, true, out, error);
    if (r < 0)
        return r;
    u->cached.len = 0;
    if (lfs_buf_append(&u->cached, u->path.data, len + 1) < 0)
        return oom(error);
    u->cached.len = len;
    u->cached_node = *out;
    u->cached_removals = u->tree.removals;
    return 0;
}

/* ---- attributes ---- */

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

static int append_record(lfs_buf *b, int prefix, const char *name, size_t n, const char *value, size_t m)
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
        return oom(error);
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
        if (append_record(&u->records, x->prefix, x->name + x->prefix_len,
                          (size_t)x->name_len - x->prefix_len, x->value, x->value_len) < 0)
            return oom(error);
    }
    if (u->records.len > 65535u * 4 - 4096)
        return refuse(error, u->path.data, "more than 256 KiB of extended attributes");
    return lfs_tree_intern(&u->tree, u->records.data, u->records.len, set) < 0 ? oom(error) : 0;
}

static int set_attributes(lfs_unpack *u, const lfs_tar_entry *e, uint32_t node, lfs_error *error)
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

/* ---- members ---- */

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
        return oom(error);
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

    while (next_component(&p, &left, &name, &n)) {
        bool last = name == base;

        if (!starts_with(name, n, WHITEOUT))
            continue;
        if (starts_with(name, n, WHITEOUT_META) &&
            !(last && n == strlen(WHITEOUT_OPAQUE) && memcmp(name, WHITEOUT_OPAQUE, n) == 0)) {
            u->result.skipped++;
            return 1;
        }
        if (!last)
            return refuse(error, u->path.data, "a whiteout cannot have anything below it");
    }
    if (!starts_with(base, base_len, WHITEOUT))
        return 0;
    r = parent_directory(u, parent_len, &dir, error);
    if (r < 0)
        return r;
    if (starts_with(base, base_len, WHITEOUT_META)) {
        lfs_tree_node(&u->tree, dir)->flags |= LFS_NODE_OPAQUE;
        return 1;
    }
    base += strlen(WHITEOUT);
    base_len -= strlen(WHITEOUT);
    if (base_len == 0 || (base_len == 1 && base[0] == '.') || (base_len == 2 && memcmp(base, "..", 2) == 0))
        return refuse(error, u->path.data, "a whiteout of no name");
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
    int r = clean_path(&e->link, &u->target, error);

    if (r < 0)
        return r;
    split(&u->target, &parent_len, &name, &n);
    r = walk_directory(u, u->target.data, parent_len, false, &target_dir, error);
    if (r < 0 && r != -ENOENT)
        return r;
    target = r < 0 || n == 0 ? 0 : lfs_tree_find(&u->tree, target_dir, name, n);
    if (target == 0)
        return refuse(error, u->path.data, "hard link to a file that is not in this layer");
    node = lfs_tree_entry(&u->tree, target)->node;
    if (S_ISDIR(lfs_tree_node(&u->tree, node)->mode) || lfs_node_is_whiteout(lfs_tree_node(&u->tree, node)))
        return refuse(error, u->path.data, "hard link to a directory or a whiteout");

    entry = lfs_tree_find(&u->tree, dir, base, base_len);
    if (entry != 0) {
        if (lfs_tree_entry(&u->tree, entry)->node == node)
            return 0;
        hidden = lfs_tree_entry(&u->tree, entry)->hidden;
        r = remove_entry(u, entry, error);
        if (r < 0)
            return r;
        if (lfs_tree_entry(&u->tree, target)->node == 0)
            return refuse(error, u->path.data, "hard link to a file below itself");
    }
    entry = lfs_tree_add(&u->tree, dir, base, base_len, node);
    if (entry == 0)
        return oom(error);
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
        return refuse(error, u->path.data, "device 0:0 would be a whiteout");
    if (e->type == '2' && (e->link.len == 0 || e->link.len > 4095))
        return refuse(error, u->path.data, "symbolic link to an empty or too long path");
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
        return oom(error);
    r = set_attributes(u, e, node, error);
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
            return oom(error);
    } else if (type == S_IFREG) {
        n->size = e->size;
        n->number = (uint32_t)u->members;
    }
    entry = lfs_tree_add(&u->tree, dir, base, base_len, node);
    if (entry == 0)
        return oom(error);
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
    int r = clean_path(&e->path, &u->path, error);

    if (r < 0)
        return r;
    if (u->path.len == 0) {
        if (e->type != '5')
            return refuse(error, e->path.data, "only a directory can stand for the root");
        return set_attributes(u, e, LFS_TREE_ROOT, error);
    }
    split(&u->path, &parent_len, &base, &base_len);
    r = place_mark(u, parent_len, base, base_len, error);
    if (r != 0)
        return r < 0 ? r : 0;
    r = check_member(u, e, error);
    if (r == 0)
        r = parent_directory(u, parent_len, &dir, error);
    if (r < 0)
        return r;
    if (e->type == '1')
        return place_hardlink(u, e, dir, base, base_len, error);

    entry = lfs_tree_find(&u->tree, dir, base, base_len);
    if (entry != 0) {
        uint32_t node = lfs_tree_entry(&u->tree, entry)->node;

        if (e->type == '5' && S_ISDIR(lfs_tree_node(&u->tree, node)->mode))
            return set_attributes(u, e, node, error);
        hidden = lfs_tree_entry(&u->tree, entry)->hidden;
        r = remove_entry(u, entry, error);
        if (r < 0)
            return r;
    }
    return new_member(u, e, dir, base, base_len, hidden, error);
}

static int begin_member(lfs_unpack *u, const lfs_tar_entry *e, lfs_error *error)
{
    u->content = CONTENT_RAW;
    if (e->type == 'V') {
        u->result.skipped++;
        return 0;
    }
    if (++u->members >= UINT32_MAX || (u->options.max_entries > 0 && u->members > u->options.max_entries))
        return lfs_fail(error, EFBIG, "unpack: more than %llu archive members",
                        (unsigned long long)(u->options.max_entries ? u->options.max_entries : UINT32_MAX));
    if (u->options.max_bytes > 0 && (e->size > u->options.max_bytes ||
                                     u->data_bytes > u->options.max_bytes - e->size))
        return lfs_fail(error, EFBIG, "unpack %.150s: more than %llu bytes of file content", e->path.data,
                        (unsigned long long)u->options.max_bytes);
    u->data_bytes += e->size;
    return place_member(u, e, error);
}

/* ---- content ---- */

/* The gap up to where the next content belongs. */
static int fill_gap(lfs_unpack *u, uint64_t to, lfs_error *error)
{
    int r = 0;

    if (to > u->file_pos)
        r = u->backend->ops->hole(u->backend, to - u->file_pos, error);
    u->file_pos = to;
    return r;
}

static int sparse_data(lfs_unpack *u, const lfs_tar_entry *e, const uint8_t *p, size_t n, lfs_error *error)
{
    const lfs_tar_segment *map = (const void *)e->map.data;
    size_t count = e->map.len / sizeof *map;

    while (n > 0 && u->segment < count) {
        const lfs_tar_segment *s = &map[u->segment];
        uint64_t left = s->length - u->segment_done;
        size_t k = left < n ? (size_t)left : n;
        int r = fill_gap(u, s->offset + u->segment_done, error);

        if (r == 0 && k > 0)
            r = u->backend->ops->data(u->backend, p, k, error);
        if (r < 0)
            return r;
        u->file_pos += k;
        u->segment_done += k;
        p += k;
        n -= k;
        if (u->segment_done == s->length) {
            u->segment++;
            u->segment_done = 0;
        }
    }
    return 0;
}

static int member_data(lfs_unpack *u, const uint8_t *p, size_t n, lfs_error *error)
{
    const lfs_tar_entry *e = lfs_tar_current(u->tar);

    if (u->content == CONTENT_RAW)
        return lfs_rest_raw(&u->rest, p, n) < 0 ? oom(error) : 0;
    if (e->sparse)
        return sparse_data(u, e, p, n, error);
    u->file_pos += n;
    return u->backend->ops->data(u->backend, p, n, error);
}

static int end_member(lfs_unpack *u, lfs_error *error)
{
    const lfs_tar_entry *e = lfs_tar_current(u->tar);
    int r = 0;

    if (u->content != CONTENT_FILE)
        return 0;
    if (e->sparse)
        r = fill_gap(u, e->size, error);
    return r < 0 ? r : u->backend->ops->end(u->backend, error);
}

/* ---- interface ---- */

int lfs_unpack_open(int fd, const lfs_unpack_options *options, lfs_unpack **out, lfs_error *error)
{
    static const uint32_t known = LFS_UNPACK_DIR | LFS_UNPACK_USERXATTR | LFS_UNPACK_NO_CHOWN;
    lfs_unpack *u;
    int r;

    if ((options->flags & ~known) != 0)
        return lfs_fail(error, EINVAL, "unpack: unknown flags %#x", options->flags & ~known);
    u = calloc(1, sizeof *u);
    if (u == NULL)
        return oom(error);
    u->options = *options;
    lfs_rest_init(&u->rest, options->flags & LFS_UNPACK_DIR);
    u->tar = lfs_tar_new();
    if (u->tar == NULL || lfs_tree_init(&u->tree) < 0)
        r = oom(error);
    else if (options->flags & LFS_UNPACK_DIR)
        r = lfs_dir_backend(fd, options->flags, &u->tree, &u->rest, &u->backend, error);
    else
        r = lfs_erofs_backend(fd, options->block_size, &u->tree, &u->rest, &u->backend, error);
    if (r < 0) {
        lfs_unpack_free(u);
        return r;
    }
    *out = u;
    return 0;
}

int lfs_unpack_write(lfs_unpack *u, const void *buf, size_t n, lfs_error *error)
{
    const uint8_t *p = buf;
    const uint8_t *span = NULL;
    size_t span_len = 0;

    u->result.tar_bytes += n;
    for (;;) {
        int r = lfs_tar_next(u->tar, &p, &n, &span, &span_len, error);

        switch (r) {
        case LFS_TAR_MORE:
            return 0;
        case LFS_TAR_RAW:
            r = lfs_rest_raw(&u->rest, span, span_len) < 0 ? oom(error) : 0;
            break;
        case LFS_TAR_ENTRY:
            r = begin_member(u, lfs_tar_current(u->tar), error);
            break;
        case LFS_TAR_DATA:
            r = member_data(u, span, span_len, error);
            break;
        case LFS_TAR_DATA_END:
            r = end_member(u, error);
            break;
        default:
            break;
        }
        if (r < 0)
            return r;
    }
}

int64_t lfs_unpack_rest(lfs_unpack *u, void *buf, size_t cap, lfs_error *error)
{
    (void)error;
    return (int64_t)lfs_rest_take(&u->rest, buf, cap);
}

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
            !(lfs_tree_node(&u->tree, lfs_tree_parent(&u->tree, i))->flags & (LFS_NODE_OPAQUE | LFS_NODE_FRESH)))
            continue;
        if (S_ISDIR(n->mode)) {
            n->flags |= LFS_NODE_FRESH;
            continue;
        }
        r = remove_entry(u, n->name, error);
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
            return oom(error);
    }
    if (append_record(&u->records, prefix, name, strlen(name), value, strlen(value)) < 0 ||
        lfs_tree_intern(&u->tree, u->records.data, u->records.len, &set) < 0)
        return oom(error);
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

int lfs_unpack_finish(lfs_unpack *u, const uint8_t *uuid, lfs_unpack_result *result, lfs_error *error)
{
    int r = lfs_tar_finish(u->tar, error);

    if (r < 0)
        return r;
    if (lfs_rest_flush(&u->rest) < 0)
        return oom(error);
    r = drop_moot_whiteouts(u, error);
    if (r == 0)
        r = mark_directories(u, error);
    if (r < 0)
        return r;
    count_nodes(u);
    r = u->backend->ops->finish(u->backend, uuid, &u->result, error);
    if (r < 0)
        return r;
    *result = u->result;
    return 0;
}

void lfs_unpack_free(lfs_unpack *u)
{
    if (u == NULL)
        return;
    if (u->backend != NULL)
        u->backend->ops->free(u->backend);
    lfs_tar_free(u->tar);
    lfs_tree_free(&u->tree);
    lfs_rest_free(&u->rest);
    lfs_buf_free(&u->path);
    lfs_buf_free(&u->target);
    lfs_buf_free(&u->walk);
    lfs_buf_free(&u->cached);
    lfs_buf_free(&u->records);
    free(u);
}
