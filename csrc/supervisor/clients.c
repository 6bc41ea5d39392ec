/* clients.c - whoever attaches, stops or resizes, through the socket. */
#define _GNU_SOURCE
#include "supervise.h"

#include "../util.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <termios.h>

int sv_clients_listen(sv_supervisor *s, lfs_error *error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char name[80];
    mode_t mask;
    int r;

    for (int i = 0; i < SV_CLIENTS; i++)
        s->clients[i].fd = -1;
    if ((size_t)snprintf(name, sizeof name, "%s.sock", s->spec->name) >= sizeof name)
        return lfs_fail(error, ENAMETOOLONG, "make the socket of %.60s", s->spec->name);
    unlinkat(s->spec->socket, name, 0); /* of a supervisor that was killed; the caller sees to it that there is one */
    s->listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (s->listener < 0)
        return lfs_fail(error, errno, "make the socket of %.60s", s->spec->name);
    /* Through the descriptor, as a path may be longer than an address. */
    snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/%s", s->spec->socket, name);
    mask = umask(0177);
    r = bind(s->listener, (struct sockaddr *)&address, sizeof address);
    umask(mask);
    if (r < 0 || listen(s->listener, 64) < 0)
        return lfs_fail(error, errno, "make the socket of %.60s", s->spec->name);
    return 0;
}

static void drop(sv_supervisor *s, sv_client *c)
{
    if (s->spec->stdin_once && (c->flags & SV_ATTACH_IN))
        sv_close_input(s);
    close(c->fd);
    free(c->pending);
    *c = (sv_client){.fd = -1};
}

static void flush_client(sv_supervisor *s, sv_client *c)
{
    if (send(c->fd, c->pending, c->npending, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0) {
        free(c->pending);
        c->pending = NULL;
    } else if (errno != EAGAIN) {
        drop(s, c);
    }
}

/* At once, or kept until there is room. One message is kept at most, as no output is read meanwhile; but at the end
 * of the container the rest is read at once, and a client has a second to make room. */
static void send_to(sv_supervisor *s, sv_client *c, char kind, const char *data, size_t n)
{
    char message[SV_PIECE + 1];

    if (c->pending != NULL) {
        struct pollfd room = {.fd = c->fd, .events = POLLOUT};

        poll(&room, 1, 1000);
        flush_client(s, c);
        if (c->pending != NULL)
            drop(s, c);
        if (c->fd < 0)
            return;
    }
    message[0] = kind;
    memcpy(message + 1, data, n);
    if (send(c->fd, message, n + 1, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
        return;
    if (errno == EAGAIN && (c->pending = malloc(n + 1)) != NULL) {
        memcpy(c->pending, message, n + 1);
        c->npending = n + 1;
    } else {
        drop(s, c);
    }
}

void sv_clients_send(sv_supervisor *s, char kind, const char *data, size_t n)
{
    unsigned wants = kind == 'E' ? SV_ATTACH_ERR : SV_ATTACH_OUT;

    for (int i = 0; i < SV_CLIENTS; i++)
        if (s->clients[i].fd >= 0 && (s->clients[i].flags & wants))
            send_to(s, &s->clients[i], kind, data, n);
}

int sv_clients_blocked(const sv_supervisor *s)
{
    for (int i = 0; i < SV_CLIENTS; i++)
        if (s->clients[i].pending != NULL)
            return 1;
    return 0;
}

static void refuse(sv_supervisor *s, sv_client *c, const char *reason)
{
    send_to(s, c, 'F', reason, strlen(reason));
}

/* Input ---------------------------------------------------------------------------------------------- */

void sv_close_input(sv_supervisor *s)
{
    if (s->input >= 0 && s->input == s->process.tty) {
        (void)!write(s->input, "\004", 1); /* what a user types there */
    } else if (s->input >= 0) {
        close(s->input);
        s->input = -1;
    }
}

void sv_input_flush(sv_supervisor *s)
{
    ssize_t n = s->input < 0 ? -1 : write(s->input, s->pending_input, s->npending_input);

    if (n < 0 && errno == EAGAIN && s->input >= 0)
        return;
    if (n >= 0 && (size_t)n < s->npending_input) {
        memmove(s->pending_input, s->pending_input + n, s->npending_input - (size_t)n);
        s->npending_input -= (size_t)n;
        return;
    }
    free(s->pending_input);
    s->pending_input = NULL;
    s->npending_input = 0;
}

static void take_input(sv_supervisor *s, sv_client *c, const char *data, size_t n)
{
    if (!(c->flags & SV_ATTACH_IN) || s->input < 0) {
        refuse(s, c, "the container takes no input");
        return;
    }
    if (n == 0) {
        sv_close_input(s);
        return;
    }
    s->pending_input = malloc(n);
    if (s->pending_input == NULL)
        return;
    memcpy(s->pending_input, data, n);
    s->npending_input = n;
    sv_input_flush(s);
}

/* Requests ------------------------------------------------------------------------------------------- */

static void resize(sv_supervisor *s, sv_client *c, const char *text)
{
    struct winsize size = {0};

    if (s->process.tty < 0 || sscanf(text, "%hu:%hu", &size.ws_row, &size.ws_col) != 2 ||
        ioctl(s->process.tty, TIOCSWINSZ, &size) < 0)
        refuse(s, c, "the container has no terminal to resize");
}

static void pass_signal(sv_supervisor *s, sv_client *c, const char *text)
{
    int number = atoi(text);

    if (s->process.pid < 0)
        refuse(s, c, "the container does not run");
    else if (syscall(SYS_pidfd_send_signal, s->process.pidfd, number, NULL, 0) < 0)
        refuse(s, c, strerror(errno));
}

static void set_restart(sv_supervisor *s, sv_client *c, const char *text)
{
    static const char *const known[] = {"no", "on-failure", "always", "unless-stopped"};
    size_t n = strcspn(text, ":");

    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strlen(known[i]) == n && strncmp(text, known[i], n) == 0) {
            s->restart = known[i];
            s->restart_max = text[n] == ':' ? strtoull(text + n + 1, NULL, 10) : 0;
            return;
        }
    }
    refuse(s, c, "no such restart policy");
}

static void handle(sv_supervisor *s, sv_client *c, char *message, size_t n)
{
    int number = (int)s->spec->stop_signal;
    long long ms = (long long)s->spec->stop_timeout;
    char *text = message + 1;

    text[n - 1] = '\0'; /* there is room for it */
    switch (message[0]) {
    case 'A':
        c->flags = n > 1 ? (unsigned char)text[0] : 0;
        send_to(s, c, 'A', "", 0);
        break;
    case 'I':
        take_input(s, c, text, n - 1);
        break;
    case 'W':
        resize(s, c, text);
        break;
    case 'K':
        pass_signal(s, c, text);
        break;
    case 'P':
        set_restart(s, c, text);
        break;
    case 'S':
        if (n > 1 && sscanf(text, "%d:%lld", &number, &ms) != 2)
            refuse(s, c, "stop: not a signal and a time");
        else
            sv_stop(s, number, ms);
        break;
    default:
        refuse(s, c, "unknown request");
    }
}

static void read_client(sv_supervisor *s, sv_client *c)
{
    char message[SV_PIECE + 2];
    ssize_t n = recv(c->fd, message, SV_PIECE + 1, MSG_DONTWAIT);

    if (n > 0)
        handle(s, c, message, (size_t)n);
    else if (n == 0 || (errno != EAGAIN && errno != EINTR))
        drop(s, c);
}

static void accept_client(sv_supervisor *s)
{
    int fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC);

    for (int i = 0; fd >= 0 && i < SV_CLIENTS; i++) {
        if (s->clients[i].fd < 0) {
            s->clients[i] = (sv_client){.fd = fd};
            return;
        }
    }
    if (fd >= 0)
        close(fd); /* too many */
}

