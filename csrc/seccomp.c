/*
 * seccomp.c - filters of system calls, compiled by libseccomp.
 *
 * The library is loaded when a filter is wanted and is not needed otherwise; its numbers below are part of its
 * stable interface. What comes out is a BPF program that a process loads by itself.
 */
#define _GNU_SOURCE
#include "layerfs.h"

#include "util.h"

#include <dlfcn.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>

struct arg_cmp { /* scmp_arg_cmp */
    unsigned arg;
    int op;
    uint64_t a;
    uint64_t b;
};

typedef struct library {
    void *handle;
    void *(*init)(uint32_t action);
    void (*release)(void *filter);
    int (*arch_add)(void *filter, uint32_t arch);
    int (*attr_set)(void *filter, int attr, uint32_t value);
    int (*resolve)(const char *name);
    int (*rule_add_array)(void *filter, uint32_t action, int syscall, unsigned n, const struct arg_cmp *args);
    int (*export_bpf)(void *filter, int fd);
    uint32_t (*arch_native)(void);
} library;

#define NR_ERROR (-1) /* __NR_SCMP_ERROR: no such name */
#define ATTR_BADARCH 2
#define ATTR_OPTIMIZE 8
#define ACT_ERRNO_ENOSYS (0x00050000u | ENOSYS)

/* The architectures whose programs this kernel may run beside its own. */
static const uint32_t other_archs[] = {
#if defined(__x86_64__)
    0x40000003u, /* i386 */
    0x4000003eu, /* x32 */
#elif defined(__aarch64__)
    0x40000028u, /* arm */
#endif
    0,
};

static int load(library *l)
{
    const struct {
        const char *name;
        void *at;
    } symbols[] = {{"seccomp_init", &l->init},
                   {"seccomp_release", &l->release},
                   {"seccomp_arch_add", &l->arch_add},
                   {"seccomp_attr_set", &l->attr_set},
                   {"seccomp_syscall_resolve_name", &l->resolve},
                   {"seccomp_rule_add_array", &l->rule_add_array},
                   {"seccomp_export_bpf", &l->export_bpf},
                   {"seccomp_arch_native", &l->arch_native}};

    l->handle = dlopen("libseccomp.so.2", RTLD_NOW | RTLD_LOCAL);
    if (l->handle == NULL)
        return -ENOSYS;
    for (size_t i = 0; i < sizeof symbols / sizeof symbols[0]; i++) {
        void *symbol = dlsym(l->handle, symbols[i].name);
        if (symbol == NULL)
            return -ENOSYS;
        memcpy(symbols[i].at, &symbol, sizeof symbol);
    }
    return 0;
}

static int add_rule(const library *l, void *filter, uint32_t otherwise, const lfs_seccomp_rule *rule,
                    lfs_error *error)
{
    struct arg_cmp args[6];
    int number = l->resolve(rule->name), r;

    /* A name that this library does not know is one that no program here can mean; an action that is taken anyway
     * is no rule. */
    if (number == NR_ERROR || rule->action == otherwise)
        return 0;
    if (rule->nargs > 6)
        return lfs_fail(error, EINVAL, "filter system call %.60s (too many arguments)", rule->name);
    for (uint32_t i = 0; i < rule->nargs; i++)
        args[i] = (struct arg_cmp){rule->args[i].index, (int)rule->args[i].op, rule->args[i].a, rule->args[i].b};
    r = l->rule_add_array(filter, rule->action, number, rule->nargs, args);
    return r < 0 && r != -EDOM ? lfs_fail(error, -r, "filter system call %.60s", rule->name) : 0;
}

static int add_archs(const library *l, void *filter, const uint32_t *archs, size_t narchs, lfs_error *error)
{
    for (size_t i = 0; archs == NULL && other_archs[i] != 0; i++)
        l->arch_add(filter, other_archs[i]);
    for (size_t i = 0; archs != NULL && i < narchs; i++) {
        int r = l->arch_add(filter, archs[i]);
        if (r < 0 && r != -EEXIST)
            return lfs_fail(error, -r, "filter system calls of architecture %#x", archs[i]);
    }
    return 0;
}

static int refuses(uint32_t action)
{
    switch (action & SECCOMP_RET_ACTION_FULL) {
    case SECCOMP_RET_ERRNO:
        return action != ACT_ERRNO_ENOSYS;
    case SECCOMP_RET_KILL_PROCESS:
    case SECCOMP_RET_KILL_THREAD:
    case SECCOMP_RET_TRAP:
        return 1;
    default:
        return 0;
    }
}

/* Before the filter proper: what came after the newest call that the rules know is not refused but not there. */
static int write_newer(const library *l, const lfs_seccomp_rule *rules, size_t nrules, int out, lfs_error *error)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, l->arch_native(), 0, 4),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 0x40000000, 2, 0), /* x32 has numbers of its own */
        BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, 0, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, ACT_ERRNO_ENOSYS),
    };
    int newest = -1;

    for (size_t i = 0; i < nrules; i++) {
        int number = l->resolve(rules[i].name);
        newest = number > newest ? number : newest;
    }
    if (newest < 0)
        return 0;
    code[4].k = (uint32_t)newest;
    return write(out, code, sizeof code) == (ssize_t)sizeof code ? 0
                                                                : lfs_fail(error, errno, "write a system call filter");
}

static int compile(const library *l, uint32_t otherwise, const lfs_seccomp_rule *rules, size_t nrules,
                   const uint32_t *archs, size_t narchs, int out, lfs_error *error)
{
    void *filter = l->init(otherwise);
    int r;

    if (filter == NULL)
        return lfs_fail(error, EINVAL, "make a system call filter");
    r = add_archs(l, filter, archs, narchs, error);
    /* Old libraries sort no rules: the same filter, slower. */
    l->attr_set(filter, ATTR_OPTIMIZE, 2);
    l->attr_set(filter, ATTR_BADARCH, ACT_ERRNO_ENOSYS);
    for (size_t i = 0; r >= 0 && i < nrules; i++)
        r = add_rule(l, filter, otherwise, &rules[i], error);
    if (r >= 0 && refuses(otherwise))
        r = write_newer(l, rules, nrules, out, error);
    if (r >= 0) {
        r = l->export_bpf(filter, out);
        if (r < 0)
            r = lfs_fail(error, -r, "write a system call filter");
    }
    l->release(filter);
    return r;
}

int lfs_seccomp_filter(uint32_t otherwise, const lfs_seccomp_rule *rules, size_t nrules, const uint32_t *archs,
                       size_t narchs, int out, lfs_error *error)
{
    library l = {0};
    int r = load(&l);

    if (r < 0)
        r = lfs_fail(error, -r, "make a system call filter (libseccomp.so.2 is not installed)");
    else
        r = compile(&l, otherwise, rules, nrules, archs, narchs, out, error);
    if (l.handle != NULL)
        dlclose(l.handle);
    return r;
}

int lfs_seccomp_library(char *path, size_t cap, lfs_error *error)
{
    library l = {0};
    int r = load(&l);
    Dl_info info;

    if (r >= 0 && dladdr(dlsym(l.handle, "seccomp_init"), &info) == 0)
        r = -ENOSYS;
    if (r >= 0 && strlen(info.dli_fname) >= cap)
        r = -ENAMETOOLONG;
    if (r >= 0)
        memcpy(path, info.dli_fname, strlen(info.dli_fname) + 1);
    else
        r = lfs_fail(error, -r, "find libseccomp.so.2");
    if (l.handle != NULL)
        dlclose(l.handle);
    return r;
}
