"""Fingerprints of files for the cache: SHA-256 of content, remembered by inode, size and times of change; and what a
whole tree came down to, remembered by its stamp.

Times of modification count for nothing, as with docker: what was only touched is the same.
"""

import hashlib
import os
import stat
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from layerfs.build.ignore import Matcher
from layerfs.build.stamp import RACY_SECONDS, Stamp
from layerfs.build.tree import Cursor, Found, Names, Tree, shown
from layerfs.errors import BuildError, LayerfsError, native_error
from layerfs.fsutil import write_atomic

__all__ = ["Content", "FileMemory", "changed", "file_xattrs", "fingerprint", "same_file"]

_PIECE = 1 << 20
_MOST = 1_000_000
_MOST_TREES = 1_000
_FORMAT = 1
"""Of what a tree comes down to: another one is another key."""
_LINK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC

_Files = dict[bytes, tuple[int, int, int, int, bytes]]
_Trees = dict[bytes, tuple[bytes, bytes]]
_T = TypeVar("_T", _Files, _Trees)


class FileMemory:
    """Fingerprints of earlier builds from the same directory, in files of their own. Any thread may use it."""

    def __init__(self, path: Path | None) -> None:
        """``path``: where they are kept; None: they are not."""
        self._path = path
        self._files: _Files | None = None
        self._trees: _Trees | None = None
        self._changed: set[str] = set()

    def __bool__(self) -> bool:
        return self._path is not None

    def _read(self, kind: type[_T], suffix: str) -> _T:
        with suppress(OSError, msgspec.MsgspecError):
            if self._path is not None:
                return msgspec.msgpack.decode(self._path.with_suffix(suffix).read_bytes(), type=kind)
        return kind()

    def _known(self) -> _Files:
        if self._files is None:
            self._files = self._read(_Files, "")
        return self._files

    def _known_trees(self) -> _Trees:
        if self._trees is None:
            self._trees = self._read(_Trees, ".trees")
        return self._trees

    # ---- files ----

    def get(self, path: bytes, status: os.stat_result) -> bytes | None:
        """The fingerprint of a file that is as it was."""
        found = (self._files if self._files is not None else self._known()).get(path)
        return found[4] if found is not None and found[:4] == _identity(status) else None

    def put(self, path: bytes, status: os.stat_result, digest: bytes, begun: int) -> None:
        """Remember one, unless the file was too fresh when its reading had ``begun`` (in nanoseconds)."""
        if self and status.st_ctime_ns < begun - RACY_SECONDS * 10**9:
            self._known()[path] = (*_identity(status), digest)
            self._changed.add("")

    # ---- trees ----

    def tree(self, tree: Tree, names: Names, status: os.stat_result, exclude: Matcher | None) -> bytes | None:
        """What a directory came down to, where all in it is as it was."""
        found = self._known_trees().get(_tree_key(tree, names, status, exclude)) if self else None
        return found[1] if found is not None and found[0] == tree.stamp(names, exclude).finished() else None

    def put_tree(
        self, tree: Tree, names: Names, status: os.stat_result, exclude: Matcher | None, stamp: Stamp, digest: bytes
    ) -> None:
        """Remember one, unless a file in it is too fresh. ``stamp``: of the walk that found what is in it."""
        finished = stamp.finished() if self else None
        if finished is not None:
            self._known_trees()[_tree_key(tree, names, status, exclude)] = finished, digest
            self._changed.add(".trees")

    # ---- both ----

    def save(self) -> None:
        """Write what is new. That it cannot be written is no error: it is found again."""
        if self._path is None:
            return
        kinds: Mapping[str, tuple[dict[bytes, Any], int]] = {
            "": (self._files or {}, _MOST),
            ".trees": (self._trees or {}, _MOST_TREES),
        }
        for suffix in self._changed:
            known, most = kinds[suffix]
            while len(known) > most:
                del known[next(iter(known))]
            with suppress(LayerfsError, OSError):
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                write_atomic(self._path.with_suffix(suffix), msgspec.msgpack.encode(known), 0o600, durable=False)
        self._changed.clear()


