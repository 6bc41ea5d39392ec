/*
 * mounts.c - the mounts of a spec.
 *
 * What the caller's privilege is needed for is opened outside the container's namespaces, as detached mounts
 * that then move in; what an ordinary user may only do in a user namespace of his own is made inside.
 */
#define _GNU_SOURCE
#include "start.h"

#include "../mount.h"
#include "../syscalls.h"
#include "../util.h"

#include <linux/magic.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>

#define FS_OPTIONS 32

/* What the options of a mount come to; those that are none of ours are the file system's. */
typedef struct attributes {
    unsigned set;
    uint64_t propagation;
    int recursive;
    const char *fs[2 * FS_OPTIONS + 1]; /* key, value, ... NULL */
    char text[1024];                    /* the keys, split off */
} attributes;

static int fs_option(attributes *a, size_t *n, size_t *used, const char *option)
{
    size_t len = strlen(option) + 1;
    char *value;

    if (*n == FS_OPTIONS || len > sizeof a->text - *used)
        return -E2BIG;
    memcpy(a->text + *used, option, len);
    value = strchr(a->text + *used, '=');
    if (value != NULL)
        *value++ = '\0';
    a->fs[2 * *n] = a->text + *used;
    a->fs[2 * *n + 1] = value;
    a->fs[2 * *n + 2] = NULL;
    *n += 1;
    *used += len;
    return 0;
}

static int read_options(const sv_mount *m, attributes *a, lfs_error *error)
{
    static const struct {
        const char *name;
        unsigned set;
        unsigned clear;
        uint64_t propagation;
    } known[] = {
        {"ro", LFS_ATTR_RDONLY, 0, 0},     {"rw", 0, LFS_ATTR_RDONLY, 0},     {"nosuid", LFS_ATTR_NOSUID, 0, 0},
        {"suid", 0, LFS_ATTR_NOSUID, 0},   {"nodev", LFS_ATTR_NODEV, 0, 0},   {"dev", 0, LFS_ATTR_NODEV, 0},
        {"noexec", LFS_ATTR_NOEXEC, 0, 0}, {"exec", 0, LFS_ATTR_NOEXEC, 0},   {"private", 0, 0, MS_PRIVATE},
        {"slave", 0, 0, MS_SLAVE},         {"shared", 0, 0, MS_SHARED},       {"unbindable", 0, 0, MS_UNBINDABLE},
    };
    int bind = strcmp(m->type, "bind") == 0, device = strcmp(m->type, "device") == 0;
    size_t n = 0, used = 0;

    *a = (attributes){.propagation = MS_PRIVATE};
    a->set = device ? 0 : bind ? LFS_ATTR_NODEV : LFS_ATTR_NOSUID | LFS_ATTR_NODEV;
    for (size_t i = 0; i < m->options.n; i++) {
        const char *option = m->options.at[i];
        int found = 0;

        for (size_t k = 0; !found && k < sizeof known / sizeof known[0]; k++) {
            if (strcmp(option, known[k].name) != 0)
                continue;
            found = 1;
            a->set = (a->set | known[k].set) & ~known[k].clear;
            if (known[k].propagation != 0)
                a->propagation = known[k].propagation;
        }
        if (!found && strcmp(option, "rec") == 0)
            found = a->recursive = 1;
        if (!found && (bind || device))
            return lfs_fail(error, EINVAL, "mount at %.200s (unknown option %.40s)", m->target, option);
        if (!found && fs_option(a, &n, &used, option) < 0)
            return lfs_fail(error, E2BIG, "mount at %.200s (too many options)", m->target);
    }
    return 0;
}

/* A detached mount of what the path names in this mount namespace. */
static int open_source(const sv_mount *m, const attributes *a)
{
    unsigned flags = LFS_OPEN_TREE_CLONE | (a->recursive ? AT_RECURSIVE : 0u);
    cleanup_close int fd = lfs_sys_open_tree(AT_FDCWD, m->source, flags);
    int r;

    if (fd < 0)
        return fd;
    r = lfs_sys_mount_setattr(fd, a->set, a->propagation, a->recursive);
    return r < 0 ? r : lfs_steal_fd(&fd);
}

