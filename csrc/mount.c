/*
 * mount.c - detached mounts by fsopen(2) and its companions: EROFS from a layer file, overlays, binds.
 *
 * A mount is a descriptor until it is attached; closed before that, the kernel takes all of it away. Layer
 * files and directories are named as /proc/self/fd/N, so that no path is resolved twice.
 */
#define _GNU_SOURCE
#include "mount.h"

#include "syscalls.h"
#include "util.h"

#include <linux/loop.h>
#include <linux/securebits.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#define OVERLAY_LOWERS 500 /* OVL_MAX_STACK */
#define READ_AHEAD_KB "1024"
#define READ_AHEAD_STEP (1u << 20)

/* The reason that the kernel left in the context's log, the last one, without its level; "" if none. */
static void fs_log(int fs, char *out, size_t cap)
{
    char line[256];
    ssize_t n;

    out[0] = '\0';
    while ((n = read(fs, line, sizeof line - 1)) > 0) {
        line[n] = '\0';
        line[strcspn(line, "\n")] = '\0';
        if (n > 2 && (line[0] == 'e' || (line[0] == 'w' && out[0] == '\0')) && line[1] == ' ')
            snprintf(out, cap, "%.*s", (int)cap - 1, line + 2);
    }
}

static int fs_fail(lfs_error *error, int fs, int r, const char *what)
{
    char log[200];

    fs_log(fs, log, sizeof log);
    return log[0] ? lfs_fail(error, -r, "%s: %s", what, log) : lfs_fail(error, -r, "%s", what);
}

static int fs_open(const char *type, lfs_error *error)
{
    int fs = lfs_sys_fsopen(type);

    if (fs == -ENODEV)
        return lfs_fail(error, ENODEV, "open file system type %s: this kernel does not have it", type);
    return fs < 0 ? lfs_fail(error, -fs, "open file system type %s", type) : fs;
}

static int fs_set(int fs, const char *key, const char *value)
{
    if (value == NULL)
        return lfs_sys_fsconfig(fs, LFS_FSCONFIG_SET_FLAG, key, NULL, 0);
    return lfs_sys_fsconfig(fs, LFS_FSCONFIG_SET_STRING, key, value, 0);
}

int lfs_fs_mount(const char *type, const char *const *options, unsigned attrs, lfs_error *error)
{
    cleanup_close int fs = fs_open(type, error);
    int r;

    if (fs < 0)
        return fs;
    fs_set(fs, "source", type); /* what the first column of /proc/mounts says */
    for (; options != NULL && options[0] != NULL; options += 2) {
        r = fs_set(fs, options[0], options[1]);
        if (r < 0)
            return fs_fail(error, fs, r, options[0]);
    }
    r = lfs_sys_fsconfig(fs, LFS_FSCONFIG_CMD_CREATE, NULL, NULL, 0);
    if (r >= 0)
        r = lfs_sys_fsmount(fs, attrs);
    return r < 0 ? fs_fail(error, fs, r, type) : r;
}

/* EROFS ---------------------------------------------------------------------------------------------- */

/*
 * The read-ahead window of the mount just made. A block device's is named by its numbers; that of a file has
 * a running number in its name, so that the highest is the newest (should another mount have come between,
 * that one gets the window, which does no harm). Wholly optional.
 */
static void raise_read_ahead(int mount)
{
    cleanup_close int fd = -1;
    char path[320] = "";
    struct stat st;

    if (fstat(mount, &st) < 0)
        return;
    if (major(st.st_dev) != 0) {
        snprintf(path, sizeof path, "/sys/class/bdi/%u:%u/read_ahead_kb", major(st.st_dev), minor(st.st_dev));
    } else {
        cleanup_closedir DIR *dir = opendir("/sys/class/bdi");
        unsigned long best = 0;

        for (struct dirent *e; dir != NULL && (e = readdir(dir)) != NULL;) {
            unsigned long n = strncmp(e->d_name, "erofs-", 6) == 0 ? strtoul(e->d_name + 6, NULL, 10) : 0;
            if (n > best) {
                best = n;
                snprintf(path, sizeof path, "/sys/class/bdi/erofs-%lu/read_ahead_kb", n);
            }
        }
    }
    if (path[0] != '\0')
        fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd >= 0 && write(fd, READ_AHEAD_KB, sizeof READ_AHEAD_KB - 1) < 0)
        return;
}

