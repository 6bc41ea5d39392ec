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

#include <linux/magic.h>
#include <sched.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <termios.h>

#define NO_SUID_DEV (LFS_ATTR_NOSUID | LFS_ATTR_NODEV)
#define NO_ALL (LFS_ATTR_NOSUID | LFS_ATTR_NODEV | LFS_ATTR_NOEXEC)
#define PLAIN (RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)
#define TTY_GROUP "5"

static const char *const masked_proc[] = {"acpi", "asound", "interrupts", "kcore", "keys", "latency_stats",
                                          "sched_debug", "scsi", "timer_list", "timer_stats"};
static const char *const readonly_proc[] = {"bus", "fs", "irq", "sys", "sysrq-trigger"};
static const char *const masked_sys[] = {"devices/virtual/powercap", "firmware"};

static const struct {
    const char *name;
    unsigned minor; /* of major 1, but tty: 5:0 */
} nodes[] = {{"null", 3}, {"zero", 5}, {"full", 7}, {"random", 8}, {"urandom", 9}, {"tty", 0}};

#define COUNT(a) (sizeof(a) / sizeof(a)[0])

/* A directory of this very name, no link, directly in dir. */
static int make_dir(int dir, const char *name, lfs_error *error)
{
    int fd;

    if (mkdirat(dir, name, 0755) < 0 && errno != EEXIST)
        return lfs_fail(error, errno, "make /%s in the container", name);
    fd = lfs_sys_openat2(dir, name, O_PATH | O_DIRECTORY, 0, PLAIN);
    return fd < 0 ? lfs_fail(error, -fd, "open /%s in the container (a directory is needed there)", name) : fd;
}

/* A new file system on the directory `name` of dir; its descriptor. */
static int mount_fs(int dir, const char *name, const char *type, const char *const *options, unsigned attrs,
                    lfs_error *error)
{
    cleanup_close int target = make_dir(dir, name, error), fd = -1;
    int r;

    if (target < 0)
        return target;
    fd = lfs_fs_mount(type, options, attrs, error);
    if (fd < 0)
        return fd;
    r = sv_mount_on(fd, target, name, error);
    return r < 0 ? r : lfs_steal_fd(&fd);
}

static int clone_tree(int dir, const char *name)
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
        cover = clone_tree(null, "");
    return sv_mount_on(cover, target, name, error);
}

static int make_readonly(int dir, const char *name, lfs_error *error)
{
    cleanup_close int target = lfs_sys_openat2(dir, name, O_PATH | O_NOFOLLOW, 0, PLAIN), cover = -1;
    int r;

    if (target == -ENOENT)
        return 0;
    cover = target < 0 ? target : clone_tree(target, "");
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
    cleanup_close int proc = mount_fs(root, "proc", "proc", NULL, NO_ALL, error);
    int r = proc < 0 ? proc : 0;

    for (size_t i = 0; r >= 0 && i < spec->sysctls.n; i++)
        r = set_sysctl(spec, proc, spec->sysctls.at[i], error);
    if (spec->privileged)
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
    cleanup_close int target = make_dir(root, "sys", error), fd = -1;
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
    cleanup_close int sys = mount_fs(root, "sys", "sysfs", NULL, attrs, error);
    int r;

    if (sys == -EPERM && sv_spec_userns(spec))
        sys = bind_sys(root, attrs, error);
    r = sys < 0 ? sys : 0;
    if (spec->privileged)
        return r;
    for (size_t i = 0; r >= 0 && i < COUNT(masked_sys); i++)
        r = mask(sys, masked_sys[i], null, error);
    return r;
}

/* Devices -------------------------------------------------------------------------------------------- */

/* A node of the host under the same name: a bind, because the file system below allows no devices. */
static int bind_node(int dev, int source, const char *name, lfs_error *error)
{
    cleanup_close int mount = clone_tree(source, ""), target = -1;

    target = openat(dev, name, O_CREAT | O_EXCL | O_NOFOLLOW | O_RDONLY | O_CLOEXEC, 0666);
    if (target < 0)
        return lfs_fail(error, errno, "make /dev/%s in the container", name);
    return sv_mount_on(mount, target, name, error);
}

