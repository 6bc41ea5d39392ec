/*
 * supervise.c - a container from its first start to its end for good. See docs/supervisor.md.
 *
 * One loop over poll(2). The container is our child and dies with us; all that it says goes to the log and to the
 * clients that are attached; what becomes of it is in status.json before anybody is told.
 */
#define _GNU_SOURCE
#include "supervise.h"

#include "../report.h"
#include "../util.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define BACKOFF_FIRST 100
#define BACKOFF_MOST 60000
#define STEADY 10000 /* ms that a command must run for the wait to begin anew */
#define FIXED 5      /* poll: signals, two outputs, input, a health check */

/* Starting ------------------------------------------------------------------------------------------- */
static int nonblocking(int fd)
{
    return fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

/* The command's ends of its descriptors into stdio, ours into the supervisor. */
static int make_stdio(sv_supervisor *s, int *stdio, lfs_error *error)
{
    int in[2] = {-1, -1}, out[2] = {-1, -1}, err[2] = {-1, -1};

    if ((s->spec->open_stdin ? pipe2(in, O_CLOEXEC) : (in[0] = open("/dev/null", O_RDONLY | O_CLOEXEC))) < 0 ||
        pipe2(out, O_CLOEXEC) < 0 || pipe2(err, O_CLOEXEC) < 0)
        return lfs_fail(error, errno, "make the container's pipes");
    stdio[0] = in[0];
    stdio[1] = out[1];
    stdio[2] = err[1];
    s->input = in[1];
    s->outputs[0] = out[0];
    s->outputs[1] = err[0];
    nonblocking(out[0]);
    nonblocking(err[0]);
    if (in[1] >= 0)
        nonblocking(in[1]);
    return 0;
}

static void close_all(sv_supervisor *s)
{
    if (s->input == s->process.tty)
        s->input = -1;
    lfs_cleanup_close(&s->input);
    for (int i = 0; i < 2; i++)
        if (s->outputs[i] != s->process.tty)
            lfs_cleanup_close(&s->outputs[i]);
    lfs_cleanup_close(&s->process.pidfd);
    lfs_cleanup_close(&s->process.tty);
    free(s->pending_input);
    s->pending_input = NULL;
    s->process = (sv_process){-1, -1, -1};
    s->input = s->outputs[0] = s->outputs[1] = -1;
}

static int start(sv_supervisor *s, int *command, lfs_error *error)
{
    int stdio[3] = {-1, -1, -1}, r = 0;
    sv_spec spec = *s->spec;

    s->process = (sv_process){-1, -1, -1};
    s->input = s->outputs[0] = s->outputs[1] = -1;
    *command = 0;
    if (!spec.tty)
        r = make_stdio(s, stdio, error);
    memcpy(spec.stdio, stdio, sizeof stdio);
    spec.die_with_parent = 1;
    spec.places = &s->places;
    if (r >= 0)
        r = sv_start(&spec, 0, &s->process, command, error);
    for (int i = 0; i < 3; i++)
        lfs_cleanup_close(&stdio[i]);
    if (r < 0) {
        close_all(s);
        return r;
    }
    if (spec.tty) {
        s->input = s->outputs[0] = s->process.tty;
        nonblocking(s->process.tty);
    }
    s->started_at = sv_clock();
    s->restart_at = 0;
    s->kill_at = spec.timeout != 0 ? s->started_at + (int64_t)spec.timeout : 0;
    s->status.status = "running";
    s->status.pid = s->process.pid;
    s->status.started = sv_now();
    s->status.finished = 0;
    s->status.oom_killed = 0;
    sv_health_begin(s);
    sv_status_write(&s->status, spec.state);
    return 0;
}

/* 127: there is no such command; 126: it cannot run; 125: the container could not be made. */
static void fail_start(sv_supervisor *s, int command, const lfs_error *error)
{
    int code = !command ? 125 : error->err == ENOENT ? 127 : 126;

    s->status.status = "exited";
    s->status.pid = 0;
    s->status.exit_code = code;
    s->status.finished = sv_now();
    snprintf(s->status.error, sizeof s->status.error, "%.180s: %.60s", error->msg, strerror(error->err));
    sv_status_write(&s->status, s->spec->state);
}

/* One piece of an output to log and clients; 0 when there is none for now, or no more. */
static int pass_output(sv_supervisor *s, int i)
{
    char data[SV_PIECE];
    ssize_t n = read(s->outputs[i], data, sizeof data);

    if (n > 0) {
        sv_log_write(&s->log, i, data, (size_t)n);
        sv_clients_send(s, i == 0 ? 'O' : 'E', data, (size_t)n);
        return 1;
    }
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    /* The end; a terminal's master stays open for what comes after the last process has closed it. */
    if (s->outputs[i] != s->process.tty)
        close(s->outputs[i]);
    s->outputs[i] = -1;
    return 0;
}

void sv_stop(sv_supervisor *s, int number, int64_t ms)
{
    s->stopping = 1;
    s->restart_at = 0;
    if (s->process.pid < 0) {
        s->status.status = "exited";
        sv_status_write(&s->status, s->spec->state);
        return;
    }
    s->kill_at = sv_clock() + (ms > 0 ? ms : 0);
    syscall(SYS_pidfd_send_signal, s->process.pidfd, number, NULL, 0);
}

/* Has the kernel killed something in the container's memory cgroup? Both versions count it as oom_kill. */
static int oom_killed(const sv_spec *spec)
{
    static const char *const files[] = {"memory.events", "memory.oom_control"};

    for (size_t i = 0; i < spec->ncgroups; i++) {
        for (int k = 0; k < 2; k++) {
            cleanup_close int fd = openat(spec->cgroups[i], files[k], O_RDONLY | O_CLOEXEC);
            char text[512], *at;
            ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);

            if (n <= 0)
                continue;
            text[n] = '\0';
            at = strstr(text, "oom_kill ");
            if (at != NULL && atoi(at + 9) > 0)
                return 1;
        }
    }
    return 0;
}

