/* diff_names.c - the names of a directory, read whole and sorted; see diff.h. */
#define _GNU_SOURCE
#include "diff.h"
#include "syscalls.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

static uint64_t name_key(const char *name, size_t n)
{
    uint64_t key = 0;

    memcpy(&key, name, n < sizeof key ? n : sizeof key);
    return be64toh(key);
}

int lfs_walk_compare(const lfs_walk *w, const lfs_walk_item *a, const lfs_walk_item *b)
{
    size_t n = a->len < b->len ? a->len : b->len;
    int r;

    if (a->key != b->key)
        return a->key < b->key ? -1 : 1;
    r = memcmp(w->names.data + a->name, w->names.data + b->name, n);
    return r != 0 ? r : (a->len > b->len) - (a->len < b->len);
}

static int compare_items(const void *a, const void *b, void *w)
{
    return lfs_walk_compare(w, a, b);
}

void lfs_walk_sort(const lfs_walk *w, lfs_walk_item *items, size_t n)
{
    /* The walk is not written to; qsort_r has no const. */
    if (n > 1)
        qsort_r(items, n, sizeof *items, compare_items, (void *)(uintptr_t)w);
}

int lfs_walk_add(lfs_walk *w, const char *name, size_t n, uint8_t type, uint8_t flags)
{
    lfs_walk_item item = {
        .key = name_key(name, n), .name = w->names.len, .len = (uint8_t)n, .type = type, .flags = flags,
    };

    if (flags & LFS_ITEM_FROM)
        item.from_type = type;
    if (lfs_buf_append(&w->names, name, n) < 0 || lfs_buf_append(&w->names, "", 1) < 0 ||
        lfs_buf_append(&w->items, &item, sizeof item) < 0)
        return -ENOMEM;
    return 0;
}

static int add_entry(lfs_walk *w, int fd, const char *name, uint8_t type, bool whiteouts, uint8_t flags,
                     lfs_error *error)
{
    struct stat st;

    if (type == DT_UNKNOWN || (type == DT_CHR && whiteouts)) {
        if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
            return errno == ENOENT ? 0 : lfs_walk_fail(w, errno, "read directory", error);
        type = (uint8_t)IFTODT(st.st_mode);
        if (whiteouts && S_ISCHR(st.st_mode) && st.st_rdev == 0)
            flags |= LFS_ITEM_WHITEOUT;
    }
    return lfs_walk_add(w, name, strlen(name), type, flags) < 0 ? lfs_fail(error, ENOMEM, "diff") : 0;
}

int lfs_walk_load(lfs_walk *w, int fd, bool whiteouts, uint8_t flags, lfs_error *error)
{
    for (;;) {
        long n = syscall(SYS_getdents64, fd, w->dents, (size_t)LFS_WALK_DENTS);

        if (n < 0)
            return errno == ENOENT ? 0 : lfs_walk_fail(w, errno, "read directory", error);
        if (n == 0)
            return 0;
        for (long i = 0; i < n;) {
            const char *name = w->dents + i + LFS_DIRENT_NAME;
            lfs_dirent_head head;
            int r;

            memcpy(&head, w->dents + i, LFS_DIRENT_NAME);
            i += head.length;
            if (name[0] == '.' && (name[1] == '\0' || (name[1] == '.' && name[2] == '\0')))
                continue;
            r = add_entry(w, fd, name, head.type, whiteouts, flags, error);
            if (r < 0)
                return r;
        }
    }
}

/* Of two trees: both lists of names, sorted into one, become one name each. */
size_t lfs_walk_join(const lfs_walk *w, lfs_walk_item *items, size_t n)
{
    size_t k = 0;

    for (size_t i = 0; i < n; i++) {
        if (k > 0 && lfs_walk_compare(w, &items[k - 1], &items[i]) == 0) {
            lfs_walk_item *have = &items[k - 1];
            const lfs_walk_item *from = items[i].flags & LFS_ITEM_FROM ? &items[i] : have;
            uint8_t from_type = from->from_type;
            if (!(items[i].flags & LFS_ITEM_FROM))
                *have = items[i];
            have->from_type = from_type;
            have->flags = LFS_ITEM_TO | LFS_ITEM_FROM;
            continue;
        }
        items[k++] = items[i];
    }
    for (size_t i = 0; i < k; i++)
        if (items[i].flags == LFS_ITEM_FROM)
            items[i].flags |= LFS_ITEM_WHITEOUT;
    return k;
}
