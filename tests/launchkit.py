"""Roots to launch in, for tests: a busybox tree, EROFS layers, overlays; and one call that runs and waits."""

import errno
import os
import shutil
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from tarbuild import archive, directory, file

from layerfs import native
from layerfs.errors import NativeError

AT_FDCWD = -100
BUSYBOX = Path("/bin/busybox")
needs_busybox = pytest.mark.skipif(not BUSYBOX.exists(), reason="needs the Debian package busybox-static")


def _copies_detached() -> bool:
    try:
        mount = native.bind_mount(AT_FDCWD, "/", recursive=False)
        try:
            os.close(native.bind_mount(mount, "", recursive=False))
        finally:
            os.close(mount)
    except NativeError as exc:
        return exc.errno != errno.EINVAL
    return True


needs_detached_copies = pytest.mark.skipif(
    not _copies_detached(), reason="needs Linux 6.15, which copies and stacks mounts that are attached nowhere"
)
DOCKER_CAPABILITIES = 0xA80425FB
ALL_CAPABILITIES = (1 << 41) - 1
APPLETS = (
    "cat", "chmod", "chown", "dd", "echo", "env", "false", "grep", "head", "hostname", "id", "kill", "ln", "ls",
    "mkdir", "mkfifo", "mknod", "mount", "ping", "ps", "pwd", "readlink", "rm", "sh", "sleep", "stat", "stty",
    "test", "touch", "tr", "true", "tty", "umount", "uname", "wc",
)  # fmt: skip


def busybox_root(where: Path) -> Path:
    """A root file system with busybox and its links, and nothing else."""
    for name in ("bin", "etc", "root"):
        (where / name).mkdir(parents=True)
    (where / "tmp").mkdir()
    (where / "tmp").chmod(0o1777)
    shutil.copy2(BUSYBOX, where / "bin/busybox")
    for applet in APPLETS:
        (where / "bin" / applet).symlink_to("busybox")
    return where


@contextmanager
def opened(*paths: Path) -> Iterator[list[int]]:
    """Descriptors of directories."""
    with ExitStack() as stack:
        fds = []
        for path in paths:
            fds.append(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            stack.callback(os.close, fds[-1])
        yield fds


def layer_file(where: Path, name: str, content: bytes = b"x") -> int:
    """An EROFS layer with ``name`` and ``all`` in directory ``d``; its open file."""
    fd = os.open(where, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with native.Unpacker(fd) as unpacker:
        unpacker.write(archive(directory("d"), file(f"d/{name}", content), file("d/all", content)))
        unpacker.rest()
        unpacker.finish(bytes(16))
        unpacker.rest()
    return fd


@dataclass(frozen=True)
class Ended:
    """How a launched command ended: its exit status, or minus the signal; what it wrote."""

    status: int
    out: str
    err: str


def wait(pidfd: int) -> int:
    """Wait for the process and close the descriptor: exit status, or minus the signal."""
    try:
        info = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    finally:
        os.close(pidfd)
    assert info is not None
    return info.si_status if info.si_code == os.CLD_EXITED else -info.si_status


def run(tree: Path, *args: str, stdin: bytes = b"", readonly_tree: bool = False, **options: object) -> Ended:
    """Launch ``args`` with ``tree`` as the root, feed stdin, wait."""
    root = native.bind_mount(AT_FDCWD, str(tree), recursive=False, readonly=readonly_tree)
    try:
        return run_over(root, *args, stdin=stdin, **options)
    finally:
        os.close(root)


def run_over(root: int, *args: str, stdin: bytes = b"", **options: object) -> Ended:
    """The same over a detached mount, which the caller closes."""
    defaults: dict[str, object] = {"env": ["PATH=/bin"], "capabilities": DOCKER_CAPABILITIES}
    with ExitStack() as stack:
        files = [os.memfd_create(name) for name in ("in", "out", "err")]
        for fd in files:
            stack.callback(os.close, fd)
        os.write(files[0], stdin)
        os.lseek(files[0], 0, os.SEEK_SET)
        spec = native.LaunchSpec(root=root, args=args, stdio=(files[0], files[1], files[2]), **(defaults | options))  # type: ignore[arg-type]
        _, pidfd, tty = native.launch(spec)
        assert tty is None
        status = wait(pidfd)
        out, err = (os.pread(fd, 1 << 20, 0).decode() for fd in files[1:])
    return Ended(status, out, err)


def end(pidfd: int) -> None:
    """Kill and wait."""
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    wait(pidfd)


def sh(tree: Path, script: str, **options: object) -> Ended:
    return run(tree, "sh", "-c", script, **options)


def field(text: str, name: str) -> str:
    return next(line.split(None, 1)[1].strip() for line in text.splitlines() if line.startswith(name + ":"))


@contextmanager
def running(tree: Path, *args: str, **options: object) -> Iterator[tuple[int, int]]:
    """A container that runs: (pid, pidfd) of its first process; killed at the end."""
    root = native.bind_mount(AT_FDCWD, str(tree))
    defaults: dict[str, object] = {"env": ["PATH=/bin"], "capabilities": DOCKER_CAPABILITIES}
    try:
        spec = native.LaunchSpec(root=root, args=args or ("sleep", "60"), **(defaults | options))  # type: ignore[arg-type]
        pid, pidfd, _ = native.launch(spec)
    finally:
        os.close(root)
    try:
        yield pid, pidfd
    finally:
        end(pidfd)


def run_in(pidfd: int, script: str, **options: object) -> Ended:
    """Run a shell script in a container that runs."""
    files = [os.memfd_create(name) for name in ("out", "err")]
    defaults: dict[str, object] = {"env": ["PATH=/bin"], "capabilities": DOCKER_CAPABILITIES}
    null = os.open("/dev/null", os.O_RDONLY)
    try:
        spec = native.JoinSpec(
            pidfd=pidfd, args=["sh", "-c", script], stdio=(null, files[0], files[1]), **(defaults | options)
        )  # type: ignore[arg-type]
        status = wait(native.join(spec).pidfd)
        out, err = (os.pread(fd, 1 << 20, 0).decode() for fd in files)
    finally:
        for fd in (null, *files):
            os.close(fd)
    return Ended(status, out, err)


def children() -> set[int]:
    """The processes that are this one's children, zombies among them, to compare before and after."""
    found: set[int] = set()
    for path in Path("/proc/self/task").glob("*/children"):
        found.update(map(int, path.read_text().split()))
    return found


def descriptors() -> Sequence[str]:
    """What this process has open, to compare before and after."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
        except FileNotFoundError:
            continue  # the listing's own
    return sorted(found)
