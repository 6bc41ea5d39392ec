"""What a container is to be like: the options of ``create`` and ``run`` as values.

``flags`` makes these from the strings that users write; a library user fills them in directly.  Sizes are bytes,
durations nanoseconds, paths absolute.
"""

from typing import Literal

import msgspec

__all__ = ["CreateOptions", "Device", "Health", "MountOption", "Restart", "Throttle", "Ulimit"]

_LOG_SIZE = 100 << 20
_LOG_FILES = 10


class MountOption(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One mount: a path of the host, a volume (source None: an anonymous one), a tmpfs, or an image's tree."""

    type: Literal["bind", "volume", "tmpfs", "image"]
    target: str
    source: str | None = None
    readonly: bool = False
    recursive: bool = True
    propagation: str = "rprivate"
    create_source: bool = False  # as -v does: a directory is made where the host has none
    nocopy: bool = False  # a volume is not seeded from the image
    subpath: str | None = None
    size: int | None = None  # of a tmpfs
    mode: int | None = None  # of a tmpfs
    exec: bool = False  # of a tmpfs


class Ulimit(msgspec.Struct, frozen=True):
    """A resource limit by its name without RLIMIT_, as nofile; -1 is unlimited."""

    name: str
    soft: int
    hard: int


class Throttle(msgspec.Struct, frozen=True):
    """How fast a block device may be read or written: bytes or operations a second."""

    kind: Literal["read_bps", "write_bps", "read_iops", "write_iops"]
    path: str
    rate: int


class Device(msgspec.Struct, frozen=True):
    """A device of the host that the container may use; permissions are of ``rwm``."""

    source: str
    target: str
    permissions: str = "rwm"


class Restart(msgspec.Struct, frozen=True):
    """When a container that ended is started again; ``maximum`` 0 is without end."""

    policy: Literal["no", "on-failure", "always", "unless-stopped"] = "no"
    maximum: int = 0


class Health(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A health check. ``test``: empty inherits the image's, else NONE, CMD or CMD-SHELL comes first; 0 inherits."""

    test: tuple[str, ...] = ()
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class CreateOptions(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All that ``create`` and ``run`` are told. None and empty mean: as the image or the default has it."""

    image: str
    args: tuple[str, ...] = ()
    name: str | None = None
    platform: str | None = None
    runtime: str = "auto"
    auto_remove: bool = False
    # The process.
    entrypoint: tuple[str, ...] | None = None
    env: tuple[str, ...] = ()  # NAME=value; NAME alone takes it away
    labels: dict[str, str] = {}
    user: str | None = None
    group_add: tuple[str, ...] = ()
    workdir: str | None = None
    tty: bool = False
    interactive: bool = False
    attach: tuple[str, ...] = ()  # of stdin, stdout, stderr; none: as the verb has it
    init: bool = False
    bare_env: bool = False  # nothing of the image's variables, and none of ours
    umask: int = 0o022
    timeout: int = 0  # seconds that it may run; 0: as long as it likes
    timezone: str | None = None  # a zone's name, or local
    annotations: dict[str, str] = {}  # for the runtime, and for who looks
    stop_signal: str | None = None
    stop_timeout: int | None = None  # seconds
    restart: Restart = Restart()
    health: Health | None = None
    # What it sees.
    hostname: str | None = None
    domainname: str | None = None
    read_only: bool = False
    mounts: tuple[MountOption, ...] = ()
    volumes_from: tuple[tuple[str, bool], ...] = ()  # container, read-only
    devices: tuple[Device, ...] = ()
    network: str = "host"
    expose: tuple[str, ...] = ()  # as 80/tcp: what its record says, and images that are made of it
    add_hosts: tuple[tuple[str, str], ...] = ()  # name, address
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    pid: str = "private"
    ipc: str = "private"
    uts: str = "private"
    cgroupns: str = "private"
    userns: str = "host"
    shm_size: int = 64 << 20
    # What it may.
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    privileged: bool = False
    security_opt: tuple[str, ...] = ()
    sysctls: dict[str, str] = {}
    ulimits: tuple[Ulimit, ...] = ()
    memory: int | None = None
    memory_swap: int | None = None  # memory and swap together; -1: unlimited
    memory_reservation: int | None = None
    cpus: float | None = None
    cpu_period: int | None = None  # microseconds
    cpu_quota: int | None = None  # of them, in a period; instead of cpus
    cpu_shares: int | None = None
    cpuset_cpus: str | None = None
    cpuset_mems: str | None = None
    pids_limit: int | None = None
    throttles: tuple[Throttle, ...] = ()
    cgroup_parent: str | None = None
    oom_score_adj: int | None = None
    log_options: dict[str, str] = {}

    @property
    def log_limits(self) -> tuple[int, int]:
        """Bytes at which the log begins a new file (0: never), and how many files are kept. A log that nobody limited
        has an end too, because it lies on the disk of the store."""
        if "max-size" in self.log_options:
            return int(self.log_options["max-size"]), int(self.log_options.get("max-file", 1))
        return _LOG_SIZE, int(self.log_options.get("max-file", _LOG_FILES))
