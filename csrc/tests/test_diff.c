/* test_diff.c - lfs_diff_* under sanitizers: both uses, any buffer, two trees, lowers, and what is refused. */
#define _GNU_SOURCE
#include "util.h"

#undef NDEBUG
#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

static const lfs_diff_options plain = {.sparse_min = 4096, .clamp_mtime = INT64_MAX};
static const lfs_diff_options tree = {.flags = LFS_DIFF_TREE, .sparse_min = 1, .clamp_mtime = 1000};
static const lfs_diff_options user = {.flags = LFS_DIFF_USERXATTR, .clamp_mtime = INT64_MAX};

static void put(int dir, const char *name, const char *data)
{
    cleanup_close int fd = openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC, 0644);

    assert(fd >= 0 && write(fd, data, strlen(data)) == (ssize_t)strlen(data));
}

static int make(int dir, const char *name)
{
    int fd;

    assert(mkdirat(dir, name, 0755) == 0);
    fd = openat(dir, name, O_RDONLY | O_DIRECTORY);
    assert(fd >= 0);
    return fd;
}

static lfs_diff *open_one(int fd, const lfs_diff_options *options)
{
    lfs_error error;
    lfs_diff *d = NULL;

    assert(lfs_diff_open(fd, options, &d, &error) == 0);
    return d;
}

static lfs_diff *open_two(int from, int to)
{
    lfs_error error;
    lfs_diff *d = NULL;

    assert(lfs_diff_open_trees(from, to, &plain, &d, &error) == 0);
    return d;
}

/* The whole archive, asked for in pieces of cap; the handle is freed. */
static lfs_buf archive(lfs_diff *d, size_t cap)
{
    lfs_buf out = {0};
    lfs_error error;
    int64_t n;

    do {
        assert(lfs_buf_reserve(&out, cap) == 0);
        n = lfs_diff_read(d, out.data + out.len, cap, &error);
        assert(n >= 0);
        out.len += (size_t)n;
    } while (n > 0);
    assert(lfs_diff_read(d, out.data, 1, &error) == 0);
    lfs_diff_free(d);
    return out;
}

static void same_in_pieces(int fd, const lfs_diff_options *options)
{
    static const size_t caps[] = {1, 13, 511, 512, 4096, 1 << 20};
    cleanup_buf lfs_buf want = archive(open_one(fd, options), 1 << 16);

    for (size_t i = 0; i < sizeof caps / sizeof caps[0]; i++) {
        cleanup_buf lfs_buf got = archive(open_one(fd, options), caps[i]);
        assert(got.len == want.len && memcmp(got.data, want.data, got.len) == 0);
    }
}

/* The list as "A path C path ", freed with the handle. */
static char *list(lfs_diff *d)
{
    static char text[4096];
    char buf[8192];
    lfs_error error;
    int64_t n;
    size_t len = 0;

    text[0] = '\0';
    while ((n = lfs_diff_changes(d, buf, sizeof buf, &error)) != 0) {
        assert(n > 0);
        for (const char *p = buf; p < buf + n; p += 4 + lfs_get16(p + 2))
            len += (size_t)snprintf(text + len, sizeof text - len, "%c %.*s ", p[0], lfs_get16(p + 2), p + 4);
    }
    lfs_diff_free(d);
    return text;
}

static void test_upper(int top)
{
    cleanup_close int upper = make(top, "upper");
    cleanup_close int dir = make(upper, "dir");
    cleanup_close int lower = make(top, "lower");
    cleanup_close int below = make(lower, "dir");
    cleanup_close int hole = openat(dir, "hole", O_WRONLY | O_CREAT, 0644);
    lfs_error error;
    lfs_diff *d;

    put(dir, "file", "content");
    assert(linkat(dir, "file", upper, "link", 0) == 0);
    assert(symlinkat("target", upper, "symlink") == 0);
    assert(mkfifoat(upper, "fifo", 0600) == 0);
    assert(mknodat(upper, "socket", S_IFSOCK | 0600, 0) == 0);
    assert(mknodat(upper, "gone", S_IFCHR, makedev(0, 0)) == 0);
    assert(ftruncate(hole, 1 << 20) == 0 && pwrite(hole, "x", 1, 70000) == 1);
    fsetxattr(dir, "user.overlay.opaque", "y", 1, 0); /* some file systems have no attributes */
    fsetxattr(dir, "user.overlay.overlay.nested", "1", 1, 0);
    fsetxattr(dir, "user.plain", "2", 1, 0);
    same_in_pieces(upper, &plain);
    same_in_pieces(upper, &user);

    put(lower, "gone", "");
    put(below, "file", "");
    d = open_one(upper, &plain);
    assert(lfs_diff_add_lower_dir(d, lower, &error) == 0);
    assert(strcmp(list(d), "C dir C dir/file A dir/hole A fifo D gone A link A socket A symlink ") == 0);
    assert(strcmp(list(open_one(lower, &tree)), "A dir A dir/file A gone ") == 0);
    same_in_pieces(lower, &tree);
}

