"""The protocols of copying: where blobs come from, where they go, and who is told how far it is."""

from contextlib import AbstractContextManager
from typing import Protocol

from layerfs.digest import Verifier
from layerfs.errors import IntegrityError
from layerfs.oci import Descriptor

__all__ = ["NO_PROGRESS", "PIECE", "BlobReader", "BlobSink", "BlobSource", "Progress", "read_all"]

PIECE = 1 << 20
"""Bytes that are read and handed on at once."""


class BlobReader(Protocol):
    """Bytes in order. What comes from outside is not verified: the sink does that."""

    def read(self, size: int = ..., /) -> bytes:
        """At most ``size`` bytes; empty at the end."""
        ...


class Progress(Protocol):
    """Is told how far things are; every method may be called from any thread."""

    def start(self, key: str, label: str, total: int | None) -> None:
        """Work named ``key`` begins, ``total`` bytes long (None: unknown)."""
        ...

    def advance(self, key: str, count: int) -> None:
        """``count`` more bytes are done."""
        ...

    def finish(self, key: str, note: str = "") -> None:
        """The work is done; ``note`` says how, as "already here"."""
        ...

    def note(self, text: str) -> None:
        """A line for the user, as a registry's warning."""
        ...


class _NoProgress:
    def start(self, key: str, label: str, total: int | None) -> None:
        pass

    def advance(self, key: str, count: int) -> None:
        pass

    def finish(self, key: str, note: str = "") -> None:
        pass

    def note(self, text: str) -> None:
        pass


NO_PROGRESS: Progress = _NoProgress()


class BlobSource(Protocol):
    """Something that has blobs: a registry, an archive, the store."""

    def resolve(self, name: str) -> Descriptor:
        """What a name points at; NotFoundError."""
        ...

    def open(self, descriptor: Descriptor) -> AbstractContextManager[BlobReader]:
        """The bytes of a blob; NotFoundError."""
        ...


class BlobSink(Protocol):
    """Something that takes blobs."""

    def has(self, descriptor: Descriptor) -> bool:
        """Whether the blob need not be brought."""
        ...

    def put(self, descriptor: Descriptor, reader: BlobReader, *, progress: Progress = ...) -> None:
        """Take a blob, verified against its digest and size; when it fails nothing of it is visible."""
        ...

    def tag(self, descriptor: Descriptor, name: str) -> None:
        """Let a name point at a manifest that is there; comes last."""
        ...


def read_all(source: BlobSource, descriptor: Descriptor, limit: int) -> bytes:
    """A small blob whole, verified. IntegrityError when it is wrong or announced with more than ``limit`` bytes."""
    if descriptor.size > limit:
        raise IntegrityError(f"read {descriptor.digest}: {descriptor.size} bytes, more than the {limit} allowed")
    verifier = Verifier(descriptor.digest, descriptor.size)
    pieces: list[bytes] = []
    with source.open(descriptor) as reader:
        while piece := reader.read(PIECE):
            verifier.update(piece)
            pieces.append(piece)
    verifier.finish()
    return b"".join(pieces)
