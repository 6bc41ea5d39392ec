/* spec.c - the reader of the spec. See docs/supervisor.md. */
#define _GNU_SOURCE
#include "spec.h"

#include "../util.h"

#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <sys/stat.h>

#ifndef CLONE_NEWCGROUP
#define CLONE_NEWCGROUP 0x02000000
#endif

#define SPEC_MAX (16u << 20)

enum kind { TEXT, LIST, FLAG, FD, U32, U64, HEX };

#define FIELD(key, kind, member) {key, kind, offsetof(struct sv_spec, member)}

static const struct field {
    const char *key;
    enum kind kind;
    size_t offset;
} fields[] = {
    FIELD("argv", LIST, argv),
    FIELD("env", LIST, env),
    FIELD("cwd", TEXT, cwd),
    FIELD("root", FD, root),
    FIELD("lower", LIST, lowers),
    FIELD("sysctl", LIST, sysctls),
    FIELD("upper", TEXT, upper),
    FIELD("work", TEXT, work),
    FIELD("overlay", TEXT, overlay),
    FIELD("readonly", FLAG, readonly),
    FIELD("hostname", TEXT, hostname),
    FIELD("domainname", TEXT, domainname),
    FIELD("uid", U32, uid),
    FIELD("gid", U32, gid),
    FIELD("capabilities", HEX, capabilities),
    FIELD("new-privileges", FLAG, new_privileges),
    FIELD("privileged", FLAG, privileged),
    FIELD("unmasked", FLAG, unmasked),
    FIELD("no-shm", FLAG, no_shm),
    FIELD("seccomp", FD, seccomp),
    FIELD("oom-score-adj", TEXT, oom_score_adj),
    FIELD("umask", TEXT, umask),
    FIELD("init", FLAG, init),
    FIELD("stdin", FD, stdio[0]),
    FIELD("stdout", FD, stdio[1]),
    FIELD("stderr", FD, stdio[2]),
    FIELD("tty", FLAG, tty),
    FIELD("tty-size", TEXT, tty_size),
    FIELD("die-with-parent", FLAG, die_with_parent),
    FIELD("detach", FLAG, detach),
    FIELD("pidfd", FD, pidfd),
    FIELD("name", TEXT, name),
    FIELD("state", FD, state),
    FIELD("socket", FD, socket),
    FIELD("events", FD, events),
    FIELD("client", FD, client),
    FIELD("open-stdin", FLAG, open_stdin),
    FIELD("stdin-once", FLAG, stdin_once),
    FIELD("no-log", FLAG, no_log),
    FIELD("log-max-size", U64, log_max_size),
    FIELD("log-max-files", U64, log_max_files),
    FIELD("restart", TEXT, restart),
    FIELD("restart-max", U64, restart_max),
    FIELD("stop-signal", U64, stop_signal),
    FIELD("stop-timeout", U64, stop_timeout),
    FIELD("timeout", U64, timeout),
    FIELD("health", LIST, health),
    FIELD("health-interval", U64, health_interval),
    FIELD("health-timeout", U64, health_timeout),
    FIELD("health-start-period", U64, health_start_period),
    FIELD("health-start-interval", U64, health_start_interval),
    FIELD("health-retries", U64, health_retries),
    FIELD("hook", LIST, hook),
};

/* Room for one more element in an array that is never freed; NULL when there is no memory. */
static void *grow(void *array, size_t n, size_t size)
{
    if (n > 0 && (n & (n - 1)) != 0)
        return array;
    return realloc(array, (n == 0 ? 1 : 2 * n) * size);
}

static int list_add(sv_list *list, const char *value)
{
    /* One more than there are, for the NULL. */
    const char **at = grow(list->at, list->n + 1, sizeof *at);

    if (at == NULL)
        return -ENOMEM;
    list->at = at;
    at[list->n++] = value;
    at[list->n] = NULL;
    return 0;
}

static int number(const char *text, int base, uint64_t max, uint64_t *out)
{
    char *end;
    unsigned long long v;

    if (*text < '0' || (*text > '9' && base == 10))
        return -EINVAL;
    errno = 0;
    v = strtoull(text, &end, base);
    if (errno != 0 || *end != '\0' || v > max)
        return -EINVAL;
    *out = v;
    return 0;
}

static int set_field(void *base, const struct field *f, const char *value)
{
    void *at = (char *)base + f->offset;
    uint64_t v = 0;
    int r = 0;

    switch (f->kind) {
    case TEXT:
        *(const char **)at = value;
        break;
    case LIST:
        r = list_add(at, value);
        break;
    case FLAG:
        r = strcmp(value, "1") == 0 ? 0 : -EINVAL;
        *(int *)at = 1;
        break;
    case FD:
        r = number(value, 10, INT_MAX, &v);
        *(int *)at = (int)v;
        break;
    case U32:
        r = number(value, 10, UINT32_MAX - 1, &v);
        *(uint32_t *)at = (uint32_t)v;
        break;
    case U64:
        r = number(value, 10, INT64_MAX, &v);
        *(uint64_t *)at = v;
        break;
    case HEX:
        r = number(value, 16, UINT64_MAX, &v);
        *(uint64_t *)at = v;
        break;
    }
    return r;
}

