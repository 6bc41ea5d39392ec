"""Seccomp profiles as docker's users write them (``--security-opt seccomp=FILE``): read, and made a filter of.

A profile is a document of the OCI runtime's ``linux.seccomp`` with what moby adds to it: ``archMap``, and rules that
hold for some capabilities, architectures or kernels alone (``includes``, ``excludes``).
"""

import errno
import os
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from layerfs import native
from layerfs.errors import InvalidInputError, UnsupportedError
from layerfs.runtime.capabilities import capability_names

__all__ = ["check_profile", "oci_profile", "profile_program"]

_ACTIONS = {
    "SCMP_ACT_KILL": 0x0, "SCMP_ACT_KILL_THREAD": 0x0, "SCMP_ACT_KILL_PROCESS": 0x8000_0000,
    "SCMP_ACT_TRAP": 0x0003_0000, "SCMP_ACT_ERRNO": 0x0005_0000, "SCMP_ACT_TRACE": 0x7FF0_0000,
    "SCMP_ACT_LOG": 0x7FFC_0000, "SCMP_ACT_ALLOW": native.SECCOMP_ALLOW,
}  # fmt: skip
_WITH_ERRNO = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
_OPERATORS = {
    "SCMP_CMP_NE": "ne", "SCMP_CMP_LT": "lt", "SCMP_CMP_LE": "le", "SCMP_CMP_EQ": "eq", "SCMP_CMP_GE": "ge",
    "SCMP_CMP_GT": "gt", "SCMP_CMP_MASKED_EQ": "masked",
}  # fmt: skip
_ARCHITECTURES = {  # AUDIT_ARCH_* of linux/audit.h, which libseccomp's tokens are, but for x32
    "X86": 0x4000_0003, "X86_64": 0xC000_003E, "X32": 0x4000_003E, "ARM": 0x4000_0028, "AARCH64": 0xC000_00B7,
    "MIPS": 0x8, "MIPS64": 0x8000_0008, "MIPS64N32": 0xA000_0008, "MIPSEL": 0x4000_0008, "MIPSEL64": 0xC000_0008,
    "MIPSEL64N32": 0xE000_0008, "PPC": 0x14, "PPC64": 0x8000_0015, "PPC64LE": 0xC000_0015, "S390": 0x16,
    "S390X": 0x8000_0016, "PARISC": 0xF, "PARISC64": 0x8000_000F, "RISCV64": 0xC000_00F3, "LOONGARCH64": 0xC000_0102,
}  # fmt: skip
_MACHINES = {  # of uname: the name in profiles, and Go's
    "x86_64": ("SCMP_ARCH_X86_64", "amd64"), "aarch64": ("SCMP_ARCH_AARCH64", "arm64"),
    "riscv64": ("SCMP_ARCH_RISCV64", "riscv64"), "ppc64le": ("SCMP_ARCH_PPC64LE", "ppc64le"),
    "s390x": ("SCMP_ARCH_S390X", "s390x"), "armv7l": ("SCMP_ARCH_ARM", "arm"), "i686": ("SCMP_ARCH_X86", "x86"),
    "loongarch64": ("SCMP_ARCH_LOONGARCH64", "loong64"),
}  # fmt: skip


class _Argument(msgspec.Struct, frozen=True, rename="camel"):
    index: int
    value: int = 0
    value_two: int = 0
    op: str = ""


class _Filter(msgspec.Struct, frozen=True, rename="camel"):
    caps: list[str] | None = None
    arches: list[str] | None = None
    min_kernel: str | None = None


class _Call(msgspec.Struct, frozen=True, rename="camel"):
    action: str = ""
    name: str = ""
    names: list[str] | None = None
    errno_ret: int | None = None
    args: list[_Argument] | None = None
    includes: _Filter | None = None
    excludes: _Filter | None = None


class _Map(msgspec.Struct, frozen=True, rename="camel"):
    architecture: str = ""
    sub_architectures: list[str] | None = None


class _Profile(msgspec.Struct, frozen=True, rename="camel"):
    default_action: str = ""
    default_errno_ret: int | None = None
    architectures: list[str] | None = None
    arch_map: list[_Map] | None = None
    syscalls: list[_Call] | None = None
    flags: list[str] | None = None
    listener_path: str = ""


def check_profile(text: str, what: str) -> None:
    """InvalidInputError or UnsupportedError, beginning with ``what``, for what is no profile, or not one for here."""
    try:
        profile = msgspec.json.decode(text, type=_Profile)
    except (msgspec.DecodeError, UnicodeError) as exc:
        raise InvalidInputError(f"{what}: not a seccomp profile: {exc}") from None
    if problem := _problem(profile):
        raise InvalidInputError(f"{what}: {problem}")
    if profile.listener_path or "SCMP_ACT_NOTIFY" in _actions(profile):
        raise UnsupportedError(f"{what}: a listener that decides on system calls (SCMP_ACT_NOTIFY) is not offered")


def _actions(profile: _Profile) -> list[str]:
    return [profile.default_action, *(call.action for call in profile.syscalls or ())]


