/*
 * syscalls.h - system calls and constants newer than the C library or the kernel headers of the oldest
 * distribution we build on, and those that the C library wraps in a way unsafe between clone and exec.
 * Each function returns the call's result or -errno.
 */
#ifndef LAYERFS_SYSCALLS_H
#define LAYERFS_SYSCALLS_H

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The same numbers on every architecture since these calls came with Linux 5.2 and later. */
#ifndef SYS_open_tree
#define SYS_open_tree 428
#define SYS_move_mount 429
#define SYS_fsopen 430
#define SYS_fsconfig 431
#define SYS_fsmount 432
#endif
#ifndef SYS_clone3
#define SYS_clone3 435
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#ifndef SYS_mount_setattr
#define SYS_mount_setattr 442
#endif

#define LFS_OPEN_TREE_CLONE 1
#define LFS_MOVE_MOUNT_F_EMPTY_PATH 0x04
#define LFS_MOVE_MOUNT_T_EMPTY_PATH 0x40
#define LFS_FSOPEN_CLOEXEC 1
#define LFS_FSMOUNT_CLOEXEC 1
#define LFS_FSCONFIG_SET_FLAG 0
#define LFS_FSCONFIG_SET_STRING 1
#define LFS_FSCONFIG_SET_FD 5
#define LFS_FSCONFIG_CMD_CREATE 6
#define LFS_ATTR_RDONLY 0x01u
#define LFS_ATTR_NOSUID 0x02u
#define LFS_ATTR_NODEV 0x04u
#define LFS_ATTR_NOEXEC 0x08u
#ifndef AT_RECURSIVE
#define AT_RECURSIVE 0x8000
#endif
#ifndef AT_EMPTY_PATH
#define AT_EMPTY_PATH 0x1000
#endif

struct lfs_mount_attr {
    uint64_t attr_set;
    uint64_t attr_clr;
    uint64_t propagation;
    uint64_t userns_fd;
};

struct lfs_clone_args {
    uint64_t flags;
    uint64_t pidfd;
    uint64_t child_tid;
    uint64_t parent_tid;
    uint64_t exit_signal;
    uint64_t stack;
    uint64_t stack_size;
    uint64_t tls;
    uint64_t set_tid;
    uint64_t set_tid_size;
    uint64_t cgroup;
};

/* struct linux_dirent64 (getdents64(2)) begins so; the name follows. */
typedef struct lfs_dirent_head {
    uint64_t ino;
    int64_t off;
    uint16_t length;
    uint8_t type;
} lfs_dirent_head;
#define LFS_DIRENT_NAME 19

static inline int lfs_sys(long r)
{
    return r < 0 ? -errno : (int)r;
}

static inline int lfs_sys_open_tree(int dirfd, const char *path, unsigned flags)
{
    return lfs_sys(syscall(SYS_open_tree, dirfd, path, flags | O_CLOEXEC));
}

/* Attach the mount `fd` at `path` under `dirfd`; "" is dirfd itself. */
static inline int lfs_sys_move_mount(int fd, int dirfd, const char *path)
{
    unsigned flags = LFS_MOVE_MOUNT_F_EMPTY_PATH | (*path == '\0' ? LFS_MOVE_MOUNT_T_EMPTY_PATH : 0u);

    return lfs_sys(syscall(SYS_move_mount, fd, "", dirfd, path, flags));
}

static inline int lfs_sys_fsopen(const char *type)
{
    return lfs_sys(syscall(SYS_fsopen, type, LFS_FSOPEN_CLOEXEC));
}

static inline int lfs_sys_fsconfig(int fs, unsigned command, const char *key, const void *value, int aux)
{
    return lfs_sys(syscall(SYS_fsconfig, fs, command, key, value, aux));
}

static inline int lfs_sys_fsmount(int fs, unsigned attrs)
{
    return lfs_sys(syscall(SYS_fsmount, fs, LFS_FSMOUNT_CLOEXEC, attrs));
}

/* Set attributes and, where propagation is not 0, the propagation of a mount given by descriptor. */
static inline int lfs_sys_mount_setattr(int fd, uint64_t set, uint64_t propagation, int recursive)
{
    struct lfs_mount_attr attr = {.attr_set = set, .propagation = propagation};
    unsigned flags = AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0u);

    return lfs_sys(syscall(SYS_mount_setattr, fd, "", flags, &attr, sizeof attr));
}

static inline int lfs_sys_clone3(struct lfs_clone_args *args)
{
    return lfs_sys(syscall(SYS_clone3, args, sizeof *args));
}

/* openat2(2), always O_CLOEXEC and never through a magic link. */
static inline int lfs_sys_openat2(int dirfd, const char *path, int flags, unsigned mode, uint64_t resolve)
{
    struct open_how how = {
        .flags = (uint64_t)(unsigned)(flags | O_CLOEXEC),
        .mode = mode,
        .resolve = resolve | RESOLVE_NO_MAGICLINKS,
    };
    long fd;

    do
        fd = syscall(SYS_openat2, dirfd, path, &how, sizeof how);
    while (fd < 0 && (errno == EINTR || errno == EAGAIN));
    return lfs_sys(fd);
}

#endif
