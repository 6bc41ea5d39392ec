/*
 * supervise.h - the life of a container that nobody waits for. See docs/supervisor.md.
 *
 *   supervise.c   starts, ends, restarts, the loop
 *   clients.c     the socket
 *   log.c         the log file
 *   status.c      status.json
 *   health.c      health checks
 *   events.c      what is told of it
 */
#ifndef SUPERVISOR_SUPERVISE_H
#define SUPERVISOR_SUPERVISE_H

#include "start.h"

#include <poll.h>

#define SV_PIECE 16384 /* most of one message, and of one line in the log */
#define SV_CLIENTS 32
#define SV_CHECKS 5
#define SV_OUTPUT 4096
#define SV_ATTACH_IN 1
#define SV_ATTACH_OUT 2
#define SV_ATTACH_ERR 4

typedef struct sv_stream {
    char *data; /* a line that is not complete; SV_PIECE bytes, allocated with the first */
    size_t n;
} sv_stream;

typedef struct sv_log {
    int dir;
    int fd; /* -1: no log */
    uint64_t size, max_size, max_files;
    sv_stream streams[2]; /* stdout, stderr */
} sv_log;

int sv_log_open(sv_log *log, int dir, uint64_t max_size, uint64_t max_files, lfs_error *error);
void sv_log_write(sv_log *log, int stream, const char *data, size_t n); /* stream 0 or 1 */
void sv_log_flush(sv_log *log); /* the end of the output: lines that are not complete */

enum sv_health_state { SV_HEALTH_NONE, SV_HEALTH_STARTING, SV_HEALTH_HEALTHY, SV_HEALTH_UNHEALTHY };

typedef struct sv_status {
    const char *status;
    int pid, exit_code, oom_killed;
    int64_t started, finished; /* ns since 1970 */
    unsigned restarts, health_failures;
    enum sv_health_state health;
    char error[256];
} sv_status;

void sv_status_write(const sv_status *status, int dir);
int64_t sv_now(void);   /* ns since 1970 */
int64_t sv_clock(void); /* ms of a clock that never goes back */

typedef struct sv_client {
    int fd; /* -1: free */
    unsigned flags;
    char *pending; /* a message that its socket had no room for */
    size_t npending;
} sv_client;

typedef struct sv_check { /* one health check */
    int64_t start, end; /* ns since 1970 */
    int exit_code, late;
    size_t n; /* SV_OUTPUT + 1: there was more */
    char output[SV_OUTPUT];
} sv_check;

typedef struct sv_supervisor {
    const sv_spec *spec;
    sv_places places;
    sv_status status;
    sv_log log;
    sv_process process; /* pid -1: none runs */
    int outputs[2];     /* its stdout and stderr, or its terminal; -1 */
    int input;          /* its stdin, or its terminal; -1 */
    char *pending_input; /* what the input had no room for */
    size_t npending_input;
    int listener;
    sv_client clients[SV_CLIENTS];
    int stopping;       /* asked for: no restart */
    const char *restart; /* the policy: the spec's, or what a client has made of it */
    uint64_t restart_max;
    int64_t kill_at;    /* ms; 0: never */
    int64_t restart_at; /* ms; 0: none planned */
    int64_t backoff;    /* ms */
    int64_t started_at; /* ms */
    int health_pid;     /* of a check that runs, or -1 */
    int health_out;     /* what it writes, or -1 */
    sv_check *checks;   /* the last ones, and in the place of the oldest the one that runs; NULL before the first */
    unsigned nchecks;   /* that have ended */
    int64_t health_at;  /* ms: the next check, or the end of the one that runs */
} sv_supervisor;

/* Goes into the background, reports the first start to the channel, and returns the exit status of this process. */
int sv_supervise(const sv_spec *spec, int channel);
/* Send the signal; SIGKILL follows after ms. */
void sv_stop(sv_supervisor *s, int signal, int64_t ms);
void sv_close_input(sv_supervisor *s);

int sv_clients_listen(sv_supervisor *s, lfs_error *error);
void sv_clients_take(sv_supervisor *s, int fd); /* one that is connected, and has asked to attach already */
void sv_clients_run_ended(sv_supervisor *s);    /* it is started again */
void sv_clients_send(sv_supervisor *s, char kind, const char *data, size_t n);
int sv_clients_blocked(const sv_supervisor *s); /* some client has no room: nothing is read for now */
size_t sv_clients_poll(const sv_supervisor *s, struct pollfd *fds);
void sv_clients_serve(sv_supervisor *s, const struct pollfd *fds, size_t n);
void sv_clients_end(sv_supervisor *s);
void sv_input_flush(sv_supervisor *s);

void sv_health_begin(sv_supervisor *s);
void sv_health_tick(sv_supervisor *s);
void sv_health_ended(sv_supervisor *s, int status);
void sv_health_cancel(sv_supervisor *s);
void sv_health_read(sv_supervisor *s);

/* A line for `layerfs events`. */
void sv_event(const sv_supervisor *s, const char *action);

#endif
