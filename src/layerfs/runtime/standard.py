"""A standard OCI runtime, as runc or crun: a bundle with the root mounted in it, and the program run over it."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from layerfs import native
from layerfs.errors import InvalidInputError, LayerfsError, NativeError, UnsupportedError, native_error, system_errors
from layerfs.fsutil import remove_tree
from layerfs.runtime.builtin import opened_userns, supervise, with_owners
from layerfs.runtime.cgroups import Cgroup
from layerfs.runtime.inits import with_init
from layerfs.runtime.lookup import check_command, check_directory
from layerfs.runtime.oci import oci_config, oci_process
from layerfs.runtime.programs import Launched, WithTerminal, spawned
from layerfs.runtime.spec import ExecSpec, RunSpec, Started, Supervision, command_failure
from layerfs.runtime.supervisor import read_report

if TYPE_CHECKING:
    import subprocess

__all__ = ["StandardRuntime"]

_MESSAGE_LIMIT = 500
_AT_FDCWD = -100
_OPEN_ROOT = "/dev/layerfs-root"  # /dev is one of its own where the launcher has made the mount namespace


class StandardRuntime:
    """Runs containers by a program that follows runtime-spec; bundles and its own state lie below ``run``."""

    def __init__(self, program: str, run: Path) -> None:
        self.program = program
        self.name = os.path.basename(program)
        self._run = run

    def start(self, spec: RunSpec, root: int, stdio: tuple[int, int, int]) -> Started:
        """See ``Runtime.start``."""
        with ExitStack() as undo:
            bundle = self._make_bundle(spec, root, undo)
            host = self._host_fields(bundle) if spec.maps is not None else None
            child = _RuntimeChild(self, spec, bundle / "run", self._run_words(bundle), stdio, host)
            child.wait_started()
            undo.pop_all()
            return child

    def _make_bundle(self, spec: RunSpec, root: int, undo: ExitStack) -> Path:
        bundle = self.bundle(spec.id)
        if spec.overlay is not None:
            raise UnsupportedError(f"without privilege: not offered with {self.name}", hint="use --runtime builtin")
        check_command(spec, root)
        _check_mount_points(root, self.name)
        if bundle.exists():  # of a run whose keeper was killed
            self.release(spec.id, spec.cgroup_parent)
        if spec.init:
            spec = with_init(spec)
        undo.callback(Cgroup(spec.id, spec.cgroup_parent).remove)
        undo.callback(remove_bundle, bundle)
        with system_errors(f"write the bundle {bundle}"):
            (bundle / "rootfs").mkdir(parents=True, mode=0o700)
            (bundle / "run").mkdir(mode=0o700)
            if spec.maps is not None:
                with opened_userns(spec.maps.uids, spec.maps.gids) as userns:
                    spec = with_owners(spec, userns, undo)
            spec = _with_paths(spec, bundle / "mounts")
            rootfs = _OPEN_ROOT if spec.maps is not None else str(bundle / "rootfs")
            (bundle / "config.json").write_text(json.dumps(oci_config(spec, rootfs)))
        native.attach(root, bundle / "rootfs")
        return bundle

    def _host_fields(self, bundle: Path | None) -> dict[str, Any]:
        """The fields of a launch on the host, but for a mount namespace of its own.

        ``bundle``: its root is at ``_OPEN_ROOT`` there. A runtime looks for the root with the rights of the container's
        user namespace, and on the host our directories are for us alone.
        """
        mounts = [
            native.Mount(type="bind", source="/sys/fs/cgroup", target="/sys/fs/cgroup", options=["rec", "dev"]),
        ]
        if bundle is not None:
            root = str(bundle / "rootfs")
            mounts.append(native.Mount(type="bind", source=root, target=_OPEN_ROOT, options=["rec", "dev"]))
        return {
            "env": [f"PATH={os.environ.get('PATH', '/usr/sbin:/usr/bin:/sbin:/bin')}"],
            "capabilities": (1 << 63) - 1,
            "new_privileges": True,
            "privileged": True,
            "share": ("pid", "ipc", "uts", "net", "cgroup"),
            "mounts": mounts,
        }

    def _run_words(self, bundle: Path) -> list[str]:
        return ["run", "--bundle", str(bundle)]

    def supervise(self, spec: RunSpec, root: int, supervision: Supervision) -> None:
        """See ``Runtime.supervise``. The supervisor's own process is the program in the foreground, on the host."""
        if supervision.health:  # the supervisor runs it where the program itself runs, on the host
            health = (*self.command("exec", spec.id), *supervision.health)
            supervision = msgspec.structs.replace(supervision, health=health)
        with ExitStack() as undo:
            bundle = self._make_bundle(spec, root, undo)
            place = bundle / "run"
            words = [*self.command(*self._log_words(place)), *self._run_words(bundle)]
            host = native.bind_mount(_AT_FDCWD, "/", recursive=True)
            try:
                fields = {
                    "root": host,
                    "args": [*words, "--pid-file", str(place / "pid"), spec.id],
                    "tty": spec.tty,
                    **self._host_fields(bundle if spec.maps is not None else None),
                }
                supervise(spec.id, supervision, fields)
            finally:
                os.close(host)
            undo.callback(self.forget, spec.id)
            self._wait_supervised(spec, supervision, place)
            undo.pop_all()

    def _wait_supervised(self, spec: RunSpec, supervision: Supervision, place: Path) -> None:
        while not (place / "pid").exists():
            report = read_report(supervision.directory)
            if report is None or (report.is_over and not (place / "pid").exists()):
                raise failure(spec.id, spec.args[0], self.name, place / "log")
            time.sleep(0.002)

    def first_process(self, id: str, pid: int) -> int:
        """See ``Runtime.first_process``."""
        return _read_pid(self.bundle(id) / "run" / "pid")

    def release(self, id: str, cgroup_parent: str | None) -> None:
        """See ``Runtime.release``."""
        self.forget(id)
        remove_bundle(self.bundle(id))
        Cgroup(id, cgroup_parent).remove()

    def _log_words(self, place: Path) -> list[str]:
        return ["--log", str(place / "log"), "--log-format", "json"]

    def execute(self, spec: ExecSpec, stdio: tuple[int, int, int]) -> Started:
        """See ``Runtime.execute``."""
        with _root_of(spec.pid) as root:
            check_command(spec, root)
            check_directory(spec, root)
        place = self.bundle(spec.id) / f"exec-{os.urandom(6).hex()}"
        try:
            place.mkdir(mode=0o700)
            (place / "process.json").write_text(json.dumps(oci_process(spec)))
        except OSError as exc:
            raise native_error(exc, f"execute in container {spec.id[:12]}: write {place}") from exc
        try:
            words = ["exec", "--process", str(place / "process.json"), *(["--detach"] if spec.detach else [])]
            host = self._host_fields(self.bundle(spec.id)) if _has_userns(spec.pid) else None
            child = _RuntimeChild(self, spec, place, words, stdio, host)
            child.wait_started()
        except BaseException:
            remove_tree(place)
            raise
        if spec.detach:
            child.wait()
        return child

    def bundle(self, id: str) -> Path:
        """The bundle of a container that runs."""
        return self._run / "containers" / id

    def state_directory(self) -> Path:
        """Where the program keeps what it knows of its containers."""
        return self._run / "oci" / self.name

    def command(self, *args: str) -> list[str]:
        """Its command line for a verb."""
        return [self.program, "--root", str(self.state_directory()), *args]

    def forget(self, id: str) -> None:
        """Let the program remove what it may still know of a container; no error when that is nothing."""
        if (self.state_directory() / id).exists():
            import subprocess  # listing containers needs it not

            subprocess.run(
                self.command("delete", "--force", id),
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False,
            )  # fmt: skip
            # What it leaves when it was killed while it made the container; runc mounts itself there for a moment.
            with suppress(OSError):
                for entry in (self.state_directory() / id).iterdir():
                    with suppress(NativeError):
                        native.detach(entry, lazy=True)
                remove_tree(self.state_directory() / id)


