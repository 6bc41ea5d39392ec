/*
 * launch_root.c - the mounts of a new container.
 *
 * Everything is made relative to the descriptor of the root mount and of the mounts on it: a name inside is
 * resolved beneath that root by the kernel, and what is mounted goes onto the descriptor that was checked, so
 * that nothing the image or a neighbour plants can lead elsewhere. The host's tree goes last, by pivot_root.
 */
#define _GNU_SOURCE
#include "launch.h"

#include "mount.h"
#include "syscalls.h"
#include "util.h"

#include <limits.h>
#include <linux/magic.h>
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
#define TTY_GROUP 5

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

/* Put the mount on what target is; takes neither descriptor. */
static int mount_on(int mount, int target, const char *name, lfs_error *error)
{
    int r = mount < 0 ? mount : lfs_sys_move_mount(mount, target, "");

    return r < 0 ? lfs_fail(error, -r, "mount %s in the container", name) : 0;
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
    r = mount_on(fd, target, name, error);
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
    return mount_on(cover, target, name, error);
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

static int mount_proc(int root, int null, lfs_error *error)
{
    cleanup_close int proc = mount_fs(root, "proc", "proc", NULL, NO_ALL, error);
    int r = proc < 0 ? proc : 0;

    for (size_t i = 0; r >= 0 && i < COUNT(masked_proc); i++)
        r = mask(proc, masked_proc[i], null, error);
    for (size_t i = 0; r >= 0 && i < COUNT(readonly_proc); i++)
        r = make_readonly(proc, readonly_proc[i], error);
    return r;
}

static int mount_sys(int root, int null, lfs_error *error)
{
    cleanup_close int sys = mount_fs(root, "sys", "sysfs", NULL, NO_ALL | LFS_ATTR_RDONLY, error);
    int r = sys < 0 ? sys : 0;

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
    return mount_on(mount, target, name, error);
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

/* A pseudo-terminal of the container's own devpts; its slave is also the console. */
static int open_tty(const lfs_launch_spec *spec, int dev, int pts, int *master, int *tty, lfs_error *error)
{
    int unlock = 0, number = 0;
    cleanup_close int slave_path = -1;
    char name[16];

    *master = openat(pts, "ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (*master < 0 || ioctl(*master, TIOCSPTLCK, &unlock) < 0 || ioctl(*master, TIOCGPTN, &number) < 0)
        return lfs_fail(error, errno, "open a terminal");
    *tty = ioctl(*master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (*tty < 0 || fchown(*tty, spec->uid, (gid_t)-1) < 0)
        return lfs_fail(error, errno, "open a terminal's other end");
    snprintf(name, sizeof name, "%d", number);
    slave_path = openat(pts, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (slave_path < 0)
        return lfs_fail(error, errno, "open /dev/pts/%s", name);
    return bind_node(dev, slave_path, "console", error);
}

static int mount_dev(const lfs_launch_spec *spec, int root, int *master, int *tty, lfs_error *error)
{
    static const char *const dev_options[] = {"mode", "0755", "size", "64m", NULL};
    static const char *const shm_options[] = {"mode", "1777", "size", "64m", NULL};
    static const char *const pts_options[] = {"newinstance", NULL, "ptmxmode", "0666", "mode", "0620",
                                              "gid", "5", NULL};
    cleanup_close int dev = mount_fs(root, "dev", "tmpfs", dev_options, NO_SUID_DEV, error);
    cleanup_close int pts = -1, shm = -1, mqueue = -1;
    int r = dev < 0 ? dev : make_nodes(dev, error);

    if (r < 0)
        return r;
    /* The devices of devpts are its own terminals. */
    pts = mount_fs(dev, "pts", "devpts", pts_options, LFS_ATTR_NOSUID | LFS_ATTR_NOEXEC, error);
    if (pts < 0)
        return pts;
    shm = mount_fs(dev, "shm", "tmpfs", shm_options, NO_ALL, error);
    if (shm < 0)
        return shm;
    mqueue = mount_fs(dev, "mqueue", "mqueue", NULL, NO_ALL, error);
    if (mqueue < 0)
        return mqueue;
    return spec->flags & LFS_LAUNCH_TTY ? open_tty(spec, dev, pts, master, tty, error) : 0;
}

/* Paths inside --------------------------------------------------------------------------------------- */

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

/* Each component is opened by the kernel beneath root, links and ".." included, and only a plain name is made
 * where one is missing, in the directory that has just been opened. */
int lfs_root_make(int root, const char *path, int is_dir, lfs_error *error)
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

static int place_bind(int root, const lfs_bind *bind, lfs_error *error)
{
    cleanup_close int target = lfs_root_make(root, bind->target, bind->is_dir, error);
    struct stat source, at, top;
    struct statfs fs;

    if (target < 0)
        return target;
    if (fstat(bind->source, &source) < 0 || fstat(target, &at) < 0 || fstat(root, &top) < 0 ||
        fstatfs(target, &fs) < 0)
        return lfs_fail(error, errno, "inspect %.200s", bind->target);
    if (at.st_dev == top.st_dev && at.st_ino == top.st_ino)
        return lfs_fail(error, EINVAL, "mount at %.200s: that is the root of the container", bind->target);
    /* What a process believes of itself and the system is read there. */
    if (fs.f_type == PROC_SUPER_MAGIC)
        return lfs_fail(error, EPERM, "mount at %.200s: that lies in /proc", bind->target);
    if (S_ISDIR(source.st_mode) != S_ISDIR(at.st_mode))
        return lfs_fail(error, S_ISDIR(source.st_mode) ? ENOTDIR : EISDIR, "mount at %.200s", bind->target);
    if (!S_ISCHR(source.st_mode) && !S_ISBLK(source.st_mode)) {
        int r = lfs_sys_mount_setattr(bind->source, LFS_ATTR_NODEV, 0, 1);
        if (r < 0)
            return lfs_fail(error, -r, "mount at %.200s", bind->target);
    }
    return mount_on(bind->source, target, bind->target, error);
}

/* The root ------------------------------------------------------------------------------------------- */

/* Onto "/", so that it has a place in this namespace; the process still stands on the host's root below. */
static int attach_root(const lfs_launch_spec *spec, lfs_error *error)
{
    int r;

    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return lfs_fail(error, errno, "make the mounts private");
    /* No device file of an image or made later in the container can be opened; /dev brings its own. */
    r = lfs_sys_mount_setattr(spec->root, LFS_ATTR_NODEV, MS_PRIVATE, 1);
    if (r >= 0)
        r = lfs_sys_move_mount(spec->root, AT_FDCWD, "/");
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

int lfs_root_enter(const lfs_launch_spec *spec, int *master, int *tty, lfs_error *error)
{
    cleanup_close int null = host_node("null", 1, 3, error), cwd = -1;
    int root = spec->root, r = null < 0 ? null : attach_root(spec, error);

    if (r >= 0)
        r = mount_proc(root, null, error);
    if (r >= 0)
        r = mount_sys(root, null, error);
    if (r >= 0)
        r = mount_dev(spec, root, master, tty, error);
    for (size_t i = 0; r >= 0 && i < spec->nbinds; i++)
        r = place_bind(root, &spec->binds[i], error);
    if (r >= 0)
        r = cwd = lfs_root_make(root, spec->cwd, 1, error);
    if (r >= 0 && (spec->flags & LFS_LAUNCH_READONLY) &&
        (r = lfs_sys_mount_setattr(root, LFS_ATTR_RDONLY, 0, 0)) < 0)
        return lfs_fail(error, -r, "make the container's root read-only");
    if (r >= 0)
        r = pivot(root, error);
    if (r >= 0 && fchdir(cwd) < 0)
        return lfs_fail(error, errno, "enter %.200s in the container", spec->cwd);
    return r;
}
