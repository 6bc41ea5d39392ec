"""The files of a COPY between two looks at them: when they are read for the cache key, and when they are written.

There may be a million of them: so what is known of them lies in a file, and memory holds one at a time.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from layerfs.build.fingerprint import Content
from layerfs.build.tree import Found, Names, Tree
from layerfs.errors import system_errors
from layerfs.native import Status

__all__ = ["Piece", "Pieces", "Source"]

_KEPT = 32 << 20
"""How much content of small files is kept for the layer, in bytes."""
_BUFFER = 64 << 10
_LENGTH = 4


class Source(msgspec.Struct, frozen=True, eq=False):
    """Something to copy: ``names`` in ``tree``, or ``text``. ``title`` is the name it gets inside a directory, and
    with ``--parents`` the path; ``spread``: the content of a directory, not the directory itself."""

    title: Names
    tree: Tree | None = None
    names: Names = ()
    status: Status | None = None
    text: bytes | None = None
    spread: bool = False
    keep_owner: bool = False
    unpack: bool = False
    """An archive whose content is meant."""

    @property
    def keeps_owner(self) -> bool:
        """Whether its files are of whom they are there."""
        return self.keep_owner or (self.tree is not None and self.tree.owned)


class Piece(msgspec.Struct, frozen=True, eq=False, gc=False, array_like=True):
    """A file below a source (none: the source itself; no ``status``: its text), its fingerprint, and perhaps its
    content."""

    below: Names
    status: Status | None
    digest: bytes
    content: Content | None = None

    @property
    def is_dir(self) -> bool:
        """Whether it is a directory."""
        return self.status is not None and stat.S_ISDIR(self.status.st_mode)

    def found(self, source: Source) -> Found:
        """The file, to be opened; of a piece that has a ``status``."""
        assert self.status is not None
        return Found((*source.names, *self.below), self.below, self.status)


class _Record(msgspec.Struct, frozen=True, eq=False, gc=False, array_like=True):
    number: int
    piece: Piece


class Pieces:
    """Files of sources in the order in which they were added; a context manager. LayerfsError when the disk is full."""

    def __init__(self, directory: Path) -> None:
        """``directory``: where the file is, which has no name there."""
        import tempfile  # a build with nothing to copy needs none of it

        self.spare = _KEPT
        """How much content may still be kept, in bytes."""
        self._sources: list[Source] = []
        self._end = 0
        self._encode = msgspec.msgpack.Encoder().encode
        with system_errors(f"make a file in {directory}"):
            self._file = tempfile.TemporaryFile(dir=directory, buffering=1 << 20)

    def __enter__(self) -> "Pieces":
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # what is still to be written nobody reads
            self._file.close()

    def begin(self, source: Source) -> None:
        """What is added from now on is of this source."""
        self._sources.append(source)

    def add(self, piece: Piece) -> None:
        """Keep a file; what content it has comes off ``spare``."""
        data = self._encode(_Record(len(self._sources) - 1, piece))
        with system_errors("keep what is known of the files to copy"):
            self._file.write(len(data).to_bytes(_LENGTH, "little"))
            self._file.write(data)
        self._end += _LENGTH + len(data)
        if piece.content is not None:
            self.spare -= len(piece.content.data)

    def clear(self) -> None:
        """Forget all."""
        with system_errors("keep what is known of the files to copy"):
            self._file.seek(0)
            self._file.truncate()
        self._sources.clear()
        self.spare, self._end = _KEPT, 0

    def read(self, begin: int = 0, end: int | None = None) -> Iterator[tuple[int, Source, Piece]]:
        """Those whose places lie in a range, and the place of each."""
        with system_errors("keep what is known of the files to copy"):
            self._file.flush()
        fd, decode = self._file.fileno(), msgspec.msgpack.Decoder(_Record).decode
        last = self._end if end is None else end
        at, data, used = begin, b"", 0
        while at < last:
            length = _LENGTH + int.from_bytes(data[used : used + _LENGTH], "little")
            if len(data) - used < max(length, 2 * _LENGTH):
                with system_errors("read what is known of the files to copy"):
                    data = os.pread(fd, min(max(_BUFFER, length), last - at), at)
                used = 0
                length = _LENGTH + int.from_bytes(data[:_LENGTH], "little")
                if len(data) < length:
                    continue
            record = decode(memoryview(data)[used + _LENGTH : used + length])
            yield at, self._sources[record.number], record.piece
            at += length
            used += length
