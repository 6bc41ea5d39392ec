"""What is removed vanishes at once, and is deleted in the background: also after a crash, and never by two at once."""

import _thread
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from layerfs import trash
from layerfs.errors import LayerfsError
from layerfs.trash import Trash

MAKE = """
import os, sys, time
from pathlib import Path
from layerfs import trash
root = Path(sys.argv[1])
def slow(path):
    print("deleting", flush=True)
    time.sleep(float(sys.argv[2]))
    real(path)
real = trash._remove
trash._remove = slow
there = trash.Trash(root)
(root / "a" / "b").mkdir(parents=True)
there.take(root / "a")
there.empty()
"""


def fill(root: Path, name: str) -> Path:
    place = root / name / "upper" / "deep"
    place.mkdir(parents=True)
    (place / "file").write_bytes(b"x" * 4096)
    return root / name


def hold(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Deleting waits for the event."""
    go, real = threading.Event(), trash._remove

    def held(path: Path) -> None:
        assert go.wait(10)
        real(path)

    monkeypatch.setattr(trash, "_remove", held)
    return go


def test_it_vanishes_at_once_and_is_deleted_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go, there = hold(monkeypatch), Trash(tmp_path)
    for name in ("one", "two"):
        there.take(fill(tmp_path, name))
        there.empty()
    assert sorted(path.name[:9] for path in tmp_path.iterdir()) == [trash.PREFIX, trash.PREFIX]
    go.set()
    there.wait()
    assert os.listdir(tmp_path) == []


def test_a_descriptor_goes_with_what_comes_next_or_at_the_end(tmp_path: Path) -> None:
    there = Trash(tmp_path)
    for removes in (True, False):
        reader, writer = os.pipe()
        there.let_go(writer)
        os.set_blocking(reader, False)
        with pytest.raises(BlockingIOError):
            os.read(reader, 1)
        if removes:
            there.take(fill(tmp_path, "one"))
            there.empty()
        there.wait()
        assert os.read(reader, 1) == b""
        os.close(reader)


def test_many_threads(tmp_path: Path) -> None:
    there = Trash(tmp_path)

    def remove(number: int) -> None:
        for count in range(20):
            there.take(fill(tmp_path, f"{number}-{count}"))
            there.empty()

    threads = [threading.Thread(target=remove, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    there.wait()
    assert os.listdir(tmp_path) == []


def test_a_process_ends_only_when_all_is_deleted(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", MAKE, tmp_path, "0.3"], check=True, stdout=subprocess.DEVNULL)
    assert os.listdir(tmp_path) == []


FORK = """
there.empty()
if os.fork() == 0:  # without the thread, and what that is at is not the child's
    there.wait()
    (root / "mine").mkdir()
    there.take(root / "mine")
    there.empty()
    sys.exit(0)  # which waits as well
assert os.wait()[1] == 0
"""


def test_a_child_of_fork_has_a_thread_of_its_own(tmp_path: Path) -> None:
    found = subprocess.run([sys.executable, "-c", MAKE + FORK, tmp_path, "0.5"], stdout=subprocess.PIPE, timeout=20)
    assert (found.returncode, found.stdout) == (0, b"deleting\ndeleting\n")
    assert os.listdir(tmp_path) == []


def test_what_a_killed_process_left_goes_with_the_next_removal(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", MAKE, tmp_path, "60"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"deleting\n"
        there = Trash(tmp_path)
        there.take(fill(tmp_path, "mine"))
        there.empty()
        there.wait()
        assert len(os.listdir(tmp_path)) == 1  # the other one is at it, and has its lock
        process.kill()
    there = Trash(tmp_path)
    there.take(fill(tmp_path, "mine"))
    there.empty()
    there.wait()
    assert os.listdir(tmp_path) == []


def test_where_no_thread_can_be_had_it_is_deleted_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_thread, "start_new_thread", refuse)
    there = Trash(tmp_path)
    there.take(fill(tmp_path, "one"))
    there.empty()
    assert os.listdir(tmp_path) == []


def test_what_cannot_be_deleted_is_told_by_the_sweep_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(1, "Operation not permitted", str(path))

    monkeypatch.setattr(trash, "_remove", refuse)
    there = Trash(tmp_path)
    there.take(fill(tmp_path, "one"))
    there.empty()
    there.wait()
    with pytest.raises(LayerfsError, match=r"remove .*removed-.*not permitted"):
        there.sweep()
    monkeypatch.undo()
    there.sweep()
    assert os.listdir(tmp_path) == []
