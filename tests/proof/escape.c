/*
 * What a program in a container tries in order to get out. Prints a line for everything that it reached, and
 * nothing else; a last line "done" says that it came to the end.
 *
 * It does nothing where there is no /escape, a directory of the image that it is made for, and tries nothing that
 * would do harm where it succeeded: what asks for a right is given an argument that is wrong.
 *
 *   escape try HOST_DIRECTORY SHM_KEY      every way once; HOST_DIRECTORY/victim is a file of the host
 *   escape watch HOST_DIRECTORY SECONDS    look into every process that comes, as one that joins does
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/bpf.h>
#include <linux/keyctl.h>
#include <linux/perf_event.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/shm.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

static unsigned tried;

static void reached(const char *what, const char *detail)
{
    printf("%s: %s\n", what, detail);
    fflush(stdout);
}

static void expect(const char *what, long result)
{
    tried++;
    if (result >= 0)
        reached(what, "was allowed");
}

/* A call with arguments that are wrong: whoever may make it is told so, and not that he may not. */
static void refused(const char *what, long result)
{
    tried++;
    if (result >= 0 || (errno != EPERM && errno != EACCES && errno != ENOSYS))
        reached(what, result >= 0 ? "was allowed" : strerror(errno));
}

static int has_victim(int directory, const char *host)
{
    char path[PATH_MAX], data[9] = "";
    int fd;

    snprintf(path, sizeof path, "%s/victim", host);
    if ((fd = openat(directory, path, O_RDONLY)) < 0)
        return 0;
    if (read(fd, data, 8) < 0)
        data[0] = 0;
    close(fd);
    return strcmp(data, "precious") == 0;
}

/* Up from a directory as far as it goes, then down to the victim. */
static int leads_out(int directory, const char *host)
{
    char path[PATH_MAX];

    snprintf(path, sizeof path, "../../../../../../../../../../../..%s", host);
    return has_victim(directory, path);
}

static void kernel_calls(void)
{
    struct bpf_attr_map {
        unsigned type, key, value, entries;
    } map = {BPF_MAP_TYPE_ARRAY, 4, 4, 1};
    struct perf_event_attr event = {.type = PERF_TYPE_SOFTWARE, .size = sizeof event, .config = PERF_COUNT_SW_CPU_CLOCK};
    char buffer[4096];

    expect("bpf", syscall(SYS_bpf, BPF_MAP_CREATE, &map, sizeof map));
    expect("perf_event_open", syscall(SYS_perf_event_open, &event, -1, 0, -1, 0));
    expect("fsopen", syscall(SYS_fsopen, "tmpfs", 0));
    refused("mount", mount("none", "/escape", "no-such-type", 0, ""));
    refused("umount", umount2("/escape", MNT_DETACH)); /* no mount */
    refused("swapon", swapon("/escape/none", 0));
    refused("init_module", syscall(SYS_init_module, "", 0L, ""));
    refused("acct", acct("/escape/none"));
    refused("io ports", syscall(SYS_iopl, 3));
    refused("kernel log", syscall(SYS_syslog, 3, buffer, sizeof buffer));
    expect("unshare of mounts", unshare(CLONE_NEWNS));
    expect("unshare of users", unshare(CLONE_NEWUSER));
}

static void keys(void)
{
    static const int rings[] = {KEY_SPEC_SESSION_KEYRING, KEY_SPEC_USER_KEYRING, KEY_SPEC_USER_SESSION_KEYRING};

    for (unsigned i = 0; i < 3; i++)
        expect("key of the host", syscall(SYS_keyctl, KEYCTL_SEARCH, rings[i], "user", "layerfs-test-secret", 0));
    expect("key by request", syscall(SYS_request_key, "user", "layerfs-test-secret", NULL, 0));
}

static void handles(void)
{
    static const char *const places[] = {"/", "/etc/hosts", "/etc/resolv.conf", "/etc/hostname", "/dev", "/proc"};
    struct {
        struct file_handle head;
        unsigned inode, generation;
    } handle = {{.handle_bytes = 8, .handle_type = 1}, 2, 0};

    for (unsigned i = 0; i < sizeof places / sizeof *places; i++) {
        int mount_fd = open(places[i], O_RDONLY);
        int fd = open_by_handle_at(mount_fd, &handle.head, O_RDONLY);

        expect("file by handle", fd);
    }
}

static void device(const char *kind, mode_t type, unsigned major, unsigned minor)
{
    char name[64];
    int fd;

    tried++;
    unlink("/escape/node");
    snprintf(name, sizeof name, "%s %u:%u", kind, major, minor);
    if (mknod("/escape/node", type | 0600, makedev(major, minor)) == 0 &&
        (fd = open("/escape/node", O_RDONLY | O_NONBLOCK)) >= 0) {
        reached("device", name);
        close(fd);
    }
}

