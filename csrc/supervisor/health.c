/* health.c - a command run inside the container now and then, whose exit status says how it is. */
#define _GNU_SOURCE
#include "supervise.h"

#include "../util.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>

/* ms to the next check. */
static int64_t interval(const sv_supervisor *s)
{
    int starts = s->status.health == SV_HEALTH_STARTING &&
                 sv_clock() - s->started_at < (int64_t)s->spec->health_start_period;

    return (int64_t)(starts ? s->spec->health_start_interval : s->spec->health_interval);
}

void sv_health_begin(sv_supervisor *s)
{
    s->health_pid = s->health_out = -1;
    s->health_at = 0;
    s->status.health = SV_HEALTH_NONE;
    s->status.health_failures = 0;
    if (s->spec->health.n > 0) {
        s->status.health = SV_HEALTH_STARTING;
        s->health_at = sv_clock() + interval(s);
    }
}

/* The log -------------------------------------------------------------------------------------------- */

static void write_text(FILE *file, const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];

        if (c < 0x20 || c == 0x7f || c == '"' || c == '\\')
            fprintf(file, "\\u%04x", c);
        else
            fputc(c, file);
    }
}

/* health.json: the last checks, the oldest first. The bytes of their output are as they were. */
static void write_log(const sv_supervisor *s)
{
    int fd = openat(s->spec->state, "health.json.new", O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    FILE *file = fd < 0 ? NULL : fdopen(fd, "w");

    if (file == NULL) {
        lfs_cleanup_close(&fd);
        return;
    }
    fputc('[', file);
    for (unsigned i = s->nchecks > SV_CHECKS ? s->nchecks - SV_CHECKS : 0; i < s->nchecks; i++) {
        const sv_check *c = &s->checks[i % SV_CHECKS];

        fprintf(file, "%s{\"start\": %lld, \"end\": %lld, \"exit_code\": %d, \"output\": \"",
                i % SV_CHECKS == (s->nchecks > SV_CHECKS ? s->nchecks % SV_CHECKS : 0) ? "" : ", ",
                (long long)c->start, (long long)c->end, c->exit_code);
        if (c->late)
            fprintf(file, "Health check exceeded timeout (%g s)%s", (double)s->spec->health_timeout / 1000,
                    c->n > 0 ? ": " : "");
        write_text(file, c->output, c->n > SV_OUTPUT ? SV_OUTPUT : c->n);
        fprintf(file, "%s\"}", c->n > SV_OUTPUT ? "..." : "");
    }
    fputs("]\n", file);
    if (fclose(file) == 0)
        (void)!renameat(s->spec->state, "health.json.new", s->spec->state, "health.json");
}

static sv_check *present(sv_supervisor *s)
{
    return &s->checks[s->nchecks % SV_CHECKS];
}

/* What the check has written so far; the pipe is closed at its end. */
void sv_health_read(sv_supervisor *s)
{
    char data[1024];
    ssize_t n;

    while ((n = read(s->health_out, data, sizeof data)) > 0) {
        sv_check *c = present(s);
        size_t room = c->n < SV_OUTPUT ? SV_OUTPUT - c->n : 0;

        memcpy(c->output + c->n, data, (size_t)n < room ? (size_t)n : room);
        c->n = (size_t)n <= room ? c->n + (size_t)n : SV_OUTPUT + 1;
    }
    if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
        lfs_cleanup_close(&s->health_out);
        s->health_out = -1;
    }
}

static int begin_check(sv_supervisor *s, int *pipe_)
{
    if (s->checks == NULL && (s->checks = calloc(SV_CHECKS, sizeof *s->checks)) == NULL)
        return -ENOMEM;
    if (pipe2(pipe_, O_CLOEXEC) < 0)
        return -errno;
    fcntl(pipe_[0], F_SETFL, O_NONBLOCK);
    lfs_cleanup_close(&s->health_out); /* what an earlier check has left running may still have its other end */
    s->health_out = pipe_[0];
    present(s)->n = 0;
    present(s)->late = 0;
    present(s)->start = sv_now();
    return 0;
}

/* In a process of its own, as joining the container's namespaces is for good. It ends with the check's status, and
 * the check with it. */
static _Noreturn void run_check(const sv_supervisor *s, int out)
{
    int fds[256], n, status, command;
    sv_spec spec = *s->spec;
    sv_process process;
    lfs_error error;

    sv_self_signals();
    spec.argv = spec.health;
    spec.pidfd = s->process.pidfd;
    spec.tty = 0;
    spec.cwd = "/";
    spec.die_with_parent = 1;
    spec.stdio[0] = 0; /* /dev/null, as the supervisor has it */
    spec.stdio[1] = spec.stdio[2] = out;
    n = sv_spec_fds(&spec, fds, sizeof fds / sizeof fds[0], &error);
    if (n < 0 || sv_self_close(fds, (size_t)n) < 0)
        _exit(1);
    if (sv_join(&spec, 0, &process, &command, &error) < 0)
        _exit(1);
    while (waitpid(process.pid, &status, 0) < 0 && errno == EINTR)
        continue;
    _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
}

static void count(sv_supervisor *s, int healthy)
{
    enum sv_health_state before = s->status.health;
    unsigned failures = s->status.health_failures;

    if (healthy) {
        s->status.health = SV_HEALTH_HEALTHY;
        s->status.health_failures = 0;
    } else if (s->status.health != SV_HEALTH_STARTING ||
               sv_clock() - s->started_at >= (int64_t)s->spec->health_start_period) {
        s->status.health_failures++;
        if (s->status.health_failures >= s->spec->health_retries)
            s->status.health = SV_HEALTH_UNHEALTHY;
    }
    if (s->status.health != before || s->status.health_failures != failures)
        sv_status_write(&s->status, s->spec->state);
    if (s->status.health != before)
        sv_event(s, healthy ? "health_status: healthy" : "health_status: unhealthy");
    s->health_at = sv_clock() + interval(s);
}

void sv_health_tick(sv_supervisor *s)
{
    int out[2] = {-1, -1};

    if (s->health_pid > 0) { /* it takes too long; its end is noticed as any other */
        kill(s->health_pid, SIGKILL);
        present(s)->late = 1;
        s->health_at = 0;
        return;
    }
    if (begin_check(s, out) >= 0)
        s->health_pid = fork();
    if (s->health_pid == 0)
        run_check(s, out[1]);
    lfs_cleanup_close(&out[1]);
    s->health_at = sv_clock() + (int64_t)s->spec->health_timeout;
}

void sv_health_ended(sv_supervisor *s, int status)
{
    sv_check *c = present(s);

    s->health_pid = -1;
    if (s->health_out >= 0)
        sv_health_read(s);
    lfs_cleanup_close(&s->health_out);
    s->health_out = -1;
    if (s->process.pid < 0)
        return; /* it went with the container, and says nothing of it */
    c->end = sv_now();
    c->exit_code = c->late ? -1 : WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    s->nchecks++;
    write_log(s);
    count(s, WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

void sv_health_cancel(sv_supervisor *s)
{
    if (s->health_pid > 0)
        kill(s->health_pid, SIGKILL);
    s->health_at = 0;
}
