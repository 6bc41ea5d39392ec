"""The files of a container: its changes, its tree, and what is copied into it and out of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, BinaryIO

from layerfs.containers.facts import ContainerFacts
from layerfs.late import LateModule

if TYPE_CHECKING:
    from layerfs.containers import copying, listing, merged
    from layerfs.layers import FileEntry
    from layerfs.native import Change
else:  # what one verb needs, and the next does not
    copying, listing, merged = (LateModule(f"layerfs.containers.{name}") for name in ("copying", "listing", "merged"))

__all__ = ["ContainerContents"]


class ContainerContents(ContainerFacts):
    """What lies in a container, whether it runs or not."""

    def changes(self) -> Iterator[Change]:
        """What it changed in its image's tree, sorted by path."""
        return merged.container_changes(self._parts, self.config)

    def export(self, sink: BinaryIO) -> None:
        """Write its tree as one flat tar. What is mounted in it is left out."""
        for piece in merged.export_tree(self._parts, self.config):
            sink.write(piece)

    @contextmanager
    def tree(self) -> Iterator[int]:
        """A descriptor of the root of its tree, to be read; see ``export``."""
        with merged.merged(self._parts, self.config) as root:
            yield root

    def stat(self, path: str) -> copying.PathStat:
        """What a path in it is; NotFoundError."""
        return copying.stat_path(self._parts, self.config, self._given, path)

    def files(self, path: str = "/", *, itself: bool = False, recursive: bool = False) -> Iterator[FileEntry]:
        """What a directory in it has, sorted by name, or a file; NotFoundError.

        ``itself``: what the path names, be it a directory or a link. ``recursive``: it and all below it. Of one that
        does not run, what is mounted in it is found by a path into the mount alone.
        """
        return listing.list_files(self._parts, self.config, self._given, path, itself=itself, recursive=recursive)

    def read(self, path: str) -> Iterator[bytes]:
        """The content of a regular file in it, in pieces; NotFoundError, InvalidInputError for what is none."""
        return listing.read_file(self._parts, self.config, self._given, path)

    def get_archive(self, path: str, *, follow: bool = False) -> Iterator[bytes]:
        """A path in it as a tar stream, in pieces; NotFoundError."""
        return copying.get_archive(self._parts, self.config, self._given, path, follow=follow)

    def put_archive(self, path: str, stream: IO[bytes], *, keep_owner: bool = False) -> None:
        """Unpack a tar stream (plain or compressed) into a directory of it."""
        copying.put_archive(self._parts, self.config, self._given, path, stream, keep_owner=keep_owner)

    def copy_in(self, source: str, path: str, *, keep_owner: bool = False, follow: bool = False) -> None:
        """Copy a file or directory of the host into it, by docker's rules."""
        copying.copy_in(self._parts, self.config, self._given, source, path, keep_owner=keep_owner, follow=follow)

    def copy_to(
        self, path: str, other: ContainerContents, target: str, *, keep_owner: bool = False, follow: bool = False
    ) -> None:
        """Copy a file or directory of it into another container, by docker's rules."""
        copying.copy_between(
            self._parts,
            (self.config, self._given, path),
            (other.config, other._given, target),
            keep_owner=keep_owner,
            follow=follow,
        )

    def copy_out(self, path: str, target: str, *, keep_owner: bool = False, follow: bool = False) -> None:
        """Copy a file or directory of it to the host, by docker's rules."""
        copying.copy_out(self._parts, self.config, self._given, path, target, keep_owner=keep_owner, follow=follow)
