/*
 * probe.c - what this kernel, this user and this file system can do, found out by doing it.
 *
 * Everything is tried in a directory of its own, which goes again: a tiny layer made by our own writer, an
 * overlay in which a file and a directory of the lower are removed (which needs whiteouts and opaque marks).
 */
#define _GNU_SOURCE
#include "mount.h"

#include "syscalls.h"
#include "util.h"

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/wait.h>

#ifndef CLONE_NEWCGROUP
#define CLONE_NEWCGROUP 0x02000000
#endif

/* A tar member without content, of 512 bytes. */
static void tar_header(char *h, const char *name, char type, const char *mode)
{
    unsigned sum = 0;

    memset(h, 0, 512);
    snprintf(h, 100, "%s", name);
    snprintf(h + 100, 8, "%s", mode);
    snprintf(h + 108, 8, "0000000");
    snprintf(h + 116, 8, "0000000");
    snprintf(h + 124, 12, "00000000000");
    snprintf(h + 136, 12, "00000000000");
    memset(h + 148, ' ', 8);
    h[156] = type;
    memcpy(h + 257, "ustar\00000", 8);
    for (int i = 0; i < 512; i++)
        sum += (unsigned char)h[i];
    snprintf(h + 148, 8, "%06o", sum);
}

/* The lower layer of the probes, a file "file" and a directory "dir", as an EROFS image in a file of dirfd. */
static int make_layer(int dirfd, lfs_error *error)
{
    const lfs_unpack_options options = {.block_size = 512};
    const uint8_t uuid[16] = {0};
    cleanup_close int fd = openat(dirfd, "layer", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0400);
    char tar[4 * 512] = {0}, rest[4096];
    lfs_unpack_result result;
    lfs_unpack *u = NULL;
    int64_t n;
    int r;

    if (fd < 0)
        return lfs_fail(error, errno, "make a layer file");
    tar_header(tar, "file", '0', "0000644");
    tar_header(tar + 512, "dir/", '5', "0000755");
    r = lfs_unpack_open(fd, &options, &u, error);
    if (r >= 0)
        r = lfs_unpack_write(u, tar, sizeof tar, error);
    if (r >= 0)
        r = lfs_unpack_finish(u, uuid, &result, error);
    while (r >= 0 && (n = lfs_unpack_rest(u, rest, sizeof rest, error)) != 0)
        r = n < 0 ? (int)n : 0;
    lfs_unpack_free(u);
    return r < 0 ? r : lfs_steal_fd(&fd);
}

static int probe_erofs(int dirfd, uint32_t flags, lfs_error *error)
{
    cleanup_close int layer = make_layer(dirfd, error), mount = -1;
    struct stat st;

    if (layer < 0)
        return layer;
    mount = lfs_erofs_mount(layer, flags, error);
    if (mount < 0)
        return mount;
    if (fstatat(mount, "file", &st, AT_SYMLINK_NOFOLLOW) < 0)
        return lfs_fail(error, errno, "read a mounted layer");
    return 0;
}