def _check_mount_points(root: int, program: str) -> None:
    """Runtimes made links in ``/dev`` without looking whether the image has a link there, which leads to the host."""
    for name in ("dev", "proc", "sys"):
        with suppress(FileNotFoundError):
            if stat.S_ISLNK(os.stat(name, dir_fd=root, follow_symlinks=False).st_mode):
                raise InvalidInputError(
                    f"run container: /{name} is a symbolic link in the image",
                    hint=f"not with {program}: --runtime builtin",
                )


def _with_paths(spec: RunSpec, place: Path) -> RunSpec:
    """The detached mounts among those of the container attached below ``place``: the program takes paths alone."""
    mounts = []
    for number, mount in enumerate(spec.mounts):
        if isinstance(mount.source, int):
            target = place / str(number)
            if mount.is_dir:
                target.mkdir(mode=0o700, parents=True)
            else:
                place.mkdir(mode=0o700, exist_ok=True)
                target.touch(mode=0o600)
            native.attach(mount.source, target)
            mount = msgspec.structs.replace(mount, source=str(target))
        mounts.append(mount)
    return msgspec.structs.replace(spec, mounts=tuple(mounts))


def remove_bundle(bundle: Path) -> None:
    """Unmount what is mounted in a bundle and remove it; no error when parts of it are gone."""
    with suppress(OSError):
        for place in (bundle / "rootfs", *(bundle / "mounts").glob("*")):
            with suppress(NativeError):
                native.detach(place, lazy=True)
            # Whatever is mounted there still must not be emptied: only directories that are empty go.
            with suppress(FileNotFoundError):
                os.rmdir(place) if place.is_dir() else os.unlink(place)
        remove_tree(bundle)


