/* spec.h - what is to run, read from the text that docs/supervisor.md describes. */
#ifndef SUPERVISOR_SPEC_H
#define SUPERVISOR_SPEC_H

#include "../layerfs.h"

#include <stddef.h>
#include <stdint.h>

/* Growing arrays; a list of strings has a NULL after the last, once it has any. */
typedef struct sv_list {
    const char **at;
    size_t n;
} sv_list;

typedef struct sv_rlimit {
    int number;
    uint64_t soft;
    uint64_t hard;
} sv_rlimit;

typedef struct sv_idmap {
    uint32_t inside;
    uint32_t outside;
    uint32_t count;
} sv_idmap;

typedef struct sv_enter {
    int flag; /* CLONE_NEW* */
    int fd;
} sv_enter;

typedef struct sv_mount {
    const char *type;
    const char *source; /* NULL: none */
    int source_fd;      /* -1: none */
    const char *target;
    sv_list options;
} sv_mount;

typedef struct sv_ids {
    sv_idmap *at;
    size_t n;
} sv_ids;

typedef struct sv_spec {
    /* the process */
    sv_list argv, env;
    const char *cwd;
    uint32_t uid, gid;
    uint32_t *groups;
    size_t ngroups;
    uint64_t capabilities;
    int new_privileges, privileged, unmasked, no_shm, seccomp, init, die_with_parent, detach;
    sv_rlimit *rlimits;
    size_t nrlimits;
    const char *oom_score_adj; /* NULL: as it is */
    const char *umask;         /* octal; NULL: 022 */
    int stdio[3], tty;
    const char *tty_size; /* NULL: none */
    /* its namespaces and root */
    int pidfd; /* join */
    int root, readonly;
    sv_list lowers, sysctls; /* a sysctl is name=value */
    const char *upper, *work, *overlay;
    const char *hostname, *domainname;
    int share; /* CLONE_NEW* not made */
    sv_enter *enters;
    size_t nenters;
    sv_ids uids, gids;
    sv_mount *mounts;
    size_t nmounts;
    int *cgroups;
    size_t ncgroups;
    /* its supervisor */
    const struct sv_places *places; /* NULL: it is started once */
    const char *name;
    int state, socket, events, client, open_stdin, stdin_once, no_log;
    uint64_t log_max_size, log_max_files;
    const char *restart;
    uint64_t restart_max;
    uint64_t stop_signal, stop_timeout, timeout;
    sv_list health, hook;
    uint64_t health_interval, health_timeout, health_start_period, health_start_interval, health_retries;
} sv_spec;

/* Fill *spec from the file; what it points to lives as long as the process. */
int sv_spec_read(int fd, const char *mode, sv_spec *spec, lfs_error *error);
/* Every descriptor that the spec names, ascending, into fds (cap of them); how many, or -errno. */
int sv_spec_fds(const sv_spec *spec, int *fds, size_t cap, lfs_error *error);

static inline int sv_spec_userns(const sv_spec *spec)
{
    return spec->uids.n > 0;
}

#endif
