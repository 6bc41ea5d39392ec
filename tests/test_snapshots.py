"""Snapshots, with real mounts."""

import errno
import os
import re
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import tarbuild
from hypothesis import given
from hypothesis import strategies as st
from suites.layer_suite import add, attached, make_store, small_disk

from layerfs import native, snapshots
from layerfs.digest import Digest
from layerfs.errors import (
    ExistsError,
    IntegrityError,
    InUseError,
    InvalidInputError,
    NativeError,
    NotFoundError,
    UnsupportedError,
)
from layerfs.fsutil import boot_id
from layerfs.metadata import Database
from layerfs.snapshots import MAX_LAYERS, SnapshotStore, _is_key

pytestmark = pytest.mark.root

BASE = tarbuild.archive(
    tarbuild.directory("./", mode=0o711, uid=3, gid=4, mtime=1_600_000_000, xattrs={"user.root": b"1"}),
    tarbuild.file("keep", b"base"),
    tarbuild.file("gone", b"base"),
    tarbuild.file("d/one", b"1"),
)
TOP = tarbuild.archive(
    tarbuild.directory("./", mode=0o1750, uid=5, gid=6, mtime=1_650_000_000, xattrs={"user.top": b"2"}),
    tarbuild.whiteout("gone"),
    tarbuild.file("d/two", b"2"),
)


class World:
    """A store's snapshots, and what they are made of."""

    def __init__(self, base: Path, layer_format: str) -> None:
        self.layers = make_store(base, layer_format)
        self.database = Database(base / "db")
        self.snapshots = SnapshotStore(base / "snapshots", self.layers, self.database)
        self.base = add(self.layers, BASE).diff_id
        self.top = add(self.layers, TOP).diff_id

    def close(self) -> None:
        self.snapshots.release_layers()
        self.database.close()


@pytest.fixture(params=["erofs", "dir"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path, request.param)
    yield world
    for row in world.snapshots.list():
        world.snapshots.release(row.key)
    world.close()
    assert attached(world.layers) == []


def inside(fd: int) -> Path:
    return Path(f"/proc/self/fd/{fd}")


def test_a_snapshot_is_written_and_keeps_what_was_written(world: World) -> None:
    world.snapshots.prepare("k", [world.base, world.top])
    fd = world.snapshots.mount("k")
    root = inside(fd)
    assert sorted(os.listdir(root)) == ["d", "keep"]
    assert sorted(os.listdir(root / "d")) == ["one", "two"]
    (root / "new").write_text("new")
    (root / "keep").unlink()
    os.close(fd)
    world.snapshots.release("k")
    upper = world.snapshots.upper("k")
    assert sorted(os.listdir(upper)) == ["keep", "new"]
    assert stat.S_ISCHR((upper / "keep").lstat().st_mode)
    assert list(world.snapshots.row("k").diff_ids) == [world.base, world.top]
    assert world.snapshots.usage("k") > 0
    fd = world.snapshots.mount("k")
    assert sorted(os.listdir(inside(fd))) == ["d", "new"]
    os.close(fd)


def test_the_root_looks_like_that_of_the_top_most_layer(world: World) -> None:
    world.snapshots.prepare("k", [world.base, world.top])
    fd = world.snapshots.mount("k")
    found, view = os.stat(inside(fd)), world.snapshots.view([world.base, world.top])
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, found.st_mtime) == (0o1750, 5, 6, 1_650_000_000)
    assert {name for name in os.listxattr(inside(fd)) if name.startswith("user.")} == {"user.top"}
    same = os.stat(inside(view))
    assert (same.st_mode, same.st_uid, same.st_mtime_ns) == (found.st_mode, found.st_uid, found.st_mtime_ns)
    os.close(view)
    os.close(fd)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_view_cannot_be_written(world: World, count: int) -> None:
    fd = world.snapshots.view([world.base, world.top][:count])
    assert sorted(os.listdir(inside(fd))) == [[], ["d", "gone", "keep"], ["d", "keep"]][count]
    with pytest.raises(OSError, match="Read-only") as caught:
        (inside(fd) / "new").mkdir()
    assert caught.value.errno == errno.EROFS
    os.close(fd)


def test_the_marks_of_a_single_layer_are_not_seen(world: World) -> None:
    fd = world.snapshots.view([world.top])
    with pytest.raises(FileNotFoundError):
        (inside(fd) / "gone").lstat()
    os.close(fd)


