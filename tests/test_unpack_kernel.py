"""EROFS layers before the kernel, fsck.erofs and overlayfs; their size, sameness and cost."""

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import tarbuild as t
from corekit import FORMATS, fsck, mounted, needs_root, read_tree, repack, tree, unpack
from fstree import assert_same, capture
from test_unpack import CASES, sample

pytestmark = needs_root
needs_fsck = pytest.mark.skipif(shutil.which("fsck.erofs") is None, reason="needs erofs-utils")


@needs_fsck
@pytest.mark.parametrize("name", CASES)
def test_fsck_finds_nothing(name: str, tmp_path: Path) -> None:
    assert fsck(unpack(sample(name), tmp_path / "layer", block_size=4096).path) == ""


@pytest.mark.parametrize("name", CASES)
def test_block_sizes_give_the_same_tree(name: str, tmp_path: Path) -> None:
    data = sample(name)
    trees = []
    for block_size in (512, 1024, 2048, 4096):
        layer = unpack(data, tmp_path / str(block_size), block_size=block_size)
        assert layer.result.image_size == layer.path.stat().st_size
        assert layer.result.image_size % 4096 == 0
        assert repack(layer) == data
        trees.append(tree(layer))
        assert_same(read_tree(layer.path), trees[-1])
    for other in trees[1:]:
        assert_same(trees[0], other)


@pytest.mark.parametrize("mtime", [0, 5])
def test_a_root_of_any_size(tmp_path: Path, mtime: int) -> None:
    """Where what the root lists does not fit behind its inode in the first block, the root stands further on."""
    for length in range(100, 256, 3):
        names = ["a" * 150, "b" * length]
        data = t.archive(*(t.file(name, b"x", mtime=mtime + number) for number, name in enumerate(names)))
        layer = unpack(data, tmp_path / str(length), block_size=512)
        shown = tree(layer)
        assert set(shown) >= {name.encode() for name in names}, length
        assert_same(read_tree(layer.path), shown)


@pytest.mark.parametrize("name", CASES)
def test_the_same_archive_gives_the_same_file(name: str, tmp_path: Path) -> None:
    a, b = (unpack(sample(name), tmp_path / n, splits=s) for n, s in (("a", []), ("b", [997])))
    assert a.path.read_bytes() == b.path.read_bytes()
    assert a.rest == b.rest
    assert a.result == b.result


def test_file_content_starts_on_pages(tmp_path: Path) -> None:
    """Files of 4 KiB and more, so that layers can share them by reference."""
    from layerfs.native import Reader

    data = t.archive(*(t.file(f"f{n}", os.urandom(n)) for n in (1, 4095, 4096, 5000, 200_000)))
    layer = unpack(data, tmp_path / "layer")
    fd = os.open(layer.path, os.O_RDONLY)
    with Reader(fd) as r:
        for path, st in r.walk():
            if path and st.size >= 4096:
                where, length = r.extent(st.nid, 0)
                assert where is not None
                assert where % 4096 == 0
                assert length == st.size
    os.close(fd)


def test_100000_names(tmp_path: Path) -> None:
    rng = random.Random(7)
    names: set[bytes] = set()
    while len(names) < 100_000:
        length = rng.choice((1, 2, 3, 8, 20, 60, 255)) if rng.random() < 0.9 else rng.randint(1, 255)
        name = bytes(rng.choice(b"\x01\x02 !+,-.0159AZaz~\x7f\x80\xfe\xff") for _ in range(length))
        if name not in (b".", b"..") and not name.startswith(b".wh."):
            names.add(name)
    order = list(names)
    rng.shuffle(order)
    data = t.archive(*(t.member(b"d/" + n, type=b"6") for n in order))
    layer = unpack(data, tmp_path / "layer", splits=[1 << 20])
    with mounted(layer.path) as top:
        listed = os.listdir(os.fsencode(top / "d"))
        assert listed[:2] != [b".", b".."]
        assert sorted(listed) == sorted(names)
        fd = os.open(top / "d", os.O_RDONLY)
        for name in order:
            os.stat(name, dir_fd=fd)
        for name in order[:20_000]:
            near = name[:-1] + bytes([name[-1] ^ 1]) if name[-1] not in (0x2E, 0x2F, 1) else name + b"\x03"
            if near in names or b"/" in near or near in (b".", b".."):
                continue
            with pytest.raises((FileNotFoundError, OSError)):
                os.stat(near, dir_fd=fd)
        os.close(fd)
    assert read_tree(layer.path).keys() == {b"", b"d"} | {b"d/" + n for n in names}


@contextmanager
def overlay(lowers: list[Path], target: Path, *options: str) -> Iterator[Path]:
    """A read-only overlay of lowers, top-most first."""
    target.mkdir()
    names = ":".join(map(str, lowers))
    subprocess.run(
        ["mount", "-t", "overlay", "overlay", "-o", ",".join([f"lowerdir={names}", *options]), target], check=True
    )
    try:
        yield target
    finally:
        subprocess.run(["umount", target], check=True)


