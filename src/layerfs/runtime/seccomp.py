"""The default system call filter of the built-in launcher.

What docker's default profile refuses is refused here: calls that reach the kernel's own state rather than the
container's. Calls that belong to a capability are let through with it.
"""

import errno
import functools

from layerfs import native
from layerfs.runtime.capabilities import NAMES

__all__ = ["default_filter"]

_NAMESPACES = 0x7E02_0000  # CLONE_NEW* but the time namespace, whose bit is another flag's for clone
_VSOCK = 40
_ALG = 38

_NEVER = (
    "_sysctl", "add_key", "create_module", "get_kernel_syms", "io_uring_enter", "io_uring_register", "io_uring_setup",
    "kexec_file_load", "kexec_load", "keyctl", "migrate_pages", "move_pages", "nfsservctl", "query_module",
    "request_key", "sysfs", "uselib", "userfaultfd", "ustat", "vm86", "vm86old",
)  # fmt: skip

_WITH = {
    "SYS_ADMIN": (
        "bpf", "fanotify_init", "fsconfig", "fsmount", "fsopen", "fspick", "lookup_dcookie", "lsm_set_self_attr",
        "mount", "mount_setattr", "move_mount", "open_tree", "open_tree_attr", "perf_event_open", "quotactl",
        "quotactl_fd", "setdomainname", "sethostname", "setns", "swapoff", "swapon", "umount", "umount2", "unshare",
    ),
    "DAC_READ_SEARCH": ("open_by_handle_at", "name_to_handle_at"),
    "SYS_BOOT": ("reboot",),
    "SYS_MODULE": ("delete_module", "finit_module", "init_module"),
    "SYS_NICE": ("get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"),
    "SYS_PACCT": ("acct",),
    "SYS_PTRACE": ("kcmp", "pidfd_getfd", "process_madvise", "process_vm_readv", "process_vm_writev"),
    "SYS_RAWIO": ("ioperm", "iopl"),
    "SYS_TIME": ("clock_adjtime", "clock_settime", "settimeofday", "stime"),
    "SYS_TTY_CONFIG": ("vhangup",),
    "SYSLOG": ("syslog",),
}  # fmt: skip


@functools.lru_cache(maxsize=8)
def default_filter(capabilities: int) -> bytes:
    """The filter for a container with this capability mask; ``UnsupportedError`` where libseccomp is missing."""
    held = {name for number, name in enumerate(NAMES) if capabilities >> number & 1}
    refused = native.seccomp_errno(errno.EPERM)
    names = [*_NEVER, *(call for cap, calls in _WITH.items() if cap not in held for call in calls)]
    rules = [native.SeccompRule(name, refused) for name in names]
    if "SYS_ADMIN" not in held:
        rules += [
            native.SeccompRule("clone", refused, [native.SeccompArg(0, "masked", bit, bit)])
            for bit in (1 << n for n in range(32))
            if bit & _NAMESPACES
        ]
        # Its flags lie in memory, where no filter can look; callers fall back to clone.
        rules.append(native.SeccompRule("clone3", native.seccomp_errno(errno.ENOSYS)))
    rules += [native.SeccompRule("socket", refused, [native.SeccompArg(0, "eq", family)]) for family in (_ALG, _VSOCK)]
    return native.seccomp_filter(native.SECCOMP_ALLOW, rules)
