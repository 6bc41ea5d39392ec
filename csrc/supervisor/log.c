/* log.c - the container's output, line by line with its time, in files of bounded size. */
#define _GNU_SOURCE
#include "supervise.h"

#include "../util.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>

static int open_file(sv_log *log)
{
    struct stat st;

    log->fd = openat(log->dir, "log", O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (log->fd < 0)
        return -errno;
    log->size = fstat(log->fd, &st) == 0 ? (uint64_t)st.st_size : 0;
    return 0;
}

int sv_log_open(sv_log *log, int dir, uint64_t max_size, uint64_t max_files, lfs_error *error)
{
    int r;

    *log = (sv_log){.dir = dir, .max_size = max_size, .max_files = max_files ? max_files : 1};
    r = open_file(log);
    return r < 0 ? lfs_fail(error, -r, "open the container's log") : 0;
}

static void rotate(sv_log *log)
{
    char from[32], to[32];

    close(log->fd);
    for (uint64_t i = log->max_files - 1; i > 0; i--) {
        if (i == 1)
            snprintf(from, sizeof from, "log");
        else
            snprintf(from, sizeof from, "log.%llu", (unsigned long long)(i - 1));
        snprintf(to, sizeof to, "log.%llu", (unsigned long long)i);
        (void)!renameat(log->dir, from, log->dir, to);
    }
    if (log->max_files == 1)
        unlinkat(log->dir, "log", 0);
    open_file(log);
}

static void write_entry(sv_log *log, int stream, int full, const char *data, size_t n)
{
    char head[64], newline = '\n';
    struct iovec parts[3];
    struct timespec now;
    struct tm tm;
    size_t used;

    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);
    used = strftime(head, sizeof head, "%Y-%m-%dT%H:%M:%S", &tm);
    used += (size_t)snprintf(head + used, sizeof head - used, ".%09ldZ %s %c ", now.tv_nsec,
                             stream == 0 ? "stdout" : "stderr", full ? 'F' : 'P');
    if (log->max_size > 0 && log->size > 0 && log->size + used + n + 1 > log->max_size)
        rotate(log);
    if (log->fd < 0)
        return;
    parts[0] = (struct iovec){head, used};
    parts[1].iov_len = n;
    memcpy(&parts[1].iov_base, &data, sizeof data); /* writev does not write there */
    parts[2] = (struct iovec){&newline, 1};
    /* A full disk costs lines of the log, not the container. */
    if (writev(log->fd, parts, 3) > 0)
        log->size += used + n + 1;
}

static void keep(sv_log *log, int stream, const char *data, size_t n)
{
    sv_stream *s = &log->streams[stream];

    if (s->data == NULL && (s->data = malloc(SV_PIECE)) == NULL)
        return;
    while (n > 0) {
        size_t room = SV_PIECE - s->n, take = n < room ? n : room;

        memcpy(s->data + s->n, data, take);
        s->n += take;
        data += take;
        n -= take;
        if (s->n == SV_PIECE) {
            write_entry(log, stream, 0, s->data, s->n);
            s->n = 0;
        }
    }
}

void sv_log_write(sv_log *log, int stream, const char *data, size_t n)
{
    sv_stream *s = &log->streams[stream];

    if (log->fd < 0)
        return;
    while (n > 0) {
        const char *end = memchr(data, '\n', n);
        size_t line = end == NULL ? n : (size_t)(end - data);

        if (end == NULL || s->n > 0)
            keep(log, stream, data, line);
        if (end == NULL)
            return;
        if (s->n > 0)
            write_entry(log, stream, 1, s->data, s->n);
        else
            write_entry(log, stream, 1, data, line);
        s->n = 0;
        data += line + 1;
        n -= line + 1;
    }
}

void sv_log_flush(sv_log *log)
{
    for (int i = 0; i < 2; i++) {
        if (log->streams[i].n > 0)
            write_entry(log, i, 0, log->streams[i].data, log->streams[i].n);
        log->streams[i].n = 0;
    }
}