BASE = t.archive(
    t.directory("keep"),
    t.file("keep/a", b"1"),
    t.file("gone", b"1"),
    t.file("dir/x", b"1"),
    t.file("dir/sub/y", b"1"),
    t.file("re/old", b"1"),
    t.file("file-to-dir", b"1"),
    t.file("dir-to-file/x", b"1"),
    t.file("opq/old", b"1"),
    t.file("both/old", b"1"),
)
TOP = t.archive(
    t.whiteout("gone"),
    t.whiteout("dir/x"),
    t.whiteout("re"),
    t.file("re/new", b"2"),
    t.directory("file-to-dir"),
    t.file("file-to-dir/z", b"2"),
    t.file("dir-to-file", b"2"),
    t.file("opq/new", b"2"),
    t.whiteout("opq/old"),
    t.whiteout("opq/never"),
    t.opaque("opq"),
    t.directory("both"),
    t.file("both/new", b"2"),
    t.whiteout("both"),
)
MERGED = {
    "keep/a", "dir/sub/y", "re/new", "file-to-dir/z", "dir-to-file", "opq/new", "both/new",
}  # fmt: skip


@pytest.mark.parametrize("format", FORMATS)
def test_overlayfs_obeys_the_marks(format: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        base, top = (unpack(d, tmp_path / n, format) for n, d in (("base", BASE), ("top", TOP)))
        places = [
            stack.enter_context(mounted(layer.path)) if format == "erofs" else layer.path / "fs"
            for layer in (top, base)
        ]
        merged = stack.enter_context(overlay(places, tmp_path / "merged"))
        found = capture(merged)
        assert {os.fsdecode(p) for p, n in found.items() if n.type == "f"} == MERGED
        assert all(n.type in "fd" for n in found.values())
        assert not any("overlay" in name for n in found.values() for name, _ in n.xattrs)


def test_overlayfs_obeys_user_marks(tmp_path: Path) -> None:
    base, top = (unpack(d, tmp_path / n, "dir", userxattr=True) for n, d in (("base", BASE), ("top", TOP)))
    with overlay([top.path / "fs", base.path / "fs"], tmp_path / "merged", "userxattr") as merged:
        assert {os.fsdecode(p) for p, n in capture(merged).items() if n.type == "f"} == MERGED
    assert os.getxattr(top.path / "fs" / "opq", "user.overlay.opaque") == b"y"
    assert os.listxattr(top.path / "fs" / "opq") == ["user.overlay.opaque"]


MILLION = """
import json, os, resource, sys
sys.path.insert(0, sys.argv[3])
import tarbuild as t
from layerfs.native import Unpacker
count, path = int(sys.argv[1]), sys.argv[2]
fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
with Unpacker(fd) as u:
    base = 0
    for first in range(0, count, 10_000):
        data = b"".join(t.header(b"d/%07d" % ((i * 7919) % count), size=0) for i in range(first, first + 10_000))
        if first == 0:
            u.write(data[:512])
            data = data[512:]
            base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        u.write(data)
        u.rest()
    result = u.finish(bytes(16))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"bytes": (peak - base) * 1024, "entries": result.entries}))
"""


def grow(count: int, path: Path) -> dict[str, float]:
    """Unpack so many entries, out of order, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", MILLION, str(count), str(path), str(Path(__file__).parent)],
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout)
    assert found["entries"] == count + 1
    return found


@pytest.mark.slow
def test_a_directory_of_a_million(tmp_path: Path) -> None:
    found = grow(1_000_000, tmp_path / "layer")
    assert found["bytes"] / 1_000_000 <= 300 + 7  # beyond names
    with mounted(tmp_path / "layer") as top:
        fd = os.open(top / "d", os.O_RDONLY)
        names = os.listdir(fd)
        assert len(names) == 1_000_000
        rng = random.Random(3)
        for _ in range(10_000):
            os.stat(f"{rng.randrange(1_000_000):07}", dir_fd=fd)
        with pytest.raises(FileNotFoundError):
            os.stat("1000000", dir_fd=fd)
        os.close(fd)


@pytest.mark.slow
def test_memory_does_not_grow_with_content(tmp_path: Path) -> None:
    code = """
import os, resource, sys
sys.path.insert(0, sys.argv[2])
import tarbuild as t
from layerfs.native import Unpacker
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
piece = os.urandom(1 << 20)
with Unpacker(fd) as u:
    u.write(t.header("warm", size=1 << 20) + piece)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    u.write(t.header("big", size=1 << 30))
    for _ in range(1024):
        u.write(piece)
        u.rest()
    u.finish(bytes(16))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "layer"), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 8 << 10  # KiB
