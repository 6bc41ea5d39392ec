/*
 * places.c - detached mounts that a container is started with more than once.
 *
 * Each start uses up the mounts that it is given, so it gets copies. Before Linux 6.15 open_tree(2) copies only what has
 * a place in the caller's mount namespace: there the mounts get places in a namespace of their own, which nobody is
 * in but the supervisor for the moment of a copy. See "Starting again" in docs/supervisor.md.
 */
#define _GNU_SOURCE
#include "start.h"

#include "../mount.h"
#include "../syscalls.h"
#include "../util.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>

static int copy(int mount)
{
    return lfs_sys_open_tree(mount, "", LFS_OPEN_TREE_CLONE | AT_EMPTY_PATH | AT_RECURSIVE);
}

static int own_namespace(void)
{
    return lfs_sys(open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC));
}

/* In the new namespace: a root of its own, so that nothing of the host stays mounted because of it, and on that each
 * mount. */
static int settle(const int *mounts, size_t n)
{
    static const char *const options[] = {"mode", "0700", NULL};
    lfs_error error;
    cleanup_close int root = lfs_fs_mount("tmpfs", options, 0, &error);
    char name[24];
    int r = root;

    if (r >= 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        r = -errno;
    if (r >= 0)
        r = lfs_sys_move_mount(root, AT_FDCWD, "/");
    for (size_t i = 0; r >= 0 && i < n; i++) {
        snprintf(name, sizeof name, "%zu", i);
        r = lfs_sys(mkdirat(root, name, 0700));
        if (r >= 0)
            r = lfs_sys_move_mount(mounts[i], root, name);
    }
    if (r >= 0 && (fchdir(root) < 0 || syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0))
        r = -errno;
    return r;
}

int sv_places_make(const int *mounts, size_t n, sv_places *places, lfs_error *error)
{
    cleanup_close int home = own_namespace(), made = -1;
    int r = home < 0 ? home : lfs_sys(unshare(CLONE_NEWNS));

    if (r < 0)
        return lfs_fail(error, -r, "keep the container's mounts");
    made = own_namespace();
    r = made < 0 ? made : settle(mounts, n);
    if (setns(home, CLONE_NEWNS) < 0 && r >= 0)
        r = -errno;
    if (r < 0)
        return lfs_fail(error, -r, "keep the container's mounts");
    *places = (sv_places){.home = lfs_steal_fd(&home), .own = lfs_steal_fd(&made)};
    return 0;
}

int sv_places_keep(const sv_spec *spec, sv_places *places, lfs_error *error)
{
    cleanup_free int *mounts = calloc(spec->nmounts + 1, sizeof *mounts);
    cleanup_close int first = -1;
    size_t n = 0;

    *places = (sv_places){-1, -1};
    if (mounts == NULL)
        return lfs_fail(error, ENOMEM, "keep the container's mounts");
    if (spec->root >= 0)
        mounts[n++] = spec->root;
    for (size_t i = 0; i < spec->nmounts; i++)
        if (spec->mounts[i].source_fd >= 0)
            mounts[n++] = spec->mounts[i].source_fd;
    first = n > 0 ? copy(mounts[0]) : -1;
    return n == 0 || first != -EINVAL ? 0 : sv_places_make(mounts, n, places, error);
}

int sv_places_copy(const sv_places *places, int mount)
{
    int fd;

    if (places->own < 0)
        return copy(mount);
    if (setns(places->own, CLONE_NEWNS) < 0)
        return -errno;
    fd = copy(mount);
    if (setns(places->home, CLONE_NEWNS) == 0)
        return fd;
    lfs_cleanup_close(&fd);
    return -EXDEV; /* never seen: we came from there */
}
