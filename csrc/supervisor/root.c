/*
 * root.c - the mounts that every container has, and the way into them.
 *
 * Everything is made relative to the descriptor of the root mount and of the mounts on it: a name inside is
 * resolved beneath that root by the kernel, and what is mounted goes onto the descriptor that was checked, so
 * that nothing the image or a neighbour plants can lead elsewhere. The host's tree goes last, by pivot_root.
 */
#define _GNU_SOURCE
#include "start.h"

#include "../mount.h"
#include "../syscalls.h"
#include "../util.h"

#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>

#define NO_ALL (LFS_ATTR_NOSUID | LFS_ATTR_NODEV | LFS_ATTR_NOEXEC)
#define PLAIN (RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)

static const char *const masked_proc[] = {"acpi", "asound", "interrupts", "kcore", "keys", "latency_stats",
                                          "sched_debug", "scsi", "timer_list", "timer_stats"};
static const char *const readonly_proc[] = {"bus", "fs", "irq", "sys", "sysrq-trigger"};
static const char *const masked_sys[] = {"devices/virtual/powercap", "firmware"};

#define COUNT(a) (sizeof(a) / sizeof(a)[0])

/* A directory of this very name, no link, directly in dir. */
int sv_root_dir(int dir, const char *name, lfs_error *error)
{
    int fd;

    if (mkdirat(dir, name, 0755) < 0 && errno != EEXIST)
        return lfs_fail(error, errno, "make /%s in the container", name);
    fd = lfs_sys_openat2(dir, name, O_PATH | O_DIRECTORY, 0, PLAIN);
    return fd < 0 ? lfs_fail(error, -fd, "open /%s in the container (a directory is needed there)", name) : fd;
}

/* A new file system on the directory `name` of dir; its descriptor. */
int sv_root_fs(int dir, const char *name, const char *type, const char *const *options, unsigned attrs,
               lfs_error *error)
{
    cleanup_close int target = sv_root_dir(dir, name, error), fd = -1;
    int r;

    if (target < 0)
        return target;
    fd = lfs_fs_mount(type, options, attrs, error);
    if (fd < 0)
        return fd;
    r = sv_mount_on(fd, target, name, error);
    return r < 0 ? r : lfs_steal_fd(&fd);
}

int sv_root_clone(int dir, const char *name)
{
    return lfs_sys_open_tree(dir, name, LFS_OPEN_TREE_CLONE | (*name ? AT_SYMLINK_NOFOLLOW : AT_EMPTY_PATH));
}

/* Hide a file under the null device and a directory under an empty file system; what is not there needs none. */
static int mask(int dir, const char *name, int null, lfs_error *error)
{
    static const char *const empty[] = {"size", "0", "mode", "0755", NULL};
    cleanup_close int target = lfs_sys_openat2(dir, name, O_PATH | O_NOFOLLOW, 0, PLAIN), cover = -1;
    struct stat st;

    if (target == -ENOENT || target == -ENOTDIR)
        return 0;
    if (target < 0 || fstat(target, &st) < 0)
        return lfs_fail(error, target < 0 ? -target : errno, "mask %s", name);
    if (S_ISDIR(st.st_mode))
        cover = lfs_fs_mount("tmpfs", empty, NO_ALL | LFS_ATTR_RDONLY, error);
    else
        cover = sv_root_clone(null, "");
    return sv_mount_on(cover, target, name, error);
}

static int make_readonly(int dir, const char *name, lfs_error *error)
{
    cleanup_close int target = lfs_sys_openat2(dir, name, O_PATH | O_NOFOLLOW, 0, PLAIN), cover = -1;
    int r;

    if (target == -ENOENT)
        return 0;
    cover = target < 0 ? target : sv_root_clone(target, "");
    r = cover < 0 ? cover : lfs_sys_mount_setattr(cover, NO_ALL | LFS_ATTR_RDONLY, 0, 0);
    if (r >= 0)
        r = lfs_sys_move_mount(cover, target, "");
    return r < 0 ? lfs_fail(error, -r, "make %s read-only", name) : 0;
}

/* Is this setting one of a namespace that the container has to itself? Others are the host's. */
static int is_own_sysctl(const sv_spec *spec, const char *name, size_t n)
{
    static const struct {
        const char *name; /* with a dot at the end: all below */
        int namespace;
    } own[] = {{"kernel.msgmax", CLONE_NEWIPC},  {"kernel.msgmnb", CLONE_NEWIPC},     {"kernel.msgmni", CLONE_NEWIPC},
               {"kernel.sem", CLONE_NEWIPC},     {"kernel.shmall", CLONE_NEWIPC},     {"kernel.shmmax", CLONE_NEWIPC},
               {"kernel.shmmni", CLONE_NEWIPC},  {"kernel.shm_rmid_forced", CLONE_NEWIPC},
               {"fs.mqueue.", CLONE_NEWIPC},     {"net.", CLONE_NEWNET},              {"kernel.hostname", CLONE_NEWUTS},
               {"kernel.domainname", CLONE_NEWUTS}};

    for (size_t i = 0; i < COUNT(own); i++) {
        size_t len = strlen(own[i].name);
        int below = own[i].name[len - 1] == '.';

        if ((below ? n > len : n == len) && memcmp(own[i].name, name, len) == 0)
            return !(spec->share & own[i].namespace);
    }
    return 0;
}

