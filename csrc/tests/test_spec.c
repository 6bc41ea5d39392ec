/* The launcher's spec, read from right and wrong texts, and names made beneath a root full of links. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "check.h"
#include "supervisor/start.h"

/* A spec lives as long as its process, so that each is read in one of its own. Strings end with their NUL. */
static int read_spec(const char *mode, const char *text, size_t n, void (*look)(const sv_spec *))
{
    int pid = fork(), status;

    if (pid == 0) {
        int fd = memfd_create("spec", MFD_CLOEXEC);
        lfs_error error = {0};
        sv_spec spec;

        CHECK(write(fd, text, n) == (ssize_t)n);
        if (sv_spec_read(fd, mode, &spec, &error) < 0)
            _exit(error.err != 0 && error.msg[0] != '\0' ? 1 : 2);
        if (look != NULL)
            look(&spec);
        _exit(0);
    }
    CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status));
    return WEXITSTATUS(status);
}

#define SPEC(mode, text, look) read_spec(mode, text, sizeof text - 1, look)
#define BASE "argv=true\0root=9\0"

static const char full[] =
    "argv=sh\0argv=-c\0argv=exit\0env=A=b=c\0cwd=/tmp\0uid=1\0gid=2\0group=3\0group=4\0capabilities=a80425fb\0"
    "rlimit=7:10:-1\0share=pid\0share=net\0mount=bind\0source=/a\0target=/b\0option=ro\0option=rec\0mount=tmpfs\0"
    "target=/t\0option=size=1m\0cgroup=11\0cgroup=5\0root=9\0tty=1\0uidmap=0:100:10\0gidmap=0:200:20\0";

static void look_full(const sv_spec *s)
{
    int fds[32];
    lfs_error error;

    CHECK(s->argv.n == 3 && strcmp(s->argv.at[2], "exit") == 0 && s->argv.at[3] == NULL);
    CHECK(s->env.n == 1 && strcmp(s->env.at[0], "A=b=c") == 0 && s->env.at[1] == NULL);
    CHECK(s->uid == 1 && s->gid == 2 && s->ngroups == 2 && s->groups[1] == 4);
    CHECK(s->capabilities == 0xa80425fb && s->tty == 1 && s->root == 9);
    CHECK(s->nrlimits == 1 && s->rlimits[0].soft == 10 && s->rlimits[0].hard == UINT64_MAX);
    CHECK(s->nmounts == 2 && s->mounts[0].options.n == 2 && strcmp(s->mounts[1].options.at[0], "size=1m") == 0);
    CHECK(s->uids.n == 1 && s->uids.at[0].outside == 100 && s->gids.at[0].count == 20);
    CHECK(sv_spec_fds(s, fds, 32, &error) == 6);
    CHECK(fds[0] == 0 && fds[2] == 2 && fds[3] == 5 && fds[4] == 9 && fds[5] == 11);
    CHECK(sv_spec_fds(s, fds, 2, &error) == -E2BIG);
}

static void look_many(const sv_spec *s)
{
    CHECK(s->argv.n == 1000);
    for (size_t i = 0; i < 1000; i++)
        CHECK(strcmp(s->argv.at[i], "x") == 0);
    CHECK(s->argv.at[1000] == NULL);
}

static void test_right(void)
{
    cleanup_buf lfs_buf b = {0};

    CHECK(read_spec("launch", full, sizeof full - 1, look_full) == 0);
    CHECK(SPEC("launch", BASE, NULL) == 0);
    CHECK(SPEC("join", "argv=true\0pidfd=4\0", NULL) == 0);
    CHECK(SPEC("supervise", BASE "state=3\0socket=4\0name=n\0", NULL) == 0);
    CHECK(lfs_buf_append(&b, "root=9", 7) == 0);
    for (int i = 0; i < 1000; i++)
        CHECK(lfs_buf_append(&b, "argv=x", 7) == 0);
    CHECK(read_spec("launch", b.data, b.len, look_many) == 0);
}

