"""Processes in namespaces of their own: ``launch``, ``join`` and ``supervise``.

Each writes its spec as the text that docs/supervisor.md describes and executes the launcher with it. What a field
means stands there, under the name with hyphens; an empty value leaves the key out.
"""

import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from layerfs._native import ffi, lib
from layerfs.errors import InvalidInputError, NativeError
from layerfs.native._core import check, encode, new_error

__all__ = [
    "CommandError",
    "JoinSpec",
    "LaunchSpec",
    "Mount",
    "Process",
    "SupervisorSpec",
    "join",
    "keep_terminal",
    "launch",
    "launcher_program",
    "supervise",
]


class CommandError(NativeError):
    """All was set up, and the command itself could not be executed: ENOENT, EACCES, ENOEXEC ..."""


class Mount(msgspec.Struct, frozen=True, kw_only=True):
    """A mount that the launch makes: ``bind``, ``device``, ``tmpfs``, ``cgroup`` or ``cgroup2``.

    ``source``: a path of the host, or for a bind a detached mount, which stays the caller's.
    """

    type: str
    target: str | bytes
    source: str | bytes | int | None = None
    options: Sequence[str] = ()


class ProcessSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What the start of any process takes."""

    args: Sequence[str | bytes]
    env: Sequence[str | bytes] = ()
    cwd: str | bytes = "/"
    uid: int = 0
    gid: int = 0
    groups: Sequence[int] = ()
    capabilities: int = 0
    new_privileges: bool = False
    seccomp: bytes = b""
    """A BPF program, see ``seccomp_filter``."""
    rlimits: Sequence[tuple[int, int, int]] = ()
    """(RLIMIT_* number, soft, hard); -1 is unlimited."""
    cgroups: Sequence[int] = ()
    """Descriptors of cgroup directories."""
    stdio: tuple[int, int, int] = (0, 1, 2)
    umask: str = ""
    """Octal; 022 without it."""
    tty: bool = False
    tty_size: tuple[int, int] | None = None
    """(rows, columns)."""
    detach: bool = False


class JoinSpec(ProcessSpec, frozen=True, kw_only=True):
    """One more process in a running container, any of whose processes ``pidfd`` names."""

    pidfd: int


class LaunchSpec(ProcessSpec, frozen=True, kw_only=True):
    """A container's first process; its root is the detached mount ``root``, or an overlay of ``lowers`` and so on."""

    root: int = -1
    lowers: Sequence[str | bytes] = ()
    """TOP-MOST FIRST."""
    upper: str | bytes = ""
    work: str | bytes = ""
    overlay: Sequence[str] = ()
    readonly: bool = False
    hostname: str = ""
    domainname: str = ""
    privileged: bool = False
    unmasked: bool = False
    no_shm: bool = False
    oom_score_adj: int | None = None
    sysctls: Mapping[str, str] = {}
    share: Sequence[str] = ()
    """Namespaces not made new: pid, ipc, uts, net, cgroup."""
    enter: Sequence[tuple[str, int]] = ()
    """(net, ipc, pid or uts; descriptor of a namespace)."""
    uid_map: Sequence[tuple[int, int, int]] = ()
    """(inside, outside, count); makes a user namespace."""
    gid_map: Sequence[tuple[int, int, int]] = ()
    mounts: Sequence[Mount] = ()
    init: bool = False
    die_with_parent: bool = False
    no_network: bool = False
    """A network namespace with loopback only; else the host's, the same as ``net`` in ``share``."""


class SupervisorSpec(LaunchSpec, frozen=True, kw_only=True):
    """A container with a supervisor; times in milliseconds."""

    name: str
    state: int
    """Descriptor of the directory for ``status.json`` and ``log``."""
    socket: int
    """Descriptor of the directory for the socket ``name``.sock."""
    events: int | None = None
    """Descriptor of the directory for ``events``."""
    client: int | None = None
    """Descriptor of a connected socket: a client from before the start on."""
    open_stdin: bool = False
    stdin_once: bool = False
    no_log: bool = False
    log_max_size: int = 0
    log_max_files: int = 0
    restart: str = "no"
    restart_max: int = 0
    stop_signal: int = 15
    stop_timeout: int = 10_000
    health: Sequence[str | bytes] = ()
    health_interval: int = 30_000
    health_timeout: int = 30_000
    health_start_period: int = 0
    health_start_interval: int = 30_000
    health_retries: int = 3
    hook: Sequence[str | bytes] = ()
    timeout: int = 0


class Process(msgspec.Struct, frozen=True):
    """A process that has been started; ``pidfd`` and ``terminal`` (the master, or None) are the caller's to close."""

    pid: int
    pidfd: int
    terminal: int | None


def launch(spec: LaunchSpec) -> tuple[int, int, int | None]:
    """Start a container's first process; (pid, pidfd, master of its terminal or None).

    Raises ``CommandError`` when the command cannot be executed, ``NativeError`` for all else.
    """
    inside = not (spec.uid_map or spec.enter or spec.detach)
    started = _spawn("first", spec, _namespaces(spec)) if inside else _spawn("launch", spec)
    return started.pid, started.pidfd, started.terminal


def join(spec: JoinSpec) -> Process:
    """Start one more process in a container; raises as ``launch``."""
    return _spawn("join", spec)


def supervise(spec: SupervisorSpec) -> int:
    """Start a container under a supervisor of its own; the pid of its first run. Raises as ``launch``."""
    return _spawn("supervise", spec).pid