static int wants_restart(const sv_supervisor *s)
{
    const char *policy = s->restart;

    if (s->stopping)
        return 0;
    if (strcmp(policy, "always") == 0 || strcmp(policy, "unless-stopped") == 0)
        return 1;
    return strcmp(policy, "on-failure") == 0 && s->status.exit_code != 0 &&
           (s->restart_max == 0 || s->status.restarts < s->restart_max);
}

static void ended(sv_supervisor *s, int status)
{
    for (int i = 0; i < 2; i++)
        while (s->outputs[i] >= 0 && pass_output(s, i))
            continue;
    sv_log_flush(&s->log);
    sv_health_cancel(s);
    s->kill_at = 0;
    s->status.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    s->status.oom_killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL && oom_killed(s->spec);
    s->status.finished = sv_now();
    s->status.pid = 0;
    if (s->status.oom_killed)
        sv_event(s, "oom");
    close_all(s);
    if (wants_restart(s)) {
        s->backoff = sv_clock() - s->started_at >= STEADY || s->backoff == 0 ? BACKOFF_FIRST : 2 * s->backoff;
        s->backoff = s->backoff > BACKOFF_MOST ? BACKOFF_MOST : s->backoff;
        s->restart_at = sv_clock() + s->backoff;
    }
    s->status.status = s->restart_at ? "restarting" : "exited";
    sv_status_write(&s->status, s->spec->state);
    if (s->restart_at)
        sv_clients_run_ended(s);
}

static void bury(sv_supervisor *s)
{
    int status, pid;

    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (pid == s->process.pid)
            ended(s, status);
        else if (pid == s->health_pid)
            sv_health_ended(s, status);
    }
}

static void restart(sv_supervisor *s)
{
    lfs_error error = {0};
    int command;

    s->status.restarts++;
    if (start(s, &command, &error) < 0) {
        s->restart_at = 0;
        fail_start(s, command, &error);
    }
}

static int next_timeout(const sv_supervisor *s)
{
    const int64_t times[] = {s->kill_at, s->restart_at, s->health_at};
    int64_t now = sv_clock(), best = -1;

    for (int i = 0; i < 3; i++) {
        int64_t left = times[i] > now ? times[i] - now : 0;
        if (times[i] != 0 && (best < 0 || left < best))
            best = left;
    }
    return (int)(best > 3600000 ? 3600000 : best);
}

static void handle_times(sv_supervisor *s)
{
    int64_t now = sv_clock();

    if (s->kill_at != 0 && now >= s->kill_at) {
        s->kill_at = 0;
        if (s->process.pid > 0)
            syscall(SYS_pidfd_send_signal, s->process.pidfd, SIGKILL, NULL, 0);
    }
    if (s->health_at != 0 && now >= s->health_at && s->process.pid > 0)
        sv_health_tick(s);
    if (s->restart_at != 0 && now >= s->restart_at)
        restart(s);
}

static void handle_signals(sv_supervisor *s, int signals)
{
    struct signalfd_siginfo info;

    while (read(signals, &info, sizeof info) == sizeof info)
        if (info.ssi_signo == SIGTERM || info.ssi_signo == SIGINT)
            sv_stop(s, (int)s->spec->stop_signal, (int64_t)s->spec->stop_timeout);
    bury(s);
}

