"""One connection a thread, and transactions that are durable when they must be."""

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from layerfs.errors import IntegrityError, InvalidInputError, LayerfsError, UnsupportedError
from layerfs.metadata.reserve import Reserve
from layerfs.metadata.schema import SCHEMA, VERSION

__all__ = ["Connection"]

_BUSY_SECONDS = 60.0
_STATEMENTS = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL"


class Connection:
    """A connection for each thread, transactions, and settings.

    Without ``sync`` no transaction is durable: after a power cut the database is that of some moment before.
    """

    def __init__(self, path: Path, *, readonly: bool = False, sync: bool = True) -> None:
        self.path = path
        self.readonly = readonly
        self._sync = sync
        self._local = threading.local()
        self._connections: list[tuple[threading.Thread, sqlite3.Connection]] = []
        self._guard = threading.Lock()
        if not readonly:
            self._open()

    @property
    def _db(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._connect()
            self._local.connection = connection
            self._local.depth = 0
            self._local.full = False
        return connection

    def _connect(self) -> sqlite3.Connection:
        place = str(self.path)
        if self.readonly:
            # A store on a read-only file system cannot have the shared memory that WAL needs.
            place = self.path.absolute().as_uri() + "?mode=ro&immutable=1"
        with _Translated(self.path):
            connection = sqlite3.connect(
                place, uri=self.readonly, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            try:
                connection.row_factory = sqlite3.Row
                connection.execute("PRAGMA foreign_keys = ON")
                connection.execute("PRAGMA synchronous = NORMAL")
            except BaseException:
                connection.close()
                raise
        with self._guard:
            self._close_ended()
            self._connections.append((threading.current_thread(), connection))
        return connection

    def _close_ended(self) -> None:
        """Close the connections of threads that are gone: a copy has new ones each time, a store may live long."""
        ended = [connection for thread, connection in self._connections if not thread.is_alive()]
        self._connections = [each for each in self._connections if each[1] not in ended]
        for connection in ended:
            connection.close()

    def _open(self) -> None:
        """Make or take over the database. On a full disk the reserve goes for that, so that things can be removed."""
        reserve = Reserve(self.path.with_name("reserve"))
        try:
            self._migrate()
        except LayerfsError:
            self.close()
            if not reserve.give_up():
                raise
            self._migrate()
        reserve.keep()

    def _migrate(self) -> None:
        with _Translated(self.path):
            db = self._db
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                db.execute("PRAGMA journal_mode = WAL")
                with self.transaction(durable=True):
                    if db.execute("PRAGMA user_version").fetchone()[0] == 0:
                        for statement in SCHEMA.split(";"):
                            db.execute(statement)
                        db.execute(f"PRAGMA user_version = {VERSION}")
            elif version > VERSION:
                raise UnsupportedError(
                    f"open {self.path}: the store has version {version}, this program knows {VERSION}",
                    hint="use a newer layerfs",
                )

    @contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[None]:
        """All or nothing; inside another one of the same thread it is part of that."""
        db = self._db
        if self._local.depth:
            yield
            return
        self._local.depth = 1
        try:  # from before it begins: an interrupt may come as soon as it has
            with _Translated(self.path):
                self._sync_commits(db, durable and self._sync)
                db.execute("BEGIN IMMEDIATE")
            yield
            with _Translated(self.path):
                db.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            raise
        finally:
            self._local.depth = 0

    def _sync_commits(self, db: sqlite3.Connection, full: bool) -> None:
        if self._local.full is not full:
            self._local.full = None  # not known, should this be interrupted
            db.execute(f"PRAGMA synchronous = {'FULL' if full else 'NORMAL'}")
            self._local.full = full

    def flush(self) -> None:
        """All that was committed so far is on the disk afterwards; nobody waits for it but the caller."""
        if not self._sync:
            return
        # SQLite locks the database and its -shm file, never this one, so opening and closing it takes no lock away.
        with suppress(FileNotFoundError), self.path.with_name(f"{self.path.name}-wal").open("rb") as file:
            os.fdatasync(file.fileno())

    def _run(self, sql: str, *values: Any) -> sqlite3.Cursor:
        with _Translated(self.path):
            return self._db.execute(sql, values)

    def _rows(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        with _Translated(self.path):
            return self._db.execute(sql, values).fetchall()

    def _row(self, sql: str, *values: Any) -> sqlite3.Row | None:
        rows = self._rows(sql, *values)
        return rows[0] if rows else None

    def close(self) -> None:
        """Close the connections of all threads; again is allowed."""
        with self._guard:
            for _, connection in self._connections:
                connection.close()
            self._connections.clear()
        self._local = threading.local()

    def checkpoint(self) -> None:
        """Bring all into the one file, durable, as before it is given another name. SQLite does so when it is closed,
        but does not tell when that fails."""
        row = self._row("PRAGMA wal_checkpoint(TRUNCATE)")
        if row is None or row[0]:
            raise LayerfsError(f"write {self.path}: it is in use")

    def check(self) -> list[str]:
        """What SQLite finds wrong with the file; empty when nothing is."""
        found = [row[0] for row in self._rows("PRAGMA integrity_check")]
        with closing(sqlite3.connect(":memory:")) as model:
            model.executescript(SCHEMA)
            if {row[0] for row in model.execute(_STATEMENTS)} != {row[0] for row in self._rows(_STATEMENTS)}:
                found.append("its schema is not the one that it was made with")
        dangling = self._rows("PRAGMA foreign_key_check")
        found += [f"a row of {row[0]} names what is not in {row[2]}" for row in dangling]
        return [text for text in found if text != "ok"]

    def setting(self, key: str) -> str | None:
        """A fact about the store, as its layer format."""
        row = self._row("SELECT value FROM store WHERE key = ?", key)
        return row["value"] if row else None

    def set_setting(self, key: str, value: str) -> None:
        """Record a fact about the store."""
        with self.transaction(durable=True):
            self._run("INSERT OR REPLACE INTO store VALUES (?, ?)", key, value)


class _Translated:
    """Errors of SQLite as ours, for a ``with``; every statement has one, so it is no generator."""

    __slots__ = ("_path",)

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, exc: BaseException | None, traceback: object) -> None:
        if isinstance(exc, UnicodeEncodeError):
            raise InvalidInputError(f"database {self._path}: a text is not UTF-8") from None
        if isinstance(exc, (sqlite3.DatabaseError, UnicodeDecodeError)):
            raise _translation(self._path, exc) from exc


def _translation(path: Path, exc: Exception) -> LayerfsError:
    text = str(exc)
    if isinstance(exc, sqlite3.OperationalError):
        if "locked" in text or "busy" in text:
            return LayerfsError(f"open {path}: busy for {_BUSY_SECONDS:.0f} seconds, held by another process")
        if "readonly" in text or "unable to open" in text or "disk" in text:
            return LayerfsError(f"open {path}: {text}", hint="is the store writable, and the disk not full?")
        if "decode" not in text:
            return LayerfsError(f"database {path}: {text}")
    elif isinstance(exc, sqlite3.IntegrityError):
        return LayerfsError(f"database {path}: {exc}", hint="another command removed it meanwhile: try again")
    return _damaged(path, exc)


def _damaged(path: Path, exc: Exception) -> IntegrityError:
    return IntegrityError(f"database {path}: {exc}", hint="layerfs system check --repair makes it anew")
