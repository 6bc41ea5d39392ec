/* launch_self.c - what a process gives up, and what it becomes, on its way to exec. See launch.h. */
#define _GNU_SOURCE
#include "launch.h"

#include "syscalls.h"
#include "util.h"

#include <limits.h>
#include <linux/capability.h>
#include <linux/keyctl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <termios.h>

#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

/* The raw calls: those of the C library tell all threads of the process, of which this copy has none. */
static int set_ids(const lfs_launch_spec *spec, lfs_error *error)
{
    if (syscall(SYS_setgroups, spec->ngroups, spec->groups) < 0)
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

int lfs_self_identity(const lfs_launch_spec *spec, lfs_error *error)
{
    int r;

    /* Keys of the caller's session are none of the container's. A kernel without keys is as good. */
    (void)syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL, 0, 0, 0);
    r = bound_capabilities(spec->capabilities, error);
    if (r >= 0 && prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0)
        return lfs_fail(error, errno, "keep the capabilities");
    if (r >= 0)
        r = set_ids(spec, error);
    if (r >= 0)
        r = set_capabilities(spec->capabilities, error);
    if (r >= 0 && prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0) < 0)
        return lfs_fail(error, errno, "keep the capabilities");
    if (r >= 0 && !(spec->flags & LFS_LAUNCH_NEW_PRIVS) && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return lfs_fail(error, errno, "set no_new_privs");
    return r;
}

/* Descriptors 0, 1, 2 from stdio, or all from tty; everything else closed but *keep, which may move. */
int lfs_self_stdio(const int *stdio, int tty, int *keep, lfs_error *error)
{
    int high[3], kept = fcntl(*keep, F_DUPFD_CLOEXEC, 10);

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
    if (syscall(SYS_close_range, 3, kept - 1, 0) < 0 || syscall(SYS_close_range, kept + 1, ~0u, 0) < 0)
        return lfs_fail(error, errno, "close descriptors");
    if (syscall(SYS_setsid) < 0)
        return lfs_fail(error, errno, "begin a session");
    if (tty >= 0 && ioctl(0, TIOCSCTTY, 0) < 0)
        return lfs_fail(error, errno, "take the terminal");
    return 0;
}

void lfs_self_signals(void)
{
    struct sigaction dfl = {.sa_handler = SIG_DFL};
    sigset_t none;

    for (int i = 1; i < NSIG; i++)
        sigaction(i, &dfl, NULL); /* fails for the two that nobody can change */
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
static int try_exec(const lfs_launch_spec *spec)
{
    /* execve takes both as char *const *, and changes neither. */
    union {
        const char *const *in;
        char *const *out;
    } argv = {spec->argv}, envp = {spec->envp};
    const char *name = spec->argv[0], *dir;
    char path[PATH_MAX];
    int best = ENOENT;

    if (*name == '\0')
        return ENOENT;
    if (strchr(name, '/') != NULL) {
        execve(name, argv.out, envp.out);
        return errno;
    }
    for (dir = search_path(spec->envp); dir != NULL; dir = *dir ? dir + 1 : NULL) {
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

int lfs_self_exec(const lfs_launch_spec *spec, lfs_error *error)
{
    int err = try_exec(spec);

    return lfs_fail(error, err, "run %.200s", spec->argv[0]);
}