/* A loop device over fd that frees itself with its last user; its descriptor. */
static int loop_open(int fd, lfs_error *error)
{
    cleanup_close int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    struct loop_config config = {
        .fd = (uint32_t)fd,
        .block_size = 512,
        .info = {.lo_flags = LO_FLAGS_AUTOCLEAR | LO_FLAGS_READ_ONLY},
    };

    if (control < 0)
        return lfs_fail(error, errno, "open /dev/loop-control");
    for (int tries = 0; tries < 64; tries++) { /* another process may take the free one first */
        cleanup_close int loop = -1;
        char path[32];
        int n = ioctl(control, LOOP_CTL_GET_FREE);

        if (n < 0)
            return lfs_fail(error, errno, "find a free loop device");
        snprintf(path, sizeof path, "/dev/loop%d", n);
        loop = open(path, O_RDONLY | O_CLOEXEC);
        if (loop < 0)
            return lfs_fail(error, errno, "open %s", path);
        if (ioctl(loop, LOOP_CONFIGURE, &config) == 0)
            return lfs_steal_fd(&loop);
        if (errno != EBUSY)
            return lfs_fail(error, errno, "set up %s", path);
    }
    return lfs_fail(error, EBUSY, "find a free loop device");
}

static const char *erofs_reason(int r)
{
    switch (-r) {
    case ENOTBLK:
        return "mount layer file (this kernel mounts no plain file, or not one on overlayfs, tmpfs or FUSE)";
    case EINVAL:
        return "mount layer file (not an EROFS image this kernel understands)";
    case EUCLEAN:
    case EBADMSG:
        return "mount layer file (damaged)";
    default:
        return "mount layer file";
    }
}

int lfs_erofs_mount(int fd, uint32_t flags, lfs_error *error)
{
    cleanup_close int loop = -1, fs = -1;
    char source[32];
    int r;

    if (flags & ~(uint32_t)LFS_MOUNT_LOOP)
        return lfs_fail(error, EINVAL, "mount layer file (unknown flag)");
    if (flags & LFS_MOUNT_LOOP) {
        loop = loop_open(fd, error);
        if (loop < 0)
            return loop;
    }
    fs = fs_open("erofs", error);
    if (fs < 0)
        return fs;
    snprintf(source, sizeof source, "/proc/self/fd/%d", loop >= 0 ? loop : fd);
    r = fs_set(fs, "source", source);
    if (r >= 0)
        r = fs_set(fs, "ro", NULL);
    if (r >= 0)
        r = lfs_sys_fsconfig(fs, LFS_FSCONFIG_CMD_CREATE, NULL, NULL, 0);
    if (r >= 0)
        r = lfs_sys_fsmount(fs, LFS_ATTR_RDONLY);
    /* Damage is the system's finding about the mount here, never our verdict on the data: not -EBADMSG. */
    if (r < 0)
        return fs_fail(error, fs, r == -EBADMSG ? -EUCLEAN : r, erofs_reason(r));
    raise_read_ahead(r);
    return r;
}

int lfs_readahead(int fd, uint64_t offset, uint64_t length, lfs_error *error)
{
    while (length > 0) {
        size_t n = length < READ_AHEAD_STEP ? (size_t)length : READ_AHEAD_STEP;

        if (readahead(fd, (off_t)offset, n) < 0)
            return lfs_fail(error, errno, "read ahead");
        offset += n;
        length -= n;
    }
    return 0;
}

