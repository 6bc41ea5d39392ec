/* dirout.h - what the two files of the layer format dir share: the tree on disk (dirout.c) and the attributes of
 * what stands in it (dirout_attr.c). */
#ifndef LAYERFS_DIROUT_H
#define LAYERFS_DIROUT_H

#include "backend.h"

typedef struct dir_backend {
    lfs_backend base;
    uint32_t flags;
    int layer;        /* the layer's directory */
    int fs;
    int dead;         /* -1: none yet */
    uint32_t opened;  /* the directory inode that `opened_fd` is */
    int opened_fd;
    int file;         /* the regular file at hand */
    uint32_t entry;
    uint64_t pos;
    bool named;       /* the rest knows of the file */
    lfs_buf path;
    uint64_t dropped; /* attributes this file system cannot hold */
    uint64_t skipped; /* devices nobody here may make */
    bool owns;        /* owners are set, though LFS_UNPACK_NO_CHOWN said not to */
} dir_backend;

/* Fail with "what PATH", of a name in the tree. */
int lfs_dir_fail(dir_backend *b, uint32_t entry, int err, const char *what, lfs_error *error);
/* Owner, attributes, mode and time; of the open file where fd >= 0, else of what path leads to without following it. */
int lfs_dir_attributes(dir_backend *b, uint32_t entry, const lfs_node *n, int fd, const char *path,
                       lfs_error *error);

#endif
