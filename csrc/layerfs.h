/*
 * layerfs.h - the C core of layerfs: everything that touches every byte, every file or the kernel.
 *
 *   tar bytes --lfs_unpack--> a layer (one EROFS file, or a directory) + the "rest" stream
 *   a layer + its rest --lfs_repack--> the same tar bytes
 *   an upper directory, or two trees --lfs_diff--> a layer tar, or a list of changes
 *   a directory --lfs_list--> names, and what stat says of them
 *   a layer file --lfs_reader--> names, attributes and contents, with no mount
 *   layers --lfs_erofs_mount, lfs_overlay_mount--> a detached mount, which is a file descriptor
 *   a mount and a command --lfs_spawn--> a process in namespaces of its own
 *
 * Contract, the same for every function here:
 *   - It returns >= 0 on success (0, a count, or a file descriptor) and -errno on failure, and then
 *     fills *error: the errno, and a message that names operation and object ("create usr/bin/x")
 *     without strerror and without newline. error may be NULL.
 *   - -EBADMSG says that the input (archive, rest, layer file) is malformed or hostile, -EFBIG that it
 *     passes a limit stated in the options. All other numbers are the system's own.
 *   - A handle belongs to one thread at a time. After a failure the only legal call is its _free.
 *     _free accepts NULL. Nobody calls back; no call blocks but on disk.
 *   - File descriptors given are borrowed for the call, or duplicated where a handle keeps them.
 *     Every descriptor made is O_CLOEXEC.
 *   - No globals that are written, no output, no exit, no signal handling, no threads, no locale.
 *   - Names and paths are bytes. Integers that are packed into buffers are little-endian, unaligned.
 *
 * The lines between the two markers are also the declarations that cffi reads.
 */
#ifndef LAYERFS_H
#define LAYERFS_H

#include <stddef.h>
#include <stdint.h>

/* cdef-begin */
typedef struct lfs_error {
    int err;
    char msg[256];
} lfs_error;

/*
 * Unpack: tar in, layer out. lfs_unpack_write takes the (uncompressed) tar in any split. The rest stream
 * (see below) collects in the handle and is drained with lfs_unpack_rest after each write and after
 * finish; it is all of the tar that is not file content.
 *
 * erofs: fd is an empty regular file opened for reading and writing.
 * dir:   fd is an empty directory; fs/ is made in it, and dead/ when an entry of the archive replaces
 *        an earlier one whose bytes the rest still needs.
 */
#define LFS_UNPACK_DIR 1       /* layer format dir instead of erofs */
#define LFS_UNPACK_USERXATTR 2 /* whiteout and opaque marks as user.overlay.*, for mounts with userxattr */
#define LFS_UNPACK_NO_CHOWN 4  /* dir: leave owners as they fall (no privilege to set them) */

typedef struct lfs_unpack_options {
    uint32_t flags;
    uint32_t block_size;  /* erofs: 512, 1024, 2048 or 4096 */
    uint64_t max_bytes;   /* most bytes of file content (holes included); 0: no limit */
    uint64_t max_entries; /* most archive members, and directories that their paths imply; 0: no limit */
    uint64_t max_metadata; /* most bytes of names, link targets and extended attributes, which are held in memory until
                              the end; one member more may be held; 0: no limit */
} lfs_unpack_options;

typedef struct lfs_unpack_result {
    uint64_t tar_bytes;   /* bytes written into the handle */
    uint64_t entries;     /* names in the layer, the root not counted */
    uint64_t inodes;
    uint64_t whiteouts;   /* names of the layer that hide one below */
    uint64_t opaques;     /* directories that hide all below */
    uint64_t data_bytes;  /* logical size of all regular files */
    uint64_t skipped;     /* archive members left out: AUFS metadata, volume labels; with LFS_UNPACK_NO_CHOWN
                             devices, in whose place stands an empty file */
    uint64_t xattrs_dropped; /* attributes no layer can hold: overlayfs's own, foreign namespaces, broken ACLs */
    uint64_t meta_offset; /* erofs: where the metadata begins; all of it from here to image_size */
    uint64_t image_size;  /* erofs: length of the image, a multiple of 4096 */
    uint64_t unowned;     /* with LFS_UNPACK_NO_CHOWN: inodes that are not all that lfs_unpack_own could make them */
} lfs_unpack_result;

