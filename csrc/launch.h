/*
 * launch.h - the parts of a launch. All that runs in the child, between clone and exec, allocates nothing,
 * takes no lock and calls no C library function that depends on threads: the caller may have some.
 */
#ifndef LAYERFS_LAUNCH_H
#define LAYERFS_LAUNCH_H

#include "layerfs.h"

/* launch_root.c: in the new mount namespace, make the root of *spec the root of this process, with all that
 * belongs under it. *tty is the terminal's slave end and *master its other end, or both -1. */
int lfs_root_enter(const lfs_launch_spec *spec, int *master, int *tty, lfs_error *error);
/* A directory (or file) beneath root, whatever links lead there; made where it is missing. O_PATH fd. */
int lfs_root_make(int root, const char *path, int is_dir, lfs_error *error);

/* launch_self.c: what the process gives up and becomes. */
int lfs_self_identity(const lfs_launch_spec *spec, lfs_error *error);
int lfs_self_stdio(const int *stdio, int tty, int *keep, lfs_error *error);
void lfs_self_signals(void);
int lfs_self_exec(const lfs_launch_spec *spec, lfs_error *error);

#endif
