"""``Reader``: an EROFS layer file through its metadata."""

import errno
import struct
from collections.abc import Iterator
from stat import S_ISDIR

import msgspec

from layerfs._native import ffi, lib
from layerfs.errors import IntegrityError
from layerfs.native._core import Handle, alloc, check, new_error

__all__ = ["Reader", "Stat"]

_HOLE = (1 << 64) - 1


class Stat(msgspec.Struct, frozen=True):
    """Attributes of an inode in a layer; ``mode`` holds type and permissions, as ``st_mode`` does."""

    nid: int
    size: int
    mtime: int
    mtime_nsec: int
    mode: int
    uid: int
    gid: int
    nlink: int
    rdev_major: int
    rdev_minor: int

    @property
    def mtime_ns(self) -> int:
        """Modification time in nanoseconds."""
        return self.mtime * 1_000_000_000 + self.mtime_nsec


class Reader(Handle):
    """Names, attributes and contents of an EROFS layer file, with no mount. Inodes are named by nid."""

    def __init__(self, fd: int) -> None:
        super().__init__("lfs_reader", lib.lfs_reader_free, lambda out, error: lib.lfs_reader_open(fd, out, error))
        self.root: int = lib.lfs_reader_root(self._handle)

    def lookup(self, nid: int, name: bytes) -> int | None:
        """The inode of ``name`` in a directory; None where there is none."""
        error, out = new_error(), ffi.new("uint64_t *")
        result = lib.lfs_reader_lookup(self._open, nid, name, len(name), out, error)
        if result in (-errno.ENOENT, -errno.ENOTDIR):
            return None
        check(result, error)
        return int(out[0])

    def stat(self, nid: int) -> Stat:
        """Attributes of an inode."""
        error, out = new_error(), ffi.new("lfs_stat *")
        check(lib.lfs_reader_stat(self._open, nid, out, error), error)
        return Stat(
            nid,
            out.size,
            out.mtime,
            out.mtime_nsec,
            out.mode,
            out.uid,
            out.gid,
            out.nlink,
            out.rdev_major,
            out.rdev_minor,
        )

    def readdir(self, nid: int) -> Iterator[tuple[bytes, int, int]]:
        """(name, nid, DT_* type) of each name in a directory, in order of bytes."""
        error, cookie = new_error(), ffi.new("uint64_t *")
        buffer = alloc("char[]", 1 << 16)
        while n := check(lib.lfs_reader_readdir(self._open, nid, cookie, buffer, 1 << 16, error), error):
            data, at = ffi.buffer(buffer, n)[:], 0
            while at < n:
                entry, dtype, length = struct.unpack_from("<QBB", data, at)
                at += 10 + length
                yield data[at - length : at], entry, dtype

    def walk(self) -> Iterator[tuple[bytes, Stat]]:
        """(path, attributes) of all names, "" for the root first, each directory before what is in it.

        ``IntegrityError`` where the directories are no tree: each has one name.
        """
        seen = {self.root}
        stack: list[tuple[bytes, Stat]] = [(b"", self.stat(self.root))]
        while stack:
            path, st = stack.pop()
            yield path, st
            if not S_ISDIR(st.mode):
                continue
            below = [(path + b"/" + name if path else name, nid) for name, nid, _ in self.readdir(st.nid)]
            for name, nid in reversed(below):
                attributes = self.stat(nid)
                if S_ISDIR(attributes.mode):
                    if nid in seen:
                        raise IntegrityError(f"walk layer: inode {nid}: directory with two names")
                    seen.add(nid)
                stack.append((name, attributes))

    def readlink(self, nid: int) -> bytes:
        """The target of a symbolic link."""
        error, buffer = new_error(), alloc("char[]", 1 << 16)
        n = check(lib.lfs_reader_readlink(self._open, nid, buffer, 1 << 16, error), error)
        target: bytes = ffi.buffer(buffer, n)[:]
        return target

    def xattrs(self, nid: int) -> dict[bytes, bytes]:
        """Extended attributes by full name."""
        error, size = new_error(), 1 << 12
        while True:
            buffer = alloc("char[]", size)
            n = lib.lfs_reader_xattrs(self._open, nid, buffer, size, error)
            if n != -errno.ERANGE or size > 1 << 26:
                break
            size <<= 2
        data, at, found = ffi.buffer(buffer, check(n, error))[:], 0, {}
        while at < len(data):
            name, value = struct.unpack_from("<HI", data, at)
            at += 6 + name + value
            found[data[at - value - name : at - value]] = data[at - value : at]
        return found

    def read(self, nid: int, offset: int, size: int) -> bytes:
        """At most ``size`` bytes of a file's content; empty at its end."""
        error, buffer = new_error(), alloc("char[]", size)
        n = check(lib.lfs_reader_read(self._open, nid, offset, buffer, size, error), error)
        data: bytes = ffi.buffer(buffer, n)[:]
        return data

    def read_into(self, nid: int, offset: int, buffer: bytearray | memoryview) -> int:
        """Fill a buffer of the caller's with a file's content; the bytes read, 0 at its end. Makes no copy."""
        error, view = new_error(), ffi.from_buffer(buffer, require_writable=True)
        return check(lib.lfs_reader_read(self._open, nid, offset, view, len(view), error), error)

    def extent(self, nid: int, offset: int) -> tuple[int | None, int]:
        """(where, length): the place in the layer file of content at ``offset``; where is None in a hole."""
        error, where, length = new_error(), ffi.new("uint64_t *"), ffi.new("uint64_t *")
        check(lib.lfs_reader_extent(self._open, nid, offset, where, length, error), error)
        return (None if where[0] == _HOLE else int(where[0])), int(length[0])
