/*
 * idmap.c - mounts whose owners are shifted: what belongs to 0 in a layer belongs to the root of a user
 * namespace when it is seen through such a mount, and what that root makes is stored as made by 0.
 */
#define _GNU_SOURCE
#include "layerfs.h"

#include "syscalls.h"
#include "util.h"

#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>

#define ATTR_IDMAP 0x00100000u
#define HOLDER_STACK 4096

/* A process that only lives, in a user namespace of its own and in our memory, until it is killed. */
static int hold(void *nothing)
{
    (void)nothing;
    while (syscall(SYS_ppoll, NULL, 0, NULL, NULL, 8) < 0)
        continue;
    return 0;
}

static int write_map(int pid, const char *name, const uint32_t *map, size_t n, lfs_error *error)
{
    cleanup_close int fd = -1;
    char path[48], text[4096];
    size_t used = 0;

    for (size_t i = 0; i < n; i++) {
        int w = snprintf(text + used, sizeof text - used, "%u %u %u\n", map[3 * i], map[3 * i + 1], map[3 * i + 2]);
        used += (size_t)w;
        if (used >= sizeof text)
            return lfs_fail(error, E2BIG, "write %s (too many ranges)", name);
    }
    snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, text, used) != (ssize_t)used)
        return lfs_fail(error, errno, "write %s", name);
    return 0;
}

int lfs_userns_open(const uint32_t *uid_map, size_t nuids, const uint32_t *gid_map, size_t ngids, lfs_error *error)
{
    char stack[HOLDER_STACK] __attribute__((aligned(16))), path[48];
    sigset_t all, before;
    int pid, fd = -1, r;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pid = clone(hold, stack + sizeof stack, CLONE_VM | CLONE_NEWUSER | SIGCHLD, NULL);
    r = pid < 0 ? lfs_fail(error, errno, "make a user namespace") : 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (r < 0)
        return r;
    r = write_map(pid, "gid_map", gid_map, ngids, error);
    if (r >= 0)
        r = write_map(pid, "uid_map", uid_map, nuids, error);
    if (r >= 0) {
        snprintf(path, sizeof path, "/proc/%d/ns/user", pid);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        r = fd < 0 ? lfs_fail(error, errno, "open a user namespace") : fd;
    }
    kill(pid, SIGKILL);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        continue;
    return r;
}

int lfs_enter_namespaces(int pidfd, int flags, lfs_error *error)
{
    if (pidfd < 0)
        return unshare(flags) < 0 ? lfs_fail(error, errno, "make namespaces") : 0;
    if (setns(pidfd, flags) < 0)
        return lfs_fail(error, errno, "enter namespaces");
    if ((flags & CLONE_NEWUSER) == 0)
        return 0;
    /* Where groups may not be set, as with one number alone, there are none to give up that it knows. */
    if (setgroups(0, NULL) < 0 && errno != EPERM)
        return lfs_fail(error, errno, "give up groups");
    if (setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0)
        return lfs_fail(error, errno, "become root of a user namespace");
    return 0;
}

int lfs_mount_idmap(int mount, int userns, lfs_error *error)
{
    struct lfs_mount_attr attr = {.attr_set = ATTR_IDMAP, .userns_fd = (uint64_t)(unsigned)userns};
    cleanup_close int copy = lfs_sys_open_tree(mount, "", LFS_OPEN_TREE_CLONE | AT_EMPTY_PATH);

    if (copy < 0)
        return lfs_fail(error, -copy, "copy a mount");
    if (syscall(SYS_mount_setattr, copy, "", AT_EMPTY_PATH, &attr, sizeof attr) < 0)
        return lfs_fail(error, errno, "map the owners of a mount%s",
                        errno == EINVAL ? " (its file system cannot)" : "");
    return lfs_steal_fd(&copy);
}
