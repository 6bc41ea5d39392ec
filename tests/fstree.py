"""File trees as values, for tests: make one from a list of items, take one from disk, compare two.

Making::

    apply(root, Dir("etc"), File("etc/hosts", b"x", mode=0o600), Symlink("l", "etc"), Link("h", "etc/hosts"),
          Device("null", "c", 1, 3), Fifo("f"), Socket("s"), Whiteout("gone"), Opaque("etc"),
          Xattr("etc/hosts", "user.a", b"1"), Hole("big", 1 << 30, {4096: b"data"}), Remove("old"))

Items are applied in order; parents that are missing are made (0755, the default time). Every item but
``Remove``, ``Xattr`` and ``Opaque`` replaces what is there, but a ``Dir`` on a directory only changes its
attributes. Times of directories are set last, so that the order of items does not matter for them. Owners are
set only where ``uid``/``gid`` are given.

Taking: ``capture(path)`` gives ``{relative path as bytes: Node}`` ("" is the root). Nothing in it depends on
where or on what file system the tree lies: no inode numbers, no directory sizes; hard links are named by the
group of paths. It is done through directory descriptors, so paths may be longer than PATH_MAX.

Comparing: ``assert_same(a, b, ignore=...)``; ``difference(a, b)`` gives the lines of what differs.
"""

import hashlib
import os
import shutil
import socket
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

__all__ = [
    "TIME",
    "Device",
    "Dir",
    "Fifo",
    "File",
    "Hole",
    "Link",
    "Node",
    "Opaque",
    "Remove",
    "Socket",
    "Symlink",
    "Whiteout",
    "Xattr",
    "apply",
    "assert_same",
    "capture",
    "difference",
    "holes",
]

TIME = 1_600_000_000_123_456_789
"""The modification time of items that name none, in nanoseconds."""


@dataclass(frozen=True)
class _Item:
    path: str | bytes


@dataclass(frozen=True)
class _Inode(_Item):
    mode: int = field(default=0o644, kw_only=True)
    uid: int | None = field(default=None, kw_only=True)
    gid: int | None = field(default=None, kw_only=True)
    mtime_ns: int = field(default=TIME, kw_only=True)
    xattrs: Mapping[str, bytes] = field(default_factory=dict, kw_only=True)


@dataclass(frozen=True)
class File(_Inode):
    """A regular file with ``data``."""

    data: bytes = b""


