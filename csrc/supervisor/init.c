/*
 * init.c - pid 1 for a command that is no init: it buries the orphans, passes signals on, and ends as the
 * command does.
 */
#define _GNU_SOURCE
#include "start.h"

#include "../util.h"

#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>

/* Bury whoever has ended; the command's status goes into *status, and 1 is returned then. */
static int bury(int command, int *status)
{
    int ended = 0, s, pid;

    while ((pid = waitpid(-1, &s, WNOHANG)) > 0) {
        if (pid == command) {
            *status = s;
            ended = 1;
        }
    }
    return ended;
}

/* What every init does once the command is there, or is not: command < 0. */
_Noreturn static void look_after(int command, const sigset_t *all)
{
    int status = 0;

    /* It holds nothing of the command's: no end of its pipes, no terminal. */
    for (int i = 0; i < 3; i++)
        close(i);
    sv_self_close(NULL, 0);
    prctl(PR_SET_NAME, "layerfs-init");
    if (command < 0)
        _exit(125);
    for (;;) {
        int sig = sigwaitinfo(all, NULL);

        if (sig == SIGCHLD) {
            if (bury(command, &status))
                _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
        } else if (sig > 0) {
            kill(command, sig);
        }
    }
}

/* Before the command is there: none of its signals may be missed. sigfillset leaves out what the C library has for
 * itself, with musl one that glibc's programs use, SIGRTMIN. */
static void block_all(sigset_t *all)
{
    memset(all, 0xff, sizeof *all);
    sigprocmask(SIG_BLOCK, all, NULL);
}

_Noreturn void sv_init_run(const sv_spec *spec, int tty, int channel)
{
    sigset_t all;
    int command;

    block_all(&all);
    command = fork();
    if (command == 0) {
        sv_self_signals();
        sv_child_run(spec, tty, channel);
    }
    look_after(command, &all);
}

/* The command of a container that another runtime has set up: its streams, its user and all else are ours. */
_Noreturn static void run_here(const sv_spec *spec)
{
    lfs_error error = {0};

    /* Its own process group, which has the terminal where there is one: what is typed there is for it alone. We are no
     * group in the foreground then, and ask with SIGTTOU still blocked. */
    setpgid(0, 0);
    tcsetpgrp(0, getpid());
    sv_self_signals();
    sv_self_exec(spec, &error);
    dprintf(2, "layerfs-init: %s: %s\n", error.msg, strerror(error.err));
    _exit(error.err == ENOENT ? 127 : 126);
}

_Noreturn void sv_init_here(char **argv, char **envp)
{
    union { /* nothing is changed there */
        char **in;
        const char **out;
    } words = {argv}, env = {envp};
    sv_spec spec = {.argv = {.at = words.out}, .env = {.at = env.out}};
    sigset_t all;
    int command;

    block_all(&all);
    command = fork();
    if (command == 0)
        run_here(&spec);
    look_after(command, &all);
}
