"""Fingerprints of files for the cache: SHA-256 of content, remembered by inode, size and times of change.

Times of modification count for nothing, as with docker: what was only touched is the same.
"""

import hashlib
import os
import stat
import time
from contextlib import suppress
from pathlib import Path

import msgspec

from layerfs.build.tree import Cursor, Found, Tree, shown
from layerfs.errors import BuildError, LayerfsError, native_error
from layerfs.fsutil import write_atomic

__all__ = ["FileMemory", "file_xattrs", "fingerprint"]

_PIECE = 1 << 20
_RACY_NS = 2 * 10**9
"""What was changed so shortly before it was read may be changed again within the same tick of the clock."""
_MOST = 1_000_000

_Known = dict[bytes, tuple[int, int, int, int, bytes]]


class FileMemory:
    """Fingerprints of files of earlier builds from the same directory, in a file of their own."""

    def __init__(self, path: Path | None) -> None:
        """``path``: where they are kept; None: they are not."""
        self._path = path
        self._known: _Known | None = None
        self._changed = False

    def _load(self) -> _Known:
        if self._known is None:
            self._known = {}
            with suppress(OSError, msgspec.MsgspecError):
                if self._path is not None:
                    self._known = msgspec.msgpack.decode(self._path.read_bytes(), type=_Known)
        return self._known

    def get(self, path: bytes, status: os.stat_result) -> bytes | None:
        """The fingerprint of a file that is as it was."""
        found = (self._known if self._known is not None else self._load()).get(path)
        if found is None:
            return None
        ino, size, ctime, mtime, digest = found
        same = ino == status.st_ino and ctime == status.st_ctime_ns and size == status.st_size
        return digest if same and mtime == status.st_mtime_ns else None

    def put(self, path: bytes, status: os.stat_result, digest: bytes) -> None:
        """Remember one, unless the file is too fresh to tell a later change from."""
        if self._path is not None and status.st_ctime_ns < time.time_ns() - _RACY_NS:
            self._load()[path] = (*_identity(status), digest)
            self._changed = True

    def save(self) -> None:
        """Write what is new. That it cannot be written is no error: it is found again."""
        if not self._changed or self._path is None:
            return
        known = self._load()
        while len(known) > _MOST:
            del known[next(iter(known))]
        with suppress(LayerfsError, OSError):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomic(self._path, msgspec.msgpack.encode(known), 0o600, durable=False)
        self._changed = False


def _identity(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_ino, status.st_size, status.st_ctime_ns, status.st_mtime_ns


def fingerprint(tree: Tree, cursor: Cursor, found: Found, memory: FileMemory) -> bytes:
    """What a file's content, link text and extended attributes come down to. BuildError when it cannot be read."""
    mode = found.status.st_mode
    if stat.S_ISREG(mode):
        path = b"/".join(found.names)
        known = memory.get(path, found.status)
        if known is not None:
            return known
    try:
        if stat.S_ISLNK(mode):
            return cursor.readlink(found.names)
        if not stat.S_ISREG(mode):
            return b"%d" % found.status.st_rdev
        known = _content(cursor, found)
        memory.put(path, found.status, known)
        return known
    except PermissionError:
        raise BuildError(f"{shown(found.names)}: no permission to read it in {tree.what}") from None
    except OSError as exc:
        raise native_error(exc, f"read {shown(found.names)} in {tree.what}") from exc


def _content(cursor: Cursor, found: Found) -> bytes:
    fd = cursor.open(found.names)
    try:
        digest = hashlib.sha256()
        left = found.status.st_size  # no more is read of a file that grows: it has another time then
        while left > 0 and (piece := os.read(fd, min(left, _PIECE))):
            digest.update(piece)
            left -= len(piece)
        for name, value in sorted(file_xattrs(fd).items()):
            digest.update(b"\0%b\0%b" % (name, value))
        return digest.digest()
    finally:
        os.close(fd)


def file_xattrs(fd: int) -> dict[bytes, bytes]:
    """The extended attributes that a copy keeps: the user's, and capabilities."""
    with suppress(OSError):
        names = [name for name in os.listxattr(fd) if name.startswith("user.") or name == "security.capability"]
        return {os.fsencode(name): os.getxattr(fd, name) for name in names if not name.startswith("user.overlay.")}
    return {}
