"""RUN: a command in a snapshot over the layers so far; what it changed becomes a layer.

Mount points, ``/etc/hosts`` and the like lie in a layer of their own below the upper directory, so that they leave no
trace. Whatever happens, the command's processes end, and its snapshot and mounts go.
"""

import os
import select
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import msgspec

from layerfs.build.options import BuildParts
from layerfs.build.unprivileged import inner_maps
from layerfs.commit import freeze_upper
from layerfs.containers.files import FILES, check_addresses, write_files
from layerfs.containers.options import CreateOptions
from layerfs.containers.roots import within
from layerfs.containers.support import SupportLayers
from layerfs.digest import Digest
from layerfs.errors import BuildError, LayerfsError, system_errors
from layerfs.fsutil import remove_tree
from layerfs.layers import Layer
from layerfs.leases import Lease
from layerfs.runtime import (
    Identity,
    MountSpec,
    RunSpec,
    Runtimes,
    Started,
    Stdio,
    attend,
    capability_mask,
    identify,
    is_alive,
    resolve_user,
)
from layerfs.snapshots import SnapshotStore

__all__ = ["HOSTNAME", "Command", "Runner", "build_key", "sweep_dead_builds"]

HOSTNAME = "buildkitsandbox"
"""What commands see as the host's name, as with BuildKit, unless the argument BUILDKIT_SANDBOX_HOSTNAME is given."""
_TAIL = 30
_LINE_LIMIT = 1 << 16


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """A command ready to run; ``env`` without HOME, which belongs to the user."""

    args: tuple[str, ...]
    env: tuple[str, ...]
    cwd: str
    user: str
    mounts: tuple[MountSpec, ...] = ()
    network: str = "host"
    insecure: bool = False