/* Whiteouts by attribute, in directories marked for them; and a file whose content is elsewhere. */
static void test_marks(int top)
{
    cleanup_close int upper = make(top, "marks");
    cleanup_close int dir = make(upper, "dir");
    cleanup_close int other = make(upper, "other");
    lfs_diff *d;
    char buf[8192];
    lfs_error error;
    int64_t n;

    put(dir, "gone", "");
    put(dir, "kept", "x");
    put(dir, "named", "");
    put(other, "gone", "");
    put(other, "meta", "x");
    assert(symlinkat("dir", upper, "link") == 0);
    if (fremovexattr(dir, "user.x") < 0 && errno == ENOTSUP)
        return; /* a file system without attributes */
    assert(fsetxattr(dir, "user.overlay.opaque", "x", 1, 0) == 0);
    assert(fchdir(dir) == 0 && setxattr("gone", "user.overlay.whiteout", "y", 1, 0) == 0);
    assert(setxattr("kept", "user.overlay.whiteout", "y", 1, 0) == 0);
    assert(setxattr("named", "user.overlay.origin", "y", 1, 0) == 0);
    assert(fchdir(other) == 0 && setxattr("gone", "user.overlay.whiteout", "y", 1, 0) == 0);
    assert(setxattr("meta", "user.overlay.metacopy", "", 0, 0) == 0 && chdir("/") == 0);
    assert(strcmp(list(open_one(upper, &user)),
                  "A dir D dir/gone A dir/kept A dir/named A link A other A other/gone A other/meta ") == 0);
    d = open_one(upper, &user);
    do
        n = lfs_diff_read(d, buf, sizeof buf, &error);
    while (n > 0);
    assert(n == -EOPNOTSUPP);
    assert(strstr(error.msg, "meta") != NULL);
    lfs_diff_free(d);
}

static void test_trees(int top)
{
    cleanup_close int from = make(top, "from");
    cleanup_close int to = make(top, "to");
    cleanup_close int a = make(from, "d");
    cleanup_close int b = make(to, "d");
    struct timespec times[2] = {{.tv_sec = 1}, {.tv_sec = 1}};

    put(a, "same", "1");
    put(b, "same", "1");
    put(a, "other", "1");
    put(b, "other", "2");
    put(from, "gone", "");
    put(b, "new", "");
    for (int i = 0; i < 2; i++) {
        assert(utimensat(i ? b : a, "same", times, 0) == 0 && utimensat(i ? b : a, "other", times, 0) == 0);
        assert(futimens(i ? b : a, times) == 0 && futimens(i ? to : from, times) == 0);
    }
    assert(strcmp(list(open_two(from, to)), "C d A d/new C d/other D gone ") == 0);
    for (size_t cap = 1; cap < 2000; cap += 700) {
        cleanup_buf lfs_buf some = archive(open_two(from, to), cap);
        cleanup_buf lfs_buf none = archive(open_two(to, to), cap);
        assert(memmem(some.data, some.len, ".wh.gone", 8) != NULL);
        assert(memmem(some.data, some.len, "d/same", 6) == NULL);
        assert(none.len == 1024);
    }
}

static void test_refused(int top)
{
    cleanup_close int dir = make(top, "refused");
    lfs_diff_options unknown = {.flags = 1u << 31};
    lfs_error error;
    lfs_diff *d = NULL;
    char buf[8192];

    assert(lfs_diff_open(dir, &unknown, &d, &error) == -EINVAL);
    assert(lfs_diff_open(-1, &plain, &d, &error) == -EBADF);
    assert(lfs_diff_open_trees(-1, dir, &plain, &d, &error) == -EBADF);
    d = open_one(dir, &plain);
    assert(lfs_diff_read(d, buf, 0, &error) == -EINVAL);
    lfs_diff_free(d);
    d = open_one(dir, &plain);
    assert(lfs_diff_changes(d, buf, sizeof buf, &error) == 0);
    assert(lfs_diff_read(d, buf, sizeof buf, &error) == -EINVAL);
    lfs_diff_free(d);
    d = open_one(dir, &tree);
    assert(lfs_diff_add_lower_dir(d, dir, &error) == -EINVAL);
    lfs_diff_free(d);
    put(dir, ".wh.x", "");
    d = open_one(dir, &plain);
    assert(lfs_diff_read(d, buf, sizeof buf, &error) == -EINVAL && error.err == EINVAL);
    assert(strstr(error.msg, ".wh.x") != NULL);
    lfs_diff_free(d);
    lfs_diff_free(NULL);
}

/* A handle let go in the middle leaves no descriptor and no memory behind. */
static void test_abandoned(int top)
{
    int before = dup(top);
    int after;
    char buf[700];
    lfs_error error;
    lfs_diff *d = open_one(top, &plain);

    close(before);
    for (int i = 0; i < 9; i++)
        assert(lfs_diff_read(d, buf, sizeof buf, &error) > 0);
    lfs_diff_free(d);
    after = dup(top);
    close(after);
    assert(before == after);
}

int main(void)
{
    char path[] = "/tmp/layerfs-test-diff-XXXXXX";
    char command[64];
    cleanup_close int top = mkdtemp(path) == NULL ? -1 : open(path, O_RDONLY | O_DIRECTORY);

    assert(top >= 0);
    test_upper(top);
    test_marks(top);
    test_trees(top);
    test_abandoned(top);
    test_refused(top);
    snprintf(command, sizeof command, "rm -rf %s", path);
    return system(command) == 0 ? 0 : 1;
}
