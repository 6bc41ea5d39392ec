/*
 * spawn.c - executes the launcher (csrc/supervisor) for a spec and takes its reports.
 *
 * The child between vfork and exec shares our memory: it only marks descriptors and executes. So nothing of
 * the caller, which may have threads and secrets, is copied into what will run in a container.
 */
#define _GNU_SOURCE
#include "report.h"

#include "syscalls.h"
#include "util.h"

#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#ifndef CLONE_PIDFD
#define CLONE_PIDFD 0x00001000
#endif
#ifndef P_PIDFD
#define P_PIDFD 3
#endif
#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U
#endif

#define CHILD_STACK 16384

/* A copy that nobody can write any more. */
static int sealed_copy(int program, lfs_error *error)
{
    cleanup_close int copy = memfd_create("layerfs-supervisor", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_EXEC);
    struct stat st;
    off_t at = 0;

    if (copy < 0 && errno == EINVAL) /* before Linux 6.3 all are executable */
        copy = memfd_create("layerfs-supervisor", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (copy < 0 || fstat(program, &st) < 0)
        return lfs_fail(error, errno, "copy the launcher");
    while (at < st.st_size)
        if (sendfile(copy, program, &at, (size_t)(st.st_size - at)) <= 0)
            return lfs_fail(error, errno ? errno : EIO, "copy the launcher");
    if (fcntl(copy, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0)
        return lfs_fail(error, errno, "seal the launcher");
    return lfs_steal_fd(&copy);
}

int lfs_launcher_open(const char *path, lfs_error *error)
{
    cleanup_close int program = open(path, O_RDONLY | O_CLOEXEC), mount = -1;

    if (program < 0)
        return lfs_fail(error, errno, "open the launcher %s", path);
    mount = lfs_sys_open_tree(program, "", LFS_OPEN_TREE_CLONE | AT_EMPTY_PATH);
    if (mount >= 0 && lfs_sys_mount_setattr(mount, LFS_ATTR_RDONLY, 0, 0) >= 0)
        return lfs_steal_fd(&mount);
    return sealed_copy(program, error);
}

typedef struct child_args {
    int launcher;
    int channel; /* the launcher's end; closed here once it has its own */
    const int *fds;
    size_t nfds;
    char *const *argv;
    int namespaces; /* CLONE_NEW* */
    int err; /* written by the child, in memory that is ours */
} child_args;

static int child_main(void *data)
{
    child_args *a = data;
    char *const no_environment[] = {NULL};

    for (size_t i = 0; i < a->nfds; i++) {
        if (fcntl(a->fds[i], F_SETFD, 0) < 0) {
            a->err = errno;
            _exit(127);
        }
    }
    syscall(SYS_execveat, a->launcher, "", a->argv, no_environment, AT_EMPTY_PATH);
    a->err = errno;
    _exit(127);
}

static int execute(child_args *args, int *pidfd)
{
    char stack[CHILD_STACK] __attribute__((aligned(16)));
    sigset_t all, before;
    int pid;

    /* No handler of the caller's may run in the child, which shares its memory. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pid = clone(child_main, stack + sizeof stack,
                CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD | args->namespaces, args, pidfd);
    if (pid < 0)
        args->err = errno;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return pid;
}

static void reap(int pidfd)
{
    siginfo_t info;

    while (waitid((idtype_t)P_PIDFD, (id_t)pidfd, &info, WEXITED) < 0 && errno == EINTR)
        continue;
}

/* All reports until the launcher is done, or has become the command. */
static int take_reports(int channel, lfs_spawned *out, lfs_error *error)
{
    int fds[LFS_REPORT_FDS], r, result = 0;
    lfs_report report;

    while ((r = lfs_report_receive(channel, &report, fds)) > 0) {
        if (report.kind == LFS_REPORT_FAILED || report.kind == LFS_REPORT_COMMAND) {
            out->command_failed = report.kind == LFS_REPORT_COMMAND;
            result = lfs_fail(error, report.error.err, "%s", report.error.msg);
            if (fds[0] >= 0)
                reap(fds[0]); /* a child of ours that came to nothing; in its pid namespace it would be waited for */
        } else if (report.kind == LFS_REPORT_TTY) {
            out->tty = lfs_steal_fd(&fds[0]);
        } else if (out->pid < 0) {
            out->pid = report.pid;
            out->pidfd = lfs_steal_fd(&fds[0]);
            out->tty = lfs_steal_fd(&fds[1]);
        }
        for (int i = 0; i < LFS_REPORT_FDS; i++)
            lfs_cleanup_close(&fds[i]);
    }
    return r < 0 ? lfs_fail(error, -r, "launch (read the launcher's report)") : result;
}

static int run_launcher(child_args *args, int channel, lfs_spawned *out, lfs_error *error)
{
    cleanup_close int pidfd = -1;
    int pid = execute(args, &pidfd), r;

    if (args->err != 0) {
        if (pid >= 0)
            reap(pidfd);
        return lfs_fail(error, args->err, pid < 0 ? "launch (make namespaces)" : "launch (execute the launcher)");
    }
    close(args->channel);
    args->channel = -1;
    if (args->namespaces)
        out->pid = pid;
    r = take_reports(channel, out, error);
    if (args->namespaces && r >= 0)
        out->pidfd = lfs_steal_fd(&pidfd);
    else
        reap(pidfd);
    if (r >= 0 && out->pid < 0)
        r = lfs_fail(error, EPROTO, "launch (the launcher ended without a word)");
    return r;
}

int lfs_spawn(int launcher, const char *mode, uint32_t namespaces, int spec, const int *fds, size_t nfds,
              lfs_spawned *out, lfs_error *error)
{
    cleanup_free int *all = calloc(nfds + 2, sizeof *all);
    char spec_arg[16], channel_arg[16], name[] = "layerfs-supervisor";
    cleanup_free char *mode_arg = strdup(mode);
    char *argv[] = {name, mode_arg, spec_arg, channel_arg, NULL};
    child_args args = {.launcher = launcher, .fds = all, .nfds = nfds + 2, .argv = argv};
    int pair[2], r;

    *out = (lfs_spawned){.pid = -1, .pidfd = -1, .tty = -1};
    if (all == NULL || mode_arg == NULL)
        return lfs_fail(error, ENOMEM, "launch");
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return lfs_fail(error, errno, "launch (make a socket pair)");
    if (nfds > 0)
        memcpy(all, fds, nfds * sizeof *fds);
    all[nfds] = spec;
    all[nfds + 1] = args.channel = pair[1];
    args.namespaces = (int)namespaces;
    snprintf(spec_arg, sizeof spec_arg, "%d", spec);
    snprintf(channel_arg, sizeof channel_arg, "%d", pair[1]);
    r = run_launcher(&args, pair[0], out, error);
    close(pair[0]);
    lfs_cleanup_close(&args.channel);
    if (r < 0) {
        lfs_cleanup_close(&out->pidfd);
        lfs_cleanup_close(&out->tty);
        out->pid = out->pidfd = out->tty = -1;
    }
    return r;
}
