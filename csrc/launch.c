/*
 * launch.c - one command in namespaces of its own.
 *
 * The child is a copy of the caller made by clone3(2); it sets up its namespaces itself, step by step, and
 * reports its first failure, or hands over its terminal, through a socket that exec closes.
 */
#define _GNU_SOURCE
#include "launch.h"

#include "syscalls.h"
#include "util.h"

#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#ifndef CLONE_NEWCGROUP
#define CLONE_NEWCGROUP 0x02000000
#endif
#ifndef CLONE_PIDFD
#define CLONE_PIDFD 0x00001000
#endif
#ifndef P_PIDFD
#define P_PIDFD 3
#endif

/* The socket: a lfs_error a message; one with err 0 brings the terminal's master. End of file: the command runs. */

static int send_report(int channel, const lfs_error *report, int fd)
{
    union {
        struct cmsghdr align;
        char data[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec iov;
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    lfs_error copy = *report;

    iov.iov_base = &copy;
    iov.iov_len = sizeof copy;
    if (fd >= 0) {
        struct cmsghdr *c;

        msg.msg_control = control.data;
        msg.msg_controllen = sizeof control.data;
        c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(c), &fd, sizeof fd);
    }
    return sendmsg(channel, &msg, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

/* 1: a report, 0: end of file, or -errno. */
static int receive_report(int channel, lfs_error *report, int *fd)
{
    union {
        struct cmsghdr align;
        char data[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec iov = {.iov_base = report, .iov_len = sizeof *report};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.data};
    struct cmsghdr *c;
    ssize_t n;

    do {
        msg.msg_controllen = sizeof control.data;
        n = recvmsg(channel, &msg, MSG_CMSG_CLOEXEC);
    } while (n < 0 && errno == EINTR);
    if (n <= 0)
        return n < 0 ? -errno : 0;
    c = CMSG_FIRSTHDR(&msg);
    if (c != NULL && c->cmsg_type == SCM_RIGHTS && *fd < 0)
        memcpy(fd, CMSG_DATA(c), sizeof *fd);
    report->msg[sizeof report->msg - 1] = '\0';
    return (size_t)n == sizeof *report ? 1 : -EPROTO;
}

/* In the child --------------------------------------------------------------------------------------- */

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

static int child_setup(const lfs_launch_spec *spec, int *channel, lfs_error *error)
{
    const lfs_error ready = {0};
    cleanup_close int master = -1, tty = -1;
    int r;

    lfs_self_signals();
    umask(0022);
    /* Nobody who comes into our namespaces may look into this copy of the caller: not by ptrace, not by /proc. */
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        return lfs_fail(error, errno, "protect the launcher");
    if (*spec->hostname && sethostname(spec->hostname, strlen(spec->hostname)) < 0)
        return lfs_fail(error, errno, "set the host name %.64s", spec->hostname);
    r = spec->flags & LFS_LAUNCH_NO_NETWORK ? raise_loopback(error) : 0;
    if (r >= 0)
        r = lfs_root_enter(spec, &master, &tty, error);
    if (r >= 0 && master >= 0 && (r = send_report(*channel, &ready, master)) < 0)
        return lfs_fail(error, -r, "hand over the terminal");
    if (r >= 0) {
        r = lfs_self_stdio(spec->stdio, tty, channel, error);
        master = tty = -1; /* closed there, with all others */
    }
    return r < 0 ? r : lfs_self_identity(spec, error);
}

static _Noreturn void child_main(const lfs_launch_spec *spec, int channel)
{
    lfs_error report = {0};

    if (child_setup(spec, &channel, &report) >= 0)
        lfs_self_exec(spec, &report);
    send_report(channel, &report, -1);
    _exit(127);
}

/* In the caller -------------------------------------------------------------------------------------- */

static void reap(int pidfd)
{
    siginfo_t info;

    while (waitid((idtype_t)P_PIDFD, (id_t)pidfd, &info, WEXITED) < 0 && errno == EINTR)
        continue;
}

static int spawn(const lfs_launch_spec *spec, int channel, int *pidfd)
{
    struct lfs_clone_args args = {
        .flags = CLONE_PIDFD | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWCGROUP |
                 (spec->flags & LFS_LAUNCH_NO_NETWORK ? CLONE_NEWNET : 0u),
        .pidfd = (uint64_t)(uintptr_t)pidfd,
        .exit_signal = SIGCHLD,
    };
    sigset_t all, before;
    int pid;

    /* A handler of the caller's must not run in the child before it is reset there. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pid = lfs_sys_clone3(&args);
    if (pid == 0)
        child_main(spec, channel);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return pid;
}

static int check_spec(const lfs_launch_spec *spec, lfs_error *error)
{
    const uint32_t known =
        LFS_LAUNCH_READONLY | LFS_LAUNCH_TTY | LFS_LAUNCH_NO_NETWORK | LFS_LAUNCH_NEW_PRIVS;

    if (spec->flags & ~known)
        return lfs_fail(error, EINVAL, "launch (unknown flag)");
    if (spec->argv[0] == NULL)
        return lfs_fail(error, EINVAL, "launch (no command)");
    if (spec->cwd[0] != '/')
        return lfs_fail(error, EINVAL, "launch in %.200s (not an absolute path)", spec->cwd);
    for (size_t i = 0; i < spec->nbinds; i++)
        if (spec->binds[i].target[0] != '/')
            return lfs_fail(error, EINVAL, "mount at %.200s (not an absolute path)", spec->binds[i].target);
    return 0;
}

static int launch(const lfs_launch_spec *spec, int *pidfd, int *tty, lfs_error *error)
{
    cleanup_close int ours = -1, theirs = -1, child = -1, master = -1;
    lfs_error report = {0};
    int pair[2], pid, r = check_spec(spec, error);

    if (r < 0)
        return r;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return lfs_fail(error, errno, "launch: make a socket pair");
    ours = pair[0];
    theirs = pair[1];
    pid = spawn(spec, theirs, &child);
    if (pid < 0)
        return lfs_fail(error, -pid, "launch: make namespaces");
    close(lfs_steal_fd(&theirs));
    while ((r = receive_report(ours, &report, &master)) > 0 && report.err == 0)
        continue;
    if (r != 0) {
        syscall(SYS_pidfd_send_signal, child, SIGKILL, NULL, 0);
        reap(child);
        return r < 0 ? lfs_fail(error, -r, "launch: read the child's report")
                     : lfs_fail(error, report.err, "%s", report.msg);
    }
    *pidfd = lfs_steal_fd(&child);
    *tty = lfs_steal_fd(&master);
    return pid;
}

int lfs_launch(const lfs_launch_spec *spec, int *pidfd, int *tty, lfs_error *error)
{
    int r = launch(spec, pidfd, tty, error);

    for (size_t i = 0; i < spec->nbinds; i++)
        close(spec->binds[i].source);
    return r;
}