static int make_lower(int dirfd, lfs_error *error)
{
    cleanup_close int lower = -1, file = -1;

    if (mkdirat(dirfd, "lower", 0755) < 0)
        return lfs_fail(error, errno, "make a directory");
    lower = openat(dirfd, "lower", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (lower < 0 || mkdirat(lower, "dir", 0755) < 0)
        return lfs_fail(error, errno, "make a directory");
    file = openat(lower, "file", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    return file < 0 ? lfs_fail(error, errno, "make a file") : lfs_steal_fd(&lower);
}

/* Do what makes overlayfs leave its marks in the upper. */
static int use_overlay(int mount, lfs_error *error)
{
    if (unlinkat(mount, "file", 0) < 0)
        return lfs_fail(error, errno, "remove a file of a lower layer");
    if (unlinkat(mount, "dir", AT_REMOVEDIR) < 0 || mkdirat(mount, "dir", 0755) < 0)
        return lfs_fail(error, errno, "replace a directory of a lower layer");
    return 0;
}

static int probe_overlay(int dirfd, uint32_t flags, int by_fd, lfs_error *error)
{
    cleanup_close int lower = make_lower(dirfd, error), upper = -1, work = -1, mount = -1;
    lfs_overlay overlay = {.nlowers = 1, .flags = flags};
    int r;

    if (lower < 0)
        return lower;
    if (mkdirat(dirfd, "upper", 0755) < 0 || mkdirat(dirfd, "work", 0755) < 0)
        return lfs_fail(error, errno, "make a directory");
    upper = openat(dirfd, "upper", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    work = openat(dirfd, "work", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (upper < 0 || work < 0)
        return lfs_fail(error, errno, "open a directory");
    overlay.lowers = &lower;
    overlay.upper = upper;
    overlay.work = work;
    mount = by_fd ? lfs_overlay_mount_by(&overlay, 1, error) : lfs_overlay_mount(&overlay, error);
    if (mount < 0)
        return mount;
    r = use_overlay(mount, error);
    return r;
}

/* Namespaces ----------------------------------------------------------------------------------------- */

/* Can a process be made with these flags, and (as) by an ordinary user? */
static int probe_clone(uint64_t flags, int as_nobody, const char *what, lfs_error *error)
{
    struct lfs_clone_args args = {.exit_signal = SIGCHLD, .flags = as_nobody ? 0 : flags};
    int status = 0, pid = lfs_sys_clone3(&args);

    if (pid == 0) {
        if (as_nobody && geteuid() == 0 &&
            (syscall(SYS_setgroups, 0, NULL) < 0 || syscall(SYS_setresgid, 65534, 65534, 65534) < 0 ||
             syscall(SYS_setresuid, 65534, 65534, 65534) < 0))
            _exit(errno);
        if (as_nobody && syscall(SYS_unshare, flags) < 0)
            _exit(errno);
        _exit(0);
    }
    if (pid < 0)
        return lfs_fail(error, -pid, "make %s", what);
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return lfs_fail(error, errno, "make %s", what);
    if (status != 0)
        return lfs_fail(error, WIFEXITED(status) ? WEXITSTATUS(status) : EIO, "make %s", what);
    return 0;
}

/* ---------------------------------------------------------------------------------------------------- */

static int run_probe(int dirfd, int feature, lfs_error *error)
{
    switch (feature) {
    case LFS_PROBE_EROFS:
        return probe_erofs(dirfd, 0, error);
    case LFS_PROBE_EROFS_LOOP:
        return probe_erofs(dirfd, LFS_MOUNT_LOOP, error);
    case LFS_PROBE_OVERLAY:
        return probe_overlay(dirfd, 0, 0, error);
    case LFS_PROBE_OVERLAY_FD:
        return probe_overlay(dirfd, 0, 1, error);
    case LFS_PROBE_OVERLAY_USERXATTR:
        return probe_overlay(dirfd, LFS_OVERLAY_USERXATTR, 0, error);
    case LFS_PROBE_NAMESPACES:
        return probe_clone(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWCGROUP |
                               CLONE_NEWNET, 0, "namespaces", error);
    case LFS_PROBE_USERNS:
        return probe_clone(CLONE_NEWUSER | CLONE_NEWNS, 1, "a user namespace as an ordinary user", error);
    default:
        return lfs_fail(error, EINVAL, "probe (unknown feature)");
    }
}

/* Nobody else writes there, and it is four levels deep. */
static void remove_tree(int dirfd, const char *name)
{
    int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    cleanup_closedir DIR *dir = fd < 0 ? NULL : fdopendir(fd);

    for (struct dirent *e; dir != NULL && (e = readdir(dir)) != NULL;) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        if (unlinkat(fd, e->d_name, 0) < 0)
            remove_tree(fd, e->d_name);
    }
    unlinkat(dirfd, name, AT_REMOVEDIR);
}

int lfs_probe(int dirfd, int feature, lfs_error *error)
{
    cleanup_close int scratch = -1;
    uint64_t random;
    char name[48];
    int r;

    if (getrandom(&random, sizeof random, 0) != sizeof random)
        return lfs_fail(error, errno, "probe: get a random number");
    snprintf(name, sizeof name, ".probe-%016llx", (unsigned long long)random);
    if (mkdirat(dirfd, name, 0700) < 0)
        return lfs_fail(error, errno, "probe: make a directory");
    scratch = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (scratch < 0)
        r = lfs_fail(error, errno, "probe: open a directory");
    else
        r = run_probe(scratch, feature, error);
    remove_tree(dirfd, name);
    return r;
}
