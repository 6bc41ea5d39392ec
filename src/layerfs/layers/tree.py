"""One layer as a tree that is read without a mount: the same face for both formats.

A node is whatever the format names a file by: the number of its inode, or its path. What overlayfs would make of
marks (whiteouts, opaque directories) is not decided here, but in ``view``.
"""

import os
import stat
from collections.abc import Iterator
from typing import Any, Protocol

import msgspec

from layerfs.errors import IntegrityError
from layerfs.native import Reader

__all__ = ["DT_CHR", "DT_DIR", "Attributes", "DirTree", "ErofsTree", "LayerTree", "Node"]

Node = Any
"""What a tree names a file by; it means something to that tree only."""

DT_CHR, DT_DIR, DT_LNK, DT_REG = 2, 4, 10, 8

_PATH_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Attributes(msgspec.Struct, frozen=True):
    """What is known of a file; ``mode`` has the type too, ``rdev`` is (major, minor), directories have size 0. Names of
    one file have one ``inode``."""

    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    nlink: int
    rdev: tuple[int, int]
    inode: int

    @property
    def is_whiteout(self) -> bool:
        """Whether overlayfs takes it for the mark of something deleted."""
        return stat.S_ISCHR(self.mode) and self.rdev == (0, 0)


class LayerTree(Protocol):
    """The files of a layer. Errors of reading are those of the core and of the system."""

    root: Node

    def lookup(self, directory: Node, name: bytes) -> Node | None:
        """A name in a directory; None where there is none."""
        ...

    def names(self, directory: Node) -> Iterator[tuple[bytes, Node, int]]:
        """(name, node, DT_* type) of each name in a directory, in any order."""
        ...

    def stat(self, node: Node) -> Attributes:
        """Attributes of a file."""
        ...

    def xattrs(self, node: Node) -> dict[bytes, bytes]:
        """Extended attributes by full name, overlayfs's own among them."""
        ...

    def readlink(self, node: Node) -> bytes:
        """The target of a symbolic link."""
        ...

    def read(self, node: Node, size: int) -> Iterator[bytes]:
        """The content of a regular file in pieces of at most ``size`` bytes."""
        ...

    def close(self) -> None:
        """Let go of the layer."""
        ...


class ErofsTree:
    """Nodes are inode numbers."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.root: Node = reader.root
        self.lookup = reader.lookup
        self.names = reader.readdir
        self.xattrs = reader.xattrs
        self.readlink = reader.readlink
        self.close = reader.close

    def stat(self, node: Node) -> Attributes:
        """Attributes of a file."""
        st = self._reader.stat(node)
        size = 0 if stat.S_ISDIR(st.mode) else st.size
        rdev = (st.rdev_major, st.rdev_minor)
        return Attributes(st.mode, st.uid, st.gid, size, st.mtime_ns, st.nlink, rdev, node)

    def read(self, node: Node, size: int) -> Iterator[bytes]:
        """The content of a regular file."""
        offset = 0
        while piece := self._reader.read(node, offset, size):
            yield piece
            offset += len(piece)


class DirTree:
    """Nodes are paths below the tree's directory, which is never left: each step is one name, no link followed."""

    root: Node = b""

    def __init__(self, fd: int) -> None:
        """``fd`` is the directory, and belongs to the tree from now on."""
        self._fd = fd
        self._last: tuple[bytes, int] = (b"", fd)

    def _directory(self, path: bytes) -> int:
        """A descriptor of a directory of the tree, borrowed until the next call."""
        if path == self._last[0]:
            return self._last[1]
        fd = self._fd
        try:
            for name in path.split(b"/") if path else ():
                inside = os.open(name, _PATH_DIRECTORY, dir_fd=fd)
                if fd != self._fd:
                    os.close(fd)
                fd = inside
        except BaseException:
            if fd != self._fd:
                os.close(fd)
            raise
        self._forget()
        self._last = (path, fd)
        return fd

    def _forget(self) -> None:
        if self._last[1] != self._fd:
            os.close(self._last[1])
        self._last = (b"", self._fd)

    def _place(self, node: bytes) -> tuple[int, bytes]:
        """The directory that has a node, and its name there."""
        parent, _, name = node.rpartition(b"/")
        return self._directory(parent), name or b"."

    def lookup(self, directory: Node, name: bytes) -> Node | None:
        """A name in a directory."""
        try:
            os.stat(name, dir_fd=self._directory(directory), follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return _join(directory, name)

    def names(self, directory: Node) -> Iterator[tuple[bytes, Node, int]]:
        """What a directory has; a type that is neither file, directory nor link is asked for."""
        fd = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._directory(directory))
        try:
            with os.scandir(fd) as entries:
                found = [(os.fsencode(entry.name), _type(entry)) for entry in entries]
        finally:
            os.close(fd)
        for name, dtype in found:
            yield name, _join(directory, name), dtype

    def stat(self, node: Node) -> Attributes:
        """Attributes of a file."""
        fd, name = self._place(node)
        st = os.stat(name, dir_fd=fd, follow_symlinks=False)
        is_device = stat.S_ISCHR(st.st_mode) or stat.S_ISBLK(st.st_mode)
        return Attributes(
            st.st_mode,
            st.st_uid,
            st.st_gid,
            0 if stat.S_ISDIR(st.st_mode) else st.st_size,
            st.st_mtime_ns,
            st.st_nlink,
            (os.major(st.st_rdev), os.minor(st.st_rdev)) if is_device else (0, 0),
            st.st_ino,
        )

    def xattrs(self, node: Node) -> dict[bytes, bytes]:
        """Extended attributes; the way over /proc reaches links and devices, which cannot be opened."""
        fd, name = self._place(node)
        place = b"/proc/self/fd/%d/%s" % (fd, name)
        names = os.listxattr(place, follow_symlinks=False)
        return {os.fsencode(key): os.getxattr(place, key, follow_symlinks=False) for key in names}

    def readlink(self, node: Node) -> bytes:
        """The target of a symbolic link."""
        fd, name = self._place(node)
        return os.readlink(name, dir_fd=fd)

    def read(self, node: Node, size: int) -> Iterator[bytes]:
        """The content of a regular file; opening anything else would not be harmless."""
        directory, name = self._place(node)
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        fd = os.open(name, flags, dir_fd=directory)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise IntegrityError(f"read {os.fsdecode(node)}: not a file any more")
            while piece := os.read(fd, size):
                yield piece
        finally:
            os.close(fd)

    def close(self) -> None:
        """Close the descriptors; again is allowed."""
        if self._fd >= 0:
            self._forget()
            os.close(self._fd)
            self._fd = -1


def _join(directory: bytes, name: bytes) -> bytes:
    return directory + b"/" + name if directory else name


def _type(entry: "os.DirEntry[str]") -> int:
    if entry.is_dir(follow_symlinks=False):
        return DT_DIR
    if entry.is_symlink():
        return DT_LNK
    if entry.is_file(follow_symlinks=False):
        return DT_REG
    return stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode) >> 12