/* A detached mount for one start: a copy where there may be more of them. */
static int take_detached(const sv_spec *spec, int mount)
{
    if (spec->places != NULL)
        return sv_places_copy(spec->places, mount);
    return lfs_sys(fcntl(mount, F_DUPFD_CLOEXEC, 3));
}

/* *out stays -1 where the mount is to be made inside. */
static int prepare_source(const sv_spec *spec, const sv_mount *m, int *out, lfs_error *error)
{
    attributes a;
    int r = read_options(m, &a, error);

    if (r < 0 || (m->source == NULL && m->source_fd < 0))
        return r;
    if (m->source_fd >= 0) {
        r = *out = take_detached(spec, m->source_fd);
        if (r >= 0)
            r = lfs_sys_mount_setattr(*out, a.set, 0, 1);
    } else {
        r = *out = open_source(m, &a);
        if (r == -EPERM && sv_spec_userns(spec)) /* an ordinary user */
            r = 0;
    }
    if (r < 0)
        return lfs_fail(error, -r, "mount %.200s at %.200s", m->source ? m->source : "a descriptor", m->target);
    return 0;
}

int sv_mounts_prepare(const sv_spec *spec, sv_prepared *p, lfs_error *error)
{
    *p = (sv_prepared){.root = -1};
    p->sources = malloc((spec->nmounts + 1) * sizeof *p->sources);
    if (p->sources == NULL)
        return lfs_fail(error, ENOMEM, "launch");
    for (size_t i = 0; i < spec->nmounts; i++)
        p->sources[i] = -1;
    if (spec->root >= 0) {
        /* No device file of an image, or made later in the container, can be opened; /dev brings its own. */
        unsigned attrs = spec->privileged ? 0 : LFS_ATTR_NODEV;
        int r = p->root = take_detached(spec, spec->root);

        if (r >= 0)
            r = lfs_sys_mount_setattr(p->root, attrs, MS_PRIVATE, 1);
        if (r < 0)
            return lfs_fail(error, -r, "prepare the container's root");
    }
    for (size_t i = 0; i < spec->nmounts; i++) {
        int r = prepare_source(spec, &spec->mounts[i], &p->sources[i], error);
        if (r < 0)
            return r;
    }
    return 0;
}

void sv_mounts_release(const sv_spec *spec, sv_prepared *p)
{
    lfs_cleanup_close(&p->root);
    for (size_t i = 0; p->sources != NULL && i < spec->nmounts; i++)
        lfs_cleanup_close(&p->sources[i]);
    free(p->sources);
}

/* Inside ---------------------------------------------------------------------------------------------- */

static int open_layer(const char *path, lfs_error *error)
{
    int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);

    return fd < 0 ? lfs_fail(error, errno, "open layer %.200s", path) : fd;
}

static int overlay_flags(const char *text, uint32_t *flags)
{
    for (; text != NULL && *text != '\0'; text += strcspn(text, ","), text += *text == ',') {
        size_t n = strcspn(text, ",");

        if (n == 9 && memcmp(text, "userxattr", n) == 0)
            *flags |= LFS_OVERLAY_USERXATTR;
        else if (n == 8 && memcmp(text, "volatile", n) == 0)
            *flags |= LFS_OVERLAY_VOLATILE;
        else
            return -EINVAL;
    }
    return 0;
}

static int make_overlay(const sv_spec *spec, lfs_error *error)
{
    int *fds = calloc(spec->lowers.n + 2, sizeof *fds), r = 0;
    lfs_overlay overlay = {.lowers = fds, .upper = -1, .work = -1};

    if (fds == NULL)
        return lfs_fail(error, ENOMEM, "mount overlay");
    for (size_t i = 0; r >= 0 && i < spec->lowers.n; i++) {
        r = fds[i] = open_layer(spec->lowers.at[i], error);
        overlay.nlowers += r >= 0;
    }
    if (r >= 0 && spec->upper != NULL)
        r = overlay.upper = open_layer(spec->upper, error);
    if (r >= 0 && spec->upper != NULL)
        r = overlay.work = open_layer(spec->work, error);
    if (r >= 0 && (r = overlay_flags(spec->overlay, &overlay.flags)) < 0)
        r = lfs_fail(error, EINVAL, "mount overlay (unknown flag in %.60s)", spec->overlay);
    if (r >= 0)
        r = lfs_overlay_mount(&overlay, error);
    for (size_t i = 0; i < overlay.nlowers; i++)
        close(fds[i]);
    lfs_cleanup_close(&overlay.upper);
    lfs_cleanup_close(&overlay.work);
    free(fds);
    return r;
}

