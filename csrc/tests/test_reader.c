#define _GNU_SOURCE
#include <sys/stat.h>

#include "layer.h"

static uint64_t find(const lfs_reader *r, const char *path)
{
    uint64_t nid = lfs_reader_root(r);

    while (*path != '\0') {
        size_t n = strcspn(path, "/");
        CHECK(lfs_reader_lookup(r, nid, path, n, &nid, NULL) == 0);
        path += n + (path[n] == '/');
    }
    return nid;
}

static void test_layer(uint32_t block_size)
{
    cleanup_buf lfs_buf a = {0};
    uint64_t cookie = 0, where, length, nid;
    char buf[9000];
    lfs_error error;
    lfs_reader *r;
    lfs_stat st;
    layer l;

    sample_archive(&a);
    l = make_layer(&a, a.len, block_size);
    CHECK(lfs_reader_open(l.fd, &r, &error) == 0);
    CHECK(lfs_reader_stat(r, find(r, "d/small"), &st, &error) == 0);
    CHECK(S_ISREG(st.mode) && (st.mode & 07777) == 0644 && st.size == 5 && st.mtime == 1000000000);
    CHECK(lfs_reader_read(r, find(r, "d/small"), 0, buf, sizeof buf, &error) == 5 && memcmp(buf, "again", 5) == 0);
    CHECK(find(r, "hard") == find(r, "d/page"));
    CHECK(lfs_reader_stat(r, find(r, "hard"), &st, &error) == 0 && st.nlink == 2);
    CHECK(lfs_reader_readlink(r, find(r, "link"), buf, sizeof buf, &error) == 7 && memcmp(buf, "d/small", 7) == 0);
    CHECK(lfs_reader_readlink(r, find(r, "link"), buf, 3, &error) == -ERANGE);
    CHECK(lfs_reader_extent(r, find(r, "d/holes"), 0, &where, &length, &error) == 0);
    CHECK(where == UINT64_MAX && length == 65536);
    CHECK(lfs_reader_extent(r, find(r, "d/holes"), 65536, &where, &length, &error) == 0);
    CHECK(where != UINT64_MAX && where % 4096 == 0 && length == 65536);
    CHECK(lfs_reader_readdir(r, find(r, "d"), &cookie, buf, 512, &error) == 3 * 10 + 5 + 4 + 5);
    CHECK(lfs_reader_readdir(r, find(r, "d"), &cookie, buf, 512, &error) == 0);
    CHECK(lfs_reader_readdir(r, find(r, "d"), &cookie, buf, 511, &error) == -EINVAL);
    CHECK(lfs_reader_readdir(r, find(r, "link"), &cookie, buf, 512, &error) == -ENOTDIR);
    CHECK(lfs_reader_lookup(r, lfs_reader_root(r), "no", 2, &nid, &error) == -ENOENT);
    CHECK(lfs_reader_stat(r, UINT64_MAX, &st, &error) == -EBADMSG);
    CHECK(lfs_reader_stat(r, UINT64_MAX / 32, &st, &error) == -EBADMSG);
    lfs_reader_free(r);
    free_layer(&l);
}

/* Whatever one byte of the metadata says: no fault, and no error but -EBADMSG and its like. */
static void test_every_byte(void)
{
    cleanup_buf lfs_buf a = {0};
    char buf[2000];
    uint8_t byte, flipped;
    layer l;

    sample_archive(&a);
    l = make_layer(&a, a.len, 512);
    for (uint64_t at = l.result.meta_offset; at < l.result.image_size; at++) {
        lfs_reader *r;

        CHECK(pread(l.fd, &byte, 1, (off_t)at) == 1);
        flipped = (uint8_t)(byte ^ (at % 2 ? 0xff : 0x01));
        CHECK(pwrite(l.fd, &flipped, 1, (off_t)at) == 1);
        if (lfs_reader_open(l.fd, &r, NULL) == 0) {
            for (uint64_t nid = 0; nid < 40; nid++) {
                uint64_t cookie = 0, where, length;
                lfs_stat st;
                lfs_reader_stat(r, nid, &st, NULL);
                lfs_reader_read(r, nid, 0, buf, sizeof buf, NULL);
                lfs_reader_read(r, nid, 66000, buf, sizeof buf, NULL);
                lfs_reader_extent(r, nid, 0, &where, &length, NULL);
                lfs_reader_readlink(r, nid, buf, sizeof buf, NULL);
                lfs_reader_xattrs(r, nid, buf, sizeof buf, NULL);
                while (lfs_reader_readdir(r, nid, &cookie, buf, sizeof buf, NULL) > 0)
                    ;
                lfs_reader_lookup(r, nid, "small", 5, &where, NULL);
            }
            lfs_reader_free(r);
        }
        CHECK(pwrite(l.fd, &byte, 1, (off_t)at) == 1);
    }
    free_layer(&l);
}

int main(void)
{
    test_layer(512);
    test_layer(4096);
    test_every_byte();
    return 0;
}
