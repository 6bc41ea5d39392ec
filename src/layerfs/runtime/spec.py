"""What every runtime is told and gives back: ``RunSpec``, ``Started`` and the ``Runtime`` protocol."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec

from layerfs.errors import LayerfsError, NativeError
from layerfs.runtime.user import User

if TYPE_CHECKING:  # few containers have one
    from layerfs.userns import Maps

__all__ = [
    "DeviceSpec", "ExecSpec", "Limits", "MountSpec", "OverlaySpec", "RunSpec", "Runtime", "Started", "Supervision",
    "command_failure",
]  # fmt: skip

_PERIOD = 100_000


class MountSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One mount of a container. ``source`` is a path of the host for a bind, or for the built-in launcher a detached
    mount, which stays the caller's; sizes and modes are of a tmpfs."""

    type: Literal["bind", "tmpfs"]
    target: str
    source: str | int = ""
    is_dir: bool = True
    readonly: bool = False
    recursive: bool = True
    propagation: str = "rprivate"
    size: int | None = None
    mode: int | None = None
    exec: bool = False
    quiet: bool = False
    """Of a bind: nothing in it is executed."""
    mapped: bool = False
    """Its owners are seen by the maps of the container's user namespace."""


class OverlaySpec(msgspec.Struct, frozen=True):
    """An overlay of directories; ``lowers`` TOP-MOST FIRST."""

    lowers: tuple[str, ...]
    upper: str
    work: str
    options: tuple[str, ...] = ("userxattr",)


class DeviceSpec(msgspec.Struct, frozen=True):
    """A device of the host; permissions are of ``rwm``."""

    source: str
    target: str
    permissions: str = "rwm"


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a container may use; None: no limit of its own. Bytes; ``cpus`` in processors, of which each ``cpu_period``
    microseconds (None: the usual) counts by itself."""

    memory: int | None = None
    memory_swap: int | None = None
    memory_reservation: int | None = None
    cpus: float | None = None
    cpu_period: int | None = None
    cpu_shares: int | None = None
    cpuset_cpus: str | None = None
    cpuset_mems: str | None = None
    pids: int | None = None
    ulimits: tuple[tuple[str, int, int], ...] = ()
    oom_score_adj: int | None = None
    throttles: tuple[tuple[str, int, int], ...] = ()
    """read_bps, write_bps, read_iops or write_iops; the number of a block device; bytes or operations a second."""

    @property
    def cpu_times(self) -> tuple[int | None, int] | None:
        """Microseconds of processor time (None: any) in a period of microseconds; None when neither is limited."""
        if self.cpus is None and self.cpu_period is None:
            return None
        period = self.cpu_period or _PERIOD
        return (round(self.cpus * period) if self.cpus is not None else None), period


class RunSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A container ready to run; names of users are numbers by now, and all paths absolute."""

    id: str
    args: tuple[str, ...]
    env: tuple[str, ...]
    cwd: str
    user: User
    hostname: str
    capabilities: int
    mounts: tuple[MountSpec, ...] = ()
    domainname: str = ""
    tty: bool = False
    readonly: bool = False
    network: Literal["host", "none"] = "host"
    new_privileges: bool = False
    limits: Limits = Limits()
    annotations: dict[str, str] = {}
    init: bool = False
    privileged: bool = False
    share: tuple[str, ...] = ()
    """Namespaces of the host that are kept: pid, ipc, uts, cgroup."""
    enter: tuple[tuple[str, int], ...] = ()
    """Namespaces of others that are entered: pid, ipc, uts, net; and a process that is in it."""
    devices: tuple[DeviceSpec, ...] = ()
    umask: int = 0o022
    shm: bool = True
    """Whether there is a /dev/shm of its own, or the host's."""
    shm_size: int = 64 << 20
    sysctls: dict[str, str] = {}
    cgroup_parent: str | None = None
    seccomp: bool = True
    profile: str = ""
    """A seccomp profile of the user's, in docker's form, instead of ours."""
    unmasked: bool = False
    """No path of ``/proc`` and ``/sys`` is masked or made read-only."""
    counted: bool = True
    """Whether the host's groups count what it uses; else those groups are left out that limit nothing."""
    overlay: OverlaySpec | None = None
    """The root, mounted in the container's user namespace, for a caller without privilege; else it is given."""
    maps: Maps | None = None
    """A user namespace with these numbers."""
    die_with_parent: bool = False
    """It is killed when the thread that started it ends; by the built-in launcher alone."""

    @property
    def has_own_names(self) -> bool:
        """Whether host name and domain name are its own."""
        return "uts" not in self.share and all(kind != "uts" for kind, _ in self.enter)


