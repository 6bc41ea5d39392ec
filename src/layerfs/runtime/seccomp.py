"""The system calls that a container may not make, as a filter for the built-in launcher and for OCI runtimes.

What is refused is what docker's default profile keeps from a container without extra capabilities: calls that change
the host, load code into the kernel, make or enter namespaces and mounts, look into other processes, or have been the
way of many escapes (keyrings, userfaultfd, bpf, perf, io_uring).  A capability that a call needs anyway brings it back.
All other calls are let through, so that a new kernel's calls need no new profile; they still need their capabilities.
"""

import errno
import functools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from layerfs import native
from layerfs.errors import UnsupportedError
from layerfs.runtime.capabilities import NAMES
from layerfs.runtime.kept import kept_program

__all__ = ["default_filter", "oci_seccomp", "seccomp_program"]

_Rule = tuple[str, int, tuple[tuple[int, str, int, int], ...]]
"""A call, the error that it fails with, and what must hold of its arguments (see ``native.SeccompArg``)."""

_ALWAYS = (
    "_sysctl", "add_key", "create_module", "get_kernel_syms", "io_uring_enter", "io_uring_register", "io_uring_setup",
    "keyctl", "kexec_file_load", "kexec_load", "lookup_dcookie", "migrate_pages", "move_pages", "nfsservctl",
    "query_module", "request_key", "sysfs", "uselib", "userfaultfd", "ustat", "vm86", "vm86old",
)  # fmt: skip
_BY_CAPABILITY = {
    "SYS_ADMIN": (
        "fanotify_init", "fsconfig", "fsmount", "fsopen", "fspick", "lsm_set_self_attr", "mount", "mount_setattr",
        "move_mount", "open_tree", "open_tree_attr", "pivot_root", "quotactl", "quotactl_fd", "setdomainname",
        "sethostname", "setns", "swapoff", "swapon", "umount", "umount2", "unshare",
    ),
    "BPF": ("bpf",),
    "DAC_READ_SEARCH": ("name_to_handle_at", "open_by_handle_at"),
    "PERFMON": ("perf_event_open",),
    "SYS_BOOT": ("reboot",),
    "SYS_MODULE": ("delete_module", "finit_module", "init_module"),
    "SYS_NICE": ("get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"),
    "SYS_PACCT": ("acct",),
    "SYS_PTRACE": ("kcmp", "pidfd_getfd", "process_madvise", "process_vm_readv", "process_vm_writev"),
    "SYS_RAWIO": ("ioperm", "iopl"),
    "SYS_TIME": ("clock_adjtime", "clock_adjtime64", "clock_settime", "clock_settime64", "settimeofday", "stime"),
    "SYS_TTY_CONFIG": ("vhangup",),
    "SYSLOG": ("syslog",),
}  # fmt: skip
_SUFFICIENT = {"BPF": "SYS_ADMIN", "PERFMON": "SYS_ADMIN", "SYSLOG": "SYS_ADMIN"}
_FAMILIES = (38, 40)  # AF_ALG and AF_VSOCK: the kernel's ciphers, and the way to the host of a virtual machine
_NEW_NAMESPACES = 0x7E02_0000  # CLONE_NEWNS, CGROUP, UTS, IPC, USER, PID, NET


def _refused(capabilities: int) -> Iterator[str]:
    """Calls that fail with EPERM for whoever has these capabilities."""
    yield from _ALWAYS
    for capability, calls in _BY_CAPABILITY.items():
        if not any(_has(capabilities, name) for name in (capability, _SUFFICIENT.get(capability, capability))):
            yield from calls


def _has(capabilities: int, name: str) -> bool:
    return bool(capabilities >> NAMES.index(name) & 1)


@functools.lru_cache(maxsize=8)
def default_filter(capabilities: int, run: Path | None = None) -> bytes:
    """The filter as a BPF program for the built-in launcher; UnsupportedError where libseccomp is not installed.

    With ``run``, a store's run directory, it is kept there for other processes.
    """
    rules = list(_rules(capabilities))

    def make() -> bytes:
        compiled = [
            native.SeccompRule(name, native.seccomp_errno(error), [native.SeccompArg(*arg) for arg in args])
            for name, error, args in rules
        ]
        return native.seccomp_filter(native.SECCOMP_ALLOW, compiled)

    return kept_program(run, repr(rules), make) if run is not None else make()


def seccomp_program(capabilities: int, run: Path | None = None) -> bytes:
    """The same; empty, so that nothing is filtered, where libseccomp is not installed."""
    try:
        return default_filter(capabilities, run)
    except UnsupportedError:
        return b""


def _rules(capabilities: int) -> Iterator[_Rule]:
    for name in sorted(_refused(capabilities)):
        yield name, errno.EPERM, ()
    if not _has(capabilities, "SYS_ADMIN"):
        for bit in _bits(_NEW_NAMESPACES):
            yield "clone", errno.EPERM, ((0, "masked", bit, bit),)
        # Its flags lie in memory, where no filter sees them; programs fall back to clone.
        yield "clone3", errno.ENOSYS, ()
    for family in _FAMILIES:
        yield "socket", errno.EPERM, ((0, "eq", family, 0),)


def _bits(mask: int) -> Sequence[int]:
    return [1 << number for number in range(64) if mask >> number & 1]


def oci_seccomp(capabilities: int) -> dict[str, Any]:
    """The same for ``linux.seccomp`` of an OCI configuration."""
    denied = {"action": "SCMP_ACT_ERRNO", "errnoRet": errno.EPERM}
    calls: list[dict[str, Any]] = [{"names": sorted(_refused(capabilities)), **denied}]
    if not _has(capabilities, "SYS_ADMIN"):
        for bit in _bits(_NEW_NAMESPACES):
            masked = {"index": 0, "value": bit, "valueTwo": bit, "op": "SCMP_CMP_MASKED_EQ"}
            calls.append({"names": ["clone"], **denied, "args": [masked]})
        calls.append({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.ENOSYS})
    for family in _FAMILIES:
        equal = {"index": 0, "value": family, "op": "SCMP_CMP_EQ"}
        calls.append({"names": ["socket"], **denied, "args": [equal]})
    return {"defaultAction": "SCMP_ACT_ALLOW", "architectures": _architectures(), "syscalls": calls}


def _architectures() -> list[str]:
    machine = os.uname().machine
    if machine == "x86_64":
        return ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    return ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"] if machine == "aarch64" else []