class _RuntimeChild:
    """``runc run`` or ``runc exec`` in the foreground, which waits for its process and ends with its exit code.

    It moves the bytes of the container's terminal itself, to one that is made for it: ours could not be left while it
    goes on.
    """

    def __init__(
        self,
        runtime: StandardRuntime,
        spec: RunSpec | ExecSpec,
        place: Path,
        words: list[str],
        stdio: tuple[int, int, int],
        host: dict[str, Any] | None = None,
    ) -> None:
        """``host``: the fields of a launch, where the program needs a mount namespace of its own."""
        self._runtime = runtime
        self._id = spec.id
        self._command = spec.args[0]
        self._place = place
        self._is_exec = isinstance(spec, ExecSpec)
        self._cgroup_parent = spec.cgroup_parent
        place.mkdir(mode=0o700, exist_ok=True)
        self._pid_file = place / "pid"
        self._log = place / "log"
        self.pid = 0
        words = [*runtime.command(*runtime._log_words(place)), *words, "--pid-file", str(self._pid_file), spec.id]
        self.terminal: int | None = None
        self._process: WithTerminal | Launched | subprocess.Popen[bytes]
        try:
            if host is not None:
                self._process = Launched(words, host, stdio, tty=spec.tty)
                self.terminal = self._process.terminal
            elif spec.tty:
                self._process = WithTerminal(words)
                self.terminal = self._process.terminal
            else:
                self._process = spawned(words, stdio)
        except OSError as exc:
            raise native_error(exc, f"run {runtime.program}") from exc
        self._pidfd = os.pidfd_open(self._process.pid)

    def wait_started(self) -> None:
        """Until the container runs; raises what kept it from that."""
        while self._process.poll() is None and not self._read_pid():
            time.sleep(0.001)
        if not self._read_pid():
            self._process.wait()
            self._close_descriptors()
            if not self._is_exec:
                self._runtime.forget(self._id)
            raise failure(self._id, self._command, self._runtime.name, self._log)

    def _read_pid(self) -> bool:
        self.pid = self.pid or _read_pid(self._pid_file)
        return self.pid > 0

    def signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    def fileno(self) -> int:
        return self._pidfd

    def wait(self) -> int:
        code = self._process.wait()
        return code if code >= 0 else 128 - code  # the program itself was ended by a signal

    def _close_descriptors(self) -> None:
        os.close(self._pidfd)
        if self.terminal is not None:
            os.close(self.terminal)

    def close(self) -> None:
        self._close_descriptors()
        if self._is_exec:
            with suppress(OSError):
                remove_tree(self._place)
        else:
            self._runtime.release(self._id, self._cgroup_parent)


@contextmanager
def _root_of(pid: int) -> Iterator[int]:
    """What a running container sees as its root, with all that is mounted in it."""
    with system_errors(f"open the root of process {pid}"):
        root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield root
    finally:
        os.close(root)


def _has_userns(pid: int) -> bool:
    """Whether a process is in another user namespace than this one."""
    with suppress(OSError):
        return os.stat(f"/proc/{pid}/ns/user").st_ino != os.stat("/proc/self/ns/user").st_ino
    return False


def _read_pid(path: Path) -> int:
    """The number in a pid file; 0 when it is not there yet."""
    with suppress(OSError, ValueError):
        return int(path.read_text())
    return 0


def failure(id: str, command: str, program: str, log: Path) -> LayerfsError:
    """The error for a container that did not start, from the log of the program."""
    text = _last_error(log) or "it ended before the container ran"
    for pattern, errno in _FAILURES:
        if re.search(pattern, text):
            return command_failure(command, errno, text[:_MESSAGE_LIMIT])
    return LayerfsError(f"run container {id[:12]}: {program}: {text[:_MESSAGE_LIMIT]}")


_FAILURES = (
    (r"executable file .*not found|exec: .*no such file or directory|stat .*: no such file or directory", 2),
    (r"exec.*(permission denied|exec format error|is a directory)|exec format error", 13),
)


def _last_error(log: Path) -> str:
    """The last message of level error in a log of JSON lines."""
    found = ""
    with suppress(OSError):
        for line in log.read_text(errors="replace").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if isinstance(entry, dict) and entry.get("level") in ("error", "fatal"):
                found = str(entry.get("msg", ""))
    return found
