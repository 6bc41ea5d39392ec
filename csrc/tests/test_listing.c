/* test_listing.c - lfs_list under sanitizers: names of every length in one buffer, nothing lost, nothing twice. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/stat.h>

#include "check.h"

#define HEAD 73u
#define COUNT 3000u

static char buffer[LFS_LIST_MIN];

static void name_of(unsigned number, char *name)
{
    memset(name, 'x', 256);
    snprintf(name, 256, "%u", number);
    if (number % 5 == 0) { /* as long as a name can be */
        name[strlen(name)] = 'x';
        name[255] = '\0';
    }
}

static void fill(int dir)
{
    for (unsigned i = 0; i < COUNT; i++) {
        char name[256];
        int fd;

        name_of(i, name);
        if (i % 3 == 0) {
            CHECK(mkdirat(dir, name, 0700) == 0);
            continue;
        }
        fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL, 0600);
        CHECK(fd >= 0 && close(fd) == 0);
    }
}

static void check_records(const char *data, size_t n, size_t files, char *seen)
{
    size_t at = 0;

    while (at < n) {
        char name[256];
        char wanted[256];
        size_t length;
        unsigned number;

        CHECK(n - at > HEAD);
        length = (unsigned char)data[at + HEAD - 1];
        CHECK(n - at - HEAD >= length);
        memcpy(name, data + at + HEAD, length);
        name[length] = '\0';
        number = (unsigned)atoi(name);
        name_of(number, wanted);
        CHECK(number < COUNT && !seen[number] && strcmp(name, wanted) == 0);
        CHECK(S_ISDIR(lfs_get32(data + at)) == (at >= files) && (at >= files) == (number % 3 == 0));
        seen[number] = 1;
        at += HEAD + length;
    }
}

int main(void)
{
    static char seen[COUNT];
    char place[] = "/tmp/layerfs-listing-XXXXXX";
    char command[64];
    lfs_listed listed;
    lfs_error error;
    int64_t n;
    int dir;

    CHECK(mkdtemp(place) != NULL);
    dir = open(place, O_RDONLY | O_DIRECTORY);
    CHECK(dir >= 0);
    CHECK(lfs_list(dir, buffer, sizeof buffer, &listed, &error) == 0 && listed.files == 0);
    CHECK(listed.newest == INT64_MIN);
    fill(dir);
    CHECK(lseek(dir, 0, SEEK_SET) == 0);
    while ((n = lfs_list(dir, buffer, sizeof buffer, &listed, &error)) > 0)
        check_records(buffer, (size_t)n, listed.files, seen);
    CHECK(n == 0 && memchr(seen, 0, sizeof seen) == NULL);
    CHECK(lfs_list(dir, buffer, 100, &listed, &error) == -ERANGE);
    CHECK(lfs_list(-1, buffer, sizeof buffer, &listed, NULL) == -EBADF);
    snprintf(command, sizeof command, "rm -r %s", place);
    CHECK(system(command) == 0);
    close(dir);
    return 0;
}
