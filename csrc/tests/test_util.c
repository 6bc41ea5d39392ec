#define _GNU_SOURCE
#include <fcntl.h>
#include <inttypes.h>
#include <sys/stat.h>

#include "acl.h"
#include "check.h"

static void test_varints(void)
{
    static const uint64_t values[] = {0, 1, 127, 128, 16383, 16384, UINT32_MAX, INT64_MAX, UINT64_MAX};
    uint8_t bytes[10];
    uint64_t v;

    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        size_t n = lfs_varint_put(bytes, values[i]);
        CHECK(n <= 10 && lfs_varint_get(bytes, n, &v) == n && v == values[i]);
        CHECK(lfs_varint_get(bytes, n - 1, &v) == 0);
    }
    memset(bytes, 0xff, sizeof bytes);
    CHECK(lfs_varint_get(bytes, 10, &v) == 0); /* 2^70 */
    CHECK(lfs_varint_get(bytes, 0, &v) == 0);
}

static void test_zigzag(void)
{
    static const int64_t values[] = {0, 1, -1, 2, -2, INT64_MAX, INT64_MIN};

    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++)
        CHECK(lfs_unzigzag(lfs_zigzag(values[i])) == values[i]);
    CHECK(lfs_zigzag(-1) == 1 && lfs_zigzag(1) == 2);
}

static void test_buffers(void)
{
    cleanup_buf lfs_buf b = {0};

    CHECK(lfs_buf_append(&b, NULL, 0) == 0 && b.len == 0);
    for (int i = 0; i < 1000; i++)
        CHECK(lfs_buf_append(&b, "abcdefg", 7) == 0);
    CHECK(b.len == 7000 && memcmp(b.data + 6993, "abcdefg", 7) == 0);
    CHECK(lfs_buf_reserve(&b, SIZE_MAX / 2) == -ENOMEM && b.len == 7000);
}

static void test_errors(void)
{
    lfs_error error;
    char longer[600];

    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    CHECK(lfs_fail(&error, ENOENT, "open %s", "a") == -ENOENT);
    CHECK(error.err == ENOENT && strcmp(error.msg, "open a") == 0);
    CHECK(lfs_prefix(&error, -ENOENT, "unpack %s", "b") == -ENOENT);
    CHECK(strcmp(error.msg, "unpack b: open a") == 0);
    CHECK(lfs_fail(&error, EIO, "%s", longer) == -EIO && strlen(error.msg) == sizeof error.msg - 1);
    CHECK(lfs_prefix(&error, -EIO, "%s", longer) == -EIO && strlen(error.msg) == sizeof error.msg - 1);
    CHECK(lfs_fail(NULL, EIO, "nobody listens") == -EIO && lfs_prefix(NULL, -EIO, "nor here") == -EIO);
}

static void test_ownership(void)
{
    int raw;
    {
        cleanup_close int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        cleanup_free char *p = malloc(10);
        char *taken = lfs_steal_ptr(&p);
        raw = fd;
        CHECK(p == NULL && taken != NULL);
        free(taken);
        errno = 77;
    }
    CHECK(errno == 77 && fcntl(raw, F_GETFD) < 0);
}

static void test_beneath(void)
{
    char name[] = "/tmp/layerfs-test-XXXXXX";
    cleanup_close int dir = -1;
    int fd;

    CHECK(mkdtemp(name) != NULL);
    dir = open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CHECK(mkdirat(dir, "d", 0700) == 0 && symlinkat("d", dir, "l") == 0 && symlinkat("/etc", dir, "e") == 0);
    fd = lfs_open_beneath(dir, "d", O_PATH | O_DIRECTORY, 0);
    CHECK(fd >= 0 && close(fd) == 0);
    CHECK(lfs_open_beneath(dir, "l", O_RDONLY, 0) == -ELOOP);
    CHECK(lfs_open_beneath(dir, "e/passwd", O_RDONLY, 0) == -ELOOP);
    CHECK(lfs_open_beneath(dir, "..", O_RDONLY, 0) == -EXDEV);
    CHECK(lfs_open_beneath(dir, "/etc", O_RDONLY, 0) == -EXDEV);
    CHECK(lfs_open_beneath(dir, "no", O_RDONLY, 0) == -ENOENT);
    CHECK(unlinkat(dir, "d", AT_REMOVEDIR) == 0 && unlinkat(dir, "l", 0) == 0 && unlinkat(dir, "e", 0) == 0);
    CHECK(rmdir(name) == 0);
}

static void test_acls(void)
{
    static const char *const good[] = {
        "user::rw-,group::r--,other::---", "u::rwx\ng::r-x\no::r-x\n",
        "user::rw-,user:1000:rw-,group::r--,mask::rw-,other::---", "user::rw-,user:joe:r--:5,group::r--,mask::r--,other::---",
    };
    static const uint32_t mode[] = {0640, 0755, 0660, 0640};
    static const char *const wrong[] = {"", ",", "user", "user:joe:rw-", "nobody::rwx", "user:99999999999:r--", ":::"};
    uint32_t permissions;

    for (size_t i = 0; i < 4; i++) {
        cleanup_buf lfs_buf value = {0};
        CHECK(lfs_acl_parse(good[i], strlen(good[i]), &value) == 0);
        CHECK(lfs_acl_check(value.data, value.len, &permissions) == (i >= 2) && permissions == mode[i]);
        for (size_t n = 0; n < value.len; n++) /* cut short it is never the same */
            CHECK(lfs_acl_check(value.data, n, &permissions) == -EBADMSG);
    }
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        cleanup_buf lfs_buf value = {0};
        CHECK(lfs_acl_parse(wrong[i], strlen(wrong[i]), &value) == -EBADMSG);
    }
    {
        /* Each needs its base entries, and a mask where somebody is named. */
        static const char half[] = "user::rw-,user:5:r--,group::r--,other::---";
        cleanup_buf lfs_buf value = {0};
        CHECK(lfs_acl_parse(half, strlen(half), &value) == 0);
        CHECK(lfs_acl_check(value.data, value.len, &permissions) == -EBADMSG);
    }
}

int main(void)
{
    test_varints();
    test_zigzag();
    test_buffers();
    test_errors();
    test_ownership();
    test_beneath();
    test_acls();
    return 0;
}