static void test_wrong(void)
{
    CHECK(SPEC("launch", "", NULL) == 1);
    CHECK(SPEC("launch", "nothing\0", NULL) == 1);
    CHECK(SPEC("launch", BASE "unknown=1\0", NULL) == 1);
    CHECK(SPEC("launch", BASE "uid=-1\0", NULL) == 1);
    CHECK(SPEC("launch", BASE "uid=4294967295\0", NULL) == 1); /* -1 to the kernel: no change */
    CHECK(SPEC("launch", BASE "uid=4294967296\0", NULL) == 1); /* 0 when it is cut */
    CHECK(SPEC("launch", BASE "uid=1x\0", NULL) == 1);
    CHECK(SPEC("launch", BASE "uid=\0", NULL) == 1);
    CHECK(SPEC("launch", BASE "tty=0\0", NULL) == 1);
    CHECK(SPEC("launch", BASE "cwd=tmp\0", NULL) == 1);
    CHECK(SPEC("launch", BASE "target=/x\0", NULL) == 1);
    CHECK(SPEC("launch", BASE "mount=ext4\0target=/x\0", NULL) == 1);
    CHECK(SPEC("launch", BASE "mount=tmpfs\0", NULL) == 1);
    CHECK(SPEC("launch", BASE "mount=tmpfs\0target=/x\0source=/y\0", NULL) == 1);
    CHECK(SPEC("launch", BASE "mount=bind\0target=/x\0", NULL) == 1);
    CHECK(SPEC("launch", BASE "share=everything\0", NULL) == 1);
    CHECK(SPEC("launch", BASE "enter=cgroup:3\0", NULL) == 1);
    CHECK(SPEC("launch", BASE "uidmap=0:0:1\0", NULL) == 1);
    CHECK(SPEC("launch", BASE "uidmap=0:0:0\0gidmap=0:0:1\0", NULL) == 1);
    CHECK(SPEC("launch", BASE "rlimit=1:2\0", NULL) == 1);
    CHECK(SPEC("launch", BASE "upper=/u\0", NULL) == 1);
    CHECK(SPEC("launch", "argv=true\0", NULL) == 1);
    CHECK(SPEC("launch", BASE "lower=/l\0", NULL) == 1);
    CHECK(SPEC("join", BASE, NULL) == 1);
    CHECK(SPEC("supervise", BASE "state=3\0socket=4\0name=a/b\0", NULL) == 1);
}

/* Whatever is changed in it: read or refused, never more. */
static void test_damaged(void)
{
    char text[sizeof full];

    srand(1);
    for (int i = 0; i < 300; i++) {
        memcpy(text, full, sizeof full);
        for (int k = 0; k < 3; k++)
            text[(size_t)rand() % (sizeof full - 1)] = (char)rand();
        CHECK(read_spec("launch", text, (size_t)rand() % sizeof full, NULL) <= 1);
    }
}

static int same(int a, int dir, const char *name)
{
    struct stat one, two;

    CHECK(fstat(a, &one) == 0 && fstatat(dir, name, &two, AT_SYMLINK_NOFOLLOW) == 0);
    close(a);
    return one.st_dev == two.st_dev && one.st_ino == two.st_ino;
}

static void test_paths(void)
{
    char place[] = "/tmp/layerfs-test-XXXXXX", command[128];
    cleanup_close int top = -1, root = -1;
    lfs_error error;

    CHECK(mkdtemp(place) != NULL);
    top = open(place, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CHECK(mkdirat(top, "root", 0755) == 0 && mkdirat(top, "outside", 0755) == 0);
    root = openat(top, "root", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CHECK(mkdirat(root, "a", 0755) == 0 && symlinkat("/a", root, "abs") == 0 && symlinkat("../../..", root, "up") == 0);
    CHECK(symlinkat("../outside", root, "out") == 0 && symlinkat("/missing", root, "gone") == 0);
    CHECK(symlinkat("loop", root, "loop") == 0);

    CHECK(same(sv_path_make(root, "/", 1, &error), root, "."));
    CHECK(same(sv_path_make(root, "", 1, &error), root, "."));
    CHECK(same(sv_path_make(root, "/../../..", 1, &error), root, "."));
    CHECK(same(sv_path_make(root, "/up/up/../a/.", 1, &error), root, "a"));
    CHECK(same(sv_path_make(root, "//abs//b///c/", 1, &error), root, "a/b/c"));
    CHECK(same(sv_path_make(root, "/abs/f", 0, &error), root, "a/f"));
    CHECK(same(sv_path_make(root, "new/file", 0, &error), root, "new/file"));
    CHECK(sv_path_make(root, "/out/x", 1, &error) < 0); /* beneath the root there is no such directory */
    CHECK(sv_path_make(root, "/gone", 1, &error) < 0 && sv_path_make(root, "/gone/x", 0, &error) < 0);
    CHECK(sv_path_make(root, "/loop/x", 1, &error) == -ELOOP);
    CHECK(sv_path_make(root, "/a/f/x", 1, &error) == -ENOTDIR);
    CHECK(faccessat(top, "outside/x", F_OK, 0) < 0 && faccessat(root, "missing", F_OK, 0) < 0);
    snprintf(command, sizeof command, "rm -rf %s", place);
    CHECK(system(command) == 0);
}

int main(void)
{
    test_right();
    test_wrong();
    test_damaged();
    test_paths();
    return 0;
}
