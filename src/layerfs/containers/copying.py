"""``cp``: files into containers and out of them, running or not, by docker's rules for every combination."""

import io
import os
import posixpath
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import IO, Any

import msgspec

from layerfs.containers.actions import current
from layerfs.containers.parts import Parts
from layerfs.containers.record import Config
from layerfs.containers.trees import Tree, opened
from layerfs.errors import InvalidInputError, NotFoundError, system_errors
from layerfs.runtime import Place

__all__ = ["PathStat", "copy_between", "copy_in", "copy_out", "get_archive", "put_archive", "stat_path"]

_PIECE = 1 << 20


class PathStat(msgspec.Struct, frozen=True):
    """What a path in a container is; ``target`` is where a link leads, as a path inside."""

    name: str
    size: int
    mode: int
    mtime: float
    target: str = ""


def _what(given: str, path: str) -> str:
    """``given``: the container as its user named it."""
    return f"copy {given}:{path}"


def _base(path: str) -> str:
    return posixpath.basename(posixpath.normpath("/" + path)) or "/"


def _wants_content(path: str) -> bool:
    """Whether a source is written as DIR/. : what is in it, and not the directory itself."""
    return path in (".", "./") or path.endswith(("/.", "/./"))


# ---- the archive interface ----


def stat_path(parts: Parts, config: Config, given: str, path: str) -> PathStat:
    """What a path is; a link itself. NotFoundError."""
    with system_errors(_what(given, path)), opened(parts, config, path) as tree:
        return tree.run(lambda: _stat(tree, given, path))


def _stat(tree: Tree, given: str, path: str) -> PathStat:
    with tree.root() as (root, inside), _place(root, inside, given, path, follow=path.endswith("/")) as place:
        assert place.fd is not None
        status = os.fstat(place.fd)
        target = ""
        if stat.S_ISLNK(status.st_mode):
            with suppress(OSError), Place(root, inside) as end:
                target = os.fsdecode(end.path)
        return PathStat(_base(path), status.st_size, status.st_mode, status.st_mtime, target)


@contextmanager
def _place(root: int, inside: bytes, given: str, path: str, *, follow: bool) -> Iterator[Place]:
    try:
        place = Place(root, inside, follow=follow)
    except (FileNotFoundError, NotADirectoryError):
        place = None
    if place is None or place.fd is None:
        if place is not None:
            place.close()
        raise NotFoundError(f"{_what(given, path)}: no such file in the container")
    with place:
        yield place


def get_archive(
    parts: Parts, config: Config, given: str, path: str, *, follow: bool = False, name: str | None = None
) -> Iterator[bytes]:
    """A path and all below it as a tar stream whose entries begin with its last name, or ``name``.

    ``follow``: a link at the end is followed. NotFoundError when it is not there.
    """
    with system_errors(_what(given, path)), opened(parts, config, path) as tree:
        live = config.id_map is not None and current(parts, config.id).process is not None
        base = config.id_map[0] if config.id_map and live else 0
        yield from tree.stream(lambda: _archive(tree, given, path, follow, name, base))


def _archive(tree: Tree, given: str, path: str, follow: bool, name: str | None, base: int) -> Iterator[bytes]:
    """``base``: the number that root has."""
    with tree.root() as (root, inside):
        follow = follow or path.endswith(("/", "/."))
        with _place(root, inside, given, path, follow=follow) as place:
            shown = os.fsencode(name if name is not None else _base(path).strip("/") or ".")
            if place.fd is not None and path.endswith("/") and not stat.S_ISDIR(os.fstat(place.fd).st_mode):
                raise InvalidInputError(f"{_what(given, path)}: not a directory")
            from layerfs.containers.tarout import tar_out  # tarfile: most verbs copy nothing

            yield from tar_out(place.parent, place.name, shown, base, hollow=_kernel_trees(root))


def _kernel_trees(root: int) -> frozenset[int]:
    """Devices of what a runtime mounts in each container, of which a copy of the whole has the directories alone."""
    found = set()
    for name in ("dev", "proc", "sys"):
        with suppress(OSError):
            found.add(os.stat(name, dir_fd=root, follow_symlinks=False).st_dev)
    return frozenset(found - {os.fstat(root).st_dev})


def put_archive(
    parts: Parts,
    config: Config,
    given: str,
    path: str,
    stream: IO[bytes],
    *,
    keep_owner: bool = False,
) -> None:
    """Unpack a tar stream into a directory of the container. NotFoundError when that is not there."""
    # tarfile: most verbs copy nothing. And not within: the root of a namespace may not read our modules.
    from layerfs.containers.tarin import tar_in

    def unpack(file: IO[bytes], *, devices: bool) -> None:
        with tree.root() as (root, inside):
            with _place(root, inside, given, path, follow=True) as place:
                if place.fd is None or not stat.S_ISDIR(os.fstat(place.fd).st_mode):
                    raise InvalidInputError(f"{_what(given, path)}: not a directory")
                directory = place.path
            tar_in(file, root, directory, keep_owner=keep, owner=(0, 0), devices=devices)

    with system_errors(_what(given, path)), opened(parts, config, path, write=True) as tree:
        keep = keep_owner and tree.has_others
        if tree.is_elsewhere:
            pieces = iter(lambda: stream.read(_PIECE), b"")
            tree.run(lambda file: unpack(file, devices=False), pieces)
        else:
            unpack(stream, devices=True)


# ---- whole copies ----