static int namespace_flag(const char *name, size_t n)
{
    static const struct {
        const char *name;
        int flag;
    } known[] = {{"pid", CLONE_NEWPID}, {"ipc", CLONE_NEWIPC}, {"uts", CLONE_NEWUTS},
                 {"net", CLONE_NEWNET}, {"cgroup", CLONE_NEWCGROUP}};

    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strlen(known[i].name) == n && memcmp(known[i].name, name, n) == 0)
            return known[i].flag;
    return 0;
}

/* Three numbers with colons between; -1 is the greatest. */
static int triple(const char *text, uint64_t *v)
{
    long long a, b, c;
    int used = 0;

    if (sscanf(text, "%lld:%lld:%lld%n", &a, &b, &c, &used) != 3 || text[used] != '\0')
        return -EINVAL;
    v[0] = (uint64_t)a;
    v[1] = (uint64_t)b;
    v[2] = (uint64_t)c;
    return 0;
}

static int add_idmap(sv_ids *ids, const char *value)
{
    sv_idmap *at = grow(ids->at, ids->n, sizeof *at);
    uint64_t v[3];

    if (at == NULL)
        return -ENOMEM;
    ids->at = at;
    if (triple(value, v) < 0 || v[0] > UINT32_MAX || v[1] > UINT32_MAX || v[2] > UINT32_MAX || v[2] == 0)
        return -EINVAL;
    at[ids->n++] = (sv_idmap){(uint32_t)v[0], (uint32_t)v[1], (uint32_t)v[2]};
    return 0;
}

static int add_rlimit(sv_spec *s, const char *value)
{
    sv_rlimit *at = grow(s->rlimits, s->nrlimits, sizeof *at);
    uint64_t v[3];

    if (at == NULL)
        return -ENOMEM;
    s->rlimits = at;
    if (triple(value, v) < 0 || v[0] > 64)
        return -EINVAL;
    at[s->nrlimits++] = (sv_rlimit){(int)v[0], v[1], v[2]};
    return 0;
}

static int add_enter(sv_spec *s, const char *value)
{
    sv_enter *at = grow(s->enters, s->nenters, sizeof *at);
    size_t n = strcspn(value, ":");
    int flag = namespace_flag(value, n);
    uint64_t fd;

    if (at == NULL)
        return -ENOMEM;
    s->enters = at;
    if (flag == 0 || flag == CLONE_NEWCGROUP || value[n] != ':' || number(value + n + 1, 10, INT_MAX, &fd) < 0)
        return -EINVAL;
    at[s->nenters++] = (sv_enter){flag, (int)fd};
    return 0;
}

static int add_number(void *array, size_t *n, int is_fd, const char *value)
{
    /* Descriptors and group ids: both arrays of 32 bits. */
    uint32_t **numbers = array, *at = grow(*numbers, *n, sizeof *at);
    uint64_t v;

    if (at == NULL)
        return -ENOMEM;
    *numbers = at;
    if (number(value, 10, is_fd ? INT_MAX : UINT32_MAX - 1, &v) < 0)
        return -EINVAL;
    at[(*n)++] = (uint32_t)v;
    return 0;
}

static int add_mount(sv_spec *s, const char *type)
{
    static const char *const known[] = {"bind", "device", "tmpfs", "cgroup", "cgroup2"};
    sv_mount *at = grow(s->mounts, s->nmounts, sizeof *at);

    if (at == NULL)
        return -ENOMEM;
    s->mounts = at;
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strcmp(type, known[i]) == 0) {
            at[s->nmounts++] = (sv_mount){.type = type, .source_fd = -1};
            return 0;
        }
    }
    return -EINVAL;
}

static int set_mount(sv_spec *s, const char *key, const char *value)
{
    sv_mount *m = s->nmounts > 0 ? &s->mounts[s->nmounts - 1] : NULL;
    uint64_t fd;

    if (m == NULL)
        return -EINVAL;
    if (strcmp(key, "option") == 0)
        return list_add(&m->options, value);
    if (strcmp(key, "source-fd") == 0) {
        if (number(value, 10, INT_MAX, &fd) < 0)
            return -EINVAL;
        m->source_fd = (int)fd;
        return 0;
    }
    *(strcmp(key, "source") == 0 ? &m->source : &m->target) = value;
    return 0;
}

