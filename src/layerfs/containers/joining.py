"""Namespaces of other containers: ``--network container:NAME``, and the same for ``--pid``, ``--ipc`` and ``--uts``."""

import os
import socket
from contextlib import ExitStack
from typing import Any

import msgspec

from layerfs import native
from layerfs.containers.actions import current
from layerfs.containers.options import CreateOptions
from layerfs.containers.parts import Parts, is_rootless
from layerfs.containers.record import Config
from layerfs.errors import InUseError, InvalidInputError, LayerfsError, UnsupportedError
from layerfs.runtime import MountSpec

__all__ = ["Joined", "joined", "own_files", "with_donors"]

_KINDS = ("network", "pid", "ipc", "uts")
_PREFIX = "container:"
_SHAREABLE = ("shareable", "host")
_NEW_MOUNT = 0x0002_0000  # CLONE_NEWNS
_NAMES = ("hosts", "hostname", "resolv.conf")


class Joined(msgspec.Struct, frozen=True):
    """Kinds of namespaces with the process whose they are, and what is mounted because of them."""

    enter: tuple[tuple[str, int], ...] = ()
    mounts: tuple[MountSpec, ...] = ()


def _donors(options: CreateOptions) -> dict[str, str]:
    """Kind of namespace to the container that it is of."""
    values = {kind: str(getattr(options, kind)) for kind in _KINDS}
    return {kind: value[len(_PREFIX) :] for kind, value in values.items() if value.startswith(_PREFIX)}


def with_donors(parts: Parts, options: CreateOptions) -> tuple[CreateOptions, Config | None]:
    """The options with IDs in the places of names, and the record of the container whose network is joined.

    Raises NotFoundError for a container that is not there, InvalidInputError for options that contradict the joining.
    """
    donors = _donors(options)
    if not donors:
        return options, None
    _check(options, donors)
    ids = {kind: parts.database.container(name.removeprefix("/")).id for kind, name in donors.items()}
    changed: dict[str, Any] = {kind: _PREFIX + id for kind, id in ids.items()}
    network = parts.config(ids["network"]) if "network" in ids else None
    return msgspec.structs.replace(options, **changed), network


def _check(options: CreateOptions, donors: dict[str, str]) -> None:
    if is_rootless():
        raise UnsupportedError(f"option --{next(iter(donors))} container: without privilege it is not offered")
    for kind, name in donors.items():
        if not name:
            raise InvalidInputError(f"option --{kind} container: the name of the container is missing")
    if options.userns == "auto":
        raise InvalidInputError(f"option --userns auto: it cannot go with --{next(iter(donors))} container:")
    if "network" in donors:
        for flag, value in (
            ("hostname", options.hostname), ("dns", options.dns), ("dns-search", options.dns_search),
            ("dns-option", options.dns_options), ("add-host", options.add_hosts), ("expose", options.expose),
        ):  # fmt: skip
            if value:
                raise InvalidInputError(f"option --{flag}: it cannot go with --network container:")


def own_files(parts: Parts, id: str, network: Config) -> None:
    """Give a container the files that the one has whose network it joins: both see what either writes."""
    for name in _NAMES:
        os.link(parts.directory(network.id) / name, parts.directory(id) / name)


def joined(parts: Parts, config: Config, stack: ExitStack) -> Joined:
    """What a start needs of other containers; ``stack`` closes it. LayerfsError for one that does not run."""
    enter, mounts = [], []
    for kind, id in _donors(config.options).items():
        pid = _process(parts, kind, id)
        enter.append(("net" if kind == "network" else kind, pid))
        if kind == "ipc":
            mounts.append(_shared_memory(parts, id, pid, stack))
    return Joined(tuple(enter), tuple(mounts))


def _process(parts: Parts, kind: str, id: str) -> int:
    what = f"join {kind} of container {id[:12]}"
    state = current(parts, id)
    if state.status == "restarting":
        raise InUseError(f"{what}: it is restarting", hint="wait until it runs")
    if state.process is None or state.status not in ("running", "paused"):
        raise LayerfsError(f"{what}: it is not running", hint=f"layerfs start {id[:12]}")
    return state.process.pid


def _shared_memory(parts: Parts, id: str, pid: int, stack: ExitStack) -> MountSpec:
    """/dev/shm of the other container, as a mount."""
    kind = parts.config(id).options.ipc
    if kind not in _SHAREABLE and not kind.startswith(_PREFIX):
        raise LayerfsError(
            f"join ipc of container {id[:12]}: its IPC namespace is {kind}", hint="give that one --ipc shareable"
        )
    fd = _mount_of(pid, id)
    stack.callback(os.close, fd)
    return MountSpec(type="bind", target="/dev/shm", source=fd, recursive=False, quiet=True)


def _mount_of(pid: int, id: str) -> int:
    """A detached copy of the mount at /dev/shm of a process: only who is in its mount namespace can make one."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        pidfd = os.pidfd_open(pid)
        try:
            child = os.fork()
            if child == 0:
                _send_mount(pidfd, theirs)
        finally:
            os.close(pidfd)
        theirs.close()
        answer, fds, _, _ = socket.recv_fds(ours, 512, 1)
        os.waitpid(child, 0)
    if not fds:
        raise LayerfsError(f"join ipc of container {id[:12]}: {answer.decode(errors='replace') or 'it has ended'}")
    return fds[0]


def _send_mount(pidfd: int, channel: socket.socket) -> None:
    """In a child, which ends here."""
    try:
        native.enter_namespaces(_NEW_MOUNT, pidfd)
        flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        # No link is followed: the container can make some.
        place = os.open("shm", flags, dir_fd=os.open("dev", flags, dir_fd=os.open("/", flags)))
        if not os.path.ismount(f"/proc/self/fd/{place}") and os.fstat(place).st_dev == os.stat("/dev").st_dev:
            raise FileNotFoundError("nothing is mounted at its /dev/shm")
        socket.send_fds(channel, [b"."], [native.bind_mount(place, "", recursive=False)])
    except BaseException as exc:
        channel.send(str(exc).encode()[:500] or b"failed")
    finally:
        os._exit(0)
