/* status.c - status.json: what the container does, for whoever looks. */
#define _GNU_SOURCE
#include "supervise.h"

#include "../util.h"

#include <fcntl.h>
#include <stdio.h>
#include <time.h>

int64_t sv_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int64_t sv_clock(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Field 22 of /proc/PID/stat, behind the name, which may hold anything. */
static unsigned long long start_time(int pid)
{
    char path[32], text[1024], *at;
    cleanup_close int fd = -1;
    unsigned long long v = 0;
    ssize_t n;

    if (pid <= 0)
        return 0;
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (n <= 0)
        return 0;
    text[n] = '\0';
    at = strrchr(text, ')');
    if (at != NULL)
        sscanf(at + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu", &v);
    return v;
}

static void boot_id(char *out, size_t cap)
{
    cleanup_close int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, out, cap - 1);

    out[n > 0 ? n : 0] = '\0';
    out[strcspn(out, "\n")] = '\0';
}

/* Into a JSON string; what is not ASCII becomes '?', as the messages are paths of unknown encoding. */
static void quote(char *out, size_t cap, const char *text)
{
    size_t used = 0;

    for (; *text != '\0' && used + 3 < cap; text++) {
        if (*text == '"' || *text == '\\')
            out[used++] = '\\';
        out[used++] = *text < 0x20 || *text == 0x7f ? '?' : *text;
    }
    out[used] = '\0';
}

void sv_status_write(const sv_status *s, int dir)
{
    static const char *const health[] = {"none", "starting", "healthy", "unhealthy"};
    cleanup_close int fd = openat(dir, "status.json.new", O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    char text[2048], error[600], boot[64];
    int n;

    quote(error, sizeof error, s->error);
    boot_id(boot, sizeof boot);
    n = snprintf(text, sizeof text,
                 "{\"supervisor\": %d, \"supervisor_start\": %llu, \"boot\": \"%s\", \"status\": \"%s\", \"pid\": %d, "
                 "\"pid_start\": %llu, \"started\": %lld, \"finished\": %lld, \"exit_code\": %d, \"restarts\": %u, "
                 "\"error\": \"%s\", \"health\": \"%s\", \"health_failures\": %u, \"oom_killed\": %s}\n",
                 getpid(), start_time(getpid()), boot, s->status, s->pid > 0 ? s->pid : 0, start_time(s->pid),
                 (long long)s->started, (long long)s->finished, s->exit_code, s->restarts, error, health[s->health],
                 s->health_failures, s->oom_killed ? "true" : "false");
    /* What cannot be written (a full disk) leaves the old one, and the container runs on. */
    if (fd < 0 || lfs_pwrite_all(fd, text, (size_t)n, 0) < 0 || (strcmp(s->status, "exited") == 0 && fdatasync(fd) < 0))
        return;
    (void)!renameat(dir, "status.json.new", dir, "status.json");
}