static int set_sysctl(const sv_spec *spec, int proc, const char *setting, lfs_error *error)
{
    size_t n = strcspn(setting, "=");
    cleanup_close int fd = -1;
    char path[256];

    if (setting[n] == '\0' || n > 200 || !is_own_sysctl(spec, setting, n))
        return lfs_fail(error, EINVAL, "set sysctl %.100s (not a setting of the container's own)", setting);
    snprintf(path, sizeof path, "sys/%.*s", (int)n, setting);
    for (char *at = path + 4; *at != '\0'; at++)
        if (*at == '.')
            *at = '/';
    fd = lfs_sys_openat2(proc, path, O_WRONLY, 0, PLAIN);
    if (fd < 0 || write(fd, setting + n + 1, strlen(setting + n + 1)) < 0)
        return lfs_fail(error, fd < 0 ? -fd : errno, "set sysctl %.100s", setting);
    return 0;
}

static int mount_proc(const sv_spec *spec, int root, int null, lfs_error *error)
{
    cleanup_close int proc = sv_root_fs(root, "proc", "proc", NULL, NO_ALL, error);
    int r = proc < 0 ? proc : 0;

    for (size_t i = 0; r >= 0 && i < spec->sysctls.n; i++)
        r = set_sysctl(spec, proc, spec->sysctls.at[i], error);
    if (spec->privileged || spec->unmasked)
        return r;
    for (size_t i = 0; r >= 0 && i < COUNT(masked_proc); i++)
        r = mask(proc, masked_proc[i], null, error);
    for (size_t i = 0; r >= 0 && i < COUNT(readonly_proc); i++)
        r = make_readonly(proc, readonly_proc[i], error);
    return r;
}

/* A new sysfs needs a network namespace of ours; without one, an ordinary user's container sees the host's. */
static int bind_sys(int root, unsigned attrs, lfs_error *error)
{
    cleanup_close int target = sv_root_dir(root, "sys", error), fd = -1;
    int r;

    if (target < 0)
        return target;
    r = fd = lfs_sys_open_tree(AT_FDCWD, "/sys", LFS_OPEN_TREE_CLONE | AT_RECURSIVE);
    if (r >= 0)
        r = lfs_sys_mount_setattr(fd, attrs, MS_PRIVATE, 1);
    r = sv_mount_on(r < 0 ? r : fd, target, "/sys", error);
    return r < 0 ? r : lfs_steal_fd(&fd);
}

static int mount_sys(const sv_spec *spec, int root, int null, lfs_error *error)
{
    unsigned attrs = NO_ALL | (spec->privileged ? 0 : LFS_ATTR_RDONLY);
    cleanup_close int sys = sv_root_fs(root, "sys", "sysfs", NULL, attrs, error);
    int r;

    if (sys == -EPERM && sv_spec_userns(spec))
        sys = bind_sys(root, attrs, error);
    r = sys < 0 ? sys : 0;
    if (spec->privileged || spec->unmasked)
        return r;
    for (size_t i = 0; r >= 0 && i < COUNT(masked_sys); i++)
        r = mask(sys, masked_sys[i], null, error);
    return r;
}

/* The root ------------------------------------------------------------------------------------------- */

/*
 * In a chroot pivot_root would change the root of this process alone: whoever joins the namespace (exec) would be put
 * on the host's, and the container could climb there. Joining it ourselves puts us on the namespace's root (setns(2)).
 */
static int leave_chroot(void)
{
    cleanup_close int self = lfs_sys(syscall(SYS_pidfd_open, getpid(), 0));

    return self < 0 ? self : lfs_sys(setns(self, CLONE_NEWNS));
}

/* Onto "/", so that it has a place in this namespace; the process still stands on the host's root below. */
static int attach_root(int root, lfs_error *error)
{
    int r = leave_chroot();

    if (r < 0)
        return lfs_fail(error, -r, "go to the root of the mount namespace");
    if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
        return lfs_fail(error, errno, "part the mounts from the host's");
    r = lfs_sys_move_mount(root, AT_FDCWD, "/");
    return r < 0 ? lfs_fail(error, -r, "attach the container's root") : 0;
}

static int pivot(int root, lfs_error *error)
{
    if (fchdir(root) < 0 || syscall(SYS_pivot_root, ".", ".") < 0)
        return lfs_fail(error, errno, "pivot to the container's root");
    /* The old root now lies on top of the new one, at ".". */
    if (umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
        return lfs_fail(error, errno, "leave the host's root");
    return 0;
}

static int fill_root(const sv_spec *spec, const sv_prepared *p, int root, int *master, int *tty, lfs_error *error)
{
    cleanup_close int null = sv_dev_host("null", 1, 3, error);
    int r = null < 0 ? null : mount_proc(spec, root, null, error);

    if (r >= 0)
        r = mount_sys(spec, root, null, error);
    if (r >= 0)
        r = sv_dev_mount(spec, root, master, tty, error);
    for (size_t i = 0; r >= 0 && i < spec->nmounts; i++)
        r = sv_mounts_place(spec, p, root, i, error);
    return r;
}

int sv_root_enter(const sv_spec *spec, const sv_prepared *p, int *master, int *tty, lfs_error *error)
{
    cleanup_close int root = sv_mounts_root(spec, p, error), cwd = -1;
    int r = root < 0 ? root : attach_root(root, error);

    if (r >= 0)
        r = fill_root(spec, p, root, master, tty, error);
    if (r >= 0)
        r = cwd = sv_path_make(root, spec->cwd, 1, error);
    if (r >= 0 && spec->readonly && (r = lfs_sys_mount_setattr(root, LFS_ATTR_RDONLY, 0, 0)) < 0)
        return lfs_fail(error, -r, "make the container's root read-only");
    if (r >= 0)
        r = pivot(root, error);
    if (r >= 0 && fchdir(cwd) < 0)
        return lfs_fail(error, errno, "enter %.200s in the container", spec->cwd);
    return r;
}