def keep_terminal(master: int) -> None:
    """Let a process of its own hold a terminal's master end until nobody has the other end; ours may be closed."""
    actions = [
        (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
        (os.POSIX_SPAWN_DUP2, 1, 2),
        (os.POSIX_SPAWN_DUP2, master, 0),
    ]
    program = launcher_program()
    os.waitpid(os.posix_spawn(program, [program, "keep"], {}, file_actions=actions), 0)


# Fields that are not written as they are: see _special.
_SPECIAL = frozenset(
    {"args", "groups", "cgroups", "seccomp", "rlimits", "stdio", "tty_size", "enter", "overlay", "uid_map", "gid_map"}
    | {"mounts", "no_network", "capabilities", "lowers", "root", "sysctls"}
)


_NEW_MOUNT = 0x0002_0000
_NEW = {"uts": 0x0400_0000, "ipc": 0x0800_0000, "pid": 0x2000_0000, "net": 0x4000_0000}
"""CLONE_NEW* of linux/sched.h."""


def _namespaces(spec: LaunchSpec) -> int:
    shared = {*spec.share, *(() if spec.no_network else ("net",))}
    return _NEW_MOUNT | sum(flag for name, flag in _NEW.items() if name not in shared)


def _spawn(mode: str, spec: ProcessSpec, namespaces: int = 0) -> Process:
    fds: list[int] = []
    filter_fd = text_fd = -1
    error, out = new_error(), ffi.new("lfs_spawned *")
    try:
        if spec.seccomp:
            filter_fd = _memory_file("seccomp", spec.seccomp)
        text = b"".join(b"%b\0" % pair for pair in _pairs(spec, filter_fd, fds))
        text_fd = _memory_file("spec", text)
        result = lib.lfs_spawn(_launcher(), mode.encode(), namespaces, text_fd, fds, len(fds), out, error)
    finally:
        for fd in (filter_fd, text_fd):
            if fd >= 0:
                os.close(fd)
    try:
        check(result, error)
    except NativeError as exc:
        if out.command_failed:
            raise CommandError(str(exc), exc.errno or 0, hint=exc.hint) from None
        raise
    return Process(out.pid, out.pidfd, out.tty if out.tty >= 0 else None)


def launcher_program() -> str:
    """The program itself: launcher, supervisor, and an init for other runtimes' containers (docs/supervisor.md)."""
    return str(Path(__file__).resolve().parent.parent / "_supervisor")


@functools.cache
def _launcher() -> int:
    """One for this process: a descriptor of the program that cannot be written through."""
    error = new_error()
    return check(lib.lfs_launcher_open(os.fsencode(launcher_program()), error), error)


def _memory_file(name: str, data: bytes) -> int:
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    with open(fd, "wb", closefd=False) as file:
        file.write(data)
    return fd


def _pairs(spec: ProcessSpec, seccomp: int, fds: list[int]) -> Iterator[bytes]:
    """``key=value`` of every field that says something, and the descriptors among them into ``fds``."""
    for name in type(spec).__struct_fields__:
        value = getattr(spec, name)
        if name in _SPECIAL or value is None or value is False or value in ("", b"", (), []):
            continue
        key = name.replace("_", "-")
        if name in ("pidfd", "state", "socket", "events", "client"):
            fds.append(value)
        for item in [value] if isinstance(value, str | bytes | int) else value:
            yield _pair(key, item)
    yield from _process_pairs(spec, seccomp, fds)
    if isinstance(spec, LaunchSpec):
        yield from _launch_pairs(spec, fds)


def _pair(key: str, value: str | bytes | int) -> bytes:
    data = str(int(value)).encode() if isinstance(value, int) else encode(value)
    if b"\0" in data:
        raise InvalidInputError(f"launch: {key} {value!r:.100}: a NUL byte in it")
    return b"%b=%b" % (key.encode(), data)


def _process_pairs(spec: ProcessSpec, seccomp: int, fds: list[int]) -> Iterator[bytes]:
    yield from (_pair("argv", item) for item in spec.args)
    yield from (_pair("group", item) for item in spec.groups)
    yield from (_pair("cgroup", item) for item in spec.cgroups)
    yield from (_pair("rlimit", ":".join(map(str, item))) for item in spec.rlimits)
    yield _pair("capabilities", f"{spec.capabilities:x}")
    fds.extend(spec.cgroups)
    if seccomp >= 0:
        fds.append(seccomp)
        yield _pair("seccomp", seccomp)
    if not spec.tty:
        fds.extend(fd for fd in spec.stdio if fd > 2)
        yield from (_pair(key, fd) for key, fd in zip(("stdin", "stdout", "stderr"), spec.stdio, strict=True))
    if spec.tty_size is not None:
        yield _pair("tty-size", "{}:{}".format(*spec.tty_size))


def _launch_pairs(spec: LaunchSpec, fds: list[int]) -> Iterator[bytes]:
    if spec.root >= 0:
        fds.append(spec.root)
        yield _pair("root", spec.root)
    yield from (_pair("lower", item) for item in spec.lowers)
    if spec.overlay:
        yield _pair("overlay", ",".join(spec.overlay))
    if not spec.no_network and "net" not in spec.share:
        yield _pair("share", "net")
    for kind, fd in spec.enter:
        fds.append(fd)
        yield _pair("enter", f"{kind}:{fd}")
    yield from (_pair("uidmap", ":".join(map(str, item))) for item in spec.uid_map)
    yield from (_pair("gidmap", ":".join(map(str, item))) for item in spec.gid_map)
    yield from (_pair("sysctl", f"{name}={value}") for name, value in spec.sysctls.items())
    for mount in spec.mounts:
        yield _pair("mount", mount.type)
        yield _pair("target", mount.target)
        yield from (_pair("option", item) for item in mount.options)
        if isinstance(mount.source, int):
            fds.append(mount.source)
            yield _pair("source-fd", mount.source)
        elif mount.source is not None:
            yield _pair("source", mount.source)
