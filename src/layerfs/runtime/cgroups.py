"""Control groups of a container: made, limited, frozen, counted and removed, on version 1, 2 and hybrid hosts.

A container's groups are ``layerfs/<id>`` (below ``--cgroup-parent`` where given) of each controller that the host
has mounted; on a version 2 host it is one.  What a user asked for and the host cannot do is an error; what nobody
asked for is left out in silence.
"""

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path

from layerfs.errors import NativeError, UnsupportedError, native_error
from layerfs.runtime.spec import Limits

__all__ = ["Cgroup", "Usage", "roots_in"]

import msgspec

_WANTED = ("freezer", "memory", "pids", "cpu", "cpuacct", "cpuset", "blkio")
_FREEZE_SECONDS = 10.0


class Usage(msgspec.Struct, frozen=True):
    """What a container uses now: bytes, nanoseconds of processor time, processes; 0 where the host does not count."""

    memory: int = 0
    memory_limit: int = 0
    cpu: int = 0
    pids: int = 0
    pids_limit: int = 0
    read_bytes: int = 0
    written_bytes: int = 0


class Cgroup:
    """The groups of one container. Nothing is made before ``create``."""

    def __init__(self, id: str, parent: str | None = None) -> None:
        self._name = os.path.join((parent or "layerfs").strip("/"), id)
        self._roots = _roots()
        self._places: dict[str, Path | None] = {}

    @property
    def _version2(self) -> bool:
        return "" in self._roots

    def _path(self, controller: str) -> Path | None:
        """The group's directory in the hierarchy of a controller; None where the host has none."""
        if controller not in self._places:
            root = self._roots.get("") or self._roots.get(controller)
            self._places[controller] = Path(f"{root}/{self._name}") if root is not None else None
        return self._places[controller]

    def _paths(self) -> list[Path]:
        paths = [self._path(controller) for controller in ("", *_WANTED)]
        return list(dict.fromkeys(path for path in paths if path is not None))

    def exists(self) -> bool:
        """Whether any of the groups is there."""
        return any(path.exists() for path in self._paths())

    @property
    def paths(self) -> list[str]:
        """The directories of the groups that are there."""
        return [str(path) for path in self._paths() if path.exists()]

    def shown(self) -> list[tuple[str, tuple[str, ...]]]:
        """What a container may see of its groups: the name below /sys/fs/cgroup, and the controllers of the hierarchy.

        One name that is empty is the hierarchy of version 2. Where the container has no group of its own, nothing
        is shown: it would see those of others.
        """
        if self._version2:
            path = self._path("")
            return [("", ())] if path is not None and path.exists() else []
        hierarchies: dict[Path, list[str]] = {}
        for controller in _WANTED:
            path = self._path(controller)
            if path is not None and path.exists():
                hierarchies.setdefault(path, []).append(controller)
        return [(name, tuple(names)) for names in hierarchies.values() for name in names]

    # ---- life ----

    @contextmanager
    def create(self, limits: Limits, *, counted: bool = True) -> Iterator[list[int]]:
        """Make the groups and set the limits; descriptors of their directories, for the launch.

        Without ``counted`` only those that freeze and that limit: groups take time to go. UnsupportedError for a
        limit that the host does not have, NativeError for one that it refuses.
        """
        limited = {controller for controller, _, _ in _settings(limits, version2=self._version2)}
        with ExitStack() as stack:
            wanted = (name for name in ("", *_WANTED) if counted or name in ("", "freezer") or name in limited)
            for path in dict.fromkeys(map(self._path, wanted)):  # several controllers may be in one hierarchy
                if path is not None:
                    self._make(path)
            self.set_limits(limits)
            fds = []
            for path in self._paths():
                with suppress(FileNotFoundError):
                    fds.append(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
                    stack.callback(os.close, fds[-1])
            yield fds

    def _make(self, path: Path) -> None:
        try:
            if self._version2:
                self._delegate(path.parent)
            path.mkdir(parents=True, exist_ok=True)
            if path == self._path("cpuset") and not self._version2:
                for directory in (path.parent, path):  # version 1: an empty set takes no process
                    for name in ("cpuset.cpus", "cpuset.mems"):
                        if not (directory / name).read_text().strip():
                            (directory / name).write_text((directory.parent / name).read_text())
        except OSError:
            with suppress(OSError):
                path.rmdir()

    def _delegate(self, directory: Path) -> None:
        """Version 2: hand the controllers down from the root to the groups' common parent."""
        root = self._roots[""]
        available = (root / "cgroup.controllers").read_text().split()
        wanted = [f"+{name}" for name in ("cpu", "memory", "pids", "cpuset", "io") if name in available]
        current = root
        for part in ("", *directory.relative_to(root).parts):
            current = current / part
            current.mkdir(exist_ok=True)
            for word in wanted:  # one by one: a write with one that cannot be had is refused as a whole
                with suppress(OSError):
                    (current / "cgroup.subtree_control").write_text(word)

    def remove(self) -> None:
        """Remove the groups; those that still have processes stay for a moment, and for the next one who removes.

        OCI runtimes make more of them than we do, and a failed start of theirs leaves them.
        """
        # Each container's end asks for all of them, most of which are not there: a Path would cost more than the call.
        for path in dict.fromkeys(f"{root}/{self._name}" for root in (*self._roots.values(), *_all_roots())):
            for _ in range(50):
                try:
                    os.rmdir(path)
                except OSError as exc:
                    if exc.errno == 16:  # EBUSY: its last process is on its way out
                        time.sleep(0.002)
                        continue
                break

    # ---- limits ----

    def set_limits(self, limits: Limits) -> None:
        """Set what is given, and leave all else."""
        settings = list(_settings(limits, version2=self._version2))
        if limits.memory is not None and limits.memory > self._number("memory", "memory.memsw.limit_in_bytes") > 0:
            # Version 1 never lets memory be more than memory and swap together: to grow, that comes first.
            settings.sort(key=lambda setting: setting[1] != "memory.memsw.limit_in_bytes")
        for controller, name, value in settings:
            path = self._path(controller)
            if path is None or not (path / name).exists():
                # Swap is not counted on many hosts: then there is nothing that could be limited more than memory is.
                if name in ("memory.memsw.limit_in_bytes", "memory.swap.max"):
                    continue
                raise UnsupportedError(f"limit {controller} ({name}): this host has no such control group")
            try:
                (path / name).write_text(value)
            except OSError as exc:
                raise native_error(exc, f"limit {controller}: set {name} to {value}") from exc

    # ---- freezing ----

    def freeze(self) -> None:
        """Stop all processes where they are. UnsupportedError where the host cannot."""
        self._set_frozen(True)

    def thaw(self) -> None:
        """Let them go on."""
        self._set_frozen(False)

    def is_frozen(self) -> bool:
        """Whether they are stopped."""
        path = self._path("freezer")
        if path is None:
            return False
        try:
            if self._version2:
                return "frozen 1" in (path / "cgroup.events").read_text()
            return (path / "freezer.state").read_text().strip() == "FROZEN"
        except OSError:
            return False

    def _set_frozen(self, frozen: bool) -> None:
        path = self._path("freezer")
        if path is None or not path.exists():
            raise UnsupportedError("pause: this host has no control group that freezes")
        name, value = ("cgroup.freeze", "1" if frozen else "0")
        if not self._version2:
            name, value = "freezer.state", "FROZEN" if frozen else "THAWED"
        deadline = time.monotonic() + _FREEZE_SECONDS
        try:
            (path / name).write_text(value)
            while self.is_frozen() != frozen:
                if time.monotonic() > deadline:
                    (path / name).write_text("0" if self._version2 else "THAWED")
                    raise NativeError("pause: the processes do not stop", 110)
                time.sleep(0.001)
                if not self._version2 and frozen:
                    (path / name).write_text(value)  # version 1 gives up when new processes appear meanwhile
        except OSError as exc:
            if isinstance(exc, NativeError):
                raise
            raise native_error(exc, f"pause: write {path / name}") from exc

    # ---- counting ----

    def pids(self) -> list[int]:
        """All processes, as the host numbers them."""
        for controller in ("freezer", "pids"):
            path = self._path(controller)
            with suppress(OSError):
                if path is not None:
                    return sorted(map(int, (path / "cgroup.procs").read_text().split()))
        return []

    def usage(self) -> Usage:
        """What is used now."""
        if self._version2:
            stat = self._pairs("", "cpu.stat")
            io = self._text("", "io.stat")
            read, written = (
                sum(int(word[7:]) for word in io.split() if word.startswith(key)) for key in ("rbytes=", "wbytes=")
            )
            cache = self._pairs("", "memory.stat").get("inactive_file", 0)
            return Usage(
                memory=self._number("memory", "memory.current") - cache,
                memory_limit=self._number("memory", "memory.max"),
                cpu=stat.get("usage_usec", 0) * 1000,
                pids=self._number("pids", "pids.current"),
                pids_limit=self._number("pids", "pids.max"),
                read_bytes=read,
                written_bytes=written,
            )
        read, written = self._blkio()
        return Usage(
            memory=self._number("memory", "memory.usage_in_bytes")
            - self._pairs("memory", "memory.stat").get("total_inactive_file", 0),
            memory_limit=self._number("memory", "memory.limit_in_bytes"),
            cpu=self._number("cpuacct", "cpuacct.usage"),
            pids=self._number("pids", "pids.current"),
            pids_limit=self._number("pids", "pids.max"),
            read_bytes=read,
            written_bytes=written,
        )

    def has_run_out_of_memory(self) -> bool:
        """Whether the kernel has killed something in it to get memory."""
        counts = self._pairs("memory", "memory.events" if self._version2 else "memory.oom_control")
        return counts.get("oom_kill", 0) > 0

    def _blkio(self) -> tuple[int, int]:
        totals = {"Read": 0, "Write": 0}
        for line in self._text("blkio", "blkio.throttle.io_service_bytes").splitlines():
            words = line.split()
            if len(words) == 3 and words[1] in totals:
                totals[words[1]] += int(words[2])
        return totals["Read"], totals["Write"]

    def _text(self, controller: str, name: str) -> str:
        path = self._path(controller)
        with suppress(OSError):
            if path is not None:
                return (path / name).read_text()
        return ""

    def _number(self, controller: str, name: str) -> int:
        text = self._text(controller, name).strip()
        return int(text) if text.isdecimal() else 0

    def _pairs(self, controller: str, name: str) -> Mapping[str, int]:
        lines = (line.split() for line in self._text(controller, name).splitlines())
        return {words[0]: int(words[1]) for words in lines if len(words) == 2 and words[1].isdecimal()}


def _settings(limits: Limits, *, version2: bool) -> Iterator[tuple[str, str, str]]:
    """(controller, file, text) in the order they have to be written."""
    memory, swap = limits.memory, limits.memory_swap
    if memory is not None:
        yield "memory", "memory.max" if version2 else "memory.limit_in_bytes", str(memory)
    if swap is not None and version2:
        yield "memory", "memory.swap.max", "max" if swap < 0 else str(swap - (memory or 0))
    elif swap is not None:
        yield "memory", "memory.memsw.limit_in_bytes", str(swap)
    if limits.memory_reservation is not None:
        name = "memory.low" if version2 else "memory.soft_limit_in_bytes"
        yield "memory", name, str(limits.memory_reservation)
    if limits.cpu_times is not None:
        quota, period = limits.cpu_times
        if version2:
            yield "cpu", "cpu.max", f"{'max' if quota is None else quota} {period}"
        else:
            yield "cpu", "cpu.cfs_period_us", str(period)
            yield "cpu", "cpu.cfs_quota_us", str(-1 if quota is None else quota)
    if limits.cpu_shares is not None and version2:
        # The conversion of the OCI runtimes: 2..262144 to 1..10000.
        yield "cpu", "cpu.weight", str(1 + (max(2, limits.cpu_shares) - 2) * 9999 // 262142)
    elif limits.cpu_shares is not None:
        yield "cpu", "cpu.shares", str(limits.cpu_shares)
    if limits.cpuset_cpus is not None:
        yield "cpuset", "cpuset.cpus", limits.cpuset_cpus
    if limits.cpuset_mems is not None:
        yield "cpuset", "cpuset.mems", limits.cpuset_mems
    for kind, device, rate in limits.throttles:
        number = f"{os.major(device)}:{os.minor(device)}"
        if version2:
            verb, unit = kind.split("_")
            yield "io", "io.max", f"{number} {verb[0]}{unit}={rate}"
        else:
            yield "blkio", f"blkio.throttle.{kind}_device", f"{number} {rate}"
    if limits.pids is not None:
        yield "pids", "pids.max", "max" if limits.pids <= 0 else str(limits.pids)


@cache
def _all_roots() -> tuple[Path, ...]:
    """Where all hierarchies are mounted."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        lines = [line.partition(" - ") for line in file]
    return tuple(Path(left.split()[4]) for left, _, right in lines if right.split()[0] in ("cgroup", "cgroup2"))


@cache
def _roots() -> Mapping[str, Path]:
    """Where the hierarchies are mounted: by controller for version 1; under "" for version 2 alone."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return roots_in(file)


def roots_in(mountinfo: Iterable[str]) -> Mapping[str, Path]:
    """The same, by the lines of a mount table."""
    found: dict[str, Path] = {}
    unified: Path | None = None
    for line in mountinfo:
        left, _, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if kind[0] == "cgroup2":
            unified = unified or Path(fields[4])
        elif kind[0] == "cgroup":
            for name in kind[-1].split(","):
                if name in _WANTED:
                    found.setdefault(name, Path(fields[4]))
    if not found and unified is not None:
        return {"": unified}
    return found