def test_a_whiteout_of_nothing_is_no_name_that_cannot_be_removed(world: World) -> None:
    """In a directory that one layer alone has, the kernel does not look for whiteouts unless it is told to."""
    layer = add(
        world.layers, tarbuild.archive(tarbuild.file("only/here", b"x"), tarbuild.whiteout("only/gone"))
    ).diff_id
    world.snapshots.prepare("k", [world.base, layer])
    fd = world.snapshots.mount("k")
    assert os.listdir(inside(fd) / "only") == ["here"]
    subprocess.run(["rm", "-r", f"/proc/{os.getpid()}/fd/{fd}/only"], check=True)
    assert sorted(os.listdir(inside(fd))) == ["d", "gone", "keep"]
    os.close(fd)


def test_from_scratch(world: World) -> None:
    world.snapshots.prepare("empty", [])
    fd = world.snapshots.mount("empty")
    (inside(fd) / "file").write_text("x")
    os.close(fd)
    assert os.listdir(world.snapshots.upper("empty")) == ["file"]
    world.snapshots.release("empty")
    fd = world.snapshots.mount("empty", readonly=True)
    with pytest.raises(OSError, match="Read-only"):
        (inside(fd) / "more").mkdir()
    os.close(fd)


def test_a_layer_twice_in_a_stack(world: World) -> None:
    """overlayfs refuses a directory twice; images with an empty layer repeated are common."""
    empty = add(world.layers, tarbuild.archive()).diff_id
    stack = [world.base, empty, world.top, empty, world.base]
    fd = world.snapshots.view(stack)
    assert sorted(os.listdir(inside(fd))) == ["d", "gone", "keep"]  # the base came again, on top of its whiteout
    os.close(fd)
    with world.layers.view(stack) as view:
        assert [entry.name for entry in view.listdir()] == [b"d", b"gone", b"keep"]


def test_a_read_only_mount(world: World) -> None:
    world.snapshots.prepare("k", [world.base])
    fd = world.snapshots.mount("k", readonly=True)
    with pytest.raises(OSError, match="Read-only"):
        (inside(fd) / "new").mkdir()
    os.close(fd)


def test_what_is_refused(world: World) -> None:
    with pytest.raises(NotFoundError, match="not in the store"):
        world.snapshots.prepare("k", [Digest.of(b"missing")])
    for key in ("", "../x", ".removed-1", "a/b", "x" * 200):
        with pytest.raises(InvalidInputError):
            world.snapshots.prepare(key, [])
    world.snapshots.prepare("k", [])
    with pytest.raises(ExistsError):
        world.snapshots.prepare("k", [])
    for call in (world.snapshots.mount, world.snapshots.remove, world.snapshots.usage):
        with pytest.raises(NotFoundError):
            call("missing")
    assert [row.key for row in world.snapshots.list()] == ["k"]


def test_too_many_layers(world: World) -> None:
    many = [Digest.of(b"%d" % number) for number in range(MAX_LAYERS + 1)]
    for call in (lambda: world.snapshots.prepare("k", many), lambda: world.snapshots.view(many)):
        with pytest.raises(UnsupportedError, match="501 layers") as caught:
            call()
        assert "squash" in str(caught.value.hint)


@pytest.mark.slow
def test_as_many_layers_as_the_kernel_stacks(world: World) -> None:
    layers = [add(world.layers, tarbuild.archive(tarbuild.file(f"f{number}"))).diff_id for number in range(MAX_LAYERS)]
    world.snapshots.prepare("k", layers)
    fd = world.snapshots.mount("k")
    assert len(os.listdir(inside(fd))) == MAX_LAYERS
    os.close(fd)
    world.snapshots.release("k")
    assert attached(world.layers) == []


# ---- mounted only once ----


def test_an_upper_is_not_mounted_twice(world: World) -> None:
    world.snapshots.prepare("k", [world.base])
    fd = world.snapshots.mount("k")
    with pytest.raises(InUseError, match="it is mounted"):
        world.snapshots.mount("k")
    with pytest.raises(InUseError):
        world.snapshots.remove("k")
    os.close(fd)
    world.snapshots.release("k")
    os.close(world.snapshots.mount("k"))