def copy_in(
    parts: Parts, config: Config, given: str, source: str, path: str, *, keep_owner: bool = False, follow: bool = False
) -> None:
    """A file or directory of the host into the container."""
    what = f"copy {source} to {given}:{path}"
    with system_errors(what), ExitStack() as stack:
        real = os.path.realpath(source) if follow or source.endswith("/") else source.rstrip("/") or "/"
        content = _wants_content(source)
        real = os.path.realpath(source) if content else real
        if not os.path.lexists(real):
            raise NotFoundError(f"{what}: the host has no {source}")
        parent = os.open(os.path.dirname(os.path.abspath(real)), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, parent)
        name = os.path.basename(os.path.abspath(real)) or "."
        is_dir = stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
        base = _base(os.path.abspath(source)).strip("/") or "."
        kind, end = _end_inside(parts, config, path)
        directory, shown = _target(kind, end, base, is_dir, content, what)
        from layerfs.containers.tarout import tar_out  # as above

        stream = _Stream(tar_out(parent, os.fsencode(name), os.fsencode(shown)))
        put_archive(parts, config, given, directory, io.BufferedReader(stream, 1 << 20), keep_owner=keep_owner)


def copy_out(
    parts: Parts, config: Config, given: str, path: str, target: str, *, keep_owner: bool = False, follow: bool = False
) -> None:
    """A file or directory of the container to the host."""
    what = f"copy {given}:{path} to {target}"
    with system_errors(what):
        content = _wants_content(path)
        path, is_dir = _source(parts, config, given, path, follow, what)
        if os.path.islink(target) and not os.path.isdir(target):  # as docker: the link stays, and gets it
            target = os.path.realpath(target)
        kind = "dir" if os.path.isdir(target) else "file" if os.path.lexists(target) else "none"
        directory, shown = _target(kind, target, _base(path).strip("/") or ".", is_dir, content, what)
        if not os.path.isdir(directory or "."):
            raise NotFoundError(f"{what}: the host has no directory {directory}")
        fd = os.open(directory or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            stream = io.BufferedReader(_Stream(get_archive(parts, config, given, path, name=shown)), 1 << 20)
            owner = (os.geteuid(), os.getegid())
            from layerfs.containers.tarin import tar_in  # as above

            tar_in(stream, fd, b"/", keep_owner=keep_owner, owner=owner, devices=False)
        finally:
            os.close(fd)


def copy_between(
    parts: Parts,
    source: tuple[Config, str, str],
    target: tuple[Config, str, str],
    *,
    keep_owner: bool = False,
    follow: bool = False,
) -> None:
    """A file or directory of a container (its record, its name, the path) into another one, or the same."""
    (config, given, path), (other, its, place) = source, target
    what = f"copy {given}:{path} to {its}:{place}"
    with system_errors(what):
        content = _wants_content(path)
        path, is_dir = _source(parts, config, given, path, follow, what)
        kind, end = _end_inside(parts, other, place)
        directory, shown = _target(kind, end, _base(path).strip("/") or ".", is_dir, content, what)
        stream = io.BufferedReader(_Stream(get_archive(parts, config, given, path, name=shown)), _PIECE)
        if config.id != other.id:
            put_archive(parts, other, its, directory, stream, keep_owner=keep_owner)
            return
        # One that does not run is locked while it is read, and what is read must not grow by what is written.
        with tempfile.TemporaryFile(dir=parts.directory(config.id)) as whole:
            shutil.copyfileobj(stream, whole, _PIECE)
            whole.seek(0)
            put_archive(parts, other, its, directory, whole, keep_owner=keep_owner)


def _source(parts: Parts, config: Config, given: str, path: str, follow: bool, what: str) -> tuple[str, bool]:
    """The path of what is copied out, where a link is followed that of its end; and whether it is a directory."""
    status = stat_path(parts, config, given, path)
    if follow and stat.S_ISLNK(status.mode) and not status.target:
        raise NotFoundError(f"{what}: it is a link, and what it leads to is not there")
    if status.target and (follow or _wants_content(path)):
        path, status = status.target, stat_path(parts, config, given, status.target)
    return path, stat.S_ISDIR(status.mode)


def _end_inside(parts: Parts, config: Config, path: str) -> tuple[str, str]:
    """What a target in the container is: dir, file or none; and the path of that, where a link leads to it."""
    with opened(parts, config, path) as tree:
        return tree.run(lambda: _end(tree, path))


def _end(tree: Tree, path: str) -> tuple[str, str]:
    with tree.root() as (root, inside):
        try:
            with Place(root, inside) as place:
                # In a mount of a container that does not run paths are another's; links there stay in it.
                end = os.fsdecode(place.path) if inside == os.fsencode(path) and not path.endswith("/") else path
                if place.fd is None:
                    return "none", end
                return ("dir", path) if stat.S_ISDIR(os.fstat(place.fd).st_mode) else ("file", end)
        except (FileNotFoundError, NotADirectoryError):
            return "none", path


def _target(kind: str, path: str, base: str, is_dir: bool, content: bool, what: str) -> tuple[str, str]:
    """docker's table: the directory to unpack into, and the name that the source gets there."""
    if kind == "dir":
        return path, "." if is_dir and content else base
    if kind == "file":
        if is_dir:
            raise InvalidInputError(f"{what}: cannot copy a directory to a file")
        if path.endswith("/"):
            raise InvalidInputError(f"{what}: the target is not a directory")
    elif path.endswith("/") and not is_dir:
        raise NotFoundError(f"{what}: the target directory is not there")
    plain = path.rstrip("/")
    return posixpath.dirname(plain) or ("/" if plain.startswith("/") else "."), posixpath.basename(plain)


class _Stream(io.RawIOBase):
    """Pieces as a file to read."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = piece
        count = min(len(view), len(self._rest))
        view[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count
