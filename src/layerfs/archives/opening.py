"""Any input as a plain tar in a seekable file: read in place where it is one, else spooled to an unnamed file."""

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from layerfs.blobs import PIECE, BlobReader
from layerfs.compression import detect, open_reader
from layerfs.errors import IntegrityError, InvalidInputError, native_error

__all__ = ["SPOOL_LIMIT", "open_input", "open_plain_tar", "write_all"]

SPOOL_LIMIT = 1 << 40
"""Most bytes that an input may have when it must be decompressed or comes through a pipe."""


@contextmanager
def open_input(source: Path | str | BinaryIO) -> Iterator[tuple[BlobReader, int | None, str]]:
    """A reader of a file or stream from its present position on, its descriptor, and what to call it in errors.

    A stream that has no descriptor of a file or pipe (None), as ``BytesIO`` or the answer of a web server, is read by
    its own ``read``. A file object stays open and the caller's, and must not have been read through its buffer before.
    """
    if not isinstance(source, Path | str):
        name = source.name if isinstance(getattr(source, "name", None), str) else "input"
        what = f"archive {name.strip('<>')}"
        file = _descriptor(source)
        yield (_Raw(file, what) if file is not None else _Stream(source, what)), file, what
        return
    try:
        fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as exc:
        raise native_error(exc, f"open archive {source}") from exc
    try:
        yield _Raw(fd, f"archive {source}"), fd, f"archive {source}"
    finally:
        os.close(fd)


def _descriptor(source: BinaryIO) -> int | None:
    """Of a file or pipe. What comes through a socket may be cut into pieces, or encrypted: the object knows how."""
    try:
        fd = source.fileno()
        return None if stat.S_ISSOCK(os.fstat(fd).st_mode) else fd
    except (OSError, ValueError, AttributeError):
        return None


@contextmanager
def open_plain_tar(
    source: Path | str | BinaryIO, spool: Path, *, max_bytes: int = SPOOL_LIMIT
) -> Iterator[tuple[int, str]]:
    """A descriptor of the input as a plain tar from byte 0 on, and its name for errors.

    What is compressed or no regular file goes through an unnamed file in the directory ``spool``, which takes
    at most ``max_bytes``; IntegrityError beyond that, or when it is corrupt.
    """
    with open_input(source) as (reader, fd, what):
        if fd is not None:
            status = os.fstat(fd)
            if stat.S_ISDIR(status.st_mode):
                raise InvalidInputError(f"read {what}: a directory")
            plain = stat.S_ISREG(status.st_mode) and os.lseek(fd, 0, os.SEEK_CUR) == 0
            if plain and detect(os.pread(fd, 6, 0)) == "none":
                yield fd, what
                return
        with _unnamed(spool) as spooled:
            _spool(reader, spooled, what, max_bytes)
            yield spooled, what


class _Raw:
    """A reader straight from a descriptor."""

    def __init__(self, fd: int, what: str) -> None:
        self._fd = fd
        self._what = what

    def read(self, size: int = PIECE, /) -> bytes:
        try:
            return os.read(self._fd, size)
        except OSError as exc:
            raise native_error(exc, f"read {self._what}") from exc


class _Stream:
    """A reader of an object that can be read."""

    def __init__(self, source: BinaryIO, what: str) -> None:
        self._source = source
        self._what = what

    def read(self, size: int = PIECE, /) -> bytes:
        try:
            data = self._source.read(size)
        except OSError as exc:
            raise native_error(exc, f"read {self._what}") from exc
        except (AttributeError, ValueError) as exc:  # closed, or nothing to read from
            raise InvalidInputError(f"read {self._what}: {exc}") from exc
        if not isinstance(data, bytes):
            raise InvalidInputError(f"read {self._what}: it gives {type(data).__name__}, not bytes")
        return data


@contextmanager
def _unnamed(directory: Path) -> Iterator[int]:
    try:
        file = tempfile.TemporaryFile(dir=directory, buffering=0)
    except OSError as exc:
        raise native_error(exc, f"create a file in {directory}") from exc
    with file:
        yield file.fileno()


def _spool(reader: BlobReader, fd: int, what: str, max_bytes: int) -> None:
    total = 0
    try:
        plain = open_reader(reader, "auto")
        while piece := plain.read(PIECE):
            total += len(piece)
            if total > max_bytes:
                raise IntegrityError(f"more than the {max_bytes} bytes allowed")
            write_all(fd, piece, f"spool {what}")
    except IntegrityError as exc:
        raise IntegrityError(f"read {what}: {exc}") from None


def write_all(fd: int, data: bytes, what: str) -> None:
    """Write all of ``data``; a NativeError names ``what``."""
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(fd, view) :]
    except OSError as exc:
        raise native_error(exc, what) from exc