def _identity(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_ino, status.st_size, status.st_ctime_ns, status.st_mtime_ns


def _tree_key(tree: Tree, names: Names, status: os.stat_result, exclude: Matcher | None) -> bytes:
    asked = (_FORMAT, names, status.st_mode, tree.ignore.patterns, exclude.patterns if exclude else ())
    return hashlib.sha256(repr(asked).encode("utf-8", "surrogateescape")).digest()


class Content(msgspec.Struct, frozen=True, eq=False, gc=False):
    """A small file as it was read for its fingerprint, so that it need not be read again."""

    data: bytes
    xattrs: dict[bytes, bytes]


def fingerprint(
    tree: Tree, cursor: Cursor, found: Found, memory: FileMemory, spare: int = 0
) -> tuple[bytes, Content | None]:
    """What a file's content, link text and extended attributes come down to; and the content, where it had to be read
    and is no more than ``spare`` bytes. BuildError when it cannot be read, or is not what the walk has seen."""
    mode = found.status.st_mode
    if stat.S_ISREG(mode):
        path = b"/".join(found.names)
        known = memory.get(path, found.status)
        if known is not None:
            return known, None
    try:
        if stat.S_ISLNK(mode):
            return _link(tree, cursor, found), None
        if not stat.S_ISREG(mode):
            return b"%d" % found.status.st_rdev, None
        begun = time.time_ns()
        known, content = _content(tree, cursor, found, spare)
        memory.put(path, found.status, known, begun)
        return known, content
    except PermissionError:
        raise BuildError(f"{shown(found.names)}: no permission to read it in {tree.what}") from None
    except OSError as exc:
        raise native_error(exc, f"read {shown(found.names)} in {tree.what}") from exc


def _link(tree: Tree, cursor: Cursor, found: Found) -> bytes:
    fd = cursor.open(found.names, _LINK)
    try:
        if not same_file(os.fstat(fd), found.status):
            raise changed(tree, found)
        return os.readlink(b"", dir_fd=fd)
    finally:
        os.close(fd)


def _content(tree: Tree, cursor: Cursor, found: Found, spare: int) -> tuple[bytes, Content | None]:
    fd = cursor.open(found.names)
    try:
        if not same_file(os.fstat(fd), found.status):
            raise changed(tree, found)
        xattrs = file_xattrs(fd)
        digest, left, data = hashlib.sha256(), found.status.st_size, b""
        keep = left <= min(spare, _PIECE)
        while left:
            data = os.read(fd, min(left, _PIECE))
            if not data:
                raise changed(tree, found)
            digest.update(data)
            left -= len(data)
            keep = keep and not left  # in one piece
        for name, value in sorted(xattrs.items()):
            digest.update(b"\0%b\0%b" % (name, value))
        return digest.digest(), Content(data, xattrs) if keep else None
    finally:
        os.close(fd)


def same_file(status: os.stat_result, before: os.stat_result) -> bool:
    """Whether a file that was opened is the one that was looked at before, and as it was."""
    return (status.st_dev, *_identity(status)) == (before.st_dev, *_identity(before))


def changed(tree: Tree, found: Found) -> BuildError:
    """The error for a file that is not as it was."""
    return BuildError(f"{shown(found.names)}: changed in {tree.what} while it was read", hint="build again")


def file_xattrs(fd: int) -> dict[bytes, bytes]:
    """The extended attributes that a copy keeps: the user's, and capabilities."""
    with suppress(OSError):
        names = [name for name in os.listxattr(fd) if name.startswith("user.") or name == "security.capability"]
        return {os.fsencode(name): os.getxattr(fd, name) for name in names if not name.startswith("user.overlay.")}
    return {}
