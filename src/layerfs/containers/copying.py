"""``cp``: files into containers and out of them, running or not, by docker's rules for every combination."""

import io
import os
import posixpath
import stat
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import IO, Any

import msgspec

from layerfs.containers.actions import current, root_directory
from layerfs.containers.merged import merged
from layerfs.containers.parts import Parts
from layerfs.containers.record import Config
from layerfs.errors import InvalidInputError, NotFoundError, UnsupportedError, system_errors
from layerfs.runtime import Place

__all__ = ["PathStat", "copy_in", "copy_out", "get_archive", "put_archive", "stat_path"]


class PathStat(msgspec.Struct, frozen=True):
    """What a path in a container is; ``target`` is where a link leads, as a path inside."""

    name: str
    size: int
    mode: int
    mtime: float
    target: str = ""


# ---- the tree of a container ----


@contextmanager
def _tree(parts: Parts, config: Config, path: bytes, *, write: bool) -> Iterator[tuple[int, bytes]]:
    """A descriptor of a root, and the path in it: the running container's own, else its snapshot or a volume."""
    state = current(parts, config.id)
    with ExitStack() as stack:
        if state.process is not None and write and config.id_map is not None:
            raise UnsupportedError(
                f"copy into container {config.id[:12]}: not offered while it runs in a user namespace",
                hint="stop it first",
            )
        if state.process is not None:
            root = root_directory(state.process)
            stack.callback(os.close, root)
            yield root, path
            return
        clean = posixpath.normpath(b"/" + path.lstrip(b"/"))
        for use in sorted(config.mounts, key=lambda use: -len(use.option.target)):
            target = os.fsencode(use.option.target)
            if use.source and (clean == target or clean.startswith(target + b"/")):
                if write and use.option.readonly:
                    raise InvalidInputError(f"copy to {os.fsdecode(path)}: it is mounted read-only")
                source = os.open(use.source if use.is_dir else os.path.dirname(use.source), os.O_PATH | os.O_CLOEXEC)
                stack.callback(os.close, source)
                inside = clean[len(target) :] if use.is_dir else os.fsencode(os.path.basename(use.source))
                # What stood behind the last name, as /., says how it is meant.
                yield source, inside + path[len(path.rstrip(b"/.")) :] if inside else b"/."
                return
        if not write:
            yield stack.enter_context(merged(parts, config)), path
            return
        stack.enter_context(parts.lock(config.id))
        root = parts.snapshots.mount(config.id)
        stack.callback(parts.snapshots.release, config.id)
        stack.callback(os.close, root)
        yield root, path


def _what(config: Config, path: str) -> str:
    return f"copy {config.id[:12]}:{path}"


def _base(path: str) -> str:
    return posixpath.basename(posixpath.normpath("/" + path)) or "/"


def _wants_content(path: str) -> bool:
    """Whether a source is written as DIR/. : what is in it, and not the directory itself."""
    return path in (".", "./") or path.endswith(("/.", "/./"))


# ---- the archive interface ----


def stat_path(parts: Parts, config: Config, path: str) -> PathStat:
    """What a path is; a link itself. NotFoundError."""
    with ExitStack() as stack:
        stack.enter_context(system_errors(_what(config, path)))
        root, inside = stack.enter_context(_tree(parts, config, os.fsencode(path), write=False))
        place = stack.enter_context(_place(root, inside, config, path, follow=path.endswith("/")))
        assert place.fd is not None
        status = os.fstat(place.fd)
        target = ""
        if stat.S_ISLNK(status.st_mode):
            with suppress(OSError), Place(root, inside) as end:
                target = os.fsdecode(end.path)
        return PathStat(_base(path), status.st_size, status.st_mode, status.st_mtime, target)


@contextmanager
def _place(root: int, inside: bytes, config: Config, path: str, *, follow: bool) -> Iterator[Place]:
    try:
        place = Place(root, inside, follow=follow)
    except (FileNotFoundError, NotADirectoryError):
        place = None
    if place is None or place.fd is None:
        if place is not None:
            place.close()
        raise NotFoundError(f"{_what(config, path)}: no such file in the container")
    with place:
        yield place


