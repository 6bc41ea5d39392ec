"""The exact tar of a layer, made again from the layer and its rest while it is read."""

import errno
import os
from collections.abc import Iterator
from typing import Self

import lz4.frame

from layerfs.errors import IntegrityError, NativeError
from layerfs.layers.formats import PIECE, OpenLayer
from layerfs.native import Repacker
from layerfs.userns import Stream

__all__ = ["OwnTarReader", "TarReader"]


class TarReader:
    """Reads the tar that a layer came from, byte for byte; ``size`` is its length.

    The bytes are not hashed here; whoever needs to be sure compares their digest with the diff ID. IntegrityError
    when rest and layer do not give a tar of that length.
    """

    def __init__(self, layer: OpenLayer, what: str) -> None:
        """Takes the layer over: it is closed with the reader."""
        self.size = layer.header.tar_size
        self._layer = layer
        self._what = what
        self._offset = layer.header.rest_offset
        self._end = self._offset + layer.header.rest_length
        self._lz4 = lz4.frame.LZ4FrameDecompressor()
        self._repacker: Repacker | None = None
        self._left = self.size

    def __enter__(self) -> Self:
        try:
            self._repacker = Repacker(self._layer.fd, directory=self._layer.header.format == "dir")
        except BaseException:
            self._layer.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._repacker is not None:
            self._repacker.close()
        self._layer.__exit__()

    def read(self, size: int = PIECE) -> bytes:
        """At most ``size`` bytes; empty at the end."""
        if size < 0 or self._repacker is None:
            raise ValueError("read: a size is needed, and a reader that is open")
        while True:
            data = self._repacker.read(size)
            if data:
                self._left -= len(data)
                if self._left < 0:
                    raise IntegrityError(f"{self._what}: the rest is damaged: it makes too long a tar")
                return data
            if size == 0:
                return b""
            rest = self._next_rest()
            if not rest:
                break
            self._repacker.feed(rest)
        self._repacker.finish()
        if self._left:
            raise IntegrityError(f"{self._what}: the rest is damaged: it makes too short a tar")
        return b""

    def _next_rest(self) -> bytes:
        """More of the rest, at most 1 MiB; empty at its end."""
        while not self._lz4.eof:
            data = b""
            if self._lz4.needs_input:
                data = os.pread(self._layer.rest_fd, min(PIECE, self._end - self._offset), self._offset)
                self._offset += len(data)
                if not data:
                    raise IntegrityError(f"{self._what}: the rest is cut short")
            try:
                plain: bytes = self._lz4.decompress(data, PIECE)
            except RuntimeError as exc:  # what this library raises for damaged data
                raise IntegrityError(f"{self._what}: the rest is damaged: {exc}") from exc
            if plain:
                return plain
        return b""


class OwnTarReader(TarReader):
    """The same without privilege: files that their mode keeps even their owner from are read in a user namespace."""

    _stream: Stream | None = None
    _data = b""

    def read(self, size: int = PIECE) -> bytes:
        """At most ``size`` bytes; empty at the end."""
        if self._stream is None:
            try:
                return super().read(size)
            except NativeError as exc:
                if exc.errno != errno.EACCES:
                    raise
            self._stream = Stream(self._from_here)
        if not self._data:
            self._data = self._stream.read()
        data, self._data = self._data[:size], self._data[size:]
        return data

    def _from_here(self) -> Iterator[bytes]:
        """All of the tar that has not been read yet, made from its beginning."""
        done = self.size - self._left
        with TarReader(self._layer, self._what) as reader:
            while piece := reader.read(PIECE):
                yield piece[done:]
                done = max(0, done - len(piece))

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            self._stream.close()
        super().__exit__()