static void devices(void)
{
    static const unsigned misc[][2] = {{1, 1}, {1, 2}, {1, 4}, {1, 11}, {10, 229}, {10, 232}, {10, 237}, {10, 200},
                                       {10, 223}, {10, 238}, {4, 0}, {4, 1}, {5, 1}, {29, 0}, {108, 0}, {254, 0}};
    static const unsigned disks[] = {7, 8, 9, 65, 179, 202, 251, 252, 253, 254, 259};

    for (unsigned i = 0; i < sizeof misc / sizeof *misc; i++)
        device("character", S_IFCHR, misc[i][0], misc[i][1]);
    for (unsigned i = 0; i < sizeof disks / sizeof *disks; i++)
        for (unsigned minor = 0; minor < 3; minor++)
            device("disk", S_IFBLK, disks[i], minor);
}

static void kernel_files(void)
{
    static const char *const writable[] = {
        "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/vm/drop_caches",
        "/proc/sys/fs/binfmt_misc/register", "/proc/sys/kernel/hotplug", "/proc/sysrq-trigger", "/proc/irq/0/smp_affinity",
        "/proc/bus/pci", "/sys/kernel/uevent_helper", "/sys/power/state", "/sys/fs/cgroup/release_agent",
        "/sys/fs/cgroup/devices/devices.allow", "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/pids/pids.max", "/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/cgroup.subtree_control",
        "/sys/fs/cgroup/memory.max", "/sys/block/loop0/queue/nr_requests", "/sys/module/loop/parameters/max_loop"};
    static const char *const secret[] = {"/proc/kcore", "/proc/keys", "/proc/kmsg", "/proc/timer_list",
                                         "/proc/sched_debug", "/proc/latency_stats", "/proc/scsi/scsi",
                                         "/proc/1/root/proc/kcore", "/sys/firmware/acpi/tables/DSDT"};
    char byte;
    int fd;

    for (unsigned i = 0; i < sizeof writable / sizeof *writable; i++)
        if (tried++, (fd = open(writable[i], O_WRONLY)) >= 0)
            reached("opened for writing", writable[i]);
    for (unsigned i = 0; i < sizeof secret / sizeof *secret; i++)
        if (tried++, (fd = open(secret[i], O_RDONLY)) >= 0 && read(fd, &byte, 1) > 0)
            reached("read", secret[i]);
}

static void descriptors(const char *host)
{
    for (int fd = 3; fd < 1024; fd++) {
        char name[32], target[PATH_MAX] = "";

        if (fcntl(fd, F_GETFD) < 0)
            continue;
        snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
        if (readlink(name, target, sizeof target - 1) < 0)
            strcpy(target, "?");
        reached("a descriptor was left", target);
        if (leads_out(fd, host))
            reached("the host by a descriptor", target);
    }
}

static void root(const char *host)
{
    if (has_victim(AT_FDCWD, host) || leads_out(AT_FDCWD, host))
        reached("the host", "by its path");
    mkdir("/escape/jail", 0755);
    if (chroot("/escape/jail") == 0) { /* the working directory is outside now */
        if (leads_out(AT_FDCWD, host))
            reached("the host", "by leaving a chroot");
        for (int i = 0; i < 20; i++)
            if (chdir("..") < 0)
                break;
        if (chroot(".") == 0 && has_victim(AT_FDCWD, host))
            reached("the host", "by a chroot left behind");
    }
}

static void watch(const char *host, int seconds)
{
    time_t end = time(NULL) + seconds;
    unsigned long seen = 0;

    while (time(NULL) < end) {
        DIR *processes = opendir("/proc");
        struct dirent *entry;

        while (processes != NULL && (entry = readdir(processes)) != NULL) {
            int pid = atoi(entry->d_name);
            static const char *const places[] = {"cwd", "root", "fd/3", "fd/4", "fd/5", "fd/6", "fd/7", "fd/8", "fd/9",
                                                 "fd/10", "fd/11", "fd/12", "fd/14", "fd/16"};
            char path[64];
            int fd;

            snprintf(path, sizeof path, "/proc/%d/exe", pid);
            if (pid <= 1 || pid == getpid() || access(path, F_OK) < 0)
                continue;
            seen++;
            if ((fd = open(path, O_WRONLY)) >= 0) {
                struct stat ours, theirs;
                if (stat("/bin/busybox", &ours) == 0 && fstat(fd, &theirs) == 0 && ours.st_ino != theirs.st_ino)
                    reached("the program of one that joined", "could be written");
                close(fd);
            }
            for (unsigned i = 0; i < sizeof places / sizeof *places; i++) {
                snprintf(path, sizeof path, "/proc/%d/%s", pid, places[i]);
                if ((fd = open(path, O_RDONLY | O_DIRECTORY | O_NONBLOCK)) < 0)
                    continue;
                if (leads_out(fd, host) || has_victim(fd, host + 1))
                    reached("the host by a process that joined", path);
                close(fd);
            }
        }
        closedir(processes);
    }
    printf("seen %lu\n", seen);
}

int main(int argc, char **argv)
{
    if (argc != 4 || access("/escape", F_OK) < 0)
        return 2;
    if (strcmp(argv[1], "watch") == 0) {
        watch(argv[2], atoi(argv[3]));
    } else {
        descriptors(argv[2]);
        keys();
        expect("shared memory of the host", shmget((key_t)atoi(argv[3]), 0, 0));
        handles();
        devices();
        kernel_files();
        kernel_calls();
        root(argv[2]);
    }
    printf("done, tried %u\n", tried);
    return 0;
}