def _problem(profile: _Profile) -> str | None:
    if profile.architectures and profile.arch_map:
        return "both 'architectures' and 'archMap' are in it: one of them is wanted"
    for action in _actions(profile):
        if action not in _ACTIONS and action != "SCMP_ACT_NOTIFY" and (action or profile.syscalls):
            return f"unknown action {action!r}"
    maps = [[item.architecture, *(item.sub_architectures or ())] for item in profile.arch_map or ()]
    for name in [*(profile.architectures or ()), *(name for names in maps for name in names)]:
        if name.removeprefix("SCMP_ARCH_") not in _ARCHITECTURES:
            return f"unknown architecture {name!r}"
    for call in profile.syscalls or ():
        if call.name and call.names:
            return "both 'name' and 'names' are in a rule: one of them is wanted"
        for argument in call.args or ():
            if not 0 <= argument.index < 6 or argument.op not in _OPERATORS:
                return f"rule for {', '.join(_names(call))[:80]}: argument {argument.index} {argument.op!r}: unknown"
            if not (0 <= argument.value < 1 << 64 and 0 <= argument.value_two < 1 << 64):
                return f"rule for {', '.join(_names(call))[:80]}: argument {argument.index}: its value is out of range"
        for words in (call.includes, call.excludes):
            if words is not None and words.min_kernel and _version(words.min_kernel) is None:
                return f"kernel version {words.min_kernel!r}: wanted is as 4.8"
    return None


def _names(call: _Call) -> list[str]:
    return [call.name] if call.name else list(call.names or ())


def _version(text: str) -> tuple[int, int] | None:
    match = re.match(r"(\d{1,5})\.(\d{1,5})", text)
    return (int(match[1]), int(match[2])) if match else None


def _resolved(text: str, capabilities: int) -> tuple[_Profile, list[_Call], list[str]]:
    """The profile, its rules that hold here, and its architectures."""
    profile = msgspec.json.decode(text, type=_Profile)
    native_name, machine = _MACHINES.get(os.uname().machine, ("", ""))
    held = set(capability_names(capabilities))
    kernel = _version(os.uname().release) or (0, 0)
    architectures = list(profile.architectures or ())
    for item in profile.arch_map or ():
        if item.architecture == native_name:
            architectures += [item.architecture, *(item.sub_architectures or ())]
    calls = [call for call in profile.syscalls or () if _holds(call, held, machine, kernel)]
    return profile, calls, architectures


def _holds(call: _Call, held: set[str], machine: str, kernel: tuple[int, int]) -> bool:
    without, only = call.excludes or _Filter(), call.includes or _Filter()
    if machine in (without.arches or ()) or held.intersection(without.caps or ()):
        return False
    if without.min_kernel and kernel >= (_version(without.min_kernel) or (0, 0)):
        return False
    if only.arches and machine not in only.arches:
        return False
    if only.min_kernel and kernel < (_version(only.min_kernel) or (0, 0)):
        return False
    return held.issuperset(only.caps or ())


def oci_profile(text: str, capabilities: int) -> dict[str, Any] | None:
    """``linux.seccomp`` of an OCI configuration, from a profile that was checked; None: it filters nothing."""
    profile, calls, architectures = _resolved(text, capabilities)
    if not profile.default_action and not profile.syscalls:
        return None
    document: dict[str, Any] = {"defaultAction": profile.default_action, "architectures": architectures}
    if profile.default_errno_ret is not None:
        document["defaultErrnoRet"] = profile.default_errno_ret
    if profile.flags:
        document["flags"] = profile.flags
    document["syscalls"] = [_oci_call(call) for call in calls if _names(call)]
    return document


def _oci_call(call: _Call) -> dict[str, Any]:
    found: dict[str, Any] = {"names": _names(call), "action": call.action}
    if call.errno_ret is not None:
        found["errnoRet"] = call.errno_ret
    if call.args:
        found["args"] = msgspec.to_builtins(call.args)
    return found


def profile_program(text: str, capabilities: int) -> bytes:
    """The filter as a BPF program for the built-in launcher, of a profile that was checked; empty: nothing is filtered.

    It depends on nothing but the text, the capabilities, the kernel's version, the machine and libseccomp.
    UnsupportedError where libseccomp is not installed: who wrote a profile does not want to go without.
    """
    profile, calls, architectures = _resolved(text, capabilities)
    if not profile.default_action and not profile.syscalls:
        return b""
    if profile.flags:
        raise UnsupportedError("seccomp profile: flags are not offered by the built-in launcher")
    rules = [
        native.SeccompRule(name, _action(call.action, call.errno_ret), arguments)
        for call in calls
        for arguments in _conditions(call)
        for name in _names(call)
    ]
    tokens = [_ARCHITECTURES[name.removeprefix("SCMP_ARCH_")] for name in architectures if name]
    default = _action(profile.default_action, profile.default_errno_ret)
    return native.seccomp_filter(default, rules, tokens or None)


def _action(name: str, number: int | None) -> int:
    if name in _WITH_ERRNO:
        return _ACTIONS[name] | (errno.EPERM if number is None else number & 0xFFFF)
    return _ACTIONS[name]


def _conditions(call: _Call) -> list[Sequence[native.SeccompArg]]:
    """What has to hold together; where one argument is named twice each condition is a rule, as with runc."""
    found = [native.SeccompArg(item.index, _OPERATORS[item.op], item.value, item.value_two) for item in call.args or ()]
    if len({item.index for item in found}) < len(found):
        return [[item] for item in found]
    return [found]
