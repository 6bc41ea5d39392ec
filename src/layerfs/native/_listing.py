"""``Listing``: what stat says of all that is in a directory."""

import os
import struct
from collections.abc import Iterator
from typing import Self

import msgspec

from layerfs._native import ffi, lib
from layerfs.native._core import alloc, check, new_error

__all__ = ["Listing", "Status"]

_HEAD = struct.Struct("<IQQIIIQqIqIQB")
_SECOND = 10**9


class Status(msgspec.Struct, frozen=True, eq=False, gc=False, array_like=True):
    """What of ``os.stat_result`` counts for a file that is copied or compared, by the same names; a fourth of its
    size. Times of access are not in it."""

    st_mode: int
    st_ino: int
    st_dev: int
    st_nlink: int
    st_uid: int
    st_gid: int
    st_size: int
    st_mtime_ns: int
    st_ctime_ns: int
    st_rdev: int

    @classmethod
    def of(cls, status: os.stat_result) -> Self:
        """The same of what ``os.stat`` said."""
        return cls(*[getattr(status, name) for name in cls.__struct_fields__])


class Listing:
    """What is in a directory, links not followed; ``newest`` is the latest second at which the inode of anything but
    a directory changed. Entries come in the directory's own order."""

    def __init__(self, fd: int) -> None:
        """``fd``: a directory, read from its position on. NativeError."""
        error, listed = new_error(), ffi.new("lfs_listed *")
        buffer = alloc("char[]", lib.LFS_LIST_MIN)
        files: list[bytes] = []
        directories: list[bytes] = []
        self.newest = 0
        while n := check(lib.lfs_list(fd, buffer, lib.LFS_LIST_MIN, listed, error), error):
            data: bytes = ffi.buffer(buffer, n)[:]
            files.append(data[: listed.files])
            directories.append(data[listed.files :])
            self.newest = max(self.newest, listed.newest)
        self.files = b"".join(files)
        """All that is known of what is no directory: the same bytes, the same files."""
        self._directories = b"".join(directories)

    def directories(self) -> Iterator[tuple[bytes, Status]]:
        """Names of directories, and what stat says of them."""
        return _records(self._directories)

    def __iter__(self) -> Iterator[tuple[bytes, Status]]:
        """All names, directories last."""
        yield from _records(self.files)
        yield from _records(self._directories)


def _records(data: bytes) -> Iterator[tuple[bytes, Status]]:
    at, end, unpack = 0, len(data), _HEAD.unpack_from
    while at < end:
        mode, ino, dev, nlink, uid, gid, size, mtime, mtime_ns, ctime, ctime_ns, rdev, n = unpack(data, at)
        begin = at + _HEAD.size
        at = begin + n
        changed = mtime * _SECOND + mtime_ns, ctime * _SECOND + ctime_ns
        yield data[begin:at], Status(mode, ino, dev, nlink, uid, gid, size, *changed, rdev)