int sv_mounts_root(const sv_spec *spec, const sv_prepared *p, lfs_error *error)
{
    cleanup_close int fd = -1;
    int r;

    if (p->root >= 0) {
        fd = fcntl(p->root, F_DUPFD_CLOEXEC, 3);
        return fd < 0 ? lfs_fail(error, errno, "duplicate a descriptor") : lfs_steal_fd(&fd);
    }
    fd = make_overlay(spec, error);
    if (fd < 0)
        return fd;
    r = lfs_sys_mount_setattr(fd, spec->privileged ? 0 : LFS_ATTR_NODEV, MS_PRIVATE, 0);
    return r < 0 ? lfs_fail(error, -r, "prepare the container's root") : lfs_steal_fd(&fd);
}

int sv_mount_on(int mount, int target, const char *name, lfs_error *error)
{
    int r = mount < 0 ? mount : lfs_sys_move_mount(mount, target, "");

    return r < 0 ? lfs_fail(error, -r, "mount %.200s in the container", name) : 0;
}

static int check_target(int root, int target, const sv_mount *m, lfs_error *error)
{
    struct stat at, top;
    struct statfs fs;

    if (fstat(target, &at) < 0 || fstat(root, &top) < 0 || fstatfs(target, &fs) < 0)
        return lfs_fail(error, errno, "inspect %.200s", m->target);
    if (at.st_dev == top.st_dev && at.st_ino == top.st_ino)
        return lfs_fail(error, EINVAL, "mount at %.200s: that is the root of the container", m->target);
    /* What a process believes of itself and the system is read there. */
    if (fs.f_type == PROC_SUPER_MAGIC)
        return lfs_fail(error, EPERM, "mount at %.200s: that lies in /proc", m->target);
    return 0;
}

/* The mount itself: prepared outside, or made here. */
static int open_mount(const sv_mount *m, int prepared, lfs_error *error)
{
    attributes a;
    int fd, r = read_options(m, &a, error);

    if (r < 0)
        return r;
    if (prepared >= 0) {
        fd = fcntl(prepared, F_DUPFD_CLOEXEC, 3);
        return fd < 0 ? lfs_fail(error, errno, "duplicate a descriptor") : fd;
    }
    if (m->source != NULL) {
        fd = open_source(m, &a);
        return fd < 0 ? lfs_fail(error, -fd, "mount %.200s at %.200s", m->source, m->target) : fd;
    }
    return lfs_fs_mount(m->type, a.fs, a.set, error);
}

int sv_mounts_place(const sv_spec *spec, const sv_prepared *p, int root, size_t i, lfs_error *error)
{
    const sv_mount *m = &spec->mounts[i];
    cleanup_close int fd = open_mount(m, p->sources[i], error), target = -1;
    struct stat st, at;
    int r;

    if (fd < 0)
        return lfs_prefix(error, fd, "mount at %.100s", m->target);
    if (fstat(fd, &st) < 0)
        return lfs_fail(error, errno, "inspect the source for %.200s", m->target);
    if (strcmp(m->type, "device") == 0 && !S_ISCHR(st.st_mode) && !S_ISBLK(st.st_mode))
        return lfs_fail(error, ENODEV, "mount %.200s at %.200s: that is no device", m->source, m->target);
    target = sv_path_make(root, m->target, S_ISDIR(st.st_mode), error);
    if (target < 0)
        return target;
    r = check_target(root, target, m, error);
    if (r < 0)
        return r;
    if (fstat(target, &at) < 0 || S_ISDIR(st.st_mode) != S_ISDIR(at.st_mode))
        return lfs_fail(error, S_ISDIR(st.st_mode) ? ENOTDIR : EISDIR, "mount at %.200s", m->target);
    return sv_mount_on(fd, target, m->target, error);
}
