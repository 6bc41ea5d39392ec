"""What files and trees of build contexts came down to in earlier builds, in a database for each context.

Files are remembered by directory, so that neither a build nor what it reads of this grows with the context. Nothing
here is needed: what is damaged, locked or cannot be written is found again from the files. So nothing is synced; what a
power cut leaves behind is told by the sum of each row.
"""

import hashlib
import os
import sqlite3
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from layerfs.build.ignore import Matcher
from layerfs.build.stamp import RACY_SECONDS, Stamp
from layerfs.build.tree import Names, Tree
from layerfs.native import Status

__all__ = ["FileMemory", "identity"]

_FORMAT = 2
"""Of what a tree comes down to: another one is another key."""
_SCHEMA = "CREATE TABLE IF NOT EXISTS known (key BLOB PRIMARY KEY, value BLOB NOT NULL)"
_LARGEST = 256 << 20
"""Of a database, in bytes: then it begins anew."""
_DIRECTORIES = 32
"""How many are held at most."""
_PENDING = 4096
"""After how many new files they are written, at the next directory."""
_SUM = 16

_Identity = tuple[int, int, int, int]
_Files = dict[bytes, tuple[_Identity, bytes]]


class FileMemory:
    """Fingerprints of earlier builds from the same directory. Any thread may use it."""

    def __init__(self, path: Path | None) -> None:
        """``path``: where they are kept; None: they are not."""
        self._path = path
        self._db: sqlite3.Connection | None = None
        self._lock = threading.RLock()
        self._directories: dict[bytes, _Files] = {}
        self._changed: dict[bytes, _Files] = {}
        self._pending = 0

    def __bool__(self) -> bool:
        return self._path is not None

    # ---- files ----

    def get(self, path: bytes, status: Status) -> bytes | None:
        """The fingerprint of a file that is as it was."""
        directory, _, name = path.rpartition(b"/")
        files = self._directories.get(directory)
        found = (files if files is not None else self._files(directory)).get(name)
        return found[1] if found is not None and found[0] == identity(status) else None

    def put(self, path: bytes, status: Status, digest: bytes, begun: int) -> None:
        """Remember one, unless the file was too fresh when its reading had ``begun`` (in nanoseconds)."""
        if self and status.st_ctime_ns < begun - RACY_SECONDS * 10**9:
            directory, _, name = path.rpartition(b"/")
            with self._lock:
                if self._pending >= _PENDING and directory not in self._changed:
                    self._write()
                files = self._changed[directory] = self._files(directory)
                files[name] = identity(status), digest
                self._pending += 1

    def _files(self, directory: bytes) -> _Files:
        with self._lock:
            files = self._changed.get(directory, self._directories.get(directory))
            if files is None:
                if len(self._directories) >= _DIRECTORIES:
                    self._directories.clear()
                data = self._read(b"f" + directory)
                files = msgspec.msgpack.decode(data, type=_Files) if data is not None else {}
            self._directories[directory] = files
            return files

    # ---- trees ----

    def tree(self, tree: Tree, names: Names, status: Status, exclude: Matcher | None) -> bytes | None:
        """What a directory came down to, where all in it is as it was."""
        found = self._read(_tree_key(tree, names, status, exclude)) if self else None
        if found is None:
            return None
        stamp, digest = msgspec.msgpack.decode(found, type=tuple[bytes, bytes])
        return digest if stamp == tree.stamp(names, exclude).finished() else None

    def put_tree(
        self, tree: Tree, names: Names, status: Status, exclude: Matcher | None, stamp: Stamp, digest: bytes
    ) -> None:
        """Remember one, unless a file in it is too fresh. ``stamp``: of the walk that found what is in it."""
        finished = stamp.finished() if self else None
        if finished is not None:
            with self._lock:
                self._write({_tree_key(tree, names, status, exclude): msgspec.msgpack.encode((finished, digest))})

    # ---- both ----

    def save(self) -> None:
        """Write what is new, and close. That it cannot be written is no error: it is found again."""
        with self._lock:
            if self._changed:
                self._write()
            self._close()

    def _read(self, key: bytes) -> bytes | None:
        """What is kept under a key, if it is whole."""
        with self._lock:
            if self._path is None or not (self._db is not None or self._path.exists()):
                return None
            row = self._ask(lambda db: db.execute("SELECT value FROM known WHERE key = ?", (key,)).fetchone())
        whole = row is not None and row[0][:_SUM] == _sum(key, row[0][_SUM:])
        return row[0][_SUM:] if whole else None

    def _write(self, more: Mapping[bytes, bytes] = {}) -> None:
        encode = msgspec.msgpack.encode
        rows = {b"f" + directory: encode(files) for directory, files in self._changed.items()} | dict(more)
        self._changed.clear()
        self._pending = 0

        def write(db: sqlite3.Connection) -> None:
            db.execute("BEGIN IMMEDIATE")
            values = ((key, _sum(key, value) + value) for key, value in rows.items())
            db.executemany("INSERT OR REPLACE INTO known VALUES (?, ?)", values)
            db.execute("COMMIT")

        self._ask(write)

    def _ask(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        """What ``work`` has of the database; None where that fails. One that is damaged begins anew."""
        for _ in range(2):
            if self._path is None:
                break
            try:
                if self._db is None:
                    self._db = _connect(self._path)
                return work(self._db)
            except (sqlite3.Error, OSError) as exc:
                self._close()
                if isinstance(exc, sqlite3.OperationalError | OSError):
                    self._path = None  # it is locked, the disk is full: not to be waited for again
                else:
                    with suppress(OSError):
                        self._path.unlink()
        return None

    def _close(self) -> None:
        if self._db is not None:
            with suppress(sqlite3.Error):
                self._db.close()
            self._db = None


def _connect(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        if path.stat().st_size > _LARGEST:
            path.unlink()
    db = sqlite3.connect(path, timeout=1, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA synchronous = OFF")
        db.execute(_SCHEMA)
    except BaseException:
        db.close()
        raise
    return db


def _sum(key: bytes, value: bytes) -> bytes:
    return hashlib.sha256(key + b"\0" + value).digest()[:_SUM]


def identity(status: Status | os.stat_result) -> _Identity:
    """What changes with a file's content, and with the file that has a name."""
    return status.st_ino, status.st_size, status.st_ctime_ns, status.st_mtime_ns


def _tree_key(tree: Tree, names: Names, status: Status, exclude: Matcher | None) -> bytes:
    asked = (_FORMAT, names, status.st_mode, tree.ignore.patterns, exclude.patterns if exclude else ())
    return b"t" + hashlib.sha256(repr(asked).encode("utf-8", "surrogateescape")).digest()
