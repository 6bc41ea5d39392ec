/*
 * paths.c - names inside a root that others fill.
 *
 * Each component is opened by the kernel beneath root, links and ".." included, and only a plain name is made
 * where one is missing, in the directory that has just been opened.
 */
#define _GNU_SOURCE
#include "start.h"

#include "../syscalls.h"
#include "../util.h"

#include <limits.h>
#include <sys/stat.h>

#define PLAIN (RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)

static int make_component(int parent, const char *name, int is_dir)
{
    if (is_dir) {
        if (mkdirat(parent, name, 0755) < 0 && errno != EEXIST)
            return -errno;
    } else {
        cleanup_close int fd = openat(parent, name, O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
        if (fd < 0 && errno != EEXIST)
            return -errno;
    }
    return lfs_sys_openat2(parent, name, O_PATH | O_NOFOLLOW | (is_dir ? O_DIRECTORY : 0), 0, PLAIN);
}

int sv_path_make(int root, const char *path, int is_dir, lfs_error *error)
{
    cleanup_close int parent = -1;
    char prefix[PATH_MAX];
    size_t len = strlen(path), at = 0;
    int fd;

    if (len >= sizeof prefix)
        return lfs_fail(error, ENAMETOOLONG, "open %.200s in the container", path);
    fd = lfs_sys_openat2(root, *path ? path : ".", O_PATH, 0, RESOLVE_IN_ROOT);
    if (fd >= 0 || fd != -ENOENT)
        return fd < 0 ? lfs_fail(error, -fd, "open %.200s in the container", path) : fd;
    memcpy(prefix, path, len + 1);
    parent = lfs_sys_openat2(root, ".", O_PATH | O_DIRECTORY, 0, RESOLVE_IN_ROOT);
    while (parent >= 0) {
        size_t start = at + strspn(path + at, "/"), end = start + strcspn(path + start, "/");
        int last = path[end + strspn(path + end, "/")] == '\0';
        int as_dir = !last || is_dir;

        prefix[end] = '\0';
        fd = lfs_sys_openat2(root, prefix, O_PATH | (as_dir ? O_DIRECTORY : 0), 0, RESOLVE_IN_ROOT);
        if (fd == -ENOENT && strcmp(prefix + start, "..") != 0)
            fd = make_component(parent, prefix + start, as_dir);
        if (fd < 0)
            return lfs_fail(error, -fd, "make %.200s in the container", prefix);
        if (last)
            return fd;
        prefix[end] = path[end];
        at = end;
        close(parent);
        parent = fd;
    }
    return lfs_fail(error, -parent, "open the container's root");
}
