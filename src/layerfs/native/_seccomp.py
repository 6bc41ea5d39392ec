"""Filters of system calls: ``seccomp_filter``."""

import os
from collections.abc import Sequence

import msgspec

from layerfs._native import ffi, lib
from layerfs.native._core import check, encode, new_error

__all__ = ["SECCOMP_ALLOW", "SeccompArg", "SeccompRule", "seccomp_errno", "seccomp_filter", "seccomp_library"]

SECCOMP_ALLOW = 0x7FFF_0000
"""The action that lets a call through."""


class SeccompArg(msgspec.Struct, frozen=True):
    """A condition on argument ``index``: ``ne lt le eq ge gt`` with ``a``, or ``masked``: argument & ``a`` is ``b``."""

    index: int
    op: str
    a: int
    b: int = 0


class SeccompRule(msgspec.Struct, frozen=True):
    """What happens to a system call, where all of ``args`` hold."""

    name: str
    action: int
    args: Sequence[SeccompArg] = ()


_OPS = {"ne": 1, "lt": 2, "le": 3, "eq": 4, "ge": 5, "gt": 6, "masked": 7}


def seccomp_errno(errno: int) -> int:
    """The action that fails a call with ``errno``."""
    return 0x0005_0000 | errno


def seccomp_filter(otherwise: int, rules: Sequence[SeccompRule], archs: Sequence[int] | None = None) -> bytes:
    """A BPF program of these rules, for ``LaunchSpec.seccomp``; ``otherwise`` is for all other calls, ``archs`` are
    libseccomp's numbers of architectures beside this one (None: those whose programs this kernel may run).

    Raises ``UnsupportedError`` where libseccomp is not installed.
    """
    error, keep = new_error(), [ffi.new("char[]", encode(rule.name)) for rule in rules]
    array = ffi.new("lfs_seccomp_rule[]", len(rules))
    for slot, rule, name in zip(array, rules, keep, strict=True):
        slot.name, slot.action, slot.nargs = name, rule.action, len(rule.args)
        for arg, value in zip(slot.args, rule.args, strict=False):
            arg.index, arg.op, arg.a, arg.b = value.index, _OPS[value.op], value.a, value.b
    out = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    with open(out, "rb") as file:
        given = ffi.new("uint32_t[]", archs) if archs is not None else ffi.NULL
        check(lib.lfs_seccomp_filter(otherwise, array, len(rules), given, len(archs or ()), out, error), error)
        file.seek(0)
        return file.read()


def seccomp_library() -> str:
    """The file that libseccomp is loaded from; ``UnsupportedError`` where it is not installed."""
    error, path = new_error(), ffi.new("char[4096]")
    check(lib.lfs_seccomp_library(path, len(path), error), error)
    return os.fsdecode(ffi.string(path))
