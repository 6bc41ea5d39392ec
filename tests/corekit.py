"""Drives the C core for tests: unpack a tar, get it back, look at the layer through kernel, disk and reader."""

import ctypes
import errno
import os
import stat
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pytest
from fstree import Node, capture

from layerfs.native import Reader, Repacker, Unpacker, UnpackResult

FORMATS = ("erofs", "dir")
UUID = bytes(range(16))
_LIBC = ctypes.CDLL(None, use_errno=True)
_MS_RDONLY = 1

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts, owners and devices")


@dataclass(frozen=True)
class Unpacked:
    """A layer just made: its file or directory, its rest stream, and what the core said of it."""

    path: Path
    format: str
    rest: bytes
    result: UnpackResult


def pieces(data: bytes, splits: Sequence[int] = ()) -> Iterator[bytes]:
    """The data cut into pieces of these lengths, over and over; in one piece when there are none."""
    if not splits:
        yield data
        return
    at = i = 0
    while at < len(data):
        n = splits[i % len(splits)]
        i += 1
        yield data[at : at + n]
        at += n


def unpack(data: bytes, where: Path, format: str = "erofs", splits: Sequence[int] = (), **options: object) -> Unpacked:
    """Unpack a tar into ``where``, which must not exist yet."""
    if format == "dir":
        where.mkdir(parents=True)
        fd = os.open(where, os.O_RDONLY | os.O_DIRECTORY)
    else:
        fd = os.open(where, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    rest = bytearray()
    try:
        with Unpacker(fd, directory=format == "dir", **options) as u:  # type: ignore[arg-type]
            for piece in pieces(data, splits):
                u.write(piece)
                rest += u.rest()
            result = u.finish(UUID)
            rest += u.rest()
    finally:
        os.close(fd)
    return Unpacked(where, format, bytes(rest), result)


def repack(layer: Unpacked, splits: Sequence[int] = (), size: int = 1 << 20) -> bytes:
    """The exact tar out of a layer and its rest."""
    flags = os.O_RDONLY | (os.O_DIRECTORY if layer.format == "dir" else 0)
    fd = os.open(layer.path, flags)
    out = bytearray()
    try:
        with Repacker(fd, directory=layer.format == "dir") as r:
            for piece in pieces(layer.rest, splits):
                r.feed(piece)
                while data := r.read(size):
                    out += data
            r.finish()
    finally:
        os.close(fd)
    return bytes(out)


@contextmanager
def mounted(image: Path) -> Iterator[Path]:
    """An EROFS image mounted by the kernel from the file itself."""
    target = image.with_name(image.name + ".mnt")
    target.mkdir()
    try:
        if _LIBC.mount(os.fsencode(image), os.fsencode(target), b"erofs", _MS_RDONLY, None) < 0:
            code = ctypes.get_errno()
            if code in (errno.ENOTBLK, errno.ENODEV, errno.EPERM):
                pytest.skip(f"this kernel cannot mount EROFS from a file here: {os.strerror(code)}")
            raise OSError(code, os.strerror(code), str(image))
        try:
            yield target
        finally:
            if _LIBC.umount2(os.fsencode(target), 0) < 0:
                raise OSError(ctypes.get_errno(), "umount", str(target))
    finally:
        target.rmdir()


def tree(layer: Unpacked) -> dict[bytes, Node]:
    """The layer as the system shows it."""
    if layer.format == "dir":
        return capture(layer.path / "fs")
    with mounted(layer.path) as target:
        return capture(target)


_KINDS = {
    stat.S_IFREG: "f",
    stat.S_IFDIR: "d",
    stat.S_IFLNK: "l",
    stat.S_IFCHR: "c",
    stat.S_IFBLK: "b",
    stat.S_IFIFO: "p",
}


def _read(reader: Reader, nid: int) -> str:
    digest, at = sha256(), 0
    while data := reader.read(nid, at, 1 << 20):
        digest.update(data)
        at += len(data)
    return digest.hexdigest()


def read_tree(image: Path) -> dict[bytes, Node]:
    """The layer as our own reader shows it, in the same form."""
    nodes: dict[bytes, Node] = {}
    inodes: dict[int, list[bytes]] = {}
    fd = os.open(image, os.O_RDONLY)
    with Reader(fd) as reader:
        os.close(fd)
        for path, st in reader.walk():
            kind = _KINDS[stat.S_IFMT(st.mode)]
            if kind != "d":
                inodes.setdefault(st.nid, []).append(path)
            nodes[path] = Node(
                type=kind,
                mode=stat.S_IMODE(st.mode),
                uid=st.uid,
                gid=st.gid,
                mtime_ns=st.mtime_ns,
                size=st.size if kind == "f" else 0,
                content=_read(reader, st.nid) if kind == "f" else "",
                target=reader.readlink(st.nid) if kind == "l" else b"",
                rdev=(st.rdev_major, st.rdev_minor),
                xattrs=tuple(sorted((os.fsdecode(k), v) for k, v in reader.xattrs(st.nid).items())),
            )
    for group in inodes.values():
        if len(group) > 1:
            for path in group:
                values = {name: getattr(nodes[path], name) for name in Node.__dataclass_fields__}
                nodes[path] = Node(**(values | {"links": tuple(sorted(group))}))
    return nodes


def fsck(image: Path) -> str:
    """What fsck.erofs has to complain of; it exits 0 on some of it, so its words are what counts."""
    done = subprocess.run(["fsck.erofs", str(image)], capture_output=True, text=True)
    lines = [s for s in (done.stdout + done.stderr).splitlines() if "No errors found" not in s]
    return "\n".join(lines) if lines or done.returncode == 0 else f"exit status {done.returncode}"
