/*
 * dirout.c - the layer format dir: a plain directory, as overlayfs takes it for a lower layer.
 *
 *   fs/       the tree
 *   dead/<k>  the content of archive member k, which a later member replaced; the exact tar needs it
 *
 * The tree has resolved every link before anything is done on disk, so the paths used here have none;
 * openat2 holds the kernel to that. Directories are made 0700 and get their attributes last, the deepest
 * first, when nothing in them changes any more.
 */
#define _GNU_SOURCE
#include "dirout.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/sysmacros.h>

#define PIECE 1024u /* bytes of a path opened at once; any longer path is walked piece by piece */

static dir_backend *of(lfs_backend *b)
{
    return (dir_backend *)b;
}

int lfs_dir_fail(dir_backend *b, uint32_t entry, int err, const char *what, lfs_error *error)
{
    if (lfs_tree_path(b->base.tree, entry, &b->path) < 0)
        return lfs_fail(error, ENOMEM, "unpack");
    return lfs_fail(error, err, "%s %.200s", what, b->path.data);
}

/* The directory of inode `node`, borrowed until the next call. */
static int open_dir(dir_backend *b, uint32_t node, lfs_error *error)
{
    const lfs_tree *t = b->base.tree;
    cleanup_close int fd = -1;
    char *p;

    if (node == LFS_TREE_ROOT)
        return b->fs;
    if (b->opened == node)
        return b->opened_fd;
    if (lfs_tree_path(t, lfs_tree_node(t, node)->name, &b->path) < 0)
        return lfs_fail(error, ENOMEM, "unpack");
    p = b->path.data;
    while (*p != '\0') {
        size_t left = strlen(p);
        char *cut = left > PIECE ? memrchr(p, '/', PIECE) : NULL;
        int next;

        if (cut != NULL)
            *cut = '\0';
        next = lfs_open_beneath(fd >= 0 ? fd : b->fs, p, O_PATH | O_DIRECTORY, 0);
        if (next < 0)
            return lfs_fail(error, -next, "open directory %.200s", p);
        if (fd >= 0)
            close(fd);
        fd = next;
        p = cut != NULL ? cut + 1 : p + left;
    }
    if (b->opened_fd >= 0)
        close(b->opened_fd);
    b->opened = node;
    b->opened_fd = lfs_steal_fd(&fd);
    return b->opened_fd;
}

/* The directory a name stands in, and the name, NUL-terminated. */
static int locate(dir_backend *b, uint32_t entry, char name[256], lfs_error *error)
{
    const lfs_name *e = lfs_tree_entry(b->base.tree, entry);

    memcpy(name, lfs_tree_text(b->base.tree, entry), e->len);
    name[e->len] = '\0';
    return open_dir(b, e->parent, error);
}

/* ---- content ---- */

static int dir_begin(lfs_backend *base, uint32_t entry, bool sparse, lfs_error *error)
{
    dir_backend *b = of(base);
    char name[256];
    int dir = locate(b, entry, name, error);

    (void)sparse;
    if (dir < 0)
        return dir;
    b->file = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (b->file < 0)
        return lfs_dir_fail(b, entry, errno, "create", error);
    b->entry = entry;
    b->pos = 0;
    b->named = false;
    return 0;
}

static int dir_data(lfs_backend *base, const uint8_t *p, size_t n, lfs_error *error)
{
    dir_backend *b = of(base);
    const lfs_tree *t = base->tree;
    int r;

    if (!b->named) {
        if (lfs_tree_path(t, b->entry, &b->path) < 0 ||
            lfs_rest_file(base->rest, lfs_tree_node(t, lfs_tree_entry(t, b->entry)->node)->number,
                          b->path.data, b->path.len) < 0)
            return lfs_fail(error, ENOMEM, "unpack");
        b->named = true;
    }
    if (lfs_rest_data(base->rest, b->pos, n) < 0)
        return lfs_fail(error, ENOMEM, "unpack");
    r = lfs_pwrite_all(b->file, p, n, b->pos);
    if (r < 0)
        return lfs_dir_fail(b, b->entry, -r, "write", error);
    b->pos += n;
    return 0;
}

static int dir_hole(lfs_backend *base, uint64_t n, lfs_error *error)
{
    (void)error;
    of(base)->pos += n;
    return 0;
}

static int dir_end(lfs_backend *base, lfs_error *error)
{
    dir_backend *b = of(base);
    const lfs_node *n = lfs_tree_node(base->tree, lfs_tree_entry(base->tree, b->entry)->node);
    cleanup_close int fd = lfs_steal_fd(&b->file);

    if (lfs_rest_flush(base->rest) < 0)
        return lfs_fail(error, ENOMEM, "unpack");
    if (b->pos > 0 && ftruncate(fd, (off_t)n->size) < 0)
        return lfs_dir_fail(b, b->entry, errno, "write", error);
    return lfs_dir_attributes(b, b->entry, n, fd, NULL, error);
}

/* ---- other entries ---- */

