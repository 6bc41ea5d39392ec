#include "check.h"
#include "tree.h"

static uint32_t add(lfs_tree *t, uint32_t parent, const char *name, uint32_t mode)
{
    uint32_t node = lfs_tree_new_node(t, mode);
    uint32_t entry = lfs_tree_add(t, parent, name, strlen(name), node);

    CHECK(node != 0 && entry != 0);
    return entry;
}

static uint32_t node_of(const lfs_tree *t, uint32_t entry)
{
    return lfs_tree_entry(t, entry)->node;
}

static void test_links(void)
{
    lfs_tree t;
    uint32_t d, s, f, g;

    CHECK(lfs_tree_init(&t) == 0);
    d = add(&t, LFS_TREE_ROOT, "d", S_IFDIR);
    s = add(&t, node_of(&t, d), "s", S_IFDIR);
    f = add(&t, node_of(&t, s), "f", S_IFREG);
    g = lfs_tree_add(&t, LFS_TREE_ROOT, "g", 1, node_of(&t, f));
    CHECK(lfs_tree_node(&t, LFS_TREE_ROOT)->nlink == 3 && lfs_tree_node(&t, node_of(&t, d))->nlink == 3);
    CHECK(lfs_tree_node(&t, node_of(&t, f))->nlink == 2);
    CHECK(lfs_tree_parent(&t, node_of(&t, s)) == node_of(&t, d));
    CHECK(lfs_tree_find(&t, node_of(&t, d), "s", 1) == s && lfs_tree_find(&t, LFS_TREE_ROOT, "s", 1) == 0);

    uint32_t dir = node_of(&t, d), sub = node_of(&t, s);
    CHECK(lfs_tree_remove(&t, d) == 0);
    CHECK(lfs_tree_node(&t, dir)->nlink == 0 && lfs_tree_node(&t, sub)->nlink == 0);
    CHECK(lfs_tree_node(&t, LFS_TREE_ROOT)->nlink == 2 && t.live == 1);
    CHECK(lfs_tree_node(&t, node_of(&t, g))->nlink == 1);
    CHECK(lfs_tree_find(&t, LFS_TREE_ROOT, "d", 1) == 0);
    lfs_tree_free(&t);
}

static void test_many_names(void)
{
    enum { MANY = 20000 };
    lfs_tree t;
    char name[32];

    CHECK(lfs_tree_init(&t) == 0);
    for (int i = 0; i < MANY; i++) {
        snprintf(name, sizeof name, "name-%d", i);
        add(&t, LFS_TREE_ROOT, name, S_IFREG);
    }
    for (int i = 0; i < MANY; i += 2) {
        snprintf(name, sizeof name, "name-%d", i);
        CHECK(lfs_tree_remove(&t, lfs_tree_find(&t, LFS_TREE_ROOT, name, strlen(name))) == 0);
    }
    for (int i = 0; i < MANY; i++) {
        snprintf(name, sizeof name, "name-%d", i);
        CHECK((lfs_tree_find(&t, LFS_TREE_ROOT, name, strlen(name)) != 0) == (i % 2));
    }
    CHECK(t.live == MANY / 2 && lfs_tree_node(&t, LFS_TREE_ROOT)->nchildren == MANY / 2);
    lfs_tree_free(&t);
}

static void test_paths(void)
{
    cleanup_buf lfs_buf path = {0};
    uint32_t dir = LFS_TREE_ROOT, entry = 0;
    lfs_tree t;

    CHECK(lfs_tree_init(&t) == 0);
    for (int i = 0; i < 3; i++) {
        entry = add(&t, dir, "abc", S_IFDIR);
        dir = node_of(&t, entry);
    }
    CHECK(lfs_tree_path(&t, entry, &path) == 0 && strcmp(path.data, "abc/abc/abc") == 0 && path.len == 11);
    CHECK(lfs_tree_path(&t, 0, &path) == 0 && path.len == 0 && path.data[0] == '\0');
    CHECK(lfs_tree_node(&t, dir)->depth == 3);
    lfs_tree_free(&t);
}

static void test_sets(void)
{
    uint32_t ids[3000];
    uint32_t again, refs;
    size_t n;
    lfs_tree t;

    CHECK(lfs_tree_init(&t) == 0);
    CHECK(lfs_tree_intern(&t, NULL, 0, &again) == 0 && again == 0);
    for (uint32_t i = 0; i < 3000; i++)
        CHECK(lfs_tree_intern(&t, (const char *)&i, sizeof i, &ids[i]) == 0 && ids[i] != 0);
    for (uint32_t i = 0; i < 3000; i++) {
        CHECK(lfs_tree_intern(&t, (const char *)&i, sizeof i, &again) == 0 && again == ids[i]);
        CHECK(memcmp(lfs_tree_set(&t, again, &n, NULL), &i, 4) == 0 && n == 4);
    }
    lfs_tree_set_ref(&t, ids[5], 2);
    lfs_tree_set_ref(&t, ids[5], -1);
    lfs_tree_set_ref(&t, 0, 1);
    lfs_tree_set(&t, ids[5], &n, &refs);
    CHECK(refs == 1);
    lfs_tree_free(&t);
}

static void test_prefixes(void)
{
    size_t n;

    CHECK(lfs_xattr_prefix("user.a", 6, &n) == LFS_XATTR_USER && n == 5);
    CHECK(lfs_xattr_prefix("user.", 5, &n) == 0);
    CHECK(lfs_xattr_prefix("system.posix_acl_access", 23, &n) == LFS_XATTR_ACL_ACCESS && n == 23);
    CHECK(lfs_xattr_prefix("system.posix_acl_accessx", 24, &n) == 0);
    CHECK(lfs_xattr_prefix("system.x", 8, &n) == 0 && lfs_xattr_prefix("", 0, &n) == 0);
    CHECK(strcmp(lfs_xattr_prefix_name(LFS_XATTR_SECURITY), "security.") == 0);
}

int main(void)
{
    test_links();
    test_many_names();
    test_paths();
    test_sets();
    test_prefixes();
    return 0;
}
