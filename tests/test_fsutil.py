import errno
import fcntl
import multiprocessing
import os
import tempfile
import threading
from pathlib import Path

import pytest

from layerfs.errors import InUseError, NativeError
from layerfs.fsutil import Ingest, Lock, disk_usage, remove_tree, write_atomic


def test_write_atomic_replaces_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"one")
    write_atomic(path, b"two", 0o600)
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["file"]


def test_write_atomic_failing_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "x").touch()
    with pytest.raises(NativeError, match=r"write .*target"):
        write_atomic(tmp_path / "target", b"data")
    assert os.listdir(tmp_path) == ["target"]


def test_locks_exclude_threads_too(tmp_path: Path) -> None:
    with Lock(tmp_path / "lock"), pytest.raises(InUseError):
        Lock(tmp_path / "lock", blocking=False).acquire()
    with Lock(tmp_path / "lock", shared=True), Lock(tmp_path / "lock", shared=True, blocking=False):
        pass
    got = threading.Event()
    held = Lock(tmp_path / "lock").acquire()
    thread = threading.Thread(target=lambda: (Lock(tmp_path / "lock").acquire().release(), got.set()))
    thread.start()
    assert not got.wait(0.05)
    held.release()
    assert got.wait(5)
    thread.join()


def test_remove_tree_resists(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    tree = tmp_path / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "link").symlink_to(outside)
    (tree / "a" / "link").symlink_to("..")
    (tree / "a" / "file").touch()
    (tree / "a").chmod(0)
    os.mkfifo(tree / "fifo")
    remove_tree(tree)
    assert not tree.exists()
    assert (outside / "kept").exists()
    with pytest.raises(FileNotFoundError):
        remove_tree(tree)


def test_remove_tree_deeper_than_a_path_can_name(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    os.mkdir("deep", dir_fd=fd)
    inner = os.open("deep", os.O_RDONLY, dir_fd=fd)
    for _ in range(600):
        os.mkdir("d" * 20, dir_fd=inner)
        next_fd = os.open("d" * 20, os.O_RDONLY, dir_fd=inner)
        os.close(inner)
        inner = next_fd
    os.close(inner)
    os.close(fd)
    remove_tree(tmp_path / "deep")
    assert os.listdir(tmp_path) == []


def test_remove_tree_of_many_directories_is_linear(tmp_path: Path) -> None:
    for i in range(5000):
        (tmp_path / "wide" / str(i)).mkdir(parents=True)
    remove_tree(tmp_path / "wide")
    assert not (tmp_path / "wide").exists()


def _hold(root: Path, ready: "multiprocessing.synchronize.Event") -> None:
    manager = Ingest(root).directory("work")
    path = manager.__enter__()
    (path / "file").touch()
    ready.set()
    threading.Event().wait()


def test_sweep_removes_litter_of_the_dead_only(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_hold, args=(tmp_path, ready))
    process.start()
    assert ready.wait(30)
    (tmp_path / "blob-sha256-x").touch()
    with Ingest(tmp_path).directory("mine") as mine:
        assert Ingest(tmp_path).sweep() == 0
        process.kill()
        process.join()
        assert Ingest(tmp_path).sweep() == 1
        assert sorted(os.listdir(tmp_path)) == ["blob-sha256-x", mine.name]
    assert os.listdir(tmp_path) == ["blob-sha256-x"]


def test_disk_usage_counts_a_hard_link_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 100_000)
    before = disk_usage(tmp_path)
    os.link(tmp_path / "a", tmp_path / "b")
    assert disk_usage(tmp_path) == before >= 100_000


def test_a_sweep_between_making_and_locking_costs_only_another_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, swept = fcntl.flock, []

    def late(fd: int, operation: int) -> None:
        if not swept:
            swept.append(1)
            for path in tmp_path.iterdir():
                path.rmdir()
        real(fd, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with Ingest(tmp_path).directory("x") as path:
        assert path.is_dir()
    assert swept


@pytest.mark.root
def test_remove_tree_of_a_user_enters_what_has_no_x() -> None:
    """Root may enter anything; a container of an ordinary user can leave directories that its user may not."""
    place = Path(tempfile.mkdtemp())
    place.chmod(0o777)

    def remove() -> None:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        for mode in (0o600, 0o200, 0o400, 0o300):
            tree = place / "tree"
            (tree / "inside").mkdir(parents=True)
            (tree / "file").touch()
            (tree / "inside").chmod(mode)
            tree.chmod(mode)
            remove_tree(tree)

    try:
        process = multiprocessing.get_context("fork").Process(target=remove)
        process.start()
        process.join()
        assert process.exitcode == 0
    finally:
        remove_tree(place)


def test_what_cannot_be_removed_leaves_no_descriptor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(errno.EPERM, "no")

    monkeypatch.setattr("layerfs.fsutil.remove_tree", refuse)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(PermissionError), Ingest(tmp_path).directory("x"):
        pass
    assert os.listdir("/proc/self/fd") == before