static int add_link(dir_backend *b, uint32_t entry, uint32_t source, lfs_error *error)
{
    cleanup_close int from = -1;
    char name[256];
    char source_name[256];
    int dir = locate(b, source, source_name, error);

    if (dir < 0)
        return dir;
    from = fcntl(dir, F_DUPFD_CLOEXEC, 0);
    if (from < 0)
        return lfs_dir_fail(b, entry, errno, "link", error);
    dir = locate(b, entry, name, error);
    if (dir < 0)
        return dir;
    if (linkat(from, source_name, dir, name, 0) < 0)
        return lfs_dir_fail(b, entry, errno, "link", error);
    return 0;
}

static int make_special(dir_backend *b, const lfs_node *n, int dir, const char *name)
{
    int r = mknodat(dir, name, n->mode & S_IFMT, makedev(n->rdev_major, n->rdev_minor));

    if (r < 0 && errno == EPERM && b->flags & LFS_UNPACK_NO_CHOWN && (S_ISCHR(n->mode) || S_ISBLK(n->mode))) {
        b->skipped++;
        r = mknodat(dir, name, S_IFREG, 0);
    }
    return r;
}

static int dir_add(lfs_backend *base, uint32_t entry, uint32_t source, lfs_error *error)
{
    dir_backend *b = of(base);
    const lfs_tree *t = base->tree;
    const lfs_node *n = lfs_tree_node(t, lfs_tree_entry(t, entry)->node);
    char name[256];
    char path[320];
    int dir;
    int r;

    if (source != 0)
        return add_link(b, entry, source, error);
    dir = locate(b, entry, name, error);
    if (dir < 0)
        return dir;
    if (S_ISDIR(n->mode)) {
        r = mkdirat(dir, name, 0700);
    } else if (S_ISLNK(n->mode)) {
        cleanup_free char *target = strndup(t->names.data + n->where, (size_t)n->size);
        if (target == NULL)
            return lfs_fail(error, ENOMEM, "unpack");
        r = symlinkat(target, dir, name);
    } else {
        r = make_special(b, n, dir, name);
    }
    if (r < 0)
        return lfs_dir_fail(b, entry, errno, "create", error);
    if (S_ISDIR(n->mode) || lfs_node_is_whiteout(n))
        return 0;
    snprintf(path, sizeof path, "/proc/self/fd/%d/%s", dir, name);
    return lfs_dir_attributes(b, entry, n, -1, path, error);
}

/* A file whose content the rest refers to is kept under its member's number. */
static int keep_content(dir_backend *b, lfs_node *n, int dir, const char *name, uint32_t entry,
                        lfs_error *error)
{
    char number[16];

    if (b->dead < 0) {
        if (mkdirat(b->layer, "dead", 0700) < 0 && errno != EEXIST)
            return lfs_fail(error, errno, "create directory dead");
        b->dead = openat(b->layer, "dead", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (b->dead < 0)
            return lfs_fail(error, errno, "open directory dead");
    }
    snprintf(number, sizeof number, "%u", n->number);
    if (renameat(dir, name, b->dead, number) < 0)
        return lfs_dir_fail(b, entry, errno, "set aside", error);
    n->flags |= LFS_NODE_DEAD;
    return 0;
}

static int remove_one(dir_backend *b, uint32_t entry, lfs_error *error)
{
    const lfs_tree *t = b->base.tree;
    lfs_node *n = lfs_tree_node(t, lfs_tree_entry(t, entry)->node);
    bool is_dir = S_ISDIR(n->mode);
    char name[256];
    int dir = locate(b, entry, name, error);

    if (dir < 0)
        return dir;
    if (S_ISREG(n->mode) && n->size > 0 && n->name == entry && !(n->flags & LFS_NODE_DEAD))
        return keep_content(b, n, dir, name, entry, error);
    if (unlinkat(dir, name, is_dir ? AT_REMOVEDIR : 0) < 0)
        return lfs_dir_fail(b, entry, errno, "remove", error);
    if (is_dir && b->opened == lfs_tree_entry(t, entry)->node)
        b->opened = 0;
    return 0;
}

/* What is below first. A directory stays on the stack, followed by 0, while its children are done. */
static int dir_remove(lfs_backend *base, uint32_t entry, lfs_error *error)
{
    const lfs_tree *t = base->tree;
    cleanup_buf lfs_buf stack = {0};
    static const uint32_t done = 0;
    int r = lfs_buf_append(&stack, &entry, sizeof entry);

    while (r == 0 && stack.len > 0) {
        const lfs_node *n;
        uint32_t i;

        stack.len -= sizeof i;
        memcpy(&i, stack.data + stack.len, sizeof i);
        if (i == 0) {
            stack.len -= sizeof i;
            memcpy(&i, stack.data + stack.len, sizeof i);
            r = remove_one(of(base), i, error);
            if (r < 0)
                return r;
            continue;
        }
        n = lfs_tree_node(t, lfs_tree_entry(t, i)->node);
        r = lfs_buf_append(&stack, &i, sizeof i) | lfs_buf_append(&stack, &done, sizeof done);
        for (uint32_t c = S_ISDIR(n->mode) ? n->children : 0; c != 0 && r == 0; c = lfs_tree_entry(t, c)->next)
            if (lfs_tree_entry(t, c)->node != 0)
                r = lfs_buf_append(&stack, &c, sizeof c);
    }
    return r < 0 ? lfs_fail(error, ENOMEM, "unpack") : 0;
}

/* ---- end ---- */

static int finish_directory(dir_backend *b, uint32_t node, lfs_error *error)
{
    const lfs_node *n = lfs_tree_node(b->base.tree, node);
    cleanup_close int fd = -1;
    int dir = open_dir(b, node, error);

    if (dir < 0)
        return dir;
    fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC); /* the other is only a place */
    if (fd < 0)
        return lfs_dir_fail(b, n->name, errno, "open directory", error);
    return lfs_dir_attributes(b, n->name, n, fd, NULL, error);
}

