/* self.c - what a process gives up, and what it becomes, on its way to exec. */
#define _GNU_SOURCE
#include "start.h"

#include "../syscalls.h"
#include "../util.h"

#include <limits.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/keyctl.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <termios.h>

#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

static int setgroups_denied(void)
{
    cleanup_close int fd = open("/proc/self/setgroups", O_RDONLY | O_CLOEXEC);
    char text[8] = "";

    return fd >= 0 && read(fd, text, sizeof text - 1) > 0 && memcmp(text, "deny", 4) == 0;
}

static int set_ids(const sv_spec *spec, lfs_error *error)
{
    /* In a user namespace of an ordinary user's own nobody may set groups: those of the user stay. */
    if (syscall(SYS_setgroups, spec->ngroups, spec->groups) < 0 &&
        !(errno == EPERM && spec->ngroups == 0 && setgroups_denied()))
        return lfs_fail(error, errno, "set the supplementary groups");
    if (syscall(SYS_setresgid, spec->gid, spec->gid, spec->gid) < 0)
        return lfs_fail(error, errno, "become group %u", spec->gid);
    if (syscall(SYS_setresuid, spec->uid, spec->uid, spec->uid) < 0)
        return lfs_fail(error, errno, "become user %u", spec->uid);
    return 0;
}

static int bound_capabilities(uint64_t keep, lfs_error *error)
{
    for (unsigned long cap = 0; cap < 64; cap++) {
        int have = prctl(PR_CAPBSET_READ, cap, 0, 0, 0);

        if (have < 0)
            break; /* past the last one of this kernel */
        if (have && !(keep >> cap & 1) && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
            return lfs_fail(error, errno, "drop capability %lu", cap);
    }
    if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0 && errno != EINVAL)
        return lfs_fail(error, errno, "clear the ambient capabilities");
    return 0;
}

static int set_capabilities(uint64_t keep, lfs_error *error)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];

    if (syscall(SYS_capget, &header, data) < 0)
        return lfs_fail(error, errno, "read the capabilities");
    for (int i = 0; i < 2; i++) {
        /* Those the host itself has not got cannot be given. */
        data[i].permitted &= (uint32_t)(keep >> (32 * i));
        data[i].effective = data[i].permitted;
        data[i].inheritable = 0;
    }
    if (syscall(SYS_capset, &header, data) < 0)
        return lfs_fail(error, errno, "set the capabilities");
    return 0;
}

static struct sock_filter filter[BPF_MAXINSNS];
static unsigned short filter_len;

/* The filter, from the file that the caller computed. */
static int read_filter(const sv_spec *spec, lfs_error *error)
{
    int64_t n;

    if (spec->seccomp < 0)
        return 0;
    n = lfs_pread_all(spec->seccomp, filter, sizeof filter, 0);
    if (n <= 0 || n % (int64_t)sizeof filter[0] != 0)
        return lfs_fail(error, n < 0 ? (int)-n : EINVAL, "read the seccomp filter");
    filter_len = (unsigned short)(n / (int64_t)sizeof filter[0]);
    return 0;
}

int sv_self_filter(lfs_error *error)
{
    struct sock_fprog program = {.len = filter_len, .filter = filter};

    filter_len = 0;
    if (program.len > 0 && syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) < 0)
        return lfs_fail(error, errno, "load the seccomp filter");
    return 0;
}

int sv_self_limits(const sv_spec *spec, lfs_error *error)
{
    for (size_t i = 0; i < spec->nrlimits; i++) {
        const sv_rlimit *l = &spec->rlimits[i];
        uint64_t values[2] = {l->soft, l->hard};

        if (syscall(SYS_prlimit64, 0, l->number, values, NULL) < 0)
            return lfs_fail(error, errno, "set resource limit %d", l->number);
    }
    if (spec->oom_score_adj != NULL) {
        cleanup_close int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
        if (fd < 0 || write(fd, spec->oom_score_adj, strlen(spec->oom_score_adj)) < 0)
            return lfs_fail(error, errno, "set the OOM score adjustment %.20s", spec->oom_score_adj);
    }
    return 0;
}

/* The descriptor of the filter is read here: this comes before the descriptors are closed. */
int sv_self_identity(const sv_spec *spec, lfs_error *error)
{
    int r;

    /* Keys of the caller's session are none of the container's. A kernel without keys is as good. */
    (void)syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL, 0, 0, 0);
    if (!spec->new_privileges && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return lfs_fail(error, errno, "set no_new_privs");
    r = read_filter(spec, error);
    /* Without no_new_privs that takes a capability. Else it comes last: the user's own filter may well refuse what
     * becomes of us until then. */
    if (r >= 0 && spec->new_privileges)
        r = sv_self_filter(error);
    if (r >= 0)
        r = bound_capabilities(spec->capabilities, error);
    if (r >= 0 && prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0)
        return lfs_fail(error, errno, "keep the capabilities");
    if (r >= 0)
        r = set_ids(spec, error);
    if (r >= 0)
        r = set_capabilities(spec->capabilities, error);
    if (r >= 0 && prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0) < 0)
        return lfs_fail(error, errno, "keep the capabilities");
    /* A change of identity clears this. */
    if (r >= 0 && spec->die_with_parent && prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
        return lfs_fail(error, errno, "ask for a signal at the parent's end");
    return r;
}

