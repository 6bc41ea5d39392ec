/*
 * listing.c - what stat says of all that is in a directory, many entries a call.
 *
 * What is no directory is packed from the front of the buffer; directories from its end, and then moved behind it.
 */
#define _GNU_SOURCE
#include "syscalls.h"
#include "util.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define DENTS 16384u
#define DENT_MIN 24u /* a name of one byte, its end, and padding */
#define HEAD 73u
_Static_assert(DENTS / DENT_MIN * (HEAD - LFS_DIRENT_NAME - 1) + DENTS <= LFS_LIST_MIN,
               "what one getdents64 gives fits");

static void put_time(char *p, const struct timespec *time)
{
    lfs_put64(p, (uint64_t)time->tv_sec);
    lfs_put32(p + 8, (uint32_t)time->tv_nsec);
}

static void put_record(char *p, const struct stat *st, const char *name, size_t n)
{
    lfs_put32(p, st->st_mode);
    lfs_put64(p + 4, st->st_ino);
    lfs_put64(p + 12, st->st_dev);
    lfs_put32(p + 20, (uint32_t)st->st_nlink);
    lfs_put32(p + 24, st->st_uid);
    lfs_put32(p + 28, st->st_gid);
    lfs_put64(p + 32, (uint64_t)st->st_size);
    put_time(p + 40, &st->st_mtim);
    put_time(p + 52, &st->st_ctim);
    lfs_put64(p + 64, st->st_rdev);
    p[72] = (char)n;
    memcpy(p + HEAD, name, n);
}

int64_t lfs_list(int fd, void *buf, size_t cap, lfs_listed *listed, lfs_error *error)
{
    char dents[DENTS];
    char *front = buf;
    char *end = front + cap;
    char *back = end;
    long n;

    *listed = (lfs_listed){.newest = INT64_MIN};
    if (cap < LFS_LIST_MIN)
        return lfs_fail(error, ERANGE, "list directory: a buffer of %zu bytes", cap);
    do {
        n = syscall(SYS_getdents64, fd, dents, (size_t)DENTS);
        if (n < 0)
            return lfs_fail(error, errno, "list directory");
        for (long i = 0; i < n;) {
            const char *name = dents + i + LFS_DIRENT_NAME;
            size_t length = strlen(name);
            lfs_dirent_head head;
            struct stat st;

            memcpy(&head, dents + i, LFS_DIRENT_NAME);
            i += head.length;
            if (name[0] == '.' && (length == 1 || (length == 2 && name[1] == '.')))
                continue;
            if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
                if (errno == ENOENT)
                    continue;
                return lfs_fail(error, errno, "stat %.200s", name);
            }
            if (S_ISDIR(st.st_mode)) {
                back -= HEAD + length;
                put_record(back, &st, name, length);
                continue;
            }
            put_record(front, &st, name, length);
            front += HEAD + length;
            if (st.st_ctim.tv_sec > listed->newest)
                listed->newest = st.st_ctim.tv_sec;
        }
    } while (n > 0 && front == (char *)buf && back == end);
    listed->files = (uint64_t)(front - (char *)buf);
    memmove(front, back, (size_t)(end - back));
    return front - (char *)buf + (end - back);
}