static bool is_unowned(const lfs_node *n) /* perhaps only privilege makes it what it is */
{
    return !lfs_node_is_whiteout(n) && (n->uid != 0 || n->gid != 0 || n->xattrs != 0);
}

static int dir_finish(lfs_backend *base, const uint8_t *uuid, lfs_unpack_result *result, lfs_error *error)
{
    dir_backend *b = of(base);
    const lfs_tree *t = base->tree;

    (void)uuid;
    for (uint32_t i = t->nnodes - 1; i >= LFS_TREE_ROOT; i--) {
        const lfs_node *n = lfs_tree_node(t, i);
        int r;

        if (n->nlink == 0)
            continue;
        result->inodes++;
        result->unowned += b->flags & LFS_UNPACK_NO_CHOWN && is_unowned(n);
        if (!S_ISDIR(n->mode))
            continue;
        r = finish_directory(b, i, error);
        if (r < 0)
            return r;
    }
    result->xattrs_dropped += b->dropped;
    result->skipped += b->skipped;
    return 0;
}

/* The inode at a name, at the first one that is left of it. */
static int own_entry(dir_backend *b, uint32_t entry, lfs_error *error)
{
    const lfs_tree *t = b->base.tree;
    uint32_t node = lfs_tree_entry(t, entry)->node;
    lfs_node *n = lfs_tree_node(t, node);
    char name[256], path[320];
    int dir;

    if (node == 0 || !is_unowned(n))
        return 0;
    if (S_ISDIR(n->mode))
        return finish_directory(b, node, error);
    if (lfs_tree_entry(t, n->name)->node != node)
        n->name = entry;
    if (n->name != entry)
        return 0;
    dir = locate(b, entry, name, error);
    if (dir < 0)
        return dir;
    snprintf(path, sizeof path, "/proc/self/fd/%d/%s", dir, name);
    return lfs_dir_attributes(b, entry, n, -1, path, error);
}

static int64_t dir_own(lfs_backend *base, lfs_error *error)
{
    dir_backend *b = of(base);
    uint64_t before = b->dropped;
    int r = 0;

    b->owns = true, b->dropped = 0;
    for (uint32_t i = 1; i < base->tree->nentries && r == 0; i++)
        r = own_entry(b, i, error);
    if (r == 0)
        r = finish_directory(b, LFS_TREE_ROOT, error);
    return r < 0 ? r : (int64_t)(before - b->dropped);
}

static void dir_free(lfs_backend *base)
{
    dir_backend *b = of(base);
    int fds[] = {b->layer, b->fs, b->dead, b->opened_fd, b->file};

    for (size_t i = 0; i < sizeof fds / sizeof fds[0]; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    lfs_buf_free(&b->path);
    free(b);
}

int lfs_dir_backend(int fd, uint32_t flags, lfs_tree *tree, lfs_rest *rest, lfs_backend **out,
                    lfs_error *error)
{
    static const lfs_backend_ops ops = {
        .begin = dir_begin, .data = dir_data, .hole = dir_hole, .end = dir_end, .add = dir_add,
        .remove = dir_remove, .finish = dir_finish, .own = dir_own, .free = dir_free,
    };
    dir_backend *b = calloc(1, sizeof *b);
    int r = 0;

    if (b == NULL)
        return lfs_fail(error, ENOMEM, "unpack");
    b->base = (lfs_backend){.ops = &ops, .tree = tree, .rest = rest};
    b->flags = flags;
    b->fs = b->dead = b->opened_fd = b->file = -1;
    b->layer = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (b->layer < 0)
        r = lfs_fail(error, errno, "open layer directory");
    else if (mkdirat(b->layer, "fs", 0700) < 0)
        r = lfs_fail(error, errno, "create directory fs");
    else if ((b->fs = openat(b->layer, "fs", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)) < 0)
        r = lfs_fail(error, errno, "open directory fs");
    if (r < 0) {
        dir_free(&b->base);
        return r;
    }
    *out = &b->base;
    return 0;
}
