"""Archives by their files: what the readers of both forms stand on, for a tar file and for a directory alike."""

import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Protocol

import msgspec

from layerfs.archives.tarindex import Section, TarIndex
from layerfs.blobs import BlobReader, BlobSource
from layerfs.errors import IntegrityError, InvalidInputError, NotFoundError, native_error
from layerfs.oci import Descriptor
from layerfs.reference import Reference

__all__ = ["ArchiveImage", "ArchiveSource", "DirectoryFiles", "Files", "TarFiles", "canonical", "pick"]


class ArchiveImage(msgspec.Struct, frozen=True):
    """One image of an archive: what to copy, its names in canonical form, and its tags as they stand there."""

    descriptor: Descriptor
    names: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()


class ArchiveSource(BlobSource, Protocol):
    """A source of copying that can say what it holds."""

    what: str

    def images(self) -> list[ArchiveImage]:
        """All images, in the order of the archive."""
        ...


class Files(Protocol):
    """Files by name below one root, ``/`` between the parts; ``what`` names the whole in errors."""

    what: str

    def has(self, name: str) -> bool:
        """Whether there is such a file or link."""
        ...

    def read(self, name: str, limit: int) -> bytes:
        """A document whole. NotFoundError; IntegrityError beyond ``limit`` bytes, or when it is there twice."""
        ...

    def open(self, name: str) -> AbstractContextManager[BlobReader]:
        """The bytes of a file; NotFoundError."""
        ...


class TarFiles:
    """The files of a plain tar file that can be sought in."""

    def __init__(self, fd: int, what: str) -> None:
        self.what = what
        self.index = TarIndex(fd, what)

    def has(self, name: str) -> bool:
        """Whether there is such a member."""
        return name in self.index

    def read(self, name: str, limit: int) -> bytes:
        """A document whole. One that is there twice is refused: two readers would see two archives."""
        if name in self.index.duplicates:
            raise IntegrityError(f"read {self.what}: there are several members {name}")
        return self.index.read(name, limit)

    def open(self, name: str) -> AbstractContextManager[BlobReader]:
        """The bytes of a member, links followed inside the archive."""
        return nullcontext(self.index.open(self.index.find(name)))


class DirectoryFiles:
    """The files below a directory. The last part of a name is not followed when it is a link."""

    def __init__(self, root: Path) -> None:
        self.what = f"directory {root}"
        self._root = root

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return os.path.lexists(self._root / name)

    def read(self, name: str, limit: int) -> bytes:
        """A document whole."""
        with self._opened(name) as (fd, size):
            if size > limit:
                raise IntegrityError(f"read {self.what}: {name} has {size} bytes, more than the {limit} allowed")
            return b"".join(iter(Section(fd, 0, size, f"{self.what}, {name}").read, b""))

    @contextmanager
    def open(self, name: str) -> Iterator[BlobReader]:
        """The bytes of a file."""
        with self._opened(name) as (fd, size):
            yield Section(fd, 0, size, f"{self.what}, {name}")

    @contextmanager
    def _opened(self, name: str) -> Iterator[tuple[int, int]]:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            fd = os.open(self._root / name, flags)
        except FileNotFoundError:
            raise NotFoundError(f"read {self.what}: there is no {name}") from None
        except OSError as exc:
            raise native_error(exc, f"read {self.what}, {name}") from exc
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise IntegrityError(f"read {self.what}: {name} is no file")
            yield fd, status.st_size
        finally:
            os.close(fd)


def canonical(name: str, what: str) -> str:
    """An image name from an archive in canonical form; IntegrityError if it is none."""
    try:
        return str(Reference.parse(name, default_tag="latest"))
    except InvalidInputError as exc:
        raise IntegrityError(f"read {what}: {exc}") from None


def pick(images: list[ArchiveImage], name: str, what: str) -> ArchiveImage:
    """The image that ``name`` means: a reference, a tag as it stands in the archive, ``@N`` for the Nth from 0,
    or nothing where there is but one. NotFoundError says which names there are."""
    if not name and len(images) == 1:
        return images[0]
    if name.startswith("@") and name[1:].isdecimal() and int(name[1:]) < len(images):
        return images[int(name[1:])]
    tagged = [image for image in images if name in image.tags]
    if len(tagged) == 1:
        return tagged[0]
    try:
        wanted = str(Reference.parse(name, default_tag="latest"))
    except InvalidInputError:
        wanted = name
    for image in images:
        if wanted in image.names:
            return image
    there = [known for image in images for known in image.names]
    raise NotFoundError(
        f"image {name or '(unnamed)'}: not in {what}",
        hint=f"there are {len(images)} images" + (f": {', '.join(there[:10])}" if there else ""),
    )