def get_archive(
    parts: Parts, config: Config, path: str, *, follow: bool = False, name: str | None = None
) -> Iterator[bytes]:
    """A path and all below it as a tar stream whose entries begin with its last name, or ``name``.

    ``follow``: a link at the end is followed. NotFoundError when it is not there.
    """
    with system_errors(_what(config, path)), _tree(parts, config, os.fsencode(path), write=False) as (root, inside):
        follow = follow or path.endswith(("/", "/."))
        with _place(root, inside, config, path, follow=follow) as place:
            shown = os.fsencode(name if name is not None else _base(path).strip("/") or ".")
            if place.fd is not None and path.endswith("/") and not stat.S_ISDIR(os.fstat(place.fd).st_mode):
                raise InvalidInputError(f"{_what(config, path)}: not a directory")
            live = config.id_map is not None and current(parts, config.id).process is not None
            from layerfs.containers.tarout import tar_out  # tarfile: most verbs copy nothing

            yield from tar_out(place.parent, place.name, shown, config.id_map[0] if config.id_map and live else 0)


def put_archive(
    parts: Parts,
    config: Config,
    path: str,
    stream: IO[bytes],
    *,
    keep_owner: bool = False,
) -> None:
    """Unpack a tar stream into a directory of the container. NotFoundError when that is not there."""
    with system_errors(_what(config, path)), _tree(parts, config, os.fsencode(path), write=True) as (root, inside):
        with _place(root, inside, config, path, follow=True) as place:
            if place.fd is None or not stat.S_ISDIR(os.fstat(place.fd).st_mode):
                raise InvalidInputError(f"{_what(config, path)}: not a directory")
            directory = place.path
        from layerfs.containers.tarin import tar_in  # tarfile: most verbs copy nothing

        # Without privilege this user is the container's root, and nobody else is there.
        privileged = os.geteuid() == 0
        owner = (0, 0) if privileged else (os.geteuid(), os.getegid())
        tar_in(stream, root, directory, keep_owner=keep_owner and privileged, owner=owner, devices=privileged)


# ---- whole copies ----


def copy_in(
    parts: Parts, config: Config, source: str, path: str, *, keep_owner: bool = False, follow: bool = False
) -> None:
    """A file or directory of the host into the container."""
    what = f"copy {source} to {config.id[:12]}:{path}"
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
        directory, shown = _target(_kind_inside(parts, config, path), path, base, is_dir, content, what)
        from layerfs.containers.tarout import tar_out  # as above

        stream = _Stream(tar_out(parent, os.fsencode(name), os.fsencode(shown)))
        put_archive(parts, config, directory, io.BufferedReader(stream, 1 << 20), keep_owner=keep_owner)


def copy_out(
    parts: Parts, config: Config, path: str, target: str, *, keep_owner: bool = False, follow: bool = False
) -> None:
    """A file or directory of the container to the host."""
    what = f"copy {config.id[:12]}:{path} to {target}"
    with system_errors(what):
        status = stat_path(parts, config, path)
        content = _wants_content(path)
        if status.target and (follow or content):
            path, status = status.target, stat_path(parts, config, status.target)
        is_dir = stat.S_ISDIR(status.mode)
        kind = "dir" if os.path.isdir(target) else "file" if os.path.lexists(target) else "none"
        directory, shown = _target(kind, target, _base(path).strip("/") or ".", is_dir, content, what)
        if not os.path.isdir(directory or "."):
            raise NotFoundError(f"{what}: the host has no directory {directory}")
        fd = os.open(directory or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            stream = io.BufferedReader(_Stream(get_archive(parts, config, path, name=shown)), 1 << 20)
            owner = (os.geteuid(), os.getegid())
            from layerfs.containers.tarin import tar_in  # as above

            tar_in(stream, fd, b"/", keep_owner=keep_owner, owner=owner, devices=False)
        finally:
            os.close(fd)


def _kind_inside(parts: Parts, config: Config, path: str) -> str:
    """What a target in the container is: dir, file or none."""
    with _tree(parts, config, os.fsencode(path), write=False) as (root, inside):
        try:
            with Place(root, inside) as place:
                if place.fd is None:
                    return "none"
                return "dir" if stat.S_ISDIR(os.fstat(place.fd).st_mode) else "file"
        except (FileNotFoundError, NotADirectoryError):
            return "none"


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
