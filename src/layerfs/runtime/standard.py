"""A standard OCI runtime, as runc or crun: a bundle with the root mounted in it, and the program run over it."""

import json
import os
import re
import secrets
import signal
import subprocess
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from layerfs import native
from layerfs.errors import LayerfsError, NativeError, UnsupportedError, native_error
from layerfs.fsutil import remove_tree
from layerfs.runtime.lookup import check_command
from layerfs.runtime.oci import oci_config, oci_process
from layerfs.runtime.spec import ExecSpec, RunSpec, Started, command_failure

__all__ = ["StandardRuntime"]

_MESSAGE_LIMIT = 500


class StandardRuntime:
    """Runs containers by a program that follows runtime-spec; bundles and its own state lie below ``run``."""

    def __init__(self, program: str, run: Path) -> None:
        self.program = program
        self.name = os.path.basename(program)
        self._run = run

    def start(self, spec: RunSpec, root: int, stdio: tuple[int, int, int]) -> Started:
        """See ``Runtime.start``."""
        bundle = self.bundle(spec.id)
        if spec.init:
            raise UnsupportedError(f"option --init: not offered with {self.name}", hint="use --runtime builtin")
        check_command(spec, root)
        with ExitStack() as stack:
            try:
                (bundle / "rootfs").mkdir(parents=True, mode=0o700)
                stack.callback(remove_bundle, bundle)
                (bundle / "config.json").write_text(json.dumps(oci_config(spec)))
            except OSError as exc:
                raise native_error(exc, f"write the bundle {bundle}") from exc
            native.attach(root, bundle / "rootfs")
            words = ["run", "--bundle", str(bundle)]
            child = _RuntimeChild(self, spec, bundle / "run", words, stdio)
            child.wait_started()
            stack.pop_all()
            return child

    def execute(self, spec: ExecSpec, stdio: tuple[int, int, int]) -> Started:
        """See ``Runtime.execute``."""
        place = self.bundle(spec.id) / f"exec-{secrets.token_hex(6)}"
        try:
            place.mkdir(mode=0o700)
            (place / "process.json").write_text(json.dumps(oci_process(spec)))
        except OSError as exc:
            raise native_error(exc, f"execute in container {spec.id[:12]}: write {place}") from exc
        try:
            child = _RuntimeChild(self, spec, place, ["exec", "--process", str(place / "process.json")], stdio)
            child.wait_started()
        except BaseException:
            remove_tree(place)
            raise
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
            subprocess.run(
                self.command("delete", "--force", id),
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False,
            )  # fmt: skip


def remove_bundle(bundle: Path) -> None:
    """Unmount a bundle's root and remove the bundle; no error when parts of it are gone."""
    with suppress(NativeError):
        native.detach(bundle / "rootfs", lazy=True)
    with suppress(OSError):
        # Whatever is mounted there still must not be emptied: only a root directory that is empty goes.
        os.rmdir(bundle / "rootfs")
        remove_tree(bundle)


class _RuntimeChild:
    """``runc run`` or ``runc exec`` in the foreground, which waits for its process and ends with its exit code."""

    terminal: int | None = None  # the program moves the bytes of a terminal itself

    def __init__(
        self,
        runtime: StandardRuntime,
        spec: RunSpec | ExecSpec,
        place: Path,
        words: list[str],
        stdio: tuple[int, int, int],
    ) -> None:
        self._runtime = runtime
        self._id = spec.id
        self._command = spec.args[0]
        self._place = place
        self._is_exec = isinstance(spec, ExecSpec)
        place.mkdir(mode=0o700, exist_ok=True)
        self._pid_file = place / "pid"
        self._log = place / "log"
        self.pid = 0
        log = ["--log", str(self._log), "--log-format", "json"]
        try:
            self._process = subprocess.Popen(
                [*runtime.command(), *log, *words, "--pid-file", str(self._pid_file), spec.id],
                stdin=stdio[0],
                stdout=stdio[1],
                stderr=stdio[2],
                # A terminal is set by its foreground group alone; else signals of ours are handed on just once.
                start_new_session=not spec.tty,
            )
        except OSError as exc:
            raise native_error(exc, f"run {runtime.program}") from exc
        self._pidfd = os.pidfd_open(self._process.pid)

    def wait_started(self) -> None:
        """Until the container runs; raises what kept it from that."""
        while self._process.poll() is None and not self._read_pid():
            time.sleep(0.001)
        if not self._read_pid():
            self._process.wait()
            os.close(self._pidfd)
            if not self._is_exec:
                self._runtime.forget(self._id)
            raise self._failure()

    def _read_pid(self) -> bool:
        with suppress(OSError, ValueError):
            self.pid = int(self._pid_file.read_text())
        return self.pid > 0

    def _failure(self) -> LayerfsError:
        text = _last_error(self._log) or f"{self._runtime.name} ended with code {self._process.returncode}"
        for pattern, errno in _FAILURES:
            if re.search(pattern, text):
                return command_failure(self._command, errno, text[:_MESSAGE_LIMIT])
        return LayerfsError(f"run container {self._id[:12]}: {self._runtime.name}: {text[:_MESSAGE_LIMIT]}")

    def signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    def fileno(self) -> int:
        return self._pidfd

    def wait(self) -> int:
        code = self._process.wait()
        return code if code >= 0 else 128 - code  # the program itself was ended by a signal

    def close(self) -> None:
        os.close(self._pidfd)
        if self._is_exec:
            with suppress(OSError):
                remove_tree(self._place)
        else:
            self._runtime.forget(self._id)
            remove_bundle(self._place.parent)


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