static int host_node(const char *name, unsigned major_, unsigned minor_, lfs_error *error)
{
    cleanup_close int dev = open("/dev", O_PATH | O_DIRECTORY | O_CLOEXEC), fd = -1;
    struct stat st;

    fd = openat(dev, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (dev < 0 || fd < 0 || fstat(fd, &st) < 0)
        return lfs_fail(error, errno, "open the host's /dev/%s", name);
    if (!S_ISCHR(st.st_mode) || st.st_rdev != makedev(major_, minor_))
        return lfs_fail(error, ENODEV, "open the host's /dev/%s: not that device", name);
    return lfs_steal_fd(&fd);
}

static int make_nodes(int dev, lfs_error *error)
{
    static const char *const links[][2] = {
        {"fd", "/proc/self/fd"},         {"stdin", "/proc/self/fd/0"},  {"stdout", "/proc/self/fd/1"},
        {"stderr", "/proc/self/fd/2"}, {"core", "/proc/kcore"}, {"ptmx", "pts/ptmx"}};
    int r = 0;

    for (size_t i = 0; r >= 0 && i < COUNT(nodes); i++) {
        cleanup_close int fd = host_node(nodes[i].name, nodes[i].minor ? 1 : 5, nodes[i].minor, error);
        r = fd < 0 ? fd : bind_node(dev, fd, nodes[i].name, error);
    }
    for (size_t i = 0; r >= 0 && i < COUNT(links); i++)
        if (symlinkat(links[i][1], dev, links[i][0]) < 0)
            r = lfs_fail(error, errno, "make /dev/%s in the container", links[i][0]);
    return r;
}

/* Every device of the host, for a privileged container. Names that are there already stay. */
static void copy_nodes(int from, int to, int depth)
{
    static const char *const own[] = {"console", "mqueue", "pts", "shm"};
    int copy = openat(from, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    cleanup_closedir DIR *dir = copy < 0 ? NULL : fdopendir(copy);

    for (struct dirent *e; dir != NULL && (e = readdir(dir)) != NULL;) {
        struct stat st;
        int skip = e->d_name[0] == '.' || fstatat(from, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0;

        for (size_t i = 0; i < COUNT(own); i++)
            skip |= strcmp(e->d_name, own[i]) == 0;
        if (skip)
            continue;
        if (S_ISDIR(st.st_mode) && depth > 0 && mkdirat(to, e->d_name, st.st_mode & 0777) == 0) {
            cleanup_close int below = openat(from, e->d_name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            cleanup_close int made = openat(to, e->d_name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            copy_nodes(below, made, depth - 1);
        } else if ((S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode)) &&
                   mknodat(to, e->d_name, st.st_mode, st.st_rdev) == 0) {
            (void)!fchownat(to, e->d_name, st.st_uid, st.st_gid, AT_SYMLINK_NOFOLLOW);
            (void)!fchmodat(to, e->d_name, st.st_mode & 0777, 0);
        }
    }
}

/* The slave end by its master, never by a name. */
int sv_tty_open(const sv_spec *spec, int pts, int *master, int *tty, lfs_error *error)
{
    int unlock = 0, number = 0;
    struct winsize size = {0};
    struct statfs fs;
    struct stat st;

    *master = lfs_sys_openat2(pts, "ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK, 0, PLAIN);
    if (*master < 0)
        return lfs_fail(error, -*master, "open a terminal");
    if (fstatfs(*master, &fs) < 0 || fs.f_type != DEVPTS_SUPER_MAGIC || fstat(*master, &st) < 0 ||
        st.st_rdev != makedev(5, 2))
        return lfs_fail(error, ENODEV, "open a terminal (that is no ptmx)");
    if (fcntl(*master, F_SETFL, O_RDWR) < 0 || ioctl(*master, TIOCSPTLCK, &unlock) < 0 ||
        ioctl(*master, TIOCGPTN, &number) < 0)
        return lfs_fail(error, errno, "open a terminal");
    if (spec->tty_size != NULL && sscanf(spec->tty_size, "%hu:%hu", &size.ws_row, &size.ws_col) == 2 &&
        ioctl(*master, TIOCSWINSZ, &size) < 0)
        return lfs_fail(error, errno, "set the terminal's size");
    *tty = ioctl(*master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (*tty < 0 || fchown(*tty, spec->uid, (gid_t)-1) < 0)
        return lfs_fail(error, errno, "open a terminal's other end");
    return number;
}

static int mount_pts(int dev, lfs_error *error)
{
    static const char *const with_group[] = {"newinstance", NULL, "ptmxmode", "0666", "mode", "0620", "gid", TTY_GROUP,
                                             NULL};
    static const char *const without[] = {"newinstance", NULL, "ptmxmode", "0666", "mode", "0600", NULL};
    /* The devices of devpts are its own terminals. */
    const unsigned attrs = LFS_ATTR_NOSUID | LFS_ATTR_NOEXEC;
    int pts = mount_fs(dev, "pts", "devpts", with_group, attrs, error);

    return pts == -EINVAL ? mount_fs(dev, "pts", "devpts", without, attrs, error) : pts; /* the group is not mapped */
}

/* What belongs to the ipc namespace: of its own, or the host's. */
static int mount_ipc(const sv_spec *spec, int dev, lfs_error *error)
{
    static const char *const shm_options[] = {"mode", "1777", "size", "64m", NULL};
    static const char *const names[] = {"shm", "mqueue"};
    cleanup_close int host = open("/dev", O_PATH | O_DIRECTORY | O_CLOEXEC);

    for (int i = 0; i < 2; i++) {
        cleanup_close int fd = -1, target = -1;

        if (!(spec->share & CLONE_NEWIPC)) {
            fd = mount_fs(dev, names[i], i == 0 ? "tmpfs" : "mqueue", i == 0 ? shm_options : NULL, NO_ALL, error);
            if (fd < 0)
                return fd;
            continue;
        }
        target = make_dir(dev, names[i], error);
        if (target < 0)
            return target;
        fd = clone_tree(host, names[i]);
        if (fd != -ENOENT && sv_mount_on(fd, target, names[i], error) < 0)
            return -error->err;
    }
    return 0;
}

static int mount_console(const sv_spec *spec, int dev, int pts, int *master, int *tty, lfs_error *error)
{
    cleanup_close int slave = -1;
    char name[16];
    int number = sv_tty_open(spec, pts, master, tty, error);

    if (number < 0)
        return number;
    snprintf(name, sizeof name, "%d", number);
    slave = openat(pts, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (slave < 0)
        return lfs_fail(error, errno, "open /dev/pts/%s", name);
    return bind_node(dev, slave, "console", error);
}

static int mount_dev(const sv_spec *spec, int root, int *master, int *tty, lfs_error *error)
{
    static const char *const dev_options[] = {"mode", "0755", "size", "64m", NULL};
    const unsigned attrs = LFS_ATTR_NOSUID | (spec->privileged ? 0 : LFS_ATTR_NODEV);
    cleanup_close int dev = mount_fs(root, "dev", "tmpfs", dev_options, attrs, error), pts = -1;
    int r = dev < 0 ? dev : make_nodes(dev, error);

    if (r >= 0 && spec->privileged) {
        cleanup_close int host = open("/dev", O_PATH | O_DIRECTORY | O_CLOEXEC);
        copy_nodes(host, dev, 3);
    }
    if (r < 0)
        return r;
    pts = mount_pts(dev, error);
    if (pts < 0)
        return pts;
    r = mount_ipc(spec, dev, error);
    return r >= 0 && spec->tty ? mount_console(spec, dev, pts, master, tty, error) : r;
}

/* The root ------------------------------------------------------------------------------------------- */

/* Onto "/", so that it has a place in this namespace; the process still stands on the host's root below. */
static int attach_root(int root, lfs_error *error)
{
    int r;

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
    cleanup_close int null = host_node("null", 1, 3, error);
    int r = null < 0 ? null : mount_proc(spec, root, null, error);

    if (r >= 0)
        r = mount_sys(spec, root, null, error);
    if (r >= 0)
        r = mount_dev(spec, root, master, tty, error);
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
