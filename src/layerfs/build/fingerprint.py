"""Fingerprints of files for the cache: SHA-256 of content, remembered by inode, size and times of change.

Times of modification count for nothing, as with docker: what was only touched is the same.
"""

import hashlib
import os
import stat
import time

import msgspec

from layerfs.build.memory import FileMemory, identity
from layerfs.build.tree import Cursor, Found, Tree, kept_xattrs, packed, shown
from layerfs.errors import BuildError, native_error
from layerfs.native import Status

__all__ = ["Content", "changed", "fingerprint", "same_file"]

_PIECE = 1 << 20
_LINK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class Content(msgspec.Struct, frozen=True, eq=False, gc=False, array_like=True):
    """A small file as it was read for its fingerprint, so that it need not be read again."""

    data: bytes
    xattrs: dict[bytes, bytes]


def fingerprint(
    tree: Tree, cursor: Cursor, found: Found, memory: FileMemory, spare: int = 0
) -> tuple[bytes, Content | None]:
    """What a file's content, link text and extended attributes come down to; and the content, where it had to be read
    and is no more than ``spare`` bytes. BuildError when it cannot be read, or is not what the walk has seen."""
    mode = found.status.st_mode
    if stat.S_ISDIR(mode):
        return _attributes(tree, cursor, found)
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


def _attributes(tree: Tree, cursor: Cursor, found: Found) -> tuple[bytes, Content | None]:
    """Those of a directory, which few have."""
    try:
        xattrs = kept_xattrs(cursor.at(found.names))
    except OSError as exc:
        raise native_error(exc, f"read {shown(found.names)} in {tree.what}") from exc
    if not xattrs:
        return b"", None
    return hashlib.sha256(packed(xattrs)).digest(), Content(b"", xattrs)


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
        xattrs = kept_xattrs(fd)
        digest, left, data = hashlib.sha256(), found.status.st_size, b""
        keep = left <= min(spare, _PIECE)
        while left:
            data = os.read(fd, min(left, _PIECE))
            if not data:
                raise changed(tree, found)
            digest.update(data)
            left -= len(data)
            keep = keep and not left  # in one piece
        digest.update(packed(xattrs))
        return digest.digest(), Content(data, xattrs) if keep else None
    finally:
        os.close(fd)


def same_file(status: os.stat_result, before: Status) -> bool:
    """Whether a file that was opened is the one that was looked at before, and as it was."""
    return (status.st_dev, *identity(status)) == (before.st_dev, *identity(before))


def changed(tree: Tree, found: Found) -> BuildError:
    """The error for a file that is not as it was."""
    return BuildError(f"{shown(found.names)}: changed in {tree.what} while it was read", hint="build again")