class Supervision(msgspec.Struct, frozen=True, kw_only=True):
    """How a container without anybody at its side is kept; times in milliseconds."""

    directory: Path
    """Of the container: ``status.json`` and ``log`` are written there."""
    socket: Path
    """An empty directory for the socket."""
    events: Path
    """The directory of the file ``events``; what all of them tell is in ``attributes.json`` of ``directory``."""
    client: int | None = None
    """Descriptor of a client that is attached from before the start on: see ``SupervisorClient.connected``."""
    open_stdin: bool = False
    stdin_once: bool = False
    """The input ends with the first client that leaves."""
    no_log: bool = False
    log_max_size: int = 0
    log_max_files: int = 0
    restart: str = "no"
    restart_max: int = 0
    stop_signal: int = 15
    stop_timeout: int = 10_000
    health: tuple[str, ...] = ()
    health_interval: int = 30_000
    health_timeout: int = 30_000
    health_start_period: int = 0
    health_start_interval: int = 30_000
    health_retries: int = 3
    hook: tuple[str, ...] = ()
    timeout: int = 0
    """How long it may run; 0: without end."""


class ExecSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One more process for a running container, named by its first process ``pid``."""

    id: str
    pid: int
    args: tuple[str, ...]
    env: tuple[str, ...]
    cwd: str
    user: User
    capabilities: int
    new_privileges: bool = False
    tty: bool = False
    detach: bool = False
    umask: int = 0o022
    seccomp: bool = True
    profile: str = ""
    cgroup_parent: str | None = None


class Started(Protocol):
    """A container's first process, started by this process and to be waited for by it."""

    pid: int
    terminal: int | None
    """The master of its terminal, where the caller has to move the bytes."""

    def signal(self, number: int) -> None:
        """Send a signal; nothing happens when it has ended."""
        ...

    def fileno(self) -> int:
        """A descriptor that becomes readable when the process has ended."""
        ...

    def wait(self) -> int:
        """Wait for the end: the command's own code, or 128 and the signal."""
        ...

    def close(self) -> None:
        """Give back what belongs to it; after ``wait``."""
        ...


class Runtime(Protocol):
    """Something that runs containers."""

    name: str

    def start(self, spec: RunSpec, root: int, stdio: tuple[int, int, int]) -> Started:
        """Start the command of ``spec`` in the tree of ``root``, a detached mount that is the caller's to close, or -1
        where ``spec.overlay`` says what the root is.

        Raises what ``command_failure`` makes where the command cannot be executed, NativeError for all else.
        """
        ...

    def supervise(self, spec: RunSpec, root: int, supervision: Supervision) -> None:
        """Start the command under a supervisor that outlives this process; raises as ``start``."""
        ...

    def execute(self, spec: ExecSpec, stdio: tuple[int, int, int]) -> Started:
        """Start one more process in a running container; raises as ``start``."""
        ...

    def first_process(self, id: str, pid: int) -> int:
        """The first process of a supervised container, whose supervisor started ``pid``; 0 when it is not known."""
        ...

    def release(self, id: str, cgroup_parent: str | None) -> None:
        """Give back what is left of a container that does not run any more; nothing left is no error."""
        ...


def command_failure(command: str, errno: int, reason: str) -> LayerfsError:
    """The error for a command that cannot run; its exit code is 127 for one that is not there, else 126."""
    error = NativeError(f"run {command}: {reason}", errno)
    error.exit_code = 127 if errno == 2 else 126
    return error
