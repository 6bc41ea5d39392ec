/*
 * start.c - the launcher's side of a start: it clones, writes the maps of a user namespace, and hears how the
 * child gets on.
 */
#define _GNU_SOURCE
#include "start.h"

#include "../report.h"
#include "../syscalls.h"
#include "../util.h"

#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#ifndef CLONE_NEWCGROUP
#define CLONE_NEWCGROUP 0x02000000
#endif
#ifndef CLONE_PIDFD
#define CLONE_PIDFD 0x00001000
#endif

#define MAP_ARGS 64

static int write_file(int pid, const char *name, const char *text, size_t n)
{
    char path[64];
    cleanup_close int fd = -1;

    snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    return fd < 0 || write(fd, text, n) != (ssize_t)n ? -errno : 0;
}

/* newuidmap PID inside outside count ...: the way of an ordinary user with subordinate ids. */
static int run_mapper(const char *program, int pid, const sv_ids *ids, lfs_error *error)
{
    char text[MAP_ARGS + 2][12], *argv[MAP_ARGS + 3];
    size_t n = 0;
    int status, child;

    if (ids->n * 3 > MAP_ARGS)
        return lfs_fail(error, E2BIG, "map ids (too many ranges)");
    snprintf(text[n++], sizeof text[0], "%s", program);
    snprintf(text[n++], sizeof text[0], "%d", pid);
    for (size_t i = 0; i < ids->n; i++) {
        snprintf(text[n++], sizeof text[0], "%u", ids->at[i].inside);
        snprintf(text[n++], sizeof text[0], "%u", ids->at[i].outside);
        snprintf(text[n++], sizeof text[0], "%u", ids->at[i].count);
    }
    for (size_t i = 0; i < n; i++)
        argv[i] = text[i];
    argv[n] = NULL;
    child = fork();
    if (child == 0) {
        execvp(program, argv);
        _exit(127);
    }
    if (child < 0 || waitpid(child, &status, 0) < 0)
        return lfs_fail(error, errno, "run %s", program);
    if (status != 0)
        return lfs_fail(error, EPERM, "map ids (%s %s)", program,
                        WIFEXITED(status) && WEXITSTATUS(status) == 127 ? "is not there" : "refused");
    return 0;
}

static int write_map(int pid, int groups, const sv_ids *ids, lfs_error *error)
{
    const char *name = groups ? "gid_map" : "uid_map";
    unsigned self = groups ? getegid() : geteuid();
    char text[4096];
    size_t used = 0;
    int r;

    for (size_t i = 0; i < ids->n && used < sizeof text - 64; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, "%u %u %u\n", ids->at[i].inside,
                                 ids->at[i].outside, ids->at[i].count);
    if (geteuid() != 0 && !(ids->n == 1 && ids->at[0].outside == self && ids->at[0].count == 1))
        return run_mapper(groups ? "newgidmap" : "newuidmap", pid, ids, error);
    /* An ordinary user may write the map of his own group only after giving up setgroups. */
    if (geteuid() != 0 && groups && (r = write_file(pid, "setgroups", "deny", 4)) < 0)
        return lfs_fail(error, -r, "deny setgroups");
    r = write_file(pid, name, text, used);
    return r < 0 ? lfs_fail(error, -r, "write %s", name) : 0;
}

/* It has one thread. Version 1 can be told to move that: where it moves a whole process it first waits for all
 * that fork or exec on this machine, some ten milliseconds. Version 2 has no such file. */
int sv_enter_cgroups(const sv_spec *spec, int pid, lfs_error *error)
{
    char text[16];
    int n = snprintf(text, sizeof text, "%d", pid);

    for (size_t i = 0; i < spec->ncgroups; i++) {
        cleanup_close int fd = openat(spec->cgroups[i], "tasks", O_WRONLY | O_CLOEXEC);
        if (fd < 0 && errno == ENOENT)
            fd = openat(spec->cgroups[i], "cgroup.procs", O_WRONLY | O_CLOEXEC);
        if (fd < 0 || write(fd, text, (size_t)n) < 0)
            return lfs_fail(error, errno, "enter a cgroup");
    }
    return 0;
}

void sv_remove_cgroups(const sv_spec *spec)
{
    for (size_t i = 0; i < spec->ncgroups; i++) {
        char link[40], path[PATH_MAX];
        ssize_t n;

        snprintf(link, sizeof link, "/proc/self/fd/%d", spec->cgroups[i]);
        n = readlink(link, path, sizeof path - 1);
        if (n <= 0)
            continue;
        path[n] = '\0';
        /* EBUSY: its last process is on its way out, or is one of others where the pid namespace is shared. */
        for (int tries = 0; rmdir(path) < 0 && errno == EBUSY && tries < 50; tries++)
            usleep(2000);
    }
}

