/*
 * mount_old.c - overlays on kernels before Linux 6.8, which take their layers in one text of mount(2) alone.
 *
 * mount(2) needs a place, and a detached mount is to come out: so it happens in a process that has a mount namespace
 * of its own but our memory and our descriptors, into which it puts a copy of the mount.
 */
#define _GNU_SOURCE
#include "mount.h"

#include "syscalls.h"
#include "util.h"

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>

#define DATA_MAX 4095 /* a page, for the kernel's copy with its end */
#define PLACE "/proc"  /* some directory that is always there; nobody but that process sees it covered */

typedef struct mount_args {
    const lfs_overlay *overlay;
    int *opened; /* room for all layers, as the child's namespace has them */
    size_t nopened;
    char data[DATA_MAX + 1];
    size_t used;
    int result; /* the mount, or -errno */
} mount_args;

static int append(mount_args *a, const char *text)
{
    size_t n = strlen(text);

    if (n > DATA_MAX - a->used)
        return -E2BIG;
    memcpy(a->data + a->used, text, n + 1);
    a->used += n;
    return 0;
}

/* The same directory, by its path, in this mount namespace: overlayfs takes no layer of another one. */
static int reopen(int fd)
{
    cleanup_close int again = -1;
    char link[32], path[4096];
    struct stat one, two;
    ssize_t n;

    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    n = readlink(link, path, sizeof path - 1);
    if (n < 0)
        return -errno;
    path[n] = '\0';
    again = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (again < 0 || fstat(fd, &one) < 0 || fstat(again, &two) < 0)
        return -errno;
    return one.st_dev == two.st_dev && one.st_ino == two.st_ino ? lfs_steal_fd(&again) : -ESTALE;
}

static int add_layer(mount_args *a, const char *before, int fd)
{
    char text[64];
    int again = reopen(fd);

    if (again < 0)
        return again;
    a->opened[a->nopened++] = again;
    snprintf(text, sizeof text, "%s/proc/self/fd/%d", before, again);
    return append(a, text);
}

static int make_data(mount_args *a)
{
    const lfs_overlay *o = a->overlay;
    int r = append(a, "redirect_dir=nofollow,metacopy=off,index=off");

    for (size_t i = 0; r >= 0 && i < o->nlowers; i++)
        r = add_layer(a, i == 0 ? ",lowerdir=" : ":", o->lowers[i]);
    if (r >= 0 && o->upper >= 0)
        r = add_layer(a, ",upperdir=", o->upper);
    if (r >= 0 && o->upper >= 0)
        r = add_layer(a, ",workdir=", o->work);
    if (r >= 0 && (o->flags & LFS_OVERLAY_USERXATTR))
        r = append(a, ",userxattr");
    if (r >= 0 && (o->flags & LFS_OVERLAY_VOLATILE) && o->upper >= 0)
        r = append(a, ",volatile");
    return r;
}

static int mount_in_child(void *data)
{
    mount_args *a = data;
    int r = mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ? -errno : make_data(a);

    if (r >= 0)
        r = lfs_sys(mount("layerfs", PLACE, "overlay", 0, a->data));
    a->result = r < 0 ? r : lfs_sys_open_tree(AT_FDCWD, PLACE, LFS_OPEN_TREE_CLONE);
    for (size_t i = 0; i < a->nopened; i++)
        close(a->opened[i]);
    _exit(0);
}

static void run_child(mount_args *args)
{
    char stack[32768] __attribute__((aligned(16)));
    sigset_t all, before;
    int pid;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pid = clone(mount_in_child, stack + sizeof stack,
                CLONE_VM | CLONE_VFORK | CLONE_FILES | CLONE_NEWNS | SIGCHLD, args);
    if (pid < 0)
        args->result = -errno;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        continue;
}

/* Are the layers one text here? */
int lfs_overlay_is_old(void)
{
    struct utsname name;
    int major = 0, minor = 0;

    return uname(&name) == 0 && sscanf(name.release, "%d.%d", &major, &minor) == 2 &&
           (major < 6 || (major == 6 && minor < 8));
}

int lfs_overlay_mount_old(const lfs_overlay *o, lfs_error *error)
{
    cleanup_free int *opened = calloc(o->nlowers + 2, sizeof *opened);
    mount_args args = {.overlay = o, .opened = opened, .result = -ECHILD};
    cleanup_close int fd = -1;
    int r;

    if (opened == NULL)
        return lfs_fail(error, ENOMEM, "mount overlay");
    if (o->flags & LFS_OVERLAY_OWNER)
        return lfs_fail(error, EOPNOTSUPP, "mount overlay of mapped layers (needs Linux 6.15)");
    run_child(&args);
    fd = args.result;
    if (fd == -E2BIG)
        return lfs_fail(error, E2BIG, "mount overlay of %zu layers: kernels before 6.8 take about 200", o->nlowers);
    if (fd < 0)
        return lfs_fail(error, -fd, "mount overlay");
    if (o->upper < 0 || (o->flags & LFS_OVERLAY_READONLY)) {
        r = lfs_sys_mount_setattr(fd, LFS_ATTR_RDONLY, 0, 0);
        if (r < 0)
            return lfs_fail(error, -r, "mount overlay read-only");
    }
    return lfs_steal_fd(&fd);
}
