"""Drives the diff of the C core for tests, mounts overlays, and makes random trees."""

import os
import shutil
import stat
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path

import pytest
from fstree import Device, Dir, Fifo, File, Hole, Link, Opaque, Symlink, Whiteout, Xattr, apply
from hypothesis import strategies as st

from layerfs.native import Change, Differ, DiffStats, Reader

OVERLAY = "redirect_dir=off,metacopy=off,index=off,xino=off"


@contextmanager
def opened(path: Path | str | bytes) -> Iterator[int]:
    """A directory or file as a descriptor."""
    fd = os.open(path, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


def read_all(differ: Differ, sizes: Sequence[int] = (1 << 20,)) -> bytes:
    """The archive, asked for in pieces of these sizes, over and over."""
    out = bytearray()
    for size in cycle(sizes):
        data = differ.read(size)
        assert len(data) <= size
        if not data:
            return bytes(out)
        out += data
    raise AssertionError


def tar_of(path: Path, sizes: Sequence[int] = (1 << 20,), **options: object) -> bytes:
    """The layer tar of an upper directory (or, with ``tree``, of a tree)."""
    return tar_and_stats(path, sizes, **options)[0]


def tar_and_stats(
    path: Path, sizes: Sequence[int] = (1 << 20,), lowers: Iterable[Path] = (), **options: object
) -> tuple[bytes, DiffStats]:
    """The same, and the totals."""
    with opened(path) as fd, Differ(fd, **options) as differ:  # type: ignore[arg-type]
        for lower in lowers:
            with opened(lower) as lower_fd:
                differ.add_lower_dir(lower_fd)
        return read_all(differ, sizes), differ.stats


def tar_between(base: Path, target: Path, sizes: Sequence[int] = (1 << 20,), **options: object) -> bytes:
    """The layer tar that makes one tree into another."""
    with opened(base) as a, opened(target) as b, Differ.trees(a, b, **options) as differ:
        return read_all(differ, sizes)


def changes_of(upper: Path, lowers: Iterable[Path | Reader] = (), **options: object) -> list[Change]:
    """The changes of an upper over these lowers, top-most first."""
    with opened(upper) as fd, Differ(fd, **options) as differ:  # type: ignore[arg-type]
        for lower in lowers:
            if isinstance(lower, Reader):
                differ.add_lower(lower)
            else:
                with opened(lower) as lower_fd:
                    differ.add_lower_dir(lower_fd)
        return list(differ.changes())


def changes_between(base: Path, target: Path) -> list[Change]:
    """The changes that make one tree into another."""
    with opened(base) as a, opened(target) as b, Differ.trees(a, b) as differ:
        return list(differ.changes())


def short(changes: Iterable[Change]) -> list[str]:
    """As ``docker diff`` prints them."""
    return [f"{change.kind} /{os.fsdecode(change.path)}" for change in changes]


@contextmanager
def overlay(target: Path, lowers: Sequence[Path], upper: Path | None = None, options: str = OVERLAY) -> Iterator[Path]:
    """An overlay mounted by the kernel; ``lowers`` top-most first. The work directory stands beside the upper."""
    text = f"{options},lowerdir={':'.join(map(str, lowers))}"
    if upper is not None:
        work = upper.with_name(upper.name + ".work")
        for directory in (upper, work):
            directory.mkdir(exist_ok=True)
        text += f",upperdir={upper},workdir={work}"
    target.mkdir(exist_ok=True)
    command = ["mount", "-t", "overlay", "-o", text, "overlay", str(target)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"no overlay mount here: {done.stderr.strip()}")
    try:
        yield target
    finally:
        subprocess.run(["umount", str(target)], check=True)


@contextmanager
def scratch(factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty directory for one example of a property."""
    where = factory.mktemp("example")
    try:
        yield where
    finally:
        shutil.rmtree(where)


def mknod_socket(path: Path) -> None:
    """A socket that nobody is bound to; its path may be long."""
    os.mknod(path, stat.S_IFSOCK | 0o644)


# ---- random trees ----

NAMES = [
    b"a",
    b"a.b",
    b"a-b",
    b"a0",
    b"b",
    "ü".encode(),
    b"\xff\xfe ",
    b"n" * 99,
    b"o" * 101,
    b"p" * 251,
    b"q" * 255,
    b"=%\n",
]
TIMES = [
    0,
    1_600_000_000_000_000_000,
    1_600_000_000_120_000_000,
    1_700_000_000_000_000_001,
    -1_500_000_000,
    -500_000_000,
    9 * 10**18,
]
IDS = [0, 1000, (1 << 21) - 1, 1 << 21, 4_000_000_000]
_names = st.sampled_from(NAMES)
_times = st.sampled_from(TIMES)
_ids = st.sampled_from(IDS)
_data = st.sampled_from([b"", b"x", b"y", b"z" * 511, b"z" * 512, b"w" * 70_000])
_xattrs = st.dictionaries(
    st.sampled_from(["user.a", "user.b%", "trusted.z", "security.capability"]),
    st.sampled_from([b"", b"1", b"\0\n=\xff" * 100]),
    max_size=2,
)
_CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")


@st.composite
def _attributes(draw: st.DrawFn, mode: int, user: bool = True) -> dict[str, object]:
    xattrs = {name: _CAPABILITY if name.startswith("security") else value for name, value in draw(_xattrs).items()}
    if not user:  # Linux keeps user.* to files and directories
        xattrs = {name: value for name, value in xattrs.items() if name.startswith("trusted")}
    return {"mode": draw(st.sampled_from([mode, 0o4711, 0o1777, 0])), "uid": draw(_ids), "gid": draw(_ids),
            "mtime_ns": draw(_times), "xattrs": xattrs}  # fmt: skip


_MARKS = ["origin", "impure", "nlink", "uuid", "upper", "protattr", "overlay.opaque", "overlay.overlay.x", "unknown"]


@st.composite
def _entry(draw: st.DrawFn, path: bytes, upper: bool, files: list[bytes]) -> object:
    kinds = ["file", "file", "link", "symlink", "fifo", "device", "hole"] + ["whiteout"] * upper
    kind = draw(st.sampled_from(kinds))
    if kind == "whiteout":
        return Whiteout(path)
    if kind == "link" and files:
        return Link(path, draw(st.sampled_from(files)))
    files.append(path)
    if kind == "symlink":
        target = draw(st.sampled_from([b"a", b"/" + b"t" * 100, b"\xff"]))
        return Symlink(path, target, **draw(_attributes(0o777, user=False)))
    if kind == "fifo":
        return Fifo(path, **draw(_attributes(0o644, user=False)))
    if kind == "device":
        numbers = draw(st.sampled_from([(1, 3), (4095, (1 << 20) - 1)]))
        return Device(path, draw(st.sampled_from("cb")), *numbers, **draw(_attributes(0o600, user=False)))
    if kind == "hole":
        pieces = draw(st.dictionaries(st.sampled_from([0, 65_536, 131_071, 200_000]), st.just(b"d" * 3000), max_size=3))
        return Hole(path, draw(st.sampled_from([203_000, 262_144])), pieces, **draw(_attributes(0o644)))
    return File(path, draw(_data), **draw(_attributes(0o644)))


@st.composite
def items(draw: st.DrawFn, upper: bool = False) -> list[object]:
    """The items (fstree) of a random tree; with ``upper`` one with marks of overlayfs in it."""
    dirs, taken, files, out = [b""], {b""}, [], []
    for _ in range(draw(st.integers(0, 12))):
        parent = draw(st.sampled_from(dirs))
        path = parent + b"/" + draw(_names) if parent else draw(_names)
        if path in taken or len(path) > 1200:
            continue
        taken.add(path)
        if draw(st.integers(0, 3)) == 0:
            dirs.append(path)
            out.append(Dir(path, **draw(_attributes(0o755))))
            if upper and draw(st.booleans()):
                out.append(Opaque(path))
        else:
            out.append(draw(_entry(path, upper, files)))
        if upper and isinstance(out[-1], (File, Dir)) and draw(st.booleans()):
            out.append(Xattr(path, "trusted.overlay." + draw(st.sampled_from(_MARKS)), b"v\0"))
    out.append(Dir(b"", **draw(_attributes(0o755))))
    return out


def make(root: Path, tree: Iterable[object]) -> Path:
    """The items in a new directory."""
    root.mkdir()
    apply(root, *tree)
    return root
