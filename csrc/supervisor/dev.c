/*
 * dev.c - /dev of a container, and terminals.
 *
 * It is a file system that allows no devices; each node is a bind of the host's own. So nothing that is made there, or
 * anywhere else in the container, can be opened as a device.
 */
#define _GNU_SOURCE
#include "start.h"

#include "../syscalls.h"
#include "../util.h"

#include <linux/magic.h>
#include <sched.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <termios.h>

#define NO_ALL (LFS_ATTR_NOSUID | LFS_ATTR_NODEV | LFS_ATTR_NOEXEC)
#define PLAIN (RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)
#define TTY_GROUP "5"
#define COUNT(a) (sizeof(a) / sizeof(a)[0])

static const struct {
    const char *name;
    unsigned minor; /* of major 1, but tty: 5:0 */
} nodes[] = {{"null", 3}, {"zero", 5}, {"full", 7}, {"random", 8}, {"urandom", 9}, {"tty", 0}};

/* A node of the host under the same name: a bind, because the file system below allows no devices. */
static int bind_node(int dev, int source, const char *name, lfs_error *error)
{
    cleanup_close int mount = sv_root_clone(source, ""), target = -1;

    target = openat(dev, name, O_CREAT | O_EXCL | O_NOFOLLOW | O_RDONLY | O_CLOEXEC, 0666);
    if (target < 0)
        return lfs_fail(error, errno, "make /dev/%s in the container", name);
    return sv_mount_on(mount, target, name, error);
}

int sv_dev_host(const char *name, unsigned major_, unsigned minor_, lfs_error *error)
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
        cleanup_close int fd = sv_dev_host(nodes[i].name, nodes[i].minor ? 1 : 5, nodes[i].minor, error);
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
    int pts = sv_root_fs(dev, "pts", "devpts", with_group, attrs, error);

    /* The group may not be mapped in a user namespace. */
    return pts == -EINVAL ? sv_root_fs(dev, "pts", "devpts", without, attrs, error) : pts;
}

/* What belongs to the ipc namespace: of its own, or the host's. */
static int mount_ipc(const sv_spec *spec, int dev, lfs_error *error)
{
    static const char *const shm_options[] = {"mode", "1777", "size", "64m", NULL};
    static const char *const names[] = {"shm", "mqueue"};
    cleanup_close int host = open("/dev", O_PATH | O_DIRECTORY | O_CLOEXEC);

    for (int i = spec->no_shm ? 1 : 0; i < 2; i++) {
        cleanup_close int fd = -1, target = -1;

        if (!(spec->share & CLONE_NEWIPC)) {
            fd = sv_root_fs(dev, names[i], i == 0 ? "tmpfs" : "mqueue", i == 0 ? shm_options : NULL, NO_ALL, error);
            if (fd < 0)
                return fd;
            continue;
        }
        target = sv_root_dir(dev, names[i], error);
        if (target < 0)
            return target;
        fd = sv_root_clone(host, names[i]);
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

int sv_dev_mount(const sv_spec *spec, int root, int *master, int *tty, lfs_error *error)
{
    static const char *const dev_options[] = {"mode", "0755", "size", "64m", NULL};
    const unsigned attrs = LFS_ATTR_NOSUID | (spec->privileged ? 0 : LFS_ATTR_NODEV);
    cleanup_close int dev = sv_root_fs(root, "dev", "tmpfs", dev_options, attrs, error), pts = -1;
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