@dataclass(frozen=True)
class Hole(_Inode):
    """A sparse file of ``size`` bytes with pieces of data at offsets."""

    size: int = 0
    pieces: Mapping[int, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Dir(_Inode):
    """A directory."""

    mode: int = field(default=0o755, kw_only=True)


@dataclass(frozen=True)
class Symlink(_Inode):
    """A symbolic link; its mode is what the system gives."""

    target: str | bytes = ""


@dataclass(frozen=True)
class Link(_Item):
    """A hard link to ``target``, a path of the same tree."""

    target: str | bytes


@dataclass(frozen=True)
class Device(_Inode):
    """A device node, ``kind`` "c" or "b"."""

    kind: str = "c"
    major: int = 0
    minor: int = 0


@dataclass(frozen=True)
class Fifo(_Inode):
    """A named pipe."""


@dataclass(frozen=True)
class Socket(_Inode):
    """A bound socket."""


@dataclass(frozen=True)
class Whiteout(_Item):
    """What overlayfs makes of a removed name: a character device 0:0."""


@dataclass(frozen=True)
class Opaque(_Item):
    """Overlayfs's mark on a directory that hides the lower ones; ``namespace`` is trusted or user."""

    namespace: str = "trusted"


@dataclass(frozen=True)
class Xattr(_Item):
    """Set an extended attribute, not following a link."""

    name: str
    value: bytes


@dataclass(frozen=True)
class Remove(_Item):
    """Take a path away, with all below it."""


def _bytes(path: str | bytes) -> bytes:
    return path if isinstance(path, bytes) else os.fsencode(path)


def _delete(path: bytes) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def _create(path: bytes, root: bytes, item: _Item) -> None:
    match item:
        case File(data=data):
            with open(path, "xb") as f:
                f.write(data)
        case Hole(size=size, pieces=pieces):
            with open(path, "xb") as f:
                f.truncate(size)
                for at, data in pieces.items():
                    os.pwrite(f.fileno(), data, at)
        case Dir():
            os.mkdir(path)
        case Symlink(target=target):
            os.symlink(_bytes(target), path)
        case Link(target=target):
            os.link(os.path.join(root, _bytes(target)), path, follow_symlinks=False)
        case Device(kind=kind, major=major, minor=minor):
            os.mknod(path, stat.S_IFCHR if kind == "c" else stat.S_IFBLK, os.makedev(major, minor))
        case Fifo():
            os.mkfifo(path)
        case Socket():
            with socket.socket(socket.AF_UNIX) as s:
                s.bind(path)
        case Whiteout():
            os.mknod(path, stat.S_IFCHR, os.makedev(0, 0))
        case _:
            raise TypeError(item)


def _attributes(path: bytes, item: _Inode) -> None:
    if item.uid is not None or item.gid is not None:
        os.lchown(path, -1 if item.uid is None else item.uid, -1 if item.gid is None else item.gid)
    if not isinstance(item, Symlink):
        os.chmod(path, item.mode)
    for name, value in item.xattrs.items():
        os.setxattr(path, name, value, follow_symlinks=False)
    os.utime(path, ns=(item.mtime_ns, item.mtime_ns), follow_symlinks=False)


def apply(root: str | bytes | Path, *items: _Item) -> None:
    """Make the items below ``root``, a directory that exists."""
    top = os.fsencode(root)
    times: dict[bytes, int] = {}
    for item in items:
        path = os.path.join(top, _bytes(item.path)) if item.path else top
        parent = os.path.dirname(path)
        while parent.startswith(top + b"/") and not os.path.lexists(parent):
            times.setdefault(parent, TIME)
            parent = os.path.dirname(parent)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        match item:
            case Remove():
                _delete(path)
                continue
            case Xattr(name=name, value=value):
                os.setxattr(path, name, value, follow_symlinks=False)
                continue
            case Opaque(namespace=namespace):
                os.setxattr(path, f"{namespace}.overlay.opaque", b"y")
                continue
        if not (isinstance(item, Dir) and os.path.isdir(path) and not os.path.islink(path)):
            _delete(path)
            _create(path, top, item)
        if isinstance(item, _Inode):
            _attributes(path, item)
            if isinstance(item, Dir):
                times[path] = item.mtime_ns
    for path, ns in sorted(times.items(), reverse=True):
        if os.path.isdir(path):
            os.utime(path, ns=(ns, ns))


@dataclass(frozen=True)
class Node:
    """What is compared of one path."""

    type: str  # "f" file, "d" directory, "l" link, "c" "b" device, "p" fifo, "s" socket
    mode: int  # permission bits
    uid: int
    gid: int
    mtime_ns: int
    size: int = 0  # of files
    content: str = ""  # of files: SHA-256
    target: bytes = b""  # of links
    rdev: tuple[int, int] = (0, 0)
    xattrs: tuple[tuple[str, bytes], ...] = ()
    links: tuple[bytes, ...] = ()  # all paths of the inode, where there are several


_TYPES = {
    stat.S_IFREG: "f",
    stat.S_IFDIR: "d",
    stat.S_IFLNK: "l",
    stat.S_IFCHR: "c",
    stat.S_IFBLK: "b",
    stat.S_IFIFO: "p",
    stat.S_IFSOCK: "s",
}


def _xattrs(place: str) -> tuple[tuple[str, bytes], ...]:
    return tuple(
        (name, os.getxattr(place, name, follow_symlinks=False))
        for name in sorted(os.listxattr(place, follow_symlinks=False))
    )


def _hash(name: bytes, fd: int) -> str:
    digest = hashlib.sha256()
    with open(os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=fd), "rb", buffering=0) as f:
        while chunk := f.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _node(name: bytes, fd: int, st: os.stat_result, xattrs: bool, content: bool) -> Node:
    kind = _TYPES[stat.S_IFMT(st.st_mode)]
    place = f"/proc/self/fd/{fd}/" + os.fsdecode(name)
    return Node(
        type=kind,
        mode=stat.S_IMODE(st.st_mode),
        uid=st.st_uid,
        gid=st.st_gid,
        mtime_ns=st.st_mtime_ns,
        size=st.st_size if kind == "f" else 0,
        content=_hash(name, fd) if kind == "f" and content else "",
        target=os.readlink(name, dir_fd=fd) if kind == "l" else b"",
        rdev=(os.major(st.st_rdev), os.minor(st.st_rdev)) if kind in "cb" else (0, 0),
        xattrs=_xattrs(place) if xattrs else (),
    )


