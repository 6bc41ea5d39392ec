/*
 * start.h - the parts of starting a process.
 *
 *   start.c    the parent's side: clone, user maps, the child's report
 *   child.c    the new container's first process, from clone to exec; processes that join
 *   root.c     its root: proc, sys, mounts, pivot
 *   dev.c      /dev, terminals
 *   mounts.c   mounts of the spec
 *   places.c   where those are kept that are wanted again
 *   paths.c    names inside the root
 *   self.c     identity, limits, descriptors, exec
 *   init.c     the reaper
 *
 * Functions return >= 0 or -errno with *error filled, as everywhere in the core.
 */
#ifndef SUPERVISOR_START_H
#define SUPERVISOR_START_H

#include "spec.h"

typedef struct sv_process {
    int pid;
    int pidfd;
    int tty; /* master, or -1 */
} sv_process;

/* start.c. parent 1: the new process becomes a child of our own parent; after a failure out->pidfd is then what he
 * has to bury, if there is anything. *command says that setting up went well
 * and the command could not be executed. */
int sv_start(const sv_spec *spec, int parent, sv_process *out, int *command, lfs_error *error);
int sv_join(const sv_spec *spec, int parent, sv_process *out, int *command, lfs_error *error);
void sv_remove_cgroups(const sv_spec *spec);
int sv_enter_cgroups(const sv_spec *spec, int pid, lfs_error *error); /* 0: the caller itself */

/* What is prepared for a start outside its namespaces: mounts that may move there. */
typedef struct sv_prepared {
    int root;
    int *sources; /* as many as the spec's mounts; -1: made inside */
} sv_prepared;

/* mounts.c */
int sv_mounts_prepare(const sv_spec *spec, sv_prepared *p, lfs_error *error);
void sv_mounts_release(const sv_spec *spec, sv_prepared *p);
int sv_mounts_root(const sv_spec *spec, const sv_prepared *p, lfs_error *error); /* a detached mount */
int sv_mounts_place(const sv_spec *spec, const sv_prepared *p, int root, size_t i, lfs_error *error);
int sv_mount_on(int mount, int target, const char *name, lfs_error *error);

/* places.c: detached mounts that more than one start needs. -1, -1: the kernel copies them as they are. */
typedef struct sv_places {
    int home, own; /* mount namespaces: the supervisor's, and that of the mounts */
} sv_places;

int sv_places_keep(const sv_spec *spec, sv_places *places, lfs_error *error);
int sv_places_make(const int *mounts, size_t n, sv_places *places, lfs_error *error); /* whatever the kernel can */
int sv_places_copy(const sv_places *places, int mount);

/* root.c: in the new mount namespace. *tty is the terminal's slave end and *master its other end, or both -1. */
int sv_root_enter(const sv_spec *spec, const sv_prepared *p, int *master, int *tty, lfs_error *error);
int sv_root_dir(int dir, const char *name, lfs_error *error); /* a directory in dir, made, and no link */
int sv_root_fs(int dir, const char *name, const char *type, const char *const *options, unsigned attrs,
               lfs_error *error); /* a new file system on it; its descriptor */
int sv_root_clone(int dir, const char *name); /* a detached mount of what is there; "": of dir itself */

/* dev.c */
int sv_dev_mount(const sv_spec *spec, int root, int *master, int *tty, lfs_error *error);
int sv_dev_host(const char *name, unsigned major_, unsigned minor_, lfs_error *error); /* the host's; O_PATH */
int sv_tty_open(const sv_spec *spec, int pts, int *master, int *tty, lfs_error *error); /* returns its number */

/* paths.c: a directory (or file) beneath root, whatever links lead there; made where it is missing. O_PATH fd. */
int sv_path_make(int root, const char *path, int is_dir, lfs_error *error);

/* child.c: only return by exec. channel is the socket of reports, go one from which a byte is awaited, or -1. */
_Noreturn void sv_child_start(const sv_spec *spec, const sv_prepared *p, int channel, int go);
_Noreturn void sv_child_join(const sv_spec *spec, int channel);
_Noreturn void sv_child_run(const sv_spec *spec, int tty, int channel);

/* self.c */
int sv_self_limits(const sv_spec *spec, lfs_error *error);
int sv_self_identity(const sv_spec *spec, lfs_error *error);
int sv_self_filter(lfs_error *error); /* the filter of system calls, unless it is in force */
int sv_self_stdio(const int *stdio, int tty, int *keep, lfs_error *error);
int sv_self_session(int tty, lfs_error *error);
void sv_self_signals(void);
int sv_self_close(const int *keep, size_t n); /* all from 3 on but these, ascending */
int sv_self_exec(const sv_spec *spec, lfs_error *error);

/* init.c: start the command as a child of this process, which is pid 1, and look after all others. */
_Noreturn void sv_init_run(const sv_spec *spec, int tty, int channel);
/* The same where another runtime has made this process pid 1 of a container of its own. */
_Noreturn void sv_init_here(char **argv, char **envp);

/* keep.c: read the terminal at descriptor 0 until the last process at its other end has gone. */
_Noreturn void sv_keep_run(void);

#endif