static void loop(sv_supervisor *s, int signals)
{
    struct pollfd fds[FIXED + 1 + SV_CLIENTS];

    while (s->process.pid > 0 || s->restart_at != 0) {
        int blocked = sv_clients_blocked(s);
        size_t n;

        fds[0] = (struct pollfd){.fd = signals, .events = POLLIN};
        for (int i = 0; i < 2; i++)
            fds[1 + i] = (struct pollfd){.fd = blocked ? -1 : s->outputs[i], .events = POLLIN};
        fds[3] = (struct pollfd){.fd = s->pending_input != NULL ? s->input : -1, .events = POLLOUT};
        fds[4] = (struct pollfd){.fd = s->health_out, .events = POLLIN};
        n = sv_clients_poll(s, fds + FIXED);
        if (poll(fds, FIXED + n, next_timeout(s)) < 0 && errno != EINTR)
            return;
        for (int i = 0; i < 2; i++)
            if (fds[1 + i].revents != 0 && s->outputs[i] >= 0)
                pass_output(s, i);
        if (fds[3].revents != 0)
            sv_input_flush(s);
        if (fds[4].revents != 0)
            sv_health_read(s);
        sv_clients_serve(s, fds + FIXED, n);
        handle_signals(s, signals);
        handle_times(s);
    }
}

/* No child of the caller any more, with nothing of its terminal. */
static int go_into_background(void)
{
    sigset_t caught;
    int null, fd;

    if (setsid() < 0 || chdir("/") < 0)
        return -errno;
    umask(0022);
    null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null < 0)
        return -errno;
    for (int i = 0; i < 3; i++)
        dup2(null, i);
    close(null);
    prctl(PR_SET_NAME, "layerfs-super");
    sigfillset(&caught);
    sigprocmask(SIG_BLOCK, &caught, NULL);
    sigemptyset(&caught);
    sigaddset(&caught, SIGCHLD);
    sigaddset(&caught, SIGTERM);
    sigaddset(&caught, SIGINT);
    fd = signalfd(-1, &caught, SFD_CLOEXEC | SFD_NONBLOCK);
    return fd < 0 ? -errno : fd;
}

static void run_hook(const sv_spec *spec)
{
    union { /* execve changes nothing there */
        const char **in;
        char *const *out;
    } argv = {spec->hook.at};
    char *const environment[] = {NULL};

    if (spec->hook.n == 0 || fork() != 0)
        return;
    setsid();
    sv_self_signals();
    sv_self_close(NULL, 0);
    execve(argv.in[0], argv.out, environment);
    _exit(127);
}

static int begin(sv_supervisor *s, int *command, lfs_error *error)
{
    int r = 0;

    s->log.fd = -1;
    if (!s->spec->no_log)
        r = sv_log_open(&s->log, s->spec->state, s->spec->log_max_size, s->spec->log_max_files, error);
    if (r >= 0)
        r = sv_places_keep(s->spec, &s->places, error);
    if (r >= 0)
        r = sv_clients_listen(s, error);
    if (r >= 0 && s->spec->client >= 0)
        sv_clients_take(s, s->spec->client);
    return r < 0 ? r : start(s, command, error);
}

static void supervise(const sv_spec *spec, int channel)
{
    sv_supervisor s = {.spec = spec, .process = {-1, -1, -1}, .listener = -1, .health_pid = -1, .health_out = -1,
                       .restart = spec->restart, .restart_max = spec->restart_max};
    lfs_report report = {.kind = LFS_REPORT_FAILED};
    int signals = go_into_background(), command = 0, r;

    if (signals < 0)
        r = lfs_fail(&report.error, -signals, "supervise (go into the background)");
    else
        r = begin(&s, &command, &report.error);
    if (r >= 0) {
        report = (lfs_report){.kind = LFS_REPORT_STARTED, .pid = s.process.pid};
    } else {
        report.kind = command ? LFS_REPORT_COMMAND : LFS_REPORT_FAILED;
        fail_start(&s, command, &report.error);
    }
    lfs_report_send(channel, &report, NULL, 0);
    close(channel);
    if (r >= 0)
        loop(&s, signals);
    if (s.listener >= 0)
        sv_clients_end(&s);
    if (r >= 0) {
        sv_remove_cgroups(spec);
        run_hook(spec);
    }
}

int sv_supervise(const sv_spec *spec, int channel)
{
    int pid = fork();

    if (pid == 0)
        supervise(spec, channel);
    return pid < 0;
}
