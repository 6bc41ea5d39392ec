/*
 * child.c - a new process, from clone to exec: the first one of a container, or one more in it.
 *
 * Nothing of the caller is here: this is a copy of the launcher, a small program that holds the spec and its
 * descriptors. It may not be traced or looked into from the moment that somebody could.
 */
#define _GNU_SOURCE
#include "start.h"

#include "../report.h"
#include "../syscalls.h"
#include "../util.h"

#include <linux/magic.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#ifndef CLONE_NEWCGROUP
#define CLONE_NEWCGROUP 0x02000000
#endif

static _Noreturn void give_up(int channel, int kind, const lfs_error *error)
{
    lfs_report report = {.kind = kind, .error = *error};

    lfs_report_send(channel, &report, NULL, 0);
    _exit(127);
}

static int send_tty(int channel, int master, lfs_error *error)
{
    lfs_report report = {.kind = LFS_REPORT_TTY};
    int r = lfs_report_send(channel, &report, &master, 1);

    return r < 0 ? lfs_fail(error, -r, "hand over the terminal") : 0;
}

static int raise_loopback(lfs_error *error)
{
    cleanup_close int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq request = {.ifr_name = "lo"};

    if (fd < 0 || ioctl(fd, SIOCGIFFLAGS, &request) < 0)
        return lfs_fail(error, errno, "find the loopback interface");
    request.ifr_flags |= IFF_UP;
    if (ioctl(fd, SIOCSIFFLAGS, &request) < 0)
        return lfs_fail(error, errno, "raise the loopback interface");
    return 0;
}

/* Wait until the maps of the user namespace are written, and become its root. */
static int become_root(int go, lfs_error *error)
{
    char byte;

    if (recv(go, &byte, 1, 0) != 1)
        return lfs_fail(error, ECANCELED, "wait for the launcher");
    if (syscall(SYS_setresgid, 0, 0, 0) < 0 || syscall(SYS_setresuid, 0, 0, 0) < 0)
        return lfs_fail(error, errno, "become root of the user namespace");
    return prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 ? lfs_fail(error, errno, "protect the launcher") : 0;
}

static int enter_namespaces(const sv_spec *spec, lfs_error *error)
{
    for (size_t i = 0; i < spec->nenters; i++)
        if (spec->enters[i].flag != CLONE_NEWPID && setns(spec->enters[i].fd, spec->enters[i].flag) < 0)
            return lfs_fail(error, errno, "enter a namespace");
    /* Only now, so that its root is the cgroup just entered. */
    if (!(spec->share & CLONE_NEWCGROUP) && unshare(CLONE_NEWCGROUP) < 0)
        return lfs_fail(error, errno, "make a cgroup namespace");
    return 0;
}

static int is_entered(const sv_spec *spec, int flag)
{
    for (size_t i = 0; i < spec->nenters; i++)
        if (spec->enters[i].flag == flag)
            return 1;
    return 0;
}

static int set_names(const sv_spec *spec, lfs_error *error)
{
    if (spec->hostname != NULL && sethostname(spec->hostname, strlen(spec->hostname)) < 0)
        return lfs_fail(error, errno, "set the host name %.64s", spec->hostname);
    if (spec->domainname != NULL && setdomainname(spec->domainname, strlen(spec->domainname)) < 0)
        return lfs_fail(error, errno, "set the domain name %.64s", spec->domainname);
    return 0;
}

static int set_up(const sv_spec *spec, const sv_prepared *p, int channel, int go, int *tty, lfs_error *error)
{
    cleanup_close int master = -1;
    int r = go >= 0 ? become_root(go, error) : sv_enter_cgroups(spec, 0, error);

    umask(0022);
    if (r >= 0)
        r = enter_namespaces(spec, error);
    if (r >= 0)
        r = set_names(spec, error);
    if (r >= 0 && !(spec->share & CLONE_NEWNET) && !is_entered(spec, CLONE_NEWNET))
        r = raise_loopback(error);
    if (r >= 0)
        r = sv_self_limits(spec, error);
    if (r >= 0)
        r = sv_root_enter(spec, p, &master, tty, error);
    if (r >= 0 && master >= 0)
        r = send_tty(channel, master, error);
    return r;
}

_Noreturn void sv_child_start(const sv_spec *spec, const sv_prepared *p, int channel, int go)
{
    lfs_error error = {0};
    int tty = -1, r;

    sv_self_signals(); /* those of a supervisor are blocked */
    /* At once, and again after the identity has changed: the parent may end at any time. */
    if (spec->die_with_parent && prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
        give_up(channel, LFS_REPORT_FAILED, &error);
    r = set_up(spec, p, channel, go, &tty, &error);
    if (r >= 0)
        r = sv_self_identity(spec, &error);
    if (r < 0)
        give_up(channel, LFS_REPORT_FAILED, &error);
    if (spec->init) {
        if (sv_self_filter(&error) < 0) /* it is one of the container's processes */
            give_up(channel, LFS_REPORT_FAILED, &error);
        sv_init_run(spec, tty, channel);
    }
    sv_child_run(spec, tty, channel);
}

_Noreturn void sv_child_run(const sv_spec *spec, int tty, int channel)
{
    lfs_error error = {0};

    if (spec->umask != NULL)
        umask((mode_t)strtoul(spec->umask, NULL, 8));
    if (sv_self_stdio(spec->stdio, tty, &channel, &error) < 0 || sv_self_session(tty >= 0, &error) < 0 ||
        sv_self_filter(&error) < 0)
        give_up(channel, LFS_REPORT_FAILED, &error);
    sv_self_exec(spec, &error);
    give_up(channel, LFS_REPORT_COMMAND, &error);
}

/* Joining --------------------------------------------------------------------------------------------- */

static int enter_cwd(const sv_spec *spec, lfs_error *error)
{
    cleanup_close int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC), cwd = -1;

    cwd = lfs_sys_openat2(root, spec->cwd, O_PATH | O_DIRECTORY, 0, RESOLVE_IN_ROOT);
    if (cwd < 0 || fchdir(cwd) < 0)
        return lfs_fail(error, cwd < 0 ? -cwd : errno, "enter %.200s in the container", spec->cwd);
    return 0;
}

static int join_tty(const sv_spec *spec, int channel, int *tty, lfs_error *error)
{
    cleanup_close int pts = lfs_sys_openat2(AT_FDCWD, "/dev/pts", O_PATH | O_DIRECTORY, 0, RESOLVE_NO_SYMLINKS);
    cleanup_close int master = -1;
    int r;

    if (pts < 0)
        return lfs_fail(error, -pts, "open the container's /dev/pts");
    r = sv_tty_open(spec, pts, &master, tty, error);
    return r < 0 ? r : send_tty(channel, master, error);
}

_Noreturn void sv_child_join(const sv_spec *spec, int channel)
{
    lfs_error error = {0};
    int tty = -1, r = sv_self_limits(spec, &error);

    sv_self_signals();
    umask(0022);
    if (r >= 0)
        r = enter_cwd(spec, &error);
    if (r >= 0 && spec->tty)
        r = join_tty(spec, channel, &tty, &error);
    if (r >= 0)
        r = sv_self_identity(spec, &error);
    if (r < 0)
        give_up(channel, LFS_REPORT_FAILED, &error);
    sv_child_run(spec, tty, channel);
}
