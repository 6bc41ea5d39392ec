"""Capabilities: their numbers, the set that containers get, and what options make of it."""

import functools
import os
from collections.abc import Sequence
from pathlib import Path

from layerfs.errors import InvalidInputError

__all__ = ["DEFAULT", "NAMES", "capability_mask", "capability_names"]

NAMES = (
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
)  # fmt: skip
"""By number, as linux/capability.h has them."""

DEFAULT = (
    "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "NET_RAW",
    "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
)  # fmt: skip
"""What docker gives a container."""


def capability_mask(add: Sequence[str] = (), drop: Sequence[str] = (), *, privileged: bool = False) -> int:
    """The set of a container as a bit mask; InvalidInputError for a name that is none."""
    added, dropped = ([_plain(name) for name in names] for names in (add, drop))
    known = [name for number, name in enumerate(NAMES) if number <= _last()]
    mine = [name for number, name in enumerate(NAMES) if _own() >> number & 1]  # nobody can give more than that
    if privileged:
        return _mask(mine)
    base = mine if "ALL" in added else [] if "ALL" in dropped else list(DEFAULT)
    wanted = {*base, *(name for name in added if name != "ALL")}
    return _mask(wanted.difference(dropped).intersection(known))


def capability_names(mask: int) -> list[str]:
    """``CAP_…`` names of a mask, in order of their numbers."""
    return [f"CAP_{name}" for number, name in enumerate(NAMES) if mask >> number & 1]


def _mask(names: "set[str] | Sequence[str]") -> int:
    return sum(1 << NAMES.index(name) for name in names)


def _plain(name: str) -> str:
    plain = name.upper().removeprefix("CAP_")
    if plain != "ALL" and plain not in NAMES:
        raise InvalidInputError(f"capability {name!r}: unknown")
    return plain


@functools.cache
def _last() -> int:
    return int(Path("/proc/sys/kernel/cap_last_cap").read_text())


@functools.cache
def _own() -> int:
    """The permitted set of this process; in a namespace of its own an ordinary user has all of them."""
    if os.geteuid() != 0:
        return (1 << (_last() + 1)) - 1
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1], 16) for line in lines if line.startswith("CapPrm:"))