static int set(sv_spec *s, const char *key, const char *value)
{
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        if (strcmp(key, fields[i].key) == 0)
            return set_field(s, &fields[i], value);
    if (strcmp(key, "group") == 0)
        return add_number(&s->groups, &s->ngroups, 0, value);
    if (strcmp(key, "cgroup") == 0)
        return add_number(&s->cgroups, &s->ncgroups, 1, value);
    if (strcmp(key, "rlimit") == 0)
        return add_rlimit(s, value);
    if (strcmp(key, "uidmap") == 0)
        return add_idmap(&s->uids, value);
    if (strcmp(key, "gidmap") == 0)
        return add_idmap(&s->gids, value);
    if (strcmp(key, "enter") == 0)
        return add_enter(s, value);
    if (strcmp(key, "mount") == 0)
        return add_mount(s, value);
    if (strcmp(key, "source") == 0 || strcmp(key, "source-fd") == 0 || strcmp(key, "target") == 0 ||
        strcmp(key, "option") == 0)
        return set_mount(s, key, value);
    if (strcmp(key, "share") == 0) {
        int flag = namespace_flag(value, strlen(value));
        s->share |= flag;
        return flag != 0 ? 0 : -EINVAL;
    }
    return -ENOENT;
}

/* What does not stand alone. */
static int check(const sv_spec *s, const char *mode, lfs_error *error)
{
    int join = strcmp(mode, "join") == 0;

    if (s->argv.n == 0)
        return lfs_fail(error, EINVAL, "launch (no command)");
    if (s->cwd[0] != '/')
        return lfs_fail(error, EINVAL, "launch in %.200s (not an absolute path)", s->cwd);
    if (join ? s->pidfd < 0 : (s->root >= 0) == (s->lowers.n > 0))
        return lfs_fail(error, EINVAL, "launch (%s)", join ? "no process to join" : "no root, or two");
    if ((s->upper == NULL) != (s->work == NULL))
        return lfs_fail(error, EINVAL, "launch (upper and work belong together)");
    if ((s->uids.n > 0) != (s->gids.n > 0) || (s->uids.n > 0 && s->nenters > 0))
        return lfs_fail(error, EINVAL, "launch (a user namespace needs both maps, and enters no other)");
    for (size_t i = 0; i < s->nmounts; i++) {
        const sv_mount *m = &s->mounts[i];
        int from = strcmp(m->type, "bind") == 0 || strcmp(m->type, "device") == 0;

        if (m->target == NULL || m->target[0] != '/')
            return lfs_fail(error, EINVAL, "mount at %.200s (not an absolute path)",
                            m->target ? m->target : "nothing");
        if (m->source != NULL && m->source[0] != '/')
            return lfs_fail(error, EINVAL, "mount %.200s (not an absolute path)", m->source);
        if ((m->source != NULL) + (m->source_fd >= 0) != from)
            return lfs_fail(error, EINVAL, "mount at %.200s (needs %s)", m->target, from ? "one source" : "no source");
    }
    if (strcmp(mode, "supervise") == 0 && (s->state < 0 || s->socket < 0 || s->name == NULL || strchr(s->name, '/')))
        return lfs_fail(error, EINVAL, "supervise (needs state, socket and name)");
    return 0;
}

static void defaults(sv_spec *s)
{
    *s = (sv_spec){.cwd = "/", .seccomp = -1, .stdio = {0, 1, 2}, .pidfd = -1, .root = -1, .state = -1};
    s->socket = s->events = s->client = -1, s->restart = "no", s->stop_signal = 15, s->stop_timeout = 10000;
    s->health_interval = s->health_timeout = s->health_start_interval = 30000, s->health_retries = 3;
}

int sv_spec_read(int fd, const char *mode, sv_spec *spec, lfs_error *error)
{
    struct stat st;
    size_t size;
    char *text;
    int r;

    defaults(spec);
    if (fstat(fd, &st) < 0)
        return lfs_fail(error, errno, "read the launcher's spec");
    if (st.st_size > SPEC_MAX)
        return lfs_fail(error, EFBIG, "read the launcher's spec");
    size = (size_t)st.st_size;
    text = malloc(size + 1);
    if (text == NULL || lfs_pread_all(fd, text, size, 0) != (int64_t)size)
        return lfs_fail(error, text == NULL ? ENOMEM : EIO, "read the launcher's spec");
    text[size] = '\0';
    for (char *at = text, *next; at < text + size; at = next) {
        char *value = strchr(at, '=');

        next = at + strlen(at) + 1;
        if (value == NULL)
            return lfs_fail(error, EINVAL, "read the launcher's spec: %.100s", at);
        *value++ = '\0';
        r = set(spec, at, value);
        if (r < 0)
            return lfs_fail(error, r == -ENOENT ? EINVAL : -r, "read the launcher's spec: %.60s=%.100s", at, value);
    }
    if (spec->env.at == NULL && (spec->env.at = calloc(1, sizeof(char *))) == NULL)
        return lfs_fail(error, ENOMEM, "read the launcher's spec");
    return check(spec, mode, error);
}