typedef struct lfs_unpack lfs_unpack;
int lfs_unpack_open(int fd, const lfs_unpack_options *options, lfs_unpack **out, lfs_error *error);
int lfs_unpack_write(lfs_unpack *u, const void *buf, size_t n, lfs_error *error);
int64_t lfs_unpack_rest(lfs_unpack *u, void *buf, size_t cap, lfs_error *error);
int lfs_unpack_finish(lfs_unpack *u, const uint8_t *uuid, lfs_unpack_result *result, lfs_error *error);
/*
 * After finish, with LFS_UNPACK_NO_CHOWN: set the owners of the archive, and the attributes that were dropped for want
 * of privilege. For a process that may, as root of a user namespace: it may be a child that was forked after finish.
 * Returns how many attributes of those that finish counted as dropped are there now. -EINVAL: an owner that the
 * namespace has not.
 */
int64_t lfs_unpack_own(lfs_unpack *u, lfs_error *error);
void lfs_unpack_free(lfs_unpack *u);

/*
 * The rest stream: a sequence of operations, each a varint (LEB128) v = n << 2 | op, n > 0:
 *   op 0 RAW:  n bytes follow, to be copied
 *   op 1 DATA: a varint follows, z; n bytes of file content come from the layer.
 *              erofs: they are at byte  zigzag(z) + end  of the layer file, end being where the last
 *              DATA of this stream ended (0 at first). dir: at byte z of the current FILE.
 *   op 2 ZERO: n bytes of zero (content that became a hole)
 *   op 3 FILE: dir only: a varint k, then n bytes of a path; the current file is dead/<k> where that
 *              exists, else fs/<path>
 */
typedef struct lfs_repack lfs_repack;
#define LFS_REPACK_DIR 1
int lfs_repack_open(int fd, uint32_t flags, lfs_repack **out, lfs_error *error);
int lfs_repack_feed(lfs_repack *r, const void *buf, size_t n, lfs_error *error); /* any split; copied */
int64_t lfs_repack_read(lfs_repack *r, void *buf, size_t cap, lfs_error *error); /* 0: feed more */
int lfs_repack_finish(lfs_repack *r, lfs_error *error); /* -EBADMSG if an operation is cut short */
void lfs_repack_free(lfs_repack *r);

/*
 * Reader: an EROFS layer through its metadata. Every number in the file is checked before it is used, so
 * that a damaged or hostile file gives -EBADMSG and never a fault. Inodes are named by nid.
 */
typedef struct lfs_stat {
    uint64_t nid;
    uint64_t size;
    int64_t mtime;
    uint32_t mtime_nsec;
    uint32_t mode; /* type and permissions, as st_mode */
    uint32_t uid;
    uint32_t gid;
    uint32_t nlink;
    uint32_t rdev_major;
    uint32_t rdev_minor;
} lfs_stat;

typedef struct lfs_reader lfs_reader;
int lfs_reader_open(int fd, lfs_reader **out, lfs_error *error);
uint64_t lfs_reader_root(const lfs_reader *r);
int lfs_reader_lookup(const lfs_reader *r, uint64_t dir, const char *name, size_t n, uint64_t *nid,
                      lfs_error *error); /* -ENOENT, -ENOTDIR */
int lfs_reader_stat(const lfs_reader *r, uint64_t nid, lfs_stat *st, lfs_error *error);
/* Records {u64 nid, u8 type (DT_*), u8 n, n bytes name}, "." and ".." left out, in order of bytes.
 * *cookie is 0 at first. Returns bytes filled, 0 at the end. cap >= 512. */
int64_t lfs_reader_readdir(const lfs_reader *r, uint64_t nid, uint64_t *cookie, void *buf, size_t cap,
                           lfs_error *error);
int64_t lfs_reader_readlink(const lfs_reader *r, uint64_t nid, void *buf, size_t cap, lfs_error *error);
/* Records {u16 n, u32 m, n bytes full name, m bytes value}. Returns bytes; -ERANGE if cap is too small. */
int64_t lfs_reader_xattrs(const lfs_reader *r, uint64_t nid, void *buf, size_t cap, lfs_error *error);
int64_t lfs_reader_read(const lfs_reader *r, uint64_t nid, uint64_t offset, void *buf, size_t cap,
                        lfs_error *error); /* 0 at the end of the file */
/* Where the content from offset on lies in the layer file: *where (UINT64_MAX: a hole) for *length bytes. */
int lfs_reader_extent(const lfs_reader *r, uint64_t nid, uint64_t offset, uint64_t *where,
                      uint64_t *length, lfs_error *error);
void lfs_reader_free(lfs_reader *r);

