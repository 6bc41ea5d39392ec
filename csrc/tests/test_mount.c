/* What of the mounts needs no privilege: arguments at the door, and that failures leave no descriptor. */
#define _GNU_SOURCE
#include "check.h"
#include "layerfs.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* The lowest free descriptor: the same before and after, nothing leaked below it. */
static int next_fd(void)
{
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

    close(fd);
    return fd;
}

static void test_overlay_arguments(void)
{
    int lowers[501] = {0};
    lfs_error error = {0};
    lfs_overlay o = {.lowers = lowers, .nlowers = 501, .upper = -1, .work = -1};

    CHECK(lfs_overlay_mount(&o, &error) == -EINVAL);
    CHECK(strstr(error.msg, "501 layers") != NULL && strstr(error.msg, "500") != NULL);
    o.nlowers = 0;
    CHECK(lfs_overlay_mount(&o, &error) == -EINVAL);
    o = (lfs_overlay){.lowers = lowers, .nlowers = 2, .upper = 3, .work = -1};
    CHECK(lfs_overlay_mount(&o, &error) == -EINVAL);
    o = (lfs_overlay){.lowers = lowers, .nlowers = 2, .upper = -1, .work = -1, .flags = 1u << 30};
    CHECK(lfs_overlay_mount(&o, NULL) == -EINVAL);
}

static void test_failures_leave_nothing(void)
{
    int before = next_fd(), lowers[2] = {-1, -1};
    lfs_overlay o = {.lowers = lowers, .nlowers = 2, .upper = -1, .work = -1};
    lfs_error error = {0};

    CHECK(lfs_erofs_mount(-1, 0, &error) < 0);
    CHECK(error.err > 0 && error.msg[0] != '\0');
    CHECK(lfs_erofs_mount(-1, LFS_MOUNT_LOOP, &error) < 0);
    CHECK(lfs_erofs_mount(0, 1u << 30, &error) == -EINVAL);
    CHECK(lfs_overlay_mount(&o, &error) < 0);
    CHECK(lfs_bind_mount(AT_FDCWD, "/does/not/exist", 1, 1, &error) < 0);
    CHECK(lfs_mount_attach(-1, "/does/not/exist", &error) < 0);
    CHECK(lfs_mount_attach(-1, "", &error) == -EINVAL);
    CHECK(lfs_mount_detach("/does/not/exist", 0, &error) < 0);
    CHECK(lfs_readahead(-1, 0, 1, &error) == -EBADF);
    CHECK(lfs_readahead(-1, 0, 0, &error) == 0);
    CHECK(lfs_probe(-1, LFS_PROBE_EROFS, &error) < 0);
    CHECK(lfs_launcher_open("/does/not/exist", &error) == -ENOENT);
    CHECK(next_fd() == before);
}

int main(void)
{
    test_overlay_arguments();
    test_failures_leave_nothing();
    return 0;
}