class Runner:
    """Runs the commands of one build; for a ``with``. Any thread may use it."""

    def __init__(
        self,
        parts: BuildParts,
        lease: Lease,
        *,
        runtime: str,
        add_hosts: Sequence[tuple[str, str]] = (),
        clamp: int | None = None,
        debug_shell: bool = False,
        hostname: str = HOSTNAME,
    ) -> None:
        self.parts = parts
        self.runtime = runtime
        self._lease = lease
        self._add_hosts = tuple(add_hosts)
        self._clamp = clamp
        self._debug_shell = debug_shell
        self._hostname = hostname
        self._support = SupportLayers(parts.layers, parts.database, parts.ingest)
        self._runtimes = Runtimes(parts.run)
        self._stack = ExitStack()
        self._lock = threading.Lock()
        self._running: set[Started] = set()
        self._stopped = False
        self._mounted_layers = False
        self._files: dict[str, Path] = {}

    def __enter__(self) -> "Runner":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        if self._mounted_layers:
            with suppress(LayerfsError):
                self.parts.snapshots.release_layers()

    def stop(self) -> None:
        """Kill what runs, and let nothing begin any more."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                process.signal(signal.SIGKILL)

    def private_directory(self) -> Path:
        """A directory of this build that nobody else can look into, gone with it. It lies where nothing is kept."""
        key = build_key()
        place = self.parts.run / "build" / key
        with system_errors(f"make {place}"):
            place.mkdir(mode=0o700, parents=True)
        with self._lock:
            self._stack.callback(_remove, place)
        return place

    def run(self, stack: Sequence[Digest], command: Command, output: Callable[[str], None]) -> Layer:
        """Run a command over layers; the layer of its changes. BuildError with its exit code when it fails."""
        key = build_key()
        with ExitStack() as undo:
            targets = [(mount.target, mount.is_dir) for mount in command.mounts]
            support = self._support.get(stack, [*targets, *((path, False) for path in FILES.values())])
            if support is not None:
                self._lease.protect([support])
            self.parts.snapshots.prepare(key, [*stack, *([support] if support is not None else [])])
            undo.callback(self.parts.snapshots.remove, key)
            with self._mounted(key) as root:
                spec = self._spec(key, root, command)
                code, tail = self._execute(spec, root, output)
            if code and self._debug_shell:
                # A mount serves one process: it went with the command's namespace.
                with self._mounted(key) as root:
                    self._open_shell(spec, root)
            if code:
                raise _failure(command, code, tail)
            return freeze_upper(
                self.parts.layers,
                self.parts.database,
                self._lease,
                self.parts.snapshots.upper(key),
                below=stack,
                clamp=self._clamp,
            ).layer

    @contextmanager
    def _mounted(self, key: str) -> Iterator[int]:
        root = self.parts.snapshots.mount(key, volatile=True)
        try:
            yield root
        finally:
            os.close(root)
            # The next command needs nearly the same layers mounted: they go with the build.
            self.parts.snapshots.release(key, layers=False)
            self._mounted_layers = True

    def _spec(self, key: str, root: int, command: Command) -> RunSpec:
        user, maps = resolve_user(root, command.user), inner_maps()
        if maps is not None:
            user = within(user, maps)
        files = self._etc(command.network)
        taken = {mount.target for mount in command.mounts}
        mounts = [
            MountSpec(type="bind", source=str(files / name), target=path, is_dir=False)
            for name, path in FILES.items()
            if path not in taken
        ]
        return RunSpec(
            id=key,
            args=command.args,
            env=(f"HOME={user.home}", *command.env),
            cwd=command.cwd,
            user=user,
            hostname=self._hostname,
            capabilities=capability_mask(privileged=command.insecure),
            mounts=tuple(sorted((*mounts, *command.mounts), key=lambda mount: mount.target.count("/"))),
            network="none" if command.network == "none" else "host",
            new_privileges=True,
            privileged=command.insecure,
            die_with_parent=True,
            maps=maps,
        )

    def _execute(self, spec: RunSpec, root: int, output: Callable[[str], None]) -> tuple[int, Sequence[str]]:
        with ExitStack() as stack:
            null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            stack.callback(os.close, null)
            reading, writing = os.pipe2(os.O_CLOEXEC)
            stack.callback(os.close, reading)
            try:
                process = self._start(spec, root, (null, writing, writing))
            finally:
                os.close(writing)
            stack.callback(self._end, process)
            tail = _Lines(output).move(reading, process)
            return process.wait(), tail

    def _open_shell(self, spec: RunSpec, root: int) -> None:
        """A shell where the command failed, for the user at the terminal; what is done in it is thrown away."""
        terminal = os.isatty(0)
        shell = msgspec.structs.replace(spec, args=("/bin/sh",), tty=terminal, env=(*spec.env, "TERM=xterm"))
        with ExitStack() as stack:
            streams = stack.enter_context(Stdio((0, 1, 2), interactive=True, terminal=terminal))
            process = self._start(shell, root, streams.given)
            stack.callback(self._end, process)
            attend(process, streams)

    def _start(self, spec: RunSpec, root: int, stdio: tuple[int, int, int]) -> Started:
        with self._lock:
            if self._stopped:
                raise BuildError("stopped")
            process = self._runtimes.get(self.runtime).start(spec, root, stdio)
            self._running.add(process)
            return process

    def _end(self, process: Started) -> None:
        """Whatever happened, the process does not run any more after this."""
        with self._lock:
            self._running.discard(process)
        process.signal(signal.SIGKILL)
        with suppress(ChildProcessError, LayerfsError):
            process.wait()
        process.close()

    def _etc(self, network: str) -> Path:
        """/etc/hosts and so on, made once a build."""
        with self._lock:
            found = self._files.get(network)
        if found is None:
            found = self.private_directory()
            kind = "none" if network == "none" else "host"
            options = CreateOptions(image="", network=kind, add_hosts=self._add_hosts)
            check_addresses(options)
            write_files(found, options, self._hostname)
            with self._lock:
                self._files[network] = found
        return found


def _failure(command: Command, code: int, tail: Sequence[str]) -> BuildError:
    error = BuildError(f"the command ended with exit code {code}", exit_code=code)
    error.add_note("\n".join(tail))
    return error


class _Lines:
    """Output as lines, the last of them kept."""

    def __init__(self, output: Callable[[str], None]) -> None:
        self._output = output
        self._tail: deque[str] = deque(maxlen=_TAIL)
        self._pending = b""

    def move(self, fd: int, process: Started) -> Sequence[str]:
        """Until the process has ended and its output was read; what others of its processes still hold is not
        waited for."""
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        poll.register(process.fileno(), select.POLLIN)
        ended = False
        while True:
            events = dict(poll.poll(0 if ended else None))
            if fd in events:
                data = os.read(fd, 1 << 16)
                if not data:
                    break
                self._take(data)
            elif ended:
                break
            ended = ended or process.fileno() in events
        if self._pending:
            self._line(self._pending)
        return list(self._tail)

    def _take(self, data: bytes) -> None:
        *lines, self._pending = (self._pending + data).split(b"\n")
        for line in lines:
            self._line(line)
        if len(self._pending) > _LINE_LIMIT:
            self._line(self._pending)
            self._pending = b""

    def _line(self, line: bytes) -> None:
        # What a terminal would show of a line that writes over itself is its last part.
        text = line.rstrip(b"\r").rpartition(b"\r")[2].decode("utf-8", "replace")
        self._tail.append(text)
        self._output(text)


# ---- what a build leaves when it is killed ----


def build_key() -> str:
    """A name for something of this process, by which others can tell whether it still lives."""
    me = identify(os.getpid())
    assert me is not None
    return f"build-{me.pid}-{me.start_time}-{me.boot_id[:8]}-{os.urandom(6).hex()}"


def _is_dead(key: str) -> bool:
    parts = key.split("-")
    if len(parts) != 5 or not (parts[1].isdecimal() and parts[2].isdecimal()):
        return False
    me = identify(os.getpid())
    assert me is not None
    if parts[3] != me.boot_id[:8]:
        return True
    return not is_alive(Identity(int(parts[1]), int(parts[2]), me.boot_id))


def sweep_dead_builds(snapshots: SnapshotStore, run: Path) -> int:
    """Remove snapshots and directories of builds whose process is gone; how many."""
    count = 0
    for row in snapshots.list():
        if row.key.startswith("build-") and _is_dead(row.key):
            with suppress(LayerfsError):
                snapshots.release(row.key)
                snapshots.remove(row.key)
                count += 1
    with suppress(FileNotFoundError):
        for path in (run / "build").iterdir():
            if path.name.startswith("build-") and _is_dead(path.name):
                _remove(path)
                count += 1
    return count


def _remove(place: Path) -> None:
    for mounted in place.glob("mount-*"):
        with suppress(LayerfsError, OSError):
            _detach(mounted)
    with suppress(OSError):
        remove_tree(place)


def _detach(path: Path) -> None:
    from layerfs import native  # only where something was attached

    if os.path.ismount(path):
        native.detach(path, lazy=True)