/* What only the outside may do for a process in a user namespace. */
static int prepare_userns(const sv_spec *spec, int pid, int go, lfs_error *error)
{
    int r = write_map(pid, 1, &spec->gids, error);

    if (r >= 0)
        r = write_map(pid, 0, &spec->uids, error);
    if (r >= 0)
        r = sv_enter_cgroups(spec, pid, error);
    if (r >= 0 && send(go, "", 1, MSG_NOSIGNAL) < 0)
        r = lfs_fail(error, errno, "let the child go on");
    return r;
}

static void end_child(int pidfd, int pid, int parent)
{
    syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
    if (!parent) /* otherwise our parent buries it */
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
            continue;
}

/* The child's reports up to exec. */
static int hear(int channel, sv_process *out, int *command, lfs_error *error)
{
    int fds[LFS_REPORT_FDS], r;
    lfs_report report;

    while ((r = lfs_report_receive(channel, &report, fds)) > 0) {
        if (report.kind != LFS_REPORT_TTY) {
            *command = report.kind == LFS_REPORT_COMMAND;
            return lfs_fail(error, report.error.err, "%s", report.error.msg);
        }
        out->tty = fds[0];
    }
    return r < 0 ? lfs_fail(error, -r, "read the child's report") : 0;
}

static uint64_t namespaces(const sv_spec *spec)
{
    uint64_t flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET;

    flags &= ~(uint64_t)(unsigned)spec->share;
    for (size_t i = 0; i < spec->nenters; i++)
        flags &= ~(uint64_t)(unsigned)spec->enters[i].flag;
    return flags | (sv_spec_userns(spec) ? CLONE_NEWUSER : 0u);
}

/* The pid namespace of another container counts for children only; ours is restored after the clone. */
static int switch_pidns(const sv_spec *spec, int *own, lfs_error *error)
{
    for (size_t i = 0; i < spec->nenters; i++) {
        if (spec->enters[i].flag != CLONE_NEWPID)
            continue;
        *own = open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC);
        if (*own < 0 || setns(spec->enters[i].fd, CLONE_NEWPID) < 0)
            return lfs_fail(error, errno, "enter a pid namespace");
    }
    return 0;
}

static int run_start(const sv_spec *spec, const sv_prepared *p, int parent, int *pair, int *gate, sv_process *out,
                     int *command, lfs_error *error)
{
    struct lfs_clone_args args = {
        .flags = CLONE_PIDFD | (parent ? CLONE_PARENT : 0u) | namespaces(spec),
        .pidfd = (uint64_t)(uintptr_t)&out->pidfd,
        .exit_signal = parent ? 0 : SIGCHLD,
    };
    cleanup_close int own = -1;
    int r = switch_pidns(spec, &own, error), pid;

    if (r < 0)
        return r;
    pid = lfs_sys_clone3(&args);
    if (pid == 0) {
        close(pair[0]);
        lfs_cleanup_close(&gate[0]);
        sv_child_start(spec, p, pair[1], gate[1]);
    }
    if (own >= 0 && setns(own, CLONE_NEWPID) < 0)
        return lfs_fail(error, errno, "return to the pid namespace");
    if (pid < 0)
        return lfs_fail(error, -pid, "make namespaces");
    out->pid = pid;
    close(lfs_steal_fd(&pair[1]));
    r = gate[0] >= 0 ? prepare_userns(spec, pid, gate[0], error) : 0;
    lfs_cleanup_close(&gate[0]);
    gate[0] = -1;
    if (r >= 0)
        r = hear(pair[0], out, command, error);
    if (r < 0)
        end_child(out->pidfd, pid, parent);
    return r;
}

/* After a failure. A process that was made is buried by its parent: where that is the caller, he needs its pidfd. */
static void forget(sv_process *p, int parent)
{
    lfs_cleanup_close(&p->tty);
    p->tty = -1;
    if (!parent)
        lfs_cleanup_close(&p->pidfd);
    if (!parent || p->pid < 0)
        *p = (sv_process){-1, -1, -1};
}

