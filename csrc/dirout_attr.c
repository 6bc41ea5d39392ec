/* dirout_attr.c - owner, attributes, mode and time of what stands in a layer directory; see dirout.h. */
#define _GNU_SOURCE
#include "dirout.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/xattr.h>

/* user.* on links and special files is the one thing that Linux refuses and an archive may hold; a file
 * system without attributes refuses all of them; without privilege only user.* can be set. All are counted,
 * as other tools warn of it. */
static bool may_drop(const dir_backend *b, int err, uint32_t mode, int prefix)
{
    if (err == EPERM && prefix == LFS_XATTR_USER)
        return !S_ISREG(mode) && !S_ISDIR(mode);
    return err == ENOTSUP || (err == EPERM && b->flags & LFS_UNPACK_NO_CHOWN);
}

/* Of the open file where fd >= 0, else of what path leads to without following it. */
static int set_xattrs(dir_backend *b, uint32_t entry, const lfs_node *n, int fd, const char *path,
                      lfs_error *error)
{
    const char *set;
    size_t len;

    if (n->xattrs == 0)
        return 0;
    set = lfs_tree_set(b->base.tree, n->xattrs, &len, NULL);
    for (size_t i = 0; i < len;) {
        lfs_xattr_record r;
        char name[512];
        size_t value_len;

        memcpy(&r, set + i, sizeof r);
        value_len = le16toh(r.value_len);
        snprintf(name, sizeof name, "%s%.*s", lfs_xattr_prefix_name(r.prefix), r.name_len,
                 set + i + sizeof r);
        if ((fd >= 0 ? fsetxattr(fd, name, set + i + sizeof r + r.name_len, value_len, 0)
                     : lsetxattr(path, name, set + i + sizeof r + r.name_len, value_len, 0)) < 0) {
            if (!may_drop(b, errno, n->mode, r.prefix))
                return lfs_dir_fail(b, entry, errno, "set extended attribute of", error);
            b->dropped++;
        }
        i += lfs_align(sizeof r + r.name_len + value_len, 4);
    }
    return 0;
}

/*
 * Owner first (a change of it clears setuid and capabilities), then attributes (user.* cannot be set when the
 * mode forbids writing), then mode, time last. Where fd < 0, path leads to the inode itself, a link or
 * special file.
 */
int lfs_dir_attributes(dir_backend *b, uint32_t entry, const lfs_node *n, int fd, const char *path,
                          lfs_error *error)
{
    struct timespec times[2] = {
        {.tv_nsec = UTIME_OMIT},
        {.tv_sec = (time_t)n->mtime, .tv_nsec = (long)n->mtime_nsec},
    };
    char what[64];
    int r = 0;

    if (b->owns || !(b->flags & LFS_UNPACK_NO_CHOWN))
        r = fd >= 0 ? fchown(fd, n->uid, n->gid) : lchown(path, n->uid, n->gid);
    if (r < 0) {
        snprintf(what, sizeof what, "set owner %u:%u of", n->uid, n->gid);
        return lfs_dir_fail(b, entry, errno, what, error);
    }
    r = set_xattrs(b, entry, n, fd, path, error);
    if (r < 0)
        return r;
    if (!S_ISLNK(n->mode))
        r = fd >= 0 ? fchmod(fd, n->mode & 07777) : chmod(path, n->mode & 07777);
    if (r < 0)
        return lfs_dir_fail(b, entry, errno, "set mode of", error);
    r = fd >= 0 ? futimens(fd, times) : utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW);
    return r < 0 ? lfs_dir_fail(b, entry, errno, "set time of", error) : 0;
}
