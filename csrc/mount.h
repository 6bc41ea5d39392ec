/* mount.h - what the launcher and the probe share with the mounts. */
#ifndef LAYERFS_MOUNT_H
#define LAYERFS_MOUNT_H

#include "layerfs.h"

/* A new file system, detached. options are pairs key, value (value NULL: a flag), ended by a NULL key.
 * attrs are LFS_ATTR_*. Safe between clone and exec: no allocation. */
int lfs_fs_mount(const char *type, const char *const *options, unsigned attrs, lfs_error *error);

/* As lfs_overlay_mount; by_fd 1: layers go to the kernel as descriptors and nothing else is tried. */
int lfs_overlay_mount_by(const lfs_overlay *overlay, int by_fd, lfs_error *error);

/* For kernels whose overlayfs does not know lowerdir+, and whether this is one. */
int lfs_overlay_is_old(void);
int lfs_overlay_mount_old(const lfs_overlay *overlay, lfs_error *error);

#endif