void sv_clients_take(sv_supervisor *s, int fd)
{
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    s->clients[0] = (sv_client){.fd = fd};
    read_client(s, &s->clients[0]);
}

size_t sv_clients_poll(const sv_supervisor *s, struct pollfd *fds)
{
    size_t n = 0;

    fds[n++] = (struct pollfd){.fd = s->listener, .events = POLLIN};
    for (int i = 0; i < SV_CLIENTS; i++) {
        const sv_client *c = &s->clients[i];

        if (c->fd >= 0)
            fds[n++] = (struct pollfd){
                .fd = c->fd,
                /* While input waits for room nobody sends more. */
                .events = (short)((s->pending_input == NULL ? POLLIN : 0) | (c->pending != NULL ? POLLOUT : 0)),
            };
    }
    return n;
}

static sv_client *client_of(sv_supervisor *s, int fd)
{
    for (int i = 0; i < SV_CLIENTS; i++)
        if (s->clients[i].fd == fd)
            return &s->clients[i];
    return NULL;
}

void sv_clients_serve(sv_supervisor *s, const struct pollfd *fds, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        sv_client *c = client_of(s, fds[i].fd);

        if (c != NULL && (fds[i].revents & POLLOUT))
            flush_client(s, c);
        if (c != NULL && c->fd >= 0 && (fds[i].revents & (POLLIN | POLLHUP | POLLERR)) && s->pending_input == NULL)
            read_client(s, c);
    }
    if (fds[0].revents & POLLIN)
        accept_client(s);
}

void sv_clients_run_ended(sv_supervisor *s)
{
    char code[12];
    int n = snprintf(code, sizeof code, "%d", s->status.exit_code);

    /* Only to those that are attached: another one may have gone already, and what it asked for still waits. */
    for (int i = 0; i < SV_CLIENTS; i++)
        if (s->clients[i].fd >= 0 && s->clients[i].flags != 0)
            send_to(s, &s->clients[i], 'R', code, (size_t)n);
}

/* The last word to everybody; who does not take it in a second goes without. */
void sv_clients_end(sv_supervisor *s)
{
    const struct timeval second = {.tv_sec = 1};
    char message[16], name[80];
    int n = snprintf(message, sizeof message, "X%d", s->status.exit_code);

    for (int i = 0; i < SV_CLIENTS; i++) {
        sv_client *c = &s->clients[i];

        if (c->fd < 0)
            continue;
        setsockopt(c->fd, SOL_SOCKET, SO_SNDTIMEO, &second, sizeof second);
        if (c->pending != NULL)
            send(c->fd, c->pending, c->npending, MSG_NOSIGNAL);
        send(c->fd, message, (size_t)n, MSG_NOSIGNAL);
        drop(s, c);
    }
    snprintf(name, sizeof name, "%s.sock", s->spec->name);
    unlinkat(s->spec->socket, name, 0);
    close(s->listener);
}