int sv_start(const sv_spec *spec, int parent, sv_process *out, int *command, lfs_error *error)
{
    int pair[2] = {-1, -1}, gate[2] = {-1, -1}, r;
    sv_prepared p;

    *out = (sv_process){-1, -1, -1};
    *command = 0;
    r = sv_mounts_prepare(spec, &p, error);
    if (r >= 0 && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        r = lfs_fail(error, errno, "make a socket pair");
    if (r >= 0 && sv_spec_userns(spec) && socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, gate) < 0)
        r = lfs_fail(error, errno, "make a socket pair");
    if (r >= 0)
        r = run_start(spec, &p, parent, pair, gate, out, command, error);
    for (int i = 0; i < 2; i++) {
        lfs_cleanup_close(&pair[i]);
        lfs_cleanup_close(&gate[i]);
    }
    sv_mounts_release(spec, &p);
    if (r < 0)
        forget(out, parent);
    return r;
}

/* Joining --------------------------------------------------------------------------------------------- */

static int pid_of(int pidfd, lfs_error *error)
{
    char path[64], text[512];
    cleanup_close int fd = -1;
    const char *at;
    int pid = -1;
    ssize_t n;

    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", pidfd);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (n < 0)
        return lfs_fail(error, errno, "join the container");
    text[n] = '\0';
    at = strstr(text, "\nPid:");
    if (at == NULL || sscanf(at, "\nPid: %d", &pid) != 1 || pid <= 0)
        return lfs_fail(error, ESRCH, "join the container: it has ended");
    return pid;
}

/* The namespaces of the process that are not ours. */
static int different_namespaces(int pid, lfs_error *error)
{
    static const struct {
        const char *name;
        int flag;
    } all[] = {{"mnt", CLONE_NEWNS},  {"pid", CLONE_NEWPID}, {"uts", CLONE_NEWUTS},      {"ipc", CLONE_NEWIPC},
               {"net", CLONE_NEWNET}, {"user", CLONE_NEWUSER}, {"cgroup", CLONE_NEWCGROUP}};
    struct stat ours, theirs;
    char path[64];
    int flags = 0;

    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        snprintf(path, sizeof path, "/proc/%d/ns/%s", pid, all[i].name);
        if (stat(path, &theirs) < 0)
            return lfs_fail(error, errno == ENOENT ? ESRCH : errno, "join the container: its %s namespace",
                            all[i].name);
        snprintf(path, sizeof path, "/proc/self/ns/%s", all[i].name);
        if (stat(path, &ours) < 0)
            return lfs_fail(error, errno, "join the container: our %s namespace", all[i].name);
        if (ours.st_ino != theirs.st_ino)
            flags |= all[i].flag;
    }
    return flags;
}

static int run_join(const sv_spec *spec, int parent, int *pair, sv_process *out, int *command, lfs_error *error)
{
    struct lfs_clone_args args = {
        .flags = CLONE_PIDFD | (parent ? CLONE_PARENT : 0u),
        .pidfd = (uint64_t)(uintptr_t)&out->pidfd,
        .exit_signal = parent ? 0 : SIGCHLD,
    };
    int pid = pid_of(spec->pidfd, error), flags, r;

    if (pid < 0)
        return pid;
    flags = different_namespaces(pid, error);
    r = flags < 0 ? flags : sv_enter_cgroups(spec, getpid(), error);
    if (r < 0)
        return r;
    if (!(flags & CLONE_NEWNS))
        return lfs_fail(error, EINVAL, "join the container: it has no mount namespace of its own");
    if (setns(spec->pidfd, flags) < 0)
        return lfs_fail(error, errno, "join the container's namespaces");
    pid = lfs_sys_clone3(&args);
    if (pid == 0) {
        close(pair[0]);
        sv_child_join(spec, pair[1]);
    }
    if (pid < 0)
        return lfs_fail(error, -pid, "join the container: make a process");
    out->pid = pid;
    close(lfs_steal_fd(&pair[1]));
    r = hear(pair[0], out, command, error);
    if (r < 0)
        end_child(out->pidfd, pid, parent);
    return r;
}

int sv_join(const sv_spec *spec, int parent, sv_process *out, int *command, lfs_error *error)
{
    int pair[2] = {-1, -1}, r;

    *out = (sv_process){-1, -1, -1};
    *command = 0;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return lfs_fail(error, errno, "make a socket pair");
    r = run_join(spec, parent, pair, out, command, error);
    for (int i = 0; i < 2; i++)
        lfs_cleanup_close(&pair[i]);
    if (r < 0)
        forget(out, parent);
    return r;
}