/*
 * Diff: what an overlayfs upper directory changes, or what makes tree `from` into tree `to`; as a layer tar
 * (lfs_diff_read) or as a list (lfs_diff_changes), one of the two a handle.
 *
 * A name that is gone when the walk comes to it never was (the list of an upper does not look again at what is no
 * directory: that was there when its directory was read); a file that becomes shorter while it is read is
 * -EAGAIN. What a layer cannot hold (a name that begins with .wh., a device 0:0 of a tree, an attribute's name
 * with "=") is -EINVAL, an upper whose content overlayfs has left below -EOPNOTSUPP: a directory (redirect), and for
 * the archive a file (metacopy). The list knows empty files with the attribute `whiteout` as whiteouts in directories
 * that have `opaque=x`.
 */
#define LFS_DIFF_USERXATTR 1 /* marks are user.overlay.*, and those are the ones left out */
#define LFS_DIFF_TREE 2      /* the directory is a whole tree, not an upper: no marks, all of it is written */

typedef struct lfs_diff_options {
    uint32_t flags;
    uint64_t sparse_min; /* files of at least this many bytes that have holes are written as PAX sparse 1.0;
                            0: never */
    int64_t clamp_mtime; /* later times become this one (SOURCE_DATE_EPOCH); INT64_MAX: none */
} lfs_diff_options;

typedef struct lfs_diff_stats {
    uint64_t entries; /* members written or changes listed */
    uint64_t whiteouts;
    uint64_t opaques;
    uint64_t sockets;   /* left out */
    uint64_t bytes;     /* logical size of all regular files written */
} lfs_diff_stats;

typedef struct lfs_diff lfs_diff;
int lfs_diff_open(int fd, const lfs_diff_options *options, lfs_diff **out, lfs_error *error);
int lfs_diff_open_trees(int from, int to, const lfs_diff_options *options, lfs_diff **out, lfs_error *error);
/* The layers below an upper, top-most first, for lfs_diff_changes to tell added from changed, and for
 * lfs_diff_read to write a whiteout where a socket, which it leaves out, hides something. The reader is
 * borrowed until lfs_diff_free; the fd (a directory of marks like the upper's) is duplicated. */
int lfs_diff_add_lower(lfs_diff *d, const lfs_reader *lower, lfs_error *error);
int lfs_diff_add_lower_dir(lfs_diff *d, int fd, lfs_error *error);
int64_t lfs_diff_read(lfs_diff *d, void *buf, size_t cap, lfs_error *error); /* 0 at the end */
/* Records {u8 kind 'A' 'C' 'D', u8 type (DT_*), u16 n, n bytes path without leading slash}, sorted. */
int64_t lfs_diff_changes(lfs_diff *d, void *buf, size_t cap, lfs_error *error); /* cap >= 8192; 0 at the end */
void lfs_diff_stats_get(const lfs_diff *d, lfs_diff_stats *stats);
void lfs_diff_free(lfs_diff *d);

/*
 * What stat says of all that is in a directory, links not followed: many entries a call, from the descriptor's
 * position on, in the directory's own order; 0 at its end. A name that is gone by then never was.
 *
 * Records {u32 mode, u64 ino, u64 dev, u32 nlink, u32 uid, u32 gid, u64 size, i64 mtime, u32 its ns, i64 ctime,
 * u32 its ns, u64 rdev, u8 n, n bytes name}; directories come last, behind the `files` bytes of all else.
 */
#define LFS_LIST_MIN 65536

typedef struct lfs_listed {
    uint64_t files;
    int64_t newest; /* the latest ctime of what is no directory, in seconds; INT64_MIN: there is none */
} lfs_listed;
int64_t lfs_list(int fd, void *buf, size_t cap, lfs_listed *listed, lfs_error *error); /* cap >= LFS_LIST_MIN */

/*
 * Mounts. Each returns a detached mount as a descriptor (fsmount(2)): closing it leaves nothing behind.
 */
#define LFS_MOUNT_LOOP 1 /* erofs through a loop device, for kernels before 6.12 */
int lfs_erofs_mount(int fd, uint32_t flags, lfs_error *error);

#define LFS_OVERLAY_VOLATILE 1  /* no sync, ever: for uppers that are thrown away */
#define LFS_OVERLAY_USERXATTR 2
#define LFS_OVERLAY_READONLY 4
#define LFS_OVERLAY_OWNER 8 /* layers are seen through lfs_mount_idmap: uid and gid are what its maps make of 0 */

typedef struct lfs_overlay {
    const int *lowers; /* directories or detached mounts, TOP-MOST FIRST, as the kernel counts */
    size_t nlowers;    /* 1 to 500; a single one without upper is bound read-only */
    int upper;         /* -1: none, and the mount is read-only */
    int work;
    uint32_t flags;
    uint32_t uid;
    uint32_t gid;
} lfs_overlay;
int lfs_overlay_mount(const lfs_overlay *overlay, lfs_error *error);
int lfs_bind_mount(int dirfd, const char *path, int recursive, int readonly, lfs_error *error);
/* A user namespace, as a descriptor, with these maps of n triples (inside, outside, count); and a detached copy of a
 * mount through which owners are seen by it. Overlayfs itself cannot be mapped, but its layers can. */