static int ascending(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

int sv_spec_fds(const sv_spec *s, int *fds, size_t cap, lfs_error *error)
{
    const int single[] = {s->root,  s->seccomp, s->stdio[0], s->stdio[1], s->stdio[2],
                          s->pidfd, s->state,   s->socket,   s->events, s->client};
    size_t n = 0, need = sizeof single / sizeof single[0] + s->nmounts + s->ncgroups + s->nenters;

    if (need > cap)
        return lfs_fail(error, E2BIG, "launch (too many mounts)");
    for (size_t i = 0; i < sizeof single / sizeof single[0]; i++)
        if (single[i] >= 0)
            fds[n++] = single[i];
    for (size_t i = 0; i < s->nmounts; i++)
        if (s->mounts[i].source_fd >= 0)
            fds[n++] = s->mounts[i].source_fd;
    for (size_t i = 0; i < s->ncgroups; i++)
        fds[n++] = s->cgroups[i];
    for (size_t i = 0; i < s->nenters; i++)
        fds[n++] = s->enters[i].fd;
    qsort(fds, n, sizeof *fds, ascending);
    return (int)n;
}

/* All descriptors from 3 on, but those kept. */
int sv_self_close(const int *keep, size_t n)
{
    unsigned from = 3;

    for (size_t i = 0; i <= n; i++) {
        unsigned next = i < n ? (unsigned)keep[i] : ~0u;

        if (i < n && keep[i] < 3)
            continue;
        if (next > from && syscall(SYS_close_range, from, i < n ? next - 1 : next, 0) < 0)
            return -errno;
        if (next >= from)
            from = next + 1;
    }
    return 0;
}

/* Descriptors 0, 1, 2 from stdio, or all from tty; everything else closed but *keep, which may move. */
int sv_self_stdio(const int *stdio, int tty, int *keep, lfs_error *error)
{
    int high[3], kept = fcntl(*keep, F_DUPFD_CLOEXEC, 10), r;

    if (kept < 0)
        return lfs_fail(error, errno, "duplicate a descriptor");
    *keep = kept;
    for (int i = 0; i < 3; i++) {
        high[i] = fcntl(tty >= 0 ? tty : stdio[i], F_DUPFD_CLOEXEC, 10);
        if (high[i] < 0)
            return lfs_fail(error, errno, "duplicate descriptor %d for the command", i);
    }
    for (int i = 0; i < 3; i++)
        if (dup2(high[i], i) < 0)
            return lfs_fail(error, errno, "set descriptor %d of the command", i);
    /* Closed, not marked to be closed: the command's own path may lead through /proc/self/fd. */
    r = sv_self_close(keep, 1);
    return r < 0 ? lfs_fail(error, -r, "close descriptors") : 0;
}

int sv_self_session(int tty, lfs_error *error)
{
    if (syscall(SYS_setsid) < 0)
        return lfs_fail(error, errno, "begin a session");
    if (tty && ioctl(0, TIOCSCTTY, 0) < 0)
        return lfs_fail(error, errno, "take the terminal");
    return 0;
}

void sv_self_signals(void)
{
    unsigned long dfl[8] = {0}; /* the kernel's struct sigaction: SIG_DFL, no flags, an empty mask */
    sigset_t none;

    for (int i = 1; i < NSIG; i++)
        syscall(SYS_rt_sigaction, i, dfl, NULL, (size_t)8); /* the C library keeps 32 and 33 to itself, and its
                                                               posix_spawn lets programs begin with them ignored */
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static const char *search_path(const char *const *envp)
{
    for (; *envp != NULL; envp++)
        if (strncmp(*envp, "PATH=", 5) == 0)
            return *envp + 5;
    return DEFAULT_PATH;
}

static int is_directory(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* Returns only on failure: the errno of the candidate that came nearest to running. */
static int try_exec(const sv_spec *spec)
{
    /* execve takes both as char *const *, and changes neither. */
    union {
        const char *const *in;
        char *const *out;
    } argv = {spec->argv.at}, envp = {spec->env.at};
    const char *name = spec->argv.at[0], *dir;
    char path[PATH_MAX];
    int best = ENOENT;

    if (*name == '\0')
        return ENOENT;
    if (strchr(name, '/') != NULL) {
        execve(name, argv.out, envp.out);
        return errno;
    }
    for (dir = search_path(spec->env.at); dir != NULL; dir = *dir ? dir + 1 : NULL) {
        size_t n = strcspn(dir, ":");
        int used = snprintf(path, sizeof path, "%.*s%s%s", (int)n, dir, n ? "/" : "./", name);

        if (used > 0 && (size_t)used < sizeof path) {
            execve(path, argv.out, envp.out);
            if (errno == EACCES ? !is_directory(path) : errno != ENOENT && errno != ENOTDIR)
                best = errno;
            if (best == ENOEXEC)
                break;
        }
        dir += n;
    }
    return best;
}

int sv_self_exec(const sv_spec *spec, lfs_error *error)
{
    int err = try_exec(spec);

    return lfs_fail(error, err, "run %.200s", spec->argv.at[0]);
}
