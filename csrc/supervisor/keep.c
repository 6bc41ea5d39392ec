/* keep.c - the terminal of a command whose user has left it: what comes is dropped, until the command's end. */
#define _GNU_SOURCE
#include "start.h"

#include "../util.h"

#include <fcntl.h>

_Noreturn void sv_keep_run(void)
{
    char data[4096];
    ssize_t n;

    /* No child of the caller, who need not wait for it. */
    if (fork() != 0)
        _exit(0);
    setsid();
    (void)!chdir("/");
    sv_self_close(NULL, 0);
    fcntl(0, F_SETFL, fcntl(0, F_GETFL) & ~O_NONBLOCK);
    do {
        n = read(0, data, sizeof data);
    } while (n > 0 || (n < 0 && errno == EINTR));
    _exit(0);
}
