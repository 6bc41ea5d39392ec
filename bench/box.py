"""A box to measure in: own mounts and processes, so that whatever happens nothing stays behind.

Daemons, containers, mounts and loop devices live in a mount and a PID namespace of their own. When its first process
goes, by itself, by Ctrl-C or by SIGKILL, the kernel ends and unmounts all the rest.
"""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["cgroup_name", "fresh_disk", "in_box", "is_inside", "prepare_inside", "work_directory"]

_MARK = "LAYERFS_BENCH_BOX"
_PATIENCE = 60.0
"""Seconds that a measurement that was interrupted has to write what it found."""
SIZE = 24 << 30
"""Bytes of a file system to measure on; the file behind it is sparse."""


def is_inside() -> bool:
    """Whether this process is the first one in the box."""
    return _MARK in os.environ and os.getpid() == 1


def cgroup_name() -> str:
    """The cgroup below which peers put their containers, where they can be told."""
    return f"layerfs-bench-{os.environ[_MARK]}"


@contextmanager
def work_directory(above: Path) -> Iterator[Path]:
    """A directory to measure in, gone afterwards; so are those of runs that were killed."""
    above.mkdir(parents=True, exist_ok=True)
    for left in above.glob("work-*"):
        with _locked(left) as ours:
            if ours:
                shutil.rmtree(left)
    path = Path(tempfile.mkdtemp(prefix="work-", dir=above))
    with _locked(path):
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Whether nobody else has the lock on a directory; if so it is held."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(fd)


def in_box(argv: Sequence[str]) -> int:
    """Run ``python -m bench.compare ARGV`` in a box; its exit code."""
    mark = str(os.getpid())
    own = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    command = ["setpriv", "--pdeathsig", "KILL", *own, sys.executable, "-m", "bench.compare", *argv]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # In a session of its own: Ctrl-C reaches this process alone, which hands it on.
    box = subprocess.Popen(command, env=os.environ | {_MARK: mark}, start_new_session=True)
    try:
        return box.wait()
    except KeyboardInterrupt:
        _interrupt(box.pid)
        with suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
            box.wait(timeout=_PATIENCE)
        return 130
    finally:
        box.kill()
        box.wait()
        _remove_cgroups(f"layerfs-bench-{mark}")


def _interrupt(pid: int) -> None:
    """Tell the first process in the box, which writes what it has."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        os.kill(int(child), signal.SIGINT)


def _remove_cgroups(name: str) -> None:
    for above in [Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").glob("*/")]:
        for path, _, _ in os.walk(above / name, topdown=False):
            with suppress(OSError):
                os.rmdir(path)


def prepare_inside() -> None:
    """Give the box a ``/run`` and shared memory of its own: peers keep state there whatever they are told. Settings of
    Python that a developer may have, as not to write byte code or not to buffer, are not passed on."""
    for place in ("/run", "/dev/shm"):
        subprocess.run(["mount", "-t", "tmpfs", "bench", place], check=True)
    for name in [name for name in os.environ if name.startswith("PYTHON")]:
        del os.environ[name]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


@contextmanager
def fresh_disk(work: Path, kind: str = "ext4") -> Iterator[Path]:
    """A new file system (``ext4`` with a journal, or ``xfs``) on a loop device, mounted."""
    image, place = work / "disk.img", work / "disk"
    place.mkdir(exist_ok=True)
    with image.open("wb") as file:
        file.truncate(SIZE)
    # The file is all holes: its inode tables need no zeroing, now or by the kernel while something is measured.
    options = ["-E", "lazy_itable_init=0,lazy_journal_init=0,assume_storage_prezeroed=1"] if kind == "ext4" else []
    subprocess.run([f"mkfs.{kind}", "-q", *options, image], check=True)
    subprocess.run(["mount", "-o", "loop", image, place], check=True)
    try:
        yield place
    finally:
        _unmount(place)
        image.unlink()


def _unmount(place: Path) -> None:
    """Unmount ``place`` and all below it."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    ours = [point for point in points if point == str(place) or point.startswith(f"{place}/")]
    for point in reversed(ours):
        if subprocess.run(["umount", point], capture_output=True).returncode:
            subprocess.run(["umount", "-l", point], check=False)
