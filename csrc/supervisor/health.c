/* health.c - a command run inside the container now and then, whose exit status says how it is. */
#define _GNU_SOURCE
#include "supervise.h"

#include "../util.h"

#include <signal.h>
#include <sys/wait.h>

void sv_health_begin(sv_supervisor *s)
{
    s->health_pid = -1;
    s->health_at = 0;
    s->status.health = SV_HEALTH_NONE;
    s->status.health_failures = 0;
    if (s->spec->health.n > 0) {
        s->status.health = SV_HEALTH_STARTING;
        s->health_at = sv_clock() + (int64_t)s->spec->health_interval;
    }
}

/* In a process of its own, as joining the container's namespaces is for good. It ends with the check's status, and
 * the check with it. */
static _Noreturn void run_check(const sv_supervisor *s)
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
    spec.stdio[0] = spec.stdio[1] = spec.stdio[2] = 0; /* /dev/null, as the supervisor has it */
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
    s->health_at = sv_clock() + (int64_t)s->spec->health_interval;
}

void sv_health_tick(sv_supervisor *s)
{
    if (s->health_pid > 0) { /* it takes too long; its end is noticed as any other */
        kill(s->health_pid, SIGKILL);
        s->health_at = 0;
        return;
    }
    s->health_pid = fork();
    if (s->health_pid == 0)
        run_check(s);
    s->health_at = sv_clock() + (int64_t)s->spec->health_timeout;
}

void sv_health_ended(sv_supervisor *s, int status)
{
    s->health_pid = -1;
    if (s->process.pid > 0)
        count(s, WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

void sv_health_cancel(sv_supervisor *s)
{
    if (s->health_pid > 0)
        kill(s->health_pid, SIGKILL);
    s->health_at = 0;
}