int lfs_write_back(int fd, uint64_t offset, uint64_t length, lfs_error *error)
{
    if (sync_file_range(fd, (off_t)offset, (off_t)length, SYNC_FILE_RANGE_WRITE) < 0)
        return lfs_fail(error, errno, "write back");
    return 0;
}

/* Overlay -------------------------------------------------------------------------------------------- */

/* Whatever the kernel's configuration says: no redirects, no metadata-only copies, so that an upper always
 * holds all of what changed. A kernel that does not know an option does not do what it turns off. */
static void overlay_defaults(int fs)
{
    static const char *const options[][2] = {
        {"redirect_dir", "nofollow"}, {"metacopy", "off"}, {"index", "off"}, {"xino", "auto"}};

    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++)
        fs_set(fs, options[i][0], options[i][1]);
}

static int overlay_layer(int fs, const char *key, int fd, int by_fd, lfs_error *error)
{
    char path[32];
    int r;

    if (by_fd) {
        r = lfs_sys_fsconfig(fs, LFS_FSCONFIG_SET_FD, key, NULL, fd);
    } else {
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        r = fs_set(fs, key, path);
    }
    return r < 0 ? fs_fail(error, fs, r, key) : 0;
}

static const char *overlay_reason(int r)
{
    switch (-r) {
    case ELOOP:
        return "mount overlay (layers overlap, or upper and work are in use)";
    case EINVAL:
        return "mount overlay (a directory on a file system that cannot take this role, upper and work on"
               " different file systems, or a volatile upper after a crash)";
    case EBUSY:
        return "mount overlay (upper or work is in use by another mount)";
    case ENOSPC:
        return "mount overlay (too many mounts in this namespace, or a full disk)";
    case ESTALE:
        return "mount overlay (the upper was made over other layers)";
    default:
        return "mount overlay";
    }
}

static int overlay_set(int fs, const lfs_overlay *o, int by_fd, lfs_error *error)
{
    int r = 0;

    fs_set(fs, "source", "layerfs"); /* what the first column of /proc/mounts says */
    overlay_defaults(fs);
    for (size_t i = 0; r >= 0 && i < o->nlowers; i++)
        r = overlay_layer(fs, "lowerdir+", o->lowers[i], by_fd, error);
    if (r >= 0 && o->upper >= 0)
        r = overlay_layer(fs, "upperdir", o->upper, by_fd, error);
    if (r >= 0 && o->upper >= 0)
        r = overlay_layer(fs, "workdir", o->work, by_fd, error);
    if (r >= 0 && (o->flags & LFS_OVERLAY_USERXATTR) && (r = fs_set(fs, "userxattr", NULL)) < 0)
        r = fs_fail(error, fs, r, "mount overlay: userxattr");
    if (r >= 0 && (o->flags & LFS_OVERLAY_VOLATILE) && o->upper >= 0 && (r = fs_set(fs, "volatile", NULL)) < 0)
        r = fs_fail(error, fs, r, "mount overlay: volatile");
    return r;
}

/*
 * Overlayfs acts in its layers as whoever has mounted it. Where their owners are mapped, the host's root is nobody
 * there and can make nothing in an upper; root of the container's namespace can. Only this thread changes, by raw
 * calls, and with its capabilities kept.
 */
static int become_owner(const lfs_overlay *o, lfs_error *error)
{
    int bits = prctl(PR_GET_SECUREBITS, 0, 0, 0, 0);

    if (bits < 0 || prctl(PR_SET_SECUREBITS, bits | SECBIT_NO_SETUID_FIXUP, 0, 0, 0) < 0)
        return lfs_fail(error, errno, "mount overlay (as another user)");
    syscall(SYS_setfsgid, o->gid);
    syscall(SYS_setfsuid, o->uid);
    return bits;
}

static void become_self(int bits)
{
    syscall(SYS_setfsuid, geteuid());
    syscall(SYS_setfsgid, getegid());
    prctl(PR_SET_SECUREBITS, bits, 0, 0, 0);
}

