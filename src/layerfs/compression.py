"""Codecs of archives and layers: bytes in one compression to plain bytes, and back.

Input is hostile: output comes in pieces of bounded size whatever the ratio, concatenated members are one stream
(as ``cat a.gz b.gz`` makes, and as eStargz does), and a stream that is corrupt or cut short is an IntegrityError.
Zero bytes behind the last gzip member are padding, as gzip itself holds; other bytes there are an error.
Output is reproducible: no times, no names.
"""

import re
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from layerfs.blobs import PIECE, BlobReader
from layerfs.errors import IntegrityError, InvalidInputError, LayerfsError

__all__ = ["KINDS", "compress", "detect", "open_reader"]

KINDS = ("none", "gzip", "zstd", "bzip2", "xz", "lz4")
"""Compressions that can be read; ``none``, ``gzip`` and ``zstd`` can be written."""

_MAGIC = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x04\x22\x4d\x18", "lz4"),
)
_INPUT = 256 << 10
_FIRST_STEP, _LARGEST_STEP = 512, 128 << 10  # of input at once; so pieces come out that the allocator reuses
_SMALL = 16 << 10
_ZEROS = re.compile(rb"\0*")
_ZSTD_WINDOW_LOG = 27
_XZ_MEMORY = 1 << 30
_PADDED = ("gzip", "xz")
_LEVELS = {"gzip": (0, 3, 2), "zstd": (1, 22, 3)}


def detect(head: bytes) -> str:
    """The compression that a stream begins with; 6 bytes are enough. ``none`` for anything unknown."""
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    # A skippable frame (zstd:chunked puts some behind, others in front of the data).
    if len(head) >= 4 and 0x50 <= head[0] <= 0x5F and head[1:4] == b"\x2a\x4d\x18":
        return "zstd"
    return "none"


def open_reader(reader: BlobReader, kind: str = "auto") -> BlobReader:
    """A reader of the plain bytes of ``reader``; ``auto`` looks at its first bytes.

    Raises InvalidInputError for a compression that is not known; reading raises IntegrityError.
    """
    if kind == "auto":
        reader = _Peek(reader)
        kind = detect(reader.head)
    if kind == "none":
        return reader
    if kind not in KINDS:
        raise InvalidInputError(f"compression {kind!r}: unknown", hint=f"known are {', '.join(KINDS)}")
    return _Inflater(reader, kind)


class _Peek:
    """A reader whose first bytes were looked at."""

    def __init__(self, reader: BlobReader) -> None:
        self._reader = reader
        self.head = b""
        while len(self.head) < 6 and (piece := reader.read(PIECE)):
            self.head += piece
        self._pending = self.head

    def read(self, size: int = PIECE, /) -> bytes:
        if self._pending:
            piece, self._pending = self._pending[:size], self._pending[size:]
            return piece
        return self._reader.read(size)


# Codecs are imported when they are met: most commands meet none.


def _gzip_member() -> Any:
    from isal import igzip_lib

    return igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)


def _zstd() -> Any:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd


def _zstd_member() -> Any:
    zstd = _zstd()
    return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG})


def _bzip2_member() -> Any:
    import bz2

    return bz2.BZ2Decompressor()


def _xz_member() -> Any:
    import lzma

    return lzma.LZMADecompressor(memlimit=_XZ_MEMORY)


def _lz4_member() -> Any:
    import lz4.frame

    return lz4.frame.LZ4FrameDecompressor()


_MEMBERS: dict[str, Callable[[], Any]] = {
    "gzip": _gzip_member,
    "zstd": _zstd_member,
    "bzip2": _bzip2_member,
    "xz": _xz_member,
    "lz4": _lz4_member,
}


class _Inflater:
    """Decompression member by member, through the interface that the codecs share.

    There may be a million members of a few bytes: none costs more than it is long, so what a member has not taken of
    its input is never copied as a whole.
    """

    def __init__(self, reader: BlobReader, kind: str) -> None:
        self._reader = reader
        self._kind = kind
        self._member: Any = None
        self._input = b""
        self._at = 0  # of `_input`, what no member has taken
        self._step = 0
        self._members = 0

    def read(self, size: int = PIECE, /) -> bytes:
        piece = self._next(size)
        if not piece or len(piece) >= _SMALL:
            return piece
        pieces, left = [piece], size - len(piece)
        while left and 0 < len(piece) < _SMALL:
            piece = self._next(left)
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)

    def _next(self, size: int) -> bytes:
        while self._member is not None or self._begin_member():
            piece = self._decompress(size)
            if self._member.eof:
                self._at -= len(self._member.unused_data or b"")
                self._member = None
            if piece:
                return piece
        return b""

    def _decompress(self, size: int) -> bytes:
        data: bytes | memoryview = b""
        if self._member.needs_input:
            if not self._fill():
                raise IntegrityError(f"decompress {self._kind}: the stream is cut short")
            data = memoryview(self._input)[self._at : self._at + self._step]
            self._at += len(data)
            self._step = min(self._step * 8, _LARGEST_STEP)
        try:
            piece: bytes = self._member.decompress(data, size)
        except LayerfsError:
            raise
        # Each codec has an exception type of its own, and most derive from Exception alone.
        except Exception as exc:
            raise IntegrityError(f"decompress {self._kind}: {exc}") from None
        return piece

    def _fill(self) -> bool:
        """Whether there is more input."""
        if self._at == len(self._input):
            self._input, self._at = self._reader.read(_INPUT), 0
        return bool(self._input)

    def _is_padding(self) -> bool:
        """Pass over zeros; whether that is all the input at hand."""
        zeros = _ZEROS.match(self._input, self._at)
        self._at = zeros.end() if zeros else self._at
        return self._at == len(self._input)

    def _begin_member(self) -> bool:
        """Whether another member follows."""
        more = self._fill()
        if not self._members and not more:
            raise IntegrityError(f"decompress {self._kind}: the stream is empty")
        if self._members and self._kind in _PADDED:
            while more and self._is_padding():
                more = self._fill()
        if more:
            self._members += 1
            self._step = _FIRST_STEP
            self._member = _MEMBERS[self._kind]()
        return more


def compress(chunks: Iterable[bytes], kind: str, level: int | None = None) -> Iterator[bytes]:
    """``chunks`` in a compression; InvalidInputError for one that is not written, or a level it has not.

    gzip is ISA-L's, levels 0 to 3 (default 2); zstd 1 to 22 (default 3).
    """
    if kind == "none":
        yield from chunks
        return
    lowest, highest, usual = _LEVELS.get(kind, (0, -1, 0))
    level = usual if level is None else level
    if highest < lowest:
        raise InvalidInputError(f"compression {kind!r}: cannot be written", hint="gzip, zstd and none can")
    if not lowest <= level <= highest:
        raise InvalidInputError(f"compression level {level}: {kind} has {lowest} to {highest}")
    stream = _gzip_stream(level) if kind == "gzip" else _zstd_stream(level)
    for chunk in chunks:
        if piece := stream.compress(chunk):
            yield piece
    yield stream.flush()


def _gzip_stream(level: int) -> Any:
    from isal import isal_zlib

    return isal_zlib.compressobj(level, isal_zlib.DEFLATED, 31)


def _zstd_stream(level: int) -> Any:
    zstd = _zstd()
    parameter = zstd.CompressionParameter
    return zstd.ZstdCompressor(options={parameter.compression_level: level, parameter.checksum_flag: 1})
