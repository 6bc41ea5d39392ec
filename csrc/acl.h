/* acl.h - POSIX access control lists: the text of archives, and the attribute that the kernel reads. */
#ifndef LAYERFS_ACL_H
#define LAYERFS_ACL_H

#include "util.h"

/*
 * The text of SCHILY.acl.* ("user::rw-,user:joe:r--:1000,group::r--,mask::r--,other::---", entries also split
 * by newlines) as an attribute's value, appended to out. A number is wanted of each user and group, in place
 * of the name or behind it. 0, -EBADMSG or -ENOMEM.
 */
int lfs_acl_parse(const char *text, size_t n, lfs_buf *out);

/*
 * Whether the kernel takes the value (system.posix_acl_*): -EBADMSG if not, 0 if it says no more than the
 * nine permission bits can, else 1. Those bits as it would set them go to *permissions.
 */
int lfs_acl_check(const void *value, size_t n, uint32_t *permissions);

#endif
