#define _GNU_SOURCE
#include "layer.h"

static int repack(int fd, const lfs_buf *rest, size_t step, size_t cap, lfs_buf *out)
{
    char buf[5000];
    lfs_repack *r;
    int64_t n = 0;
    int e;

    CHECK(lfs_repack_open(fd, 0, &r, NULL) == 0);
    for (size_t at = 0; at < rest->len && n >= 0; at += step) {
        size_t k = step < rest->len - at ? step : rest->len - at;
        CHECK(lfs_repack_feed(r, rest->data + at, k, NULL) == 0);
        for (int i = 0; i < 1000 && (n = lfs_repack_read(r, buf, cap, NULL)) > 0; i++)
            CHECK(lfs_buf_append(out, buf, (size_t)n) == 0);
    }
    e = n < 0 ? (int)n : lfs_repack_finish(r, NULL);
    lfs_repack_free(r);
    return e;
}

static void test_round_trip(void)
{
    cleanup_buf lfs_buf a = {0};
    layer l;

    sample_archive(&a);
    l = make_layer(&a, 777, 512);
    for (size_t step = 1; step < 10000; step = step * 5 + 2) {
        for (size_t cap = 3; cap <= 5000; cap = cap * 9) {
            cleanup_buf lfs_buf out = {0};
            if (cap < 100 && step < 100)
                continue; /* slow, and nothing new */
            CHECK(repack(l.fd, &l.rest, step, cap > 600 ? cap : 600, &out) == 0);
            CHECK(out.len == a.len && memcmp(out.data, a.data, a.len) == 0);
        }
    }
    free_layer(&l);
}

static void test_every_cut_and_byte(void)
{
    cleanup_buf lfs_buf a = {0};
    layer l;

    sample_archive(&a);
    l = make_layer(&a, a.len, 512);
    for (size_t i = 0; i < l.rest.len; i += 3) {
        cleanup_buf lfs_buf out = {0};
        lfs_buf cut = {l.rest.data, i, i};
        int r = repack(l.fd, &cut, i + 1, 5000, &out);
        CHECK(r == -EBADMSG || (r == 0 && out.len < a.len));

        l.rest.data[i] = (char)(l.rest.data[i] ^ 0x5a);
        out.len = 0;
        r = repack(l.fd, &l.rest, l.rest.len, 5000, &out);
        CHECK(r == 0 || r == -EBADMSG);
        l.rest.data[i] = (char)(l.rest.data[i] ^ 0x5a);
    }
    free_layer(&l);
}

static void test_positions(void)
{
    /* Content before the start, behind the end, and so large that sums overflow. */
    static const struct {
        uint64_t n;
        int64_t move;
    } cases[] = {{1, -1}, {1, 100}, {101, 0}, {1, INT64_MAX}, {1, INT64_MIN}, {UINT64_MAX >> 2, 0}, {50, 51}};
    int fd = memfd_create("layer", MFD_CLOEXEC);
    char bytes[100] = {0};

    CHECK(write(fd, bytes, sizeof bytes) == (ssize_t)sizeof bytes);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        cleanup_buf lfs_buf rest = {0};
        cleanup_buf lfs_buf out = {0};
        uint8_t head[20];
        size_t n = lfs_varint_put(head, cases[i].n << 2 | 1);
        n += lfs_varint_put(head + n, lfs_zigzag(cases[i].move));
        CHECK(lfs_buf_append(&rest, head, n) == 0);
        CHECK(repack(fd, &rest, 100, 5000, &out) == -EBADMSG && out.len == 0);
    }
    close(fd);
}

int main(void)
{
    test_round_trip();
    test_every_cut_and_byte();
    test_positions();
    return 0;
}
