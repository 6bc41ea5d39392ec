/*
 * init.c - pid 1 for a command that is no init: it buries the orphans, passes signals on, and ends as the
 * command does.
 */
#define _GNU_SOURCE
#include "start.h"

#include "../util.h"

#include <signal.h>
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

_Noreturn void sv_init_run(const sv_spec *spec, int tty, int channel)
{
    int status = 0, command;
    sigset_t all;

    /* Before the command is there: none of its signals may be missed. */
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    command = fork();
    if (command == 0) {
        sv_self_signals();
        sv_child_run(spec, tty, channel);
    }
    /* It holds nothing of the command's: no end of its pipes, no terminal. */
    for (int i = 0; i < 3; i++)
        close(i);
    sv_self_close(NULL, 0);
    prctl(PR_SET_NAME, "layerfs-init");
    if (command < 0)
        _exit(125);
    for (;;) {
        int sig = sigwaitinfo(&all, NULL);

        if (sig == SIGCHLD) {
            if (bury(command, &status))
                _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
        } else if (sig > 0) {
            kill(command, sig);
        }
    }
}
