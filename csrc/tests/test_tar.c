#include "check.h"
#include "tar.h"

/* The events of an archive as text: E<type><path>, D<bytes of content>, and all spans put together again. */
static int parse(const lfs_buf *archive, size_t step, lfs_buf *events, lfs_error *error)
{
    lfs_tar *t = lfs_tar_new();
    cleanup_buf lfs_buf seen = {0};
    size_t data = 0;
    int r = 0;

    CHECK(t != NULL);
    for (size_t at = 0; at < archive->len && r >= 0; at += step) {
        const uint8_t *p = (const uint8_t *)archive->data + at;
        size_t n = step < archive->len - at ? step : archive->len - at;

        for (;;) {
            const uint8_t *span = NULL;
            size_t len = 0;
            char text[400];

            r = lfs_tar_next(t, &p, &n, &span, &len, error);
            if (r < 0 || r == LFS_TAR_MORE)
                break;
            if (r == LFS_TAR_RAW || r == LFS_TAR_DATA)
                CHECK(lfs_buf_append(&seen, span, len) == 0);
            data += r == LFS_TAR_DATA ? len : 0;
            text[0] = '\0';
            if (r == LFS_TAR_ENTRY) {
                const lfs_tar_entry *e = lfs_tar_current(t);
                snprintf(text, sizeof text, "E%c%.*s ", e->type, (int)e->path.len, e->path.data);
            }
            if (r == LFS_TAR_DATA_END) {
                snprintf(text, sizeof text, "D%zu ", data);
                data = 0;
            }
            CHECK(lfs_buf_append(events, text, strlen(text)) == 0);
        }
    }
    if (r >= 0) {
        CHECK(seen.len == archive->len && (seen.len == 0 || memcmp(seen.data, archive->data, seen.len) == 0));
        r = lfs_tar_finish(t, error);
    }
    lfs_tar_free(t);
    return r;
}

static void expect(const lfs_buf *archive, const char *events)
{
    for (size_t step = 1; step < 3000; step = step * 3 + 1) {
        cleanup_buf lfs_buf got = {0};
        CHECK(parse(archive, step, &got, NULL) == 0);
        CHECK(lfs_buf_append(&got, "", 1) == 0);
        CHECK(strcmp(got.data, events) == 0);
    }
}

static void test_events(void)
{
    cleanup_buf lfs_buf a = {0};

    add_member(&a, '5', "d/", "", 0, NULL);
    add_member(&a, '0', "d/f", "hello", 5, NULL);
    add_member(&a, 'L', "././@LongLink", "long/name", 10, NULL);
    add_member(&a, '0', "short", "x", 1, NULL);
    add_member(&a, 'x', "pax", "12 path=pax\n", 12, NULL);
    add_member(&a, '2', "short", "", 0, "target");
    add_member(&a, 'V', "label", "", 0, NULL);
    add_member(&a, '7', "contiguous", "abc", 3, NULL);
    add_end(&a);
    CHECK(lfs_buf_append(&a, "garbage", 7) == 0);
    expect(&a, "E5d/ D0 E0d/f D5 E0long/name D1 E2pax D0 EV D0 E0contiguous D3 ");
}

static void test_no_end(void)
{
    cleanup_buf lfs_buf a = {0};

    add_member(&a, '0', "f", "hello", 5, NULL);
    expect(&a, "E0f D5 ");
}

static void test_every_cut(void)
{
    cleanup_buf lfs_buf a = {0};

    add_member(&a, 'x', "pax", "12 path=pax\n", 12, NULL);
    add_member(&a, '0', "f", "hello", 5, NULL);
    for (size_t n = 0; n < a.len; n++) {
        cleanup_buf lfs_buf got = {0};
        lfs_buf cut = {a.data, n, n};
        int r = parse(&cut, 700, &got, NULL);
        /* Sound are: nothing; an extended header for nobody; all of the content. */
        CHECK((r == 0) == (n == 0 || (n >= 524 && n <= 1024) || n >= 1541));
        CHECK(r == 0 || r == -EBADMSG);
    }
}

static void test_every_byte_damaged(void)
{
    cleanup_buf lfs_buf a = {0};
    int refused = 0;

    add_member(&a, 'x', "pax", "12 path=pax\n", 12, NULL);
    add_member(&a, '0', "f", "hello", 5, NULL);
    for (size_t i = 0; i < a.len; i++) {
        cleanup_buf lfs_buf got = {0};
        lfs_error error = {0};
        a.data[i] = (char)(a.data[i] ^ 0x55);
        refused += parse(&a, 100, &got, &error) < 0;
        CHECK(error.err == 0 || error.msg[0] != '\0');
        a.data[i] = (char)(a.data[i] ^ 0x55);
    }
    CHECK(refused >= 1024); /* every byte of a header */
}

int main(void)
{
    test_events();
    test_no_end();
    test_every_cut();
    test_every_byte_damaged();
    return 0;
}
