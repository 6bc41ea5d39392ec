"""Fingerprints of files for the cache: SHA-256 of content, remembered by inode, size and times of change.

Times of modification count for nothing, as with docker: what was only touched is the same.
"""

import hashlib
import os
import stat
import time
from contextlib import suppress

import msgspec

from layerfs.build.memory import FileMemory, identity
from layerfs.build.tree import Cursor, Found, Tree, shown
from layerfs.errors import BuildError, native_error
from layerfs.native import Status

__all__ = ["Content", "changed", "file_xattrs", "fingerprint", "same_file"]

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


def same_file(status: os.stat_result, before: Status) -> bool:
    """Whether a file that was opened is the one that was looked at before, and as it was."""
    return (status.st_dev, *identity(status)) == (before.st_dev, *identity(before))


def changed(tree: Tree, found: Found) -> BuildError:
    """The error for a file that is not as it was."""
    return BuildError(f"{shown(found.names)}: changed in {tree.what} while it was read", hint="build again")


def file_xattrs(fd: int) -> dict[bytes, bytes]:
    """The extended attributes that a copy keeps: the user's, and capabilities."""
    with suppress(OSError):
        names = [name for name in os.listxattr(fd) if name.startswith("user.") or name == "security.capability"]
        return {os.fsencode(name): os.getxattr(fd, name) for name in names if not name.startswith("user.overlay.")}
    return {}
