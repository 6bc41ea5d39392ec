"""Tar to layer and back: ``Unpacker`` and ``Repacker``."""

from typing import Any

import msgspec

from layerfs._native import ffi, lib
from layerfs.native._core import PIECE, Buffer, Handle, alloc, check

__all__ = ["Repacker", "UnpackResult", "Unpacker"]


class UnpackResult(msgspec.Struct, frozen=True):
    """What an ``Unpacker`` found; the fields are those of ``lfs_unpack_result``."""

    tar_bytes: int
    entries: int
    inodes: int
    whiteouts: int
    opaques: int
    data_bytes: int
    skipped: int
    xattrs_dropped: int
    meta_offset: int
    image_size: int
    unowned: int


class Unpacker(Handle):
    """Tar in, layer out, into ``fd``: an empty file, or with ``directory`` an empty directory."""

    def __init__(
        self,
        fd: int,
        *,
        directory: bool = False,
        userxattr: bool = False,
        chown: bool = True,
        block_size: int = 512,
        max_bytes: int = 0,
        max_entries: int = 0,
        max_metadata: int = 0,
    ) -> None:
        options = ffi.new("lfs_unpack_options *")
        options.flags = (
            (lib.LFS_UNPACK_DIR if directory else 0)
            | (lib.LFS_UNPACK_USERXATTR if userxattr else 0)
            | (0 if chown else lib.LFS_UNPACK_NO_CHOWN)
        )
        options.block_size, options.max_bytes, options.max_entries = block_size, max_bytes, max_entries
        options.max_metadata = max_metadata
        super().__init__(
            "lfs_unpack", lib.lfs_unpack_free, lambda out, error: lib.lfs_unpack_open(fd, options, out, error)
        )
        self._rest = alloc("char[]", PIECE >> 2)

    def write(self, data: Buffer) -> None:
        """Take the next bytes of the tar, in any split. ``IntegrityError`` when they are malformed."""
        view = ffi.from_buffer(data)
        check(lib.lfs_unpack_write(self._open, view, len(view), self._error), self._error)

    def rest(self) -> bytes:
        """Drain what has collected of the rest stream; mostly nothing, between large files."""
        n = self._drain()
        data: bytes = ffi.buffer(self._rest, n)[:] if n else b""
        if n < len(self._rest):
            return data
        pieces = [data]
        while n := self._drain():
            pieces.append(ffi.buffer(self._rest, n)[:])
        return b"".join(pieces)

    def _drain(self) -> int:
        return check(lib.lfs_unpack_rest(self._open, self._rest, len(self._rest), self._error), self._error)

    def finish(self, uuid: bytes) -> UnpackResult:
        """End of the tar: write the metadata. ``uuid`` is 16 bytes for the superblock."""
        if len(uuid) != 16:
            raise ValueError("uuid must be 16 bytes")
        out = ffi.new("lfs_unpack_result *")
        check(lib.lfs_unpack_finish(self._open, uuid, out, self._error), self._error)
        return UnpackResult(**{name: getattr(out, name) for name in UnpackResult.__struct_fields__})

    def own(self) -> int:
        """After ``finish``, without ``chown``: set the owners of the archive, and the attributes that were dropped for
        want of privilege; how many there are now of those. Perhaps by a child that was forked since."""
        return check(lib.lfs_unpack_own(self._open, self._error), self._error)


class Repacker(Handle):
    """A layer and its rest stream in, the exact tar out."""

    def __init__(self, fd: int, *, directory: bool = False) -> None:
        flags = lib.LFS_REPACK_DIR if directory else 0
        super().__init__(
            "lfs_repack", lib.lfs_repack_free, lambda out, error: lib.lfs_repack_open(fd, flags, out, error)
        )
        self._buffer: Any = alloc("char[]", 0)

    def feed(self, data: Buffer) -> None:
        """Give more of the (uncompressed) rest stream, in any split."""
        view = ffi.from_buffer(data)
        check(lib.lfs_repack_feed(self._open, view, len(view), self._error), self._error)

    def read(self, size: int = PIECE) -> bytes:
        """At most ``size`` bytes of the tar; empty when more must be fed."""
        if len(self._buffer) < size:
            self._buffer = alloc("char[]", size)
        n = check(lib.lfs_repack_read(self._open, self._buffer, size, self._error), self._error)
        data: bytes = ffi.buffer(self._buffer, n)[:]
        return data

    def read_into(self, buffer: bytearray | memoryview) -> int:
        """Fill a buffer of the caller's as far as possible; 0 when more must be fed. Makes no copy."""
        view = ffi.from_buffer(buffer, require_writable=True)
        return check(lib.lfs_repack_read(self._open, view, len(view), self._error), self._error)

    def finish(self) -> None:
        """Say that the rest stream is complete; ``IntegrityError`` if it was cut short."""
        check(lib.lfs_repack_finish(self._open, self._error), self._error)