static int overlay_create(int fs, const lfs_overlay *o, unsigned attrs, lfs_error *error)
{
    int bits = o->flags & LFS_OVERLAY_OWNER ? become_owner(o, error) : 0, r;

    if (bits < 0)
        return bits;
    r = lfs_sys_fsconfig(fs, LFS_FSCONFIG_CMD_CREATE, NULL, NULL, 0);
    if (o->flags & LFS_OVERLAY_OWNER)
        become_self(bits);
    if (r >= 0)
        r = lfs_sys_fsmount(fs, attrs);
    return r < 0 ? fs_fail(error, fs, r, overlay_reason(r)) : r;
}

int lfs_overlay_mount_by(const lfs_overlay *o, int by_fd, lfs_error *error)
{
    unsigned attrs = o->upper < 0 || (o->flags & LFS_OVERLAY_READONLY) ? LFS_ATTR_RDONLY : 0;
    cleanup_close int fs = fs_open("overlay", error);
    int r;

    if (fs < 0)
        return fs;
    r = overlay_set(fs, o, by_fd, error);
    return r < 0 ? r : overlay_create(fs, o, attrs, error);
}

int lfs_overlay_mount(const lfs_overlay *o, lfs_error *error)
{
    const uint32_t known = LFS_OVERLAY_VOLATILE | LFS_OVERLAY_USERXATTR | LFS_OVERLAY_READONLY | LFS_OVERLAY_OWNER;
    int r;

    if (o->nlowers < 1 || (o->flags & ~known) || (o->upper >= 0) != (o->work >= 0))
        return lfs_fail(error, EINVAL, "mount overlay (wrong arguments)");
    if (o->nlowers > OVERLAY_LOWERS)
        return lfs_fail(error, EINVAL, "mount overlay of %zu layers: the kernel takes at most %d", o->nlowers,
                        OVERLAY_LOWERS);
    if (o->nlowers == 1 && o->upper < 0)
        return lfs_bind_mount(o->lowers[0], "", 0, 1, error);
    r = lfs_overlay_mount_by(o, 1, error);
    /* Descriptors as layers came with Linux 6.13 (detached mounts and O_PATH with 6.15); before, paths; and one text
     * for all of them before 6.8, where no descriptor at all can be given (EOPNOTSUPP, before 6.5). */
    if (r == -EINVAL || r == -EBADF || r == -EOPNOTSUPP)
        r = lfs_overlay_is_old() ? lfs_overlay_mount_old(o, error) : lfs_overlay_mount_by(o, 0, error);
    return r;
}

/* Binds, attaching ----------------------------------------------------------------------------------- */

int lfs_bind_mount(int dirfd, const char *path, int recursive, int readonly, lfs_error *error)
{
    const char *name = *path ? path : "a descriptor";
    unsigned flags = LFS_OPEN_TREE_CLONE | (recursive ? AT_RECURSIVE : 0u) | (*path ? 0u : AT_EMPTY_PATH);
    cleanup_close int fd = lfs_sys_open_tree(dirfd, path, flags);
    int r;

    if (fd < 0)
        return lfs_fail(error, -fd, "bind %s", name);
    r = lfs_sys_mount_setattr(fd, readonly ? LFS_ATTR_RDONLY : 0, MS_PRIVATE, recursive);
    if (r < 0)
        return lfs_fail(error, -r, "bind %s (set its attributes)", name);
    return lfs_steal_fd(&fd);
}

int lfs_mount_attach(int mount, const char *target, lfs_error *error)
{
    int r;

    if (*target == '\0')
        return lfs_fail(error, EINVAL, "attach mount (no path)");
    r = lfs_sys_move_mount(mount, AT_FDCWD, target);
    return r < 0 ? lfs_fail(error, -r, "attach mount at %s", target) : 0;
}

int lfs_mount_detach(const char *target, int lazy, lfs_error *error)
{
    if (umount2(target, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) < 0)
        return lfs_fail(error, errno, "unmount %s", target);
    return 0;
}
