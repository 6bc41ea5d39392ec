/* report.h - what the launcher tells the caller, and a new process its launcher, through a socket. */
#ifndef LAYERFS_REPORT_H
#define LAYERFS_REPORT_H

#include "layerfs.h"

#define LFS_REPORT_STARTED 1 /* pid; descriptors: the process's pidfd, its terminal's master where it has one */
#define LFS_REPORT_FAILED 2  /* error: setting up; descriptor: a child of the caller that is being killed */
#define LFS_REPORT_COMMAND 3 /* the same: all was set up, but the command cannot be executed */
#define LFS_REPORT_TTY 4     /* from the new process: its terminal's master */

#define LFS_REPORT_FDS 2

typedef struct lfs_report {
    int kind;
    int pid;
    lfs_error error;
} lfs_report;

/* 0 or -errno. */
int lfs_report_send(int channel, const lfs_report *report, const int *fds, int nfds);
/* 1: a report, and fds filled (-1: none), to be closed by the caller; 0: end of file; or -errno. */
int lfs_report_receive(int channel, lfs_report *report, int *fds);

#endif
