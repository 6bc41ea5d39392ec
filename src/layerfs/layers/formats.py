"""What the two layer formats have in common: a layer that is open, and the steps of making one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

import xxhash

from layerfs.digest import Digest
from layerfs.errors import IntegrityError, NotFoundError, system_errors
from layerfs.layers.header import Header
from layerfs.layers.tree import LayerTree

if TYPE_CHECKING:
    from layerfs.native import Unpacker

__all__ = [
    "PIECE",
    "REST",
    "Format",
    "OpenLayer",
    "check_identity",
    "hash_range",
    "opening",
    "write_all",
]

PIECE = 1 << 20
"""Bytes that are worked on at once."""

REST = "rest.lz4"
"""The name of the rest in a layer directory, and in the working directory of a layer being written."""


class OpenLayer:
    """A layer's descriptors and its header, as long as it is open; the header is checked, the rest is not.

    ``fd`` is the layer: a file or a directory. The rest lies in ``rest_fd`` (perhaps the same) from
    ``header.rest_offset``.
    """

    def __init__(self, fd: int, rest_fd: int, header: Header) -> None:
        self.fd = fd
        self.rest_fd = rest_fd
        self.header = header

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for fd in {self.fd, self.rest_fd}:
            os.close(fd)


class Format(Protocol):
    """One way of keeping an unpacked layer."""

    name: str
    is_file: bool
    """Whether a layer is a single file."""
    userxattr: bool
    chown: bool

    def start(self, work: Path) -> int:
        """Make the empty layer in the working directory; a descriptor of it."""
        ...

    def unpacker(self, fd: int, *, max_bytes: int, max_entries: int, max_metadata: int) -> "Unpacker":
        """What takes the tar, and puts it into the layer of ``start``."""
        ...

    def seal(self, work: Path, fd: int, header: Header) -> None:
        """Join layer, rest (``work/rest.lz4``) and header, and make all of it durable."""
        ...

    def publish(self, work: Path, target: Path) -> None:
        """Give the layer its name; FileExistsError when it is taken."""
        ...

    def open(self, target: Path, diff_id: Digest) -> OpenLayer:
        """Open a layer; NotFoundError, or IntegrityError when header and sizes are not those of ``diff_id``."""
        ...

    def disk(self, layer: OpenLayer) -> int:
        """Bytes that it takes on disk."""
        ...

    def metadata_hash(self, fd: int, meta_offset: int, image_size: int) -> bytes:
        """What ``header.meta_hash`` must be; the offsets are those of the header."""
        ...

    def tree(self, layer: OpenLayer) -> LayerTree:
        """Names, attributes and contents; it holds descriptors of its own."""
        ...


@contextmanager
def opening(diff_id: Digest) -> Iterator[str]:
    """Errors of opening a layer; gives the words for messages about it."""
    what = f"open layer {diff_id}"
    with system_errors(what):
        try:
            yield what
        except FileNotFoundError:
            raise NotFoundError(f"{what}: not in the store") from None


def check_identity(header: Header, diff_id: Digest, name: str, what: str) -> None:
    """IntegrityError unless a header is that of ``diff_id`` in the format ``name``."""
    if header.diff_id != diff_id:
        raise IntegrityError(f"{what}: the file is that of layer {header.diff_id}")
    if header.format != name:
        raise IntegrityError(f"{what}: the header is that of a layer in format {header.format}")


def write_all(fd: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of ``data`` at ``offset``."""
    view = memoryview(data)
    while view:
        done = os.pwrite(fd, view, offset)
        view = view[done:]
        offset += done


def hash_range(fd: int, *ranges: tuple[int, int]) -> bytes:
    """XXH3-128 of the bytes ``(offset, end)`` of a file, one range after another."""
    state = xxhash.xxh3_128()
    for offset, end in ranges:
        while offset < end:
            piece = os.pread(fd, min(PIECE, end - offset), offset)
            if not piece:
                break
            state.update(piece)
            offset += len(piece)
    return state.digest()