def _names(fd: int) -> Iterator[bytes]:
    return iter(sorted(map(os.fsencode, os.listdir(fd))))


def _move(fd: int, name: bytes) -> int:
    try:
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
    finally:
        os.close(fd)


def capture(root: str | bytes | Path, *, xattrs: bool = True, content: bool = True) -> dict[bytes, Node]:
    """The tree below (and with) a directory, by path in bytes. Mount points below it are not crossed."""
    found: dict[bytes, Node] = {}
    inodes: dict[int, list[bytes]] = {}
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    device = os.fstat(fd).st_dev
    found[b""] = _node(b".", fd, os.fstat(fd), xattrs, content)
    stack = [(b"", _names(fd))]
    while stack:  # fd is the directory on top; its parent is "..", so that one descriptor is enough
        path, names = stack[-1]
        name = next(names, None)
        if name is None:
            stack.pop()
            fd = _move(fd, b"..") if stack else fd
            continue
        st = os.stat(name, dir_fd=fd, follow_symlinks=False)
        here = path + b"/" + name if path else name
        found[here] = _node(name, fd, st, xattrs, content)
        if not stat.S_ISDIR(st.st_mode):
            if st.st_nlink > 1:
                inodes.setdefault(st.st_ino, []).append(here)
        elif st.st_dev == device:
            fd = _move(fd, name)
            stack.append((here, _names(fd)))
    os.close(fd)
    for paths in inodes.values():
        if len(paths) > 1:
            for here in paths:
                found[here] = _replace_links(found[here], tuple(sorted(paths)))
    return found


def _replace_links(node: Node, links: tuple[bytes, ...]) -> Node:
    values = {f.name: getattr(node, f.name) for f in fields(Node)}
    return Node(**(values | {"links": links}))


def difference(
    a: Mapping[bytes, Node], b: Mapping[bytes, Node], *, ignore: Iterable[str] = (), root: bool = True
) -> list[str]:
    """A line for each path and field that is not the same. ``ignore`` names fields of Node; root=False leaves
    the attributes of the root directory out."""
    skip, lines = set(ignore), []
    for path in sorted(a.keys() | b.keys()):
        if not path and not root:
            continue
        x, y = a.get(path), b.get(path)
        if x is None or y is None:
            lines.append(f"{path!r}: only in the {'first' if y is None else 'second'}: {x or y}")
            continue
        for name in (f.name for f in fields(Node) if f.name not in skip):
            if getattr(x, name) != getattr(y, name):
                lines.append(f"{path!r}: {name}: {getattr(x, name)!r} != {getattr(y, name)!r}")
    return lines


def assert_same(
    a: Mapping[bytes, Node] | str | bytes | Path,
    b: Mapping[bytes, Node] | str | bytes | Path,
    *,
    ignore: Iterable[str] = (),
    root: bool = True,
) -> None:
    """Fail with the differences (the first 30) of two trees, captured or named by path."""
    x = a if isinstance(a, Mapping) else capture(a)
    y = b if isinstance(b, Mapping) else capture(b)
    lines = difference(x, y, ignore=ignore, root=root)
    assert not lines, f"{len(lines)} differences\n" + "\n".join(lines[:30])


def holes(path: str | bytes | Path) -> list[tuple[int, int]]:
    """(offset, length) of each hole of a file, as SEEK_HOLE tells them."""
    found, at = [], 0
    with open(path, "rb") as f:
        size = os.fstat(f.fileno()).st_size
        while at < size:
            at = os.lseek(f.fileno(), at, os.SEEK_HOLE)
            if at >= size:
                break
            try:
                end = os.lseek(f.fileno(), at, os.SEEK_DATA)
            except OSError:  # ENXIO: no data behind the hole
                end = size
            found.append((at, end - at))
            at = end
    return found
