"""Files of a container listed and read, running or not: what ``ls`` and ``cat`` show.

As for ``cp``: every way is resolved beneath the container's root, whatever it makes of its links meanwhile, and what
does not run is mounted only where no process has it mounted already.
"""

import errno
import os
import posixpath
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from layerfs.containers.actions import current
from layerfs.containers.parts import Parts
from layerfs.containers.record import Config
from layerfs.containers.trees import Tree, opened
from layerfs.errors import InvalidInputError, NotFoundError, system_errors
from layerfs.layers import FileEntry
from layerfs.runtime import Place

__all__ = ["list_files", "read_file"]

_PIECE = 1 << 20
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def list_files(
    parts: Parts, config: Config, given: str, path: str, *, itself: bool = False, recursive: bool = False
) -> Iterator[FileEntry]:
    """What a directory has, sorted by name, or a file; NotFoundError.

    ``itself``: what the path names, be it a directory or a link. ``recursive``: it and all below it, a directory
    before what it has.
    """
    with system_errors(f"list {given}:{path}"), opened(parts, config, path) as tree:
        first_id = _first_id(parts, config)
        if tree.is_elsewhere:  # what a process of its own finds comes back whole
            yield from tree.run(lambda: list(_list(tree, given, path, itself, recursive, first_id)))
        else:
            yield from _list(tree, given, path, itself, recursive, first_id)


def read_file(parts: Parts, config: Config, given: str, path: str) -> Iterator[bytes]:
    """The content of a regular file, in pieces; NotFoundError, InvalidInputError for what is none."""
    with system_errors(f"read {given}:{path}"), opened(parts, config, path) as tree:
        yield from tree.stream(lambda: _read(tree, given, path))


def _first_id(parts: Parts, config: Config) -> int:
    """The number by which the host sees the root user of the tree."""
    live = config.id_map is not None and current(parts, config.id).process is not None
    return config.id_map[0] if config.id_map and live else 0


@contextmanager
def _found(tree: Tree, given: str, path: str, *, follow: bool) -> Iterator[tuple[Place, bytes]]:
    """The place, and the path that it has in the container."""
    with tree.root() as (root, inside):
        try:
            place = Place(root, inside, follow=follow)
        except FileNotFoundError:
            raise NotFoundError(f"open {given}:{path}: no such file in the container") from None
        except NotADirectoryError as exc:
            raise InvalidInputError(f"open {given}:{path}: {exc.filename!r} is not a directory") from None
        with place:
            if place.fd is None:
                raise NotFoundError(f"open {given}:{path}: no such file in the container")
            yield place, tree.shown(place.path)


def _read(tree: Tree, given: str, path: str) -> Iterator[bytes]:
    with _found(tree, given, path, follow=True) as (place, shown):
        assert place.fd is not None
        mode = os.fstat(place.fd).st_mode
        if not stat.S_ISREG(mode):  # opening a device or a pipe has effects
            raise InvalidInputError(f"read {given}:{os.fsdecode(shown)}: it is no regular file")
        with open(f"/proc/self/fd/{place.fd}", "rb", buffering=0) as file:
            while piece := file.read(_PIECE):
                yield piece


def _list(tree: Tree, given: str, path: str, itself: bool, recursive: bool, first_id: int) -> Iterator[FileEntry]:
    with _found(tree, given, path, follow=not itself) as (place, shown):
        assert place.fd is not None
        status = os.fstat(place.fd)
        is_link = stat.S_ISLNK(status.st_mode)
        entry = _entry(shown, status, os.readlink(b"", dir_fd=place.fd) if is_link else b"", first_id)
        if recursive or itself or not entry.is_dir:
            yield entry
        if entry.is_dir and not itself:
            yield from _children(place.fd, b".", shown, first_id, recursive)


def _children(parent: int, name: bytes, shown: bytes, first_id: int, recursive: bool) -> Iterator[FileEntry]:
    fd = os.open(name, _DIRECTORY, dir_fd=parent)
    try:
        for child in sorted(map(os.fsencode, os.listdir(fd))):
            try:
                status = os.stat(child, dir_fd=fd, follow_symlinks=False)
                target = os.readlink(child, dir_fd=fd) if stat.S_ISLNK(status.st_mode) else b""
            except OSError as exc:
                if exc.errno in (errno.ENOENT, errno.EINVAL):  # it went meanwhile, or is no link any more
                    continue
                raise
            entry = _entry(shown.rstrip(b"/") + b"/" + child, status, target, first_id)
            yield entry
            if recursive and entry.is_dir:
                with suppress(FileNotFoundError, NotADirectoryError):  # as above
                    yield from _children(fd, child, entry.path, first_id, recursive)
    finally:
        os.close(fd)


def _entry(shown: bytes, status: os.stat_result, target: bytes, first_id: int) -> FileEntry:
    return FileEntry(
        name=posixpath.basename(shown),
        path=shown,
        mode=status.st_mode,
        uid=max(0, status.st_uid - first_id),
        gid=max(0, status.st_gid - first_id),
        size=0 if stat.S_ISDIR(status.st_mode) else status.st_size,
        mtime_ns=status.st_mtime_ns,
        nlink=status.st_nlink,
        rdev=(os.major(status.st_rdev), os.minor(status.st_rdev)),
        inode=status.st_ino,
        target=target,
    )
