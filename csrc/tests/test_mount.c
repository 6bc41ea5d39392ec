/* What of the mounts needs no privilege: arguments at the door, and that failures leave no descriptor. */
#define _GNU_SOURCE
#include "check.h"
#include "mount.h"
#include "supervisor/start.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
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

/* The way of old kernels, which new ones know as well. */
static void test_old_overlay(void)
{
    char place[] = "/tmp/layerfs-test-XXXXXX", command[128];
    static const char *const names[] = {"a", "b", "upper", "work"};
    int before = next_fd(), dirs[4], mount;
    lfs_overlay o = {.lowers = dirs, .nlowers = 2};
    lfs_error error = {0};

    CHECK(mkdtemp(place) != NULL);
    for (int i = 0; i < 4; i++) {
        snprintf(command, sizeof command, "mkdir -p %s/%s && touch %s/%s/of-%s", place, names[i], place,
                 i == 3 ? "a" : names[i], names[i]);
        CHECK(system(command) == 0);
        snprintf(command, sizeof command, "%s/%s", place, names[i]);
        dirs[i] = open(command, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    }
    o.upper = dirs[2];
    o.work = dirs[3];
    mount = lfs_overlay_mount_old(&o, &error);
    CHECK(mount >= 0);
    CHECK(faccessat(mount, "of-a", F_OK, 0) == 0 && faccessat(mount, "of-b", F_OK, 0) == 0);
    CHECK(faccessat(mount, "of-upper", W_OK, 0) == 0 && unlinkat(mount, "of-b", 0) == 0);
    close(mount);
    o.upper = o.work = -1;
    mount = lfs_overlay_mount_old(&o, &error);
    CHECK(mount >= 0 && unlinkat(mount, "of-b", 0) < 0 && errno == EROFS);
    close(mount);
    o.nlowers = 1; /* with no upper the kernel wants two */
    CHECK(lfs_overlay_mount_old(&o, &error) == -EINVAL);
    CHECK(access("/proc/self", F_OK) == 0);
    for (int i = 0; i < 4; i++)
        close(dirs[i]);
    snprintf(command, sizeof command, "rm -rf %s", place);
    CHECK(system(command) == 0 && next_fd() == before);
}

/* What kernels before 6.15 need for a second start, which newer ones can do as well. */
static void test_places(void)
{
    int before = next_fd(), mounts[2], copies[2];
    struct stat here, there;
    sv_places places;
    lfs_error error = {0};

    CHECK(stat("/proc/self/ns/mnt", &here) == 0);
    for (int i = 0; i < 2; i++) {
        mounts[i] = lfs_fs_mount("tmpfs", NULL, 0, &error);
        CHECK(mounts[i] >= 0 && mkdirat(mounts[i], i == 0 ? "first" : "second", 0700) == 0);
    }
    CHECK(sv_places_make(mounts, 2, &places, &error) == 0);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 2; i++) {
            copies[i] = sv_places_copy(&places, mounts[i]);
            CHECK(copies[i] >= 0 && faccessat(copies[i], i == 0 ? "first" : "second", F_OK, 0) == 0);
        }
        for (int i = 0; i < 2; i++)
            close(copies[i]);
        CHECK(stat("/proc/self/ns/mnt", &there) == 0 && there.st_ino == here.st_ino);
        CHECK(access("/proc/self", F_OK) == 0);
    }
    for (int i = 0; i < 2; i++)
        close(mounts[i]);
    close(places.home);
    close(places.own);
    CHECK(next_fd() == before);
}

int main(void)
{
    if (geteuid() == 0) {
        test_old_overlay();
        test_places();
    } else {
        puts("skipped: mounts need root");
    }
    test_overlay_arguments();
    test_failures_leave_nothing();
    return 0;
}
