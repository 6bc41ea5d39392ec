#define _GNU_SOURCE
#include <fcntl.h>

#include "layer.h"

static void test_any_split(uint32_t block_size)
{
    cleanup_buf lfs_buf a = {0};
    layer whole;

    sample_archive(&a);
    whole = make_layer(&a, a.len, block_size);
    for (size_t step = 1; step < 200000; step = step * 7 + 3) {
        layer split = make_layer(&a, step, block_size);
        void *x, *y;
        size_t n = whole.result.image_size;

        CHECK(memcmp(&whole.result, &split.result, sizeof whole.result) == 0);
        CHECK(whole.rest.len == split.rest.len && memcmp(whole.rest.data, split.rest.data, whole.rest.len) == 0);
        x = mmap(NULL, n, PROT_READ, MAP_SHARED, whole.fd, 0);
        y = mmap(NULL, n, PROT_READ, MAP_SHARED, split.fd, 0);
        CHECK(x != MAP_FAILED && y != MAP_FAILED && memcmp(x, y, n) == 0);
        munmap(x, n);
        munmap(y, n);
        free_layer(&split);
    }
    free_layer(&whole);
}

static void test_counts(void)
{
    cleanup_buf lfs_buf a = {0};
    layer l;

    sample_archive(&a);
    l = make_layer(&a, a.len, 512);
    CHECK(l.result.tar_bytes == a.len && l.result.entries == 7 && l.result.inodes == 7);
    CHECK(l.result.whiteouts == 1 && l.result.opaques == 0 && l.result.data_bytes == 400000 + 9000 + 5);
    CHECK(l.result.image_size % 4096 == 0 && l.result.meta_offset % 4096 == 0);
    CHECK(l.result.image_size < 400000); /* zeros are not stored */
    free_layer(&l);
}

static void test_options(void)
{
    lfs_error error;
    lfs_unpack *u;
    int fd = memfd_create("layer", MFD_CLOEXEC);

    for (uint32_t size = 0; size <= 8192; size += 256) {
        lfs_unpack_options options = {.block_size = size};
        bool good = size == 512 || size == 1024 || size == 2048 || size == 4096;
        int r = lfs_unpack_open(fd, &options, &u, &error);
        CHECK((r == 0) == good && (good || r == -EINVAL));
        if (r == 0)
            lfs_unpack_free(u);
    }
    CHECK(lfs_unpack_open(fd, &(lfs_unpack_options){.flags = 1u << 30, .block_size = 512}, &u, &error) == -EINVAL);
    close(fd);
    lfs_unpack_free(NULL);
}

static void test_write_errors(void)
{
    cleanup_buf lfs_buf a = {0};
    lfs_unpack_options options = {.block_size = 512};
    int fd = memfd_create("layer", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    lfs_unpack_result result;
    lfs_error error = {0};
    uint8_t uuid[16] = {0};
    lfs_unpack *u;
    int r;

    sample_archive(&a);
    CHECK(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) == 0);
    CHECK(lfs_unpack_open(fd, &options, &u, &error) == 0);
    r = lfs_unpack_write(u, a.data, a.len, &error);
    if (r == 0)
        r = lfs_unpack_finish(u, uuid, &result, &error);
    CHECK(r == -EPERM && error.err == EPERM && strcmp(error.msg, "write layer") == 0);
    lfs_unpack_free(u);
    close(fd);
}

/* Members of `type`, named by a number (or always the same) and `rest`, links with targets of 90 bytes: how many are
 * taken under limits. */
static unsigned taken(char type, bool numbered, const char *rest, const lfs_unpack_options *options, lfs_error *error)
{
    int fd = memfd_create("layer", MFD_CLOEXEC);
    unsigned count = 0;
    lfs_unpack *u;
    int r;

    CHECK(fd >= 0 && lfs_unpack_open(fd, options, &u, error) == 0);
    do {
        cleanup_buf lfs_buf a = {0};
        char name[100];
        char link[91];

        memset(link, 'l', 90);
        link[90] = '\0';
        snprintf(name, sizeof name, "%03u%s", numbered ? count : 0, rest);
        add_member(&a, type, name, "", 0, type == '2' ? link : NULL);
        r = lfs_unpack_write(u, a.data, a.len, error);
        CHECK(r == 0 || r == -EFBIG);
    } while (r == 0 && ++count < 1000);
    lfs_unpack_free(u);
    close(fd);
    return count;
}

static void test_limits(void)
{
    lfs_unpack_options metadata = {.block_size = 512, .max_metadata = 2000};
    lfs_unpack_options entries = {.block_size = 512, .max_entries = 100};
    lfs_unpack_options none = {.block_size = 512};
    lfs_error error = {0};

    CHECK(taken('2', true, "3456789", &metadata, &error) == 20);
    CHECK(strstr(error.msg, "0203456789: more than 2000 bytes of names") != NULL);
    CHECK(taken('0', false, "456789", &metadata, &error) == 222); /* those that are replaced are held too */
    CHECK(taken('5', true, "/b/c/d/e", &entries, &error) == 20); /* what a path implies counts */
    CHECK(strstr(error.msg, "more than 100 archive members") != NULL);
    CHECK(taken('2', true, "3456789", &none, &error) == 1000);
}

int main(void)
{
    test_limits();
    test_any_split(512);
    test_any_split(4096);
    test_counts();
    test_options();
    test_write_errors();
    return 0;
}
