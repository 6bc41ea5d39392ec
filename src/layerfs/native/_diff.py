"""``Differ``: what an upper directory changes, or what makes one tree into another."""

from collections.abc import Iterator
from typing import Any, Self

import msgspec

from layerfs._native import ffi, lib
from layerfs.native._core import PIECE, Handle, alloc, check
from layerfs.native._reader import Reader

__all__ = ["Change", "DiffStats", "Differ"]

_NO_CLAMP = (1 << 63) - 1
_KINDS = {ord(kind): kind for kind in "ACD"}


class Change(msgspec.Struct, frozen=True, order=True, gc=False):
    """One changed path: ``kind`` is A (added), C (changed) or D (deleted); ``dtype`` a DT_* number."""

    path: bytes
    kind: str
    dtype: int


class DiffStats(msgspec.Struct, frozen=True):
    """Totals of a finished ``Differ``."""

    entries: int
    whiteouts: int
    opaques: int
    sockets: int
    bytes: int


class Differ(Handle):
    """What an overlay upper directory changes, or what makes one tree into another."""

    def __init__(
        self,
        fd: int,
        *,
        base: int | None = None,
        userxattr: bool = False,
        tree: bool = False,
        sparse_min: int = 1 << 20,
        clamp_mtime: int | None = None,
    ) -> None:
        """``fd``: the upper directory; with ``tree`` a whole tree; with ``base`` (a directory) the tree that
        ``base`` becomes. Files of ``sparse_min`` bytes and more keep their holes."""
        options = ffi.new("lfs_diff_options *")
        options.flags = (lib.LFS_DIFF_USERXATTR if userxattr else 0) | (lib.LFS_DIFF_TREE if tree else 0)
        options.sparse_min = sparse_min
        options.clamp_mtime = _NO_CLAMP if clamp_mtime is None else clamp_mtime

        def opener(out: Any, error: Any) -> int:
            if base is None:
                return int(lib.lfs_diff_open(fd, options, out, error))
            return int(lib.lfs_diff_open_trees(base, fd, options, out, error))

        super().__init__("lfs_diff", lib.lfs_diff_free, opener)
        self._buffer: Any = alloc("char[]", 0)
        self._lowers: list[Reader] = []  # the core borrows them

    @classmethod
    def trees(cls, base: int, target: int, **options: Any) -> Self:
        """The changes that make the directory ``base`` into the directory ``target``."""
        return cls(target, base=base, **options)

    def add_lower(self, reader: Reader) -> None:
        """A layer below the upper, top-most first, for ``changes`` to tell added from changed."""
        check(lib.lfs_diff_add_lower(self._open, reader._open, self._error), self._error)
        self._lowers.append(reader)

    def add_lower_dir(self, fd: int) -> None:
        """The same for a layer that is a directory."""
        check(lib.lfs_diff_add_lower_dir(self._open, fd, self._error), self._error)

    def _fill(self, call: Any, size: int) -> int:
        if len(self._buffer) < size:
            self._buffer = alloc("char[]", size)
        return check(call(self._open, self._buffer, size, self._error), self._error)

    def read(self, size: int = PIECE) -> bytes:
        """At most ``size`` bytes of the layer tar; empty at its end."""
        n = self._fill(lib.lfs_diff_read, size)
        data: bytes = ffi.buffer(self._buffer, n)[:]
        return data

    def read_into(self, buffer: bytearray | memoryview) -> int:
        """Fill a buffer of the caller's as far as the tar goes; 0 at its end. Makes no copy."""
        view = ffi.from_buffer(buffer, require_writable=True)
        return check(lib.lfs_diff_read(self._open, view, len(view), self._error), self._error)

    def changes(self) -> Iterator[Change]:
        """The changed paths, sorted; instead of ``read``."""
        while n := self._fill(lib.lfs_diff_changes, 1 << 16):
            data, at = ffi.buffer(self._buffer, n)[:], 0
            while at < n:
                begin = at + 4
                at = begin + (data[at + 2] | data[at + 3] << 8)
                yield Change(data[begin:at], _KINDS[data[begin - 4]], data[begin - 3])

    @property
    def stats(self) -> DiffStats:
        """Totals so far; complete once ``read`` or ``changes`` has come to its end."""
        out = ffi.new("lfs_diff_stats *")
        lib.lfs_diff_stats_get(self._open, out)
        return DiffStats(out.entries, out.whiteouts, out.opaques, out.sockets, out.bytes)
