/* acl.c - see acl.h. Sources: acl(5); the kernel's include/uapi/linux/posix_acl_xattr.h. */
#include "acl.h"

#define VERSION 2u
#define NO_ID UINT32_MAX
#define MAX_ENTRIES 8191u /* what fits into the value of an attribute */

/* In the order in which the kernel wants them. */
enum { USER_OBJ = 1, USER = 2, GROUP_OBJ = 4, GROUP = 8, MASK = 16, OTHER = 32 };

typedef struct acl_entry {
    uint16_t tag;
    uint16_t perm;
    uint32_t id;
} acl_entry;

typedef struct field {
    const char *p;
    size_t n;
} field;

static bool is(const field *f, const char *word)
{
    return f->n == strlen(word) && memcmp(f->p, word, f->n) == 0;
}

/* Cut off what stands before the first of the separators. */
static field next_field(const char **p, size_t *n, const char *separators)
{
    field f = {*p, 0};

    while (f.n < *n && strchr(separators, f.p[f.n]) == NULL)
        f.n++;
    *p += f.n + (f.n < *n);
    *n -= f.n + (f.n < *n);
    while (f.n > 0 && (*f.p == ' ' || *f.p == '\t')) {
        f.p++;
        f.n--;
    }
    return f;
}

static int parse_id(const field *f, uint32_t *id)
{
    uint64_t v = 0;

    if (f->n == 0 || f->n > 10)
        return -EBADMSG;
    for (size_t i = 0; i < f->n; i++) {
        if (f->p[i] < '0' || f->p[i] > '9')
            return -EBADMSG;
        v = v * 10 + (uint64_t)(f->p[i] - '0');
    }
    *id = (uint32_t)v;
    return v < NO_ID ? 0 : -EBADMSG;
}

static int parse_entry(field text, acl_entry *e)
{
    field tag = next_field(&text.p, &text.n, ":");
    field name = next_field(&text.p, &text.n, ":");
    field perm = next_field(&text.p, &text.n, ":");
    field id = next_field(&text.p, &text.n, ":");

    if (is(&tag, "user") || is(&tag, "u"))
        e->tag = name.n > 0 ? USER : USER_OBJ;
    else if (is(&tag, "group") || is(&tag, "g"))
        e->tag = name.n > 0 ? GROUP : GROUP_OBJ;
    else if (is(&tag, "mask") || is(&tag, "m"))
        e->tag = MASK;
    else if (is(&tag, "other") || is(&tag, "o"))
        e->tag = OTHER;
    else
        return -EBADMSG;
    e->perm = 0;
    for (size_t i = 0; i < perm.n; i++) {
        if (strchr("rwx-", perm.p[i]) == NULL || perm.p[i] == '\0')
            return -EBADMSG;
        e->perm |= (uint16_t)(perm.p[i] == 'r' ? 4 : perm.p[i] == 'w' ? 2 : perm.p[i] == 'x' ? 1 : 0);
    }
    if (perm.n == 0)
        return -EBADMSG;
    e->id = NO_ID;
    if (e->tag != USER && e->tag != GROUP)
        return 0;
    return parse_id(id.n > 0 ? &id : &name, &e->id);
}

static int compare_entries(const void *a, const void *b)
{
    const acl_entry *x = a;
    const acl_entry *y = b;

    return x->tag != y->tag ? (x->tag > y->tag) - (x->tag < y->tag) : (x->id > y->id) - (x->id < y->id);
}

int lfs_acl_parse(const char *text, size_t n, lfs_buf *out)
{
    cleanup_buf lfs_buf entries = {0};
    const acl_entry *e;
    uint8_t bytes[8];
    size_t count;

    while (n > 0) {
        field f = next_field(&text, &n, ",\n");
        acl_entry entry;

        if (f.n == 0)
            continue;
        if (entries.len / sizeof entry >= MAX_ENTRIES || parse_entry(f, &entry) < 0)
            return -EBADMSG;
        if (lfs_buf_append(&entries, &entry, sizeof entry) < 0)
            return -ENOMEM;
    }
    count = entries.len / sizeof *e;
    if (count == 0)
        return -EBADMSG;
    qsort(entries.data, count, sizeof *e, compare_entries);
    e = (const void *)entries.data;
    lfs_put32(bytes, VERSION);
    if (lfs_buf_append(out, bytes, 4) < 0)
        return -ENOMEM;
    for (size_t i = 0; i < count; i++) {
        lfs_put16(bytes, e[i].tag);
        lfs_put16(bytes + 2, e[i].perm);
        lfs_put32(bytes + 4, e[i].id);
        if (lfs_buf_append(out, bytes, sizeof bytes) < 0)
            return -ENOMEM;
    }
    return 0;
}

int lfs_acl_check(const void *value, size_t n, uint32_t *permissions)
{
    const uint8_t *p = value;
    uint32_t perm[OTHER + 1] = {0};
    unsigned seen = 0;
    unsigned last = 0;

    if (n < 4 || (n - 4) % 8 != 0 || lfs_get32(p) != VERSION)
        return -EBADMSG;
    for (size_t i = 4; i < n; i += 8) {
        unsigned tag = lfs_get16(p + i);
        bool named = tag == USER || tag == GROUP;

        if (tag == 0 || tag > OTHER || (tag & (tag - 1)) != 0 || tag < last || (tag == last && !named) ||
            lfs_get16(p + i + 2) > 7 || (named && lfs_get32(p + i + 4) == NO_ID))
            return -EBADMSG;
        seen |= tag;
        last = tag;
        perm[tag] = lfs_get16(p + i + 2);
    }
    if ((seen & (USER_OBJ | GROUP_OBJ | OTHER)) != (USER_OBJ | GROUP_OBJ | OTHER) ||
        ((seen & (USER | GROUP)) && !(seen & MASK)))
        return -EBADMSG;
    *permissions = perm[USER_OBJ] << 6 | perm[seen & MASK ? MASK : GROUP_OBJ] << 3 | perm[OTHER];
    return seen & MASK ? 1 : 0;
}
