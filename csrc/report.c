#define _GNU_SOURCE
#include "report.h"

#include "util.h"

#include <sys/socket.h>

typedef union control {
    struct cmsghdr align;
    char data[CMSG_SPACE(LFS_REPORT_FDS * sizeof(int))];
} control;

int lfs_report_send(int channel, const lfs_report *report, const int *fds, int nfds)
{
    control space = {0};
    lfs_report copy = *report;
    struct iovec iov = {.iov_base = &copy, .iov_len = sizeof copy};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

    if (nfds > 0) {
        struct cmsghdr *c;

        msg.msg_control = space.data;
        msg.msg_controllen = CMSG_SPACE((size_t)nfds * sizeof(int));
        c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN((size_t)nfds * sizeof(int));
        memcpy(CMSG_DATA(c), fds, (size_t)nfds * sizeof(int));
    }
    return sendmsg(channel, &msg, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

int lfs_report_receive(int channel, lfs_report *report, int *fds)
{
    control space;
    struct iovec iov = {.iov_base = report, .iov_len = sizeof *report};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    struct cmsghdr *c;
    ssize_t n;

    for (int i = 0; i < LFS_REPORT_FDS; i++)
        fds[i] = -1;
    do {
        msg.msg_control = space.data;
        msg.msg_controllen = sizeof space.data;
        n = recvmsg(channel, &msg, MSG_CMSG_CLOEXEC);
    } while (n < 0 && errno == EINTR);
    if (n <= 0)
        return n < 0 ? -errno : 0;
    c = CMSG_FIRSTHDR(&msg);
    if (c != NULL && c->cmsg_type == SCM_RIGHTS)
        memcpy(fds, CMSG_DATA(c), c->cmsg_len - CMSG_LEN(0));
    if ((size_t)n != sizeof *report)
        return -EPROTO;
    report->error.msg[sizeof report->error.msg - 1] = '\0';
    return 1;
}
