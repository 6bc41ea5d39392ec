/*
 * main.c - the launcher and supervisor: layerfs-supervisor MODE SPEC CHANNEL
 *
 * SPEC is the descriptor of the spec, CHANNEL that of the socket to report to. See docs/supervisor.md. As
 * "layerfs-supervisor init COMMAND [ARGUMENT...]" it is pid 1 of a container that another runtime has made,
 * and as "layerfs-supervisor keep" it holds the terminal of a command whose user has left.
 */
#define _GNU_SOURCE
#include "start.h"
#include "supervise.h"

#include "../report.h"
#include "../util.h"

#include <sys/prctl.h>

#define FDS_MAX 4096

/* Nothing but what the spec names stays open, however it was left to us. */
static int close_others(const sv_spec *spec, int channel, lfs_error *error)
{
    static int fds[FDS_MAX];
    int n = sv_spec_fds(spec, fds, FDS_MAX - 1, error), at;

    if (n < 0)
        return n;
    for (at = n; at > 0 && fds[at - 1] > channel; at--)
        fds[at] = fds[at - 1];
    fds[at] = channel;
    n = sv_self_close(fds, (size_t)n + 1);
    return n < 0 ? lfs_fail(error, -n, "close descriptors") : 0;
}

static int run_once(const sv_spec *spec, const char *mode, int channel, lfs_report *report)
{
    int parent = !spec->detach, command = 0, fds[2], r;
    sv_process process;

    r = strcmp(mode, "join") == 0 ? sv_join(spec, parent, &process, &command, &report->error)
                                  : sv_start(spec, parent, &process, &command, &report->error);
    if (r < 0) {
        report->kind = command ? LFS_REPORT_COMMAND : LFS_REPORT_FAILED;
        lfs_report_send(channel, report, &process.pidfd, process.pidfd >= 0);
        return r;
    }
    report->kind = LFS_REPORT_STARTED;
    report->pid = process.pid;
    fds[0] = process.pidfd;
    fds[1] = process.tty;
    return lfs_report_send(channel, report, fds, process.tty >= 0 ? 2 : 1);
}

/* We are in the new namespaces already, and become the command. */
static int become_first(const sv_spec *spec, int channel, lfs_error *error)
{
    sv_prepared prepared;
    int r = sv_mounts_prepare(spec, &prepared, error);

    if (r >= 0)
        sv_child_start(spec, &prepared, channel, -1);
    return r;
}

int main(int argc, char **argv, char **envp)
{
    lfs_report report = {.kind = LFS_REPORT_FAILED};
    sv_spec spec;
    int channel, r;

    if (argc >= 3 && strcmp(argv[1], "init") == 0)
        sv_init_here(argv + 2, envp);
    if (argc == 2 && strcmp(argv[1], "keep") == 0)
        sv_keep_run();
    if (argc != 4)
        return 2;
    channel = atoi(argv[3]);
    sv_self_signals();
    r = sv_spec_read(atoi(argv[2]), argv[1], &spec, &report.error);
    /* Nobody who comes to share a namespace with a copy of us may look into it. With a user namespace that copy is
     * alone in all of its own, and does this itself, after its maps are written: an ordinary user could not write
     * them otherwise. */
    if (r >= 0 && !sv_spec_userns(&spec))
        prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    if (r >= 0)
        r = close_others(&spec, channel, &report.error);
    if (r >= 0 && strcmp(argv[1], "supervise") == 0)
        return sv_supervise(&spec, channel);
    if (r >= 0 && strcmp(argv[1], "first") == 0)
        r = become_first(&spec, channel, &report.error);
    else if (r >= 0)
        return run_once(&spec, argv[1], channel, &report) < 0;
    if (r < 0)
        lfs_report_send(channel, &report, NULL, 0);
    return r < 0;
}