int lfs_userns_open(const uint32_t *uid_map, size_t nuids, const uint32_t *gid_map, size_t ngids, lfs_error *error);
/* Move this process, which must have one thread, into namespaces by CLONE_NEW* flags: those of the process that the
 * pidfd names, or with -1 new ones. In those of another user namespace it becomes its root. */
int lfs_enter_namespaces(int pidfd, int flags, lfs_error *error);
int lfs_mount_idmap(int mount, int userns, lfs_error *error);
int lfs_mount_attach(int mount, const char *target, lfs_error *error);
int lfs_mount_detach(const char *target, int lazy, lfs_error *error); /* -EBUSY unless lazy */
int lfs_readahead(int fd, uint64_t offset, uint64_t length, lfs_error *error);
/* Begin to write what is dirty of a file to the disk, so that a later fdatasync waits for less. */
int lfs_write_back(int fd, uint64_t offset, uint64_t length, lfs_error *error);

/*
 * Probe: does one feature work here and now? It is really tried, in a directory made for it beneath dirfd and
 * removed again. 0: it works; else -errno and why not.
 */
#define LFS_PROBE_EROFS 1             /* mount a layer file kept in dirfd */
#define LFS_PROBE_EROFS_LOOP 2        /* the same through a loop device */
#define LFS_PROBE_OVERLAY 3           /* an upper in dirfd, with whiteouts and opaque marks */
#define LFS_PROBE_OVERLAY_FD 4        /* the same, layers given as descriptors */
#define LFS_PROBE_OVERLAY_USERXATTR 5 /* the same, marks as user.overlay.* */
#define LFS_PROBE_NAMESPACES 6        /* all that a launch makes, but a user namespace */
#define LFS_PROBE_USERNS 7            /* a user namespace, for an ordinary user */
int lfs_probe(int dirfd, int feature, lfs_error *error);

/*
 * Launch: processes in namespaces of their own, by a small program (csrc/supervisor) that is executed for it.
 * What is to run is a text in an open file, `spec`, as docs/supervisor.md describes it; mode is "launch", "join"
 * or "supervise"; fds are all descriptors that the spec names. The result is the first failure of setting up, in
 * the launcher or in the new process, or else the process, whose pidfd the caller closes and waits on.
 *
 * Where nothing has to be done from outside the new namespaces (none of them is a user namespace or another
 * container's) the mode is "first" and namespaces are the CLONE_NEW* flags: then the program itself, already in them,
 * becomes the command, and a process is saved. Otherwise namespaces is 0.
 */
typedef struct lfs_spawned {
    int pid;            /* of the process; supervise: of its first run */
    int pidfd;          /* -1 for supervise */
    int tty;            /* the master of its terminal, or -1 */
    int command_failed; /* of a failure: all was set up, and the command itself could not be executed */
} lfs_spawned;
/* The program of this path as a descriptor to execute, through which it cannot be written: it lies on a read-only
 * mount, or is a sealed copy. */
int lfs_launcher_open(const char *path, lfs_error *error);
int lfs_spawn(int launcher, const char *mode, uint32_t namespaces, int spec, const int *fds, size_t nfds,
              lfs_spawned *out, lfs_error *error);

/*
 * Seccomp: rules to a BPF program, written to the file out, by libseccomp (-ENOSYS: it is not installed). Actions are
 * SECCOMP_RET_* values, op is libseccomp's scmp_compare; names that the library does not know are passed over. archs
 * are libseccomp's tokens (NULL: those whose programs this kernel may run). Where `otherwise` refuses, calls of this
 * architecture that are newer than all that the rules name fail with ENOSYS instead: programs take an older one then.
 */
typedef struct lfs_seccomp_arg {
    uint32_t index;
    uint32_t op;
    uint64_t a;
    uint64_t b;
} lfs_seccomp_arg;

typedef struct lfs_seccomp_rule {
    const char *name;
    uint32_t action;
    uint32_t nargs;
    lfs_seccomp_arg args[6];
} lfs_seccomp_rule;
int lfs_seccomp_filter(uint32_t otherwise, const lfs_seccomp_rule *rules, size_t nrules, const uint32_t *archs,
                       size_t narchs, int out, lfs_error *error);
/* The file that libseccomp is loaded from. -ENOSYS where it is not installed. */
int lfs_seccomp_library(char *path, size_t cap, lfs_error *error);
/* cdef-end */

#endif