def test_of_many_at_once_one_gets_the_mount(world: World) -> None:
    world.snapshots.prepare("k", [world.base])
    barrier, got, refused = threading.Barrier(8), [], []

    def contend() -> None:
        barrier.wait()
        try:
            got.append(world.snapshots.mount("k"))
        except InUseError as exc:
            refused.append(exc)

    threads = [threading.Thread(target=contend) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(got), len(refused)) == (1, 7)
    os.close(got[0])


def test_attached_at_a_target(world: World, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    world.snapshots.prepare("k", [world.base])
    fd = world.snapshots.mount("k")
    world.snapshots.attach(fd, target, "k")
    os.close(fd)
    assert (target / "keep").read_text() == "base"
    with pytest.raises(InUseError, match=str(target)):
        world.snapshots.mount("k")
    busy = os.open(target / "keep", os.O_RDONLY)
    with pytest.raises(NativeError) as caught:
        world.snapshots.detach(target)
    assert caught.value.errno == errno.EBUSY
    os.close(busy)
    world.snapshots.detach(target)
    os.close(world.snapshots.mount("k"))  # the note says mounted, but nothing is at the target any more


def test_a_note_of_an_earlier_boot_counts_for_nothing(world: World) -> None:
    world.snapshots.prepare("k", [world.base])
    world.database.set_mounted("k", "", "another boot")
    os.close(world.snapshots.mount("k"))


def test_a_mount_that_fails_leaves_no_note(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.snapshots.prepare("k", [world.base])

    def refuse(*_: object, **__: object) -> int:
        raise NativeError("mount overlay: no", errno.EPERM)

    with monkeypatch.context() as patch:
        patch.setattr(native, "overlay_mount", refuse)
        with pytest.raises(NativeError):
            world.snapshots.mount("k")
    os.close(world.snapshots.mount("k"))


# ---- volatile ----


def test_a_volatile_upper_can_be_mounted_again(world: World) -> None:
    world.snapshots.prepare("k", [world.base])
    for number in range(3):
        fd = world.snapshots.mount("k", volatile=number != 1)
        (inside(fd) / f"file{number}").write_text("x")
        os.close(fd)
        world.snapshots.release("k")
    assert sorted(os.listdir(world.snapshots.upper("k"))) == ["file0", "file1", "file2"]


def test_a_volatile_upper_of_an_earlier_boot_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.snapshots.prepare("k", [world.base])
    os.close(world.snapshots.mount("k", volatile=True))
    world.snapshots.release("k")
    with monkeypatch.context() as patch:
        patch.setattr(snapshots, "boot_id", lambda: "the next boot")
        with pytest.raises(IntegrityError, match="without syncing"):
            world.snapshots.mount("k")
    assert boot_id() != "the next boot"
    world.snapshots.remove("k")
    world.snapshots.close()
    assert os.listdir(world.snapshots.root) == []


# ---- layer mounts ----


def test_layers_stay_mounted_as_long_as_a_mounted_snapshot_needs_them(world: World) -> None:
    if world.layers.format == "dir":
        pytest.skip("layers of this format are not mounted")
    world.snapshots.prepare("one", [world.base])
    world.snapshots.prepare("two", [world.base, world.top])
    one, two = world.snapshots.mount("one"), world.snapshots.mount("two")
    assert sorted(world.layers.mounted()) == sorted([world.base, world.top])
    os.close(two)
    world.snapshots.release("two")
    assert world.layers.mounted() == [world.base]
    os.close(one)
    world.snapshots.release("one")
    assert world.layers.mounted() == []


def test_a_view_goes_on_without_its_layer_mounts(world: World) -> None:
    fd = world.snapshots.view([world.base, world.top])
    world.snapshots.release_layers()
    assert attached(world.layers) == []
    assert (inside(fd) / "keep").read_text() == "base"
    os.close(fd)


# ---- removal and crashes ----


def test_removal_takes_all_of_it(world: World) -> None:
    world.snapshots.prepare("k", [world.base])
    fd = world.snapshots.mount("k")
    (inside(fd) / "deep" / "er").mkdir(parents=True)
    (inside(fd) / "deep").chmod(0)
    os.close(fd)
    world.snapshots.release("k")
    world.snapshots.remove("k")
    assert world.snapshots.list() == []
    assert not world.snapshots.upper("k").exists()
    world.snapshots.close()
    assert os.listdir(world.snapshots.root) == []


def test_litter_of_crashes_goes_and_nothing_else(world: World) -> None:
    world.snapshots.prepare("k", [world.base])
    (world.snapshots.root / "half-made" / "upper").mkdir(parents=True)
    (world.snapshots.root / ".removed-0123" / "upper").mkdir(parents=True)
    assert world.snapshots.sweep() == 2
    assert os.listdir(world.snapshots.root) == ["k"]
    (world.snapshots.root / "again" / "upper" / "old").mkdir(parents=True)
    world.snapshots.prepare("again", [])
    assert os.listdir(world.snapshots.upper("again")) == []
    os.rename(world.snapshots.root / "k", world.snapshots.root / "elsewhere")
    world.snapshots.remove("k")  # a row whose directory a disk lost


def test_kill_9_while_mounted_leaves_nothing_mounted(world: World, tmp_path: Path) -> None:
    world.snapshots.prepare("k", [world.base])
    code = (
        "import sys; sys.path[:0] = sys.argv[1:3]\n"
        "import time; from pathlib import Path; from test_snapshots import World\n"
        "world = World(Path(sys.argv[3]), sys.argv[4]); fd = world.snapshots.mount('k')\n"
        "Path(f'/proc/self/fd/{fd}/made').touch(); print('ready', flush=True); time.sleep(60)\n"
    )
    here = Path(__file__).parent
    arguments = [str(here), str(here / "suites"), str(tmp_path), world.layers.format]
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout as output:
        assert output.readline() == b"ready\n"
    with pytest.raises(InUseError):
        world.snapshots.mount("k")
    process.kill()
    process.wait()
    world.snapshots.release("k")  # said by whoever knows that the process is gone
    fd = world.snapshots.mount("k")
    assert (inside(fd) / "made").exists()
    os.close(fd)


def test_a_full_disk_leaves_no_snapshot(tmp_path: Path) -> None:
    with small_disk(tmp_path, 8) as disk:
        world = World(tmp_path, "dir")
        store = SnapshotStore(disk / "snapshots", world.layers, world.database)
        with open(disk / "filler", "wb") as filler, pytest.raises(OSError, match="No space"):
            while True:
                filler.write(bytes(4096))
                filler.flush()
        with pytest.raises(NativeError) as caught:
            store.prepare("k", [world.base])
        assert caught.value.errno == errno.ENOSPC
        assert store.list() == []
        (disk / "filler").unlink()
        store.prepare("k", [world.base])
        world.close()


ROOTLESS = """
import os, sys; sys.path[:0] = sys.argv[1:3]
from pathlib import Path
from layerfs.layers import LayerStore
from layerfs.metadata import Database
from layerfs.snapshots import SnapshotStore
from suites.layer_suite import add
from test_snapshots import BASE, TOP
base = Path(sys.argv[3])
layers = LayerStore(base / "layers", base / "run", base / "ingest", "dir", userxattr=True, chown=False)
stack = [add(layers, BASE).diff_id, add(layers, TOP).diff_id]
snapshots = SnapshotStore(base / "snapshots", layers, Database(base / "db"))
snapshots.prepare("k", stack)
fd = snapshots.mount("k")
os.unlink(f"/proc/self/fd/{fd}/keep")
print(sorted(os.listdir(f"/proc/self/fd/{fd}")), sorted(os.listdir(f"/proc/self/fd/{fd}/d")))
os.close(fd)
snapshots.release("k")
for diff_id in stack:
    layers.verify(diff_id)
"""


def test_in_the_user_namespace_of_an_ordinary_user(tmp_path: Path) -> None:
    if subprocess.run(["unshare", "-Urm", "true"], capture_output=True).returncode:
        pytest.skip("no user namespaces here")
    here = Path(__file__).parent
    command = ["unshare", "-Urm", sys.executable, "-c", ROOTLESS, str(here), str(here / "suites"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout == "['d'] ['one', 'two']\n"


@given(st.text("aZ5_.-/é\n\0²", max_size=4) | st.sampled_from(["a" * 128, "a" * 129, "-" * 200]))
def test_what_may_name_a_snapshot(text: str) -> None:
    assert _is_key(text) == (re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", text) is not None)
