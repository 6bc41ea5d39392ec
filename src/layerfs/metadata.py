"""The database: what is in the store, what it is called, and who needs it.  All SQL of layerfs is in this file.

One SQLite file in WAL mode; a connection for each thread.  A transaction is durable (synced before it returns) when
it acknowledges something that must outlive a power cut, as an image; records of running containers are not.
On publishing the database comes last, on removal first: a row never names what is not there, unless a disk lost it.
"""

import json
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from layerfs.digest import Digest
from layerfs.errors import ExistsError, IntegrityError, LayerfsError, NotFoundError, UnsupportedError
from layerfs.oci import Descriptor

__all__ = ["ContainerRow", "Database", "ImageRow", "LayerRow", "SnapshotRow"]

_VERSION = 1
_BUSY_SECONDS = 60.0
_SCHEMA = """
CREATE TABLE store (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE images (
    target TEXT PRIMARY KEY, media_type TEXT NOT NULL, size INTEGER NOT NULL, image_id TEXT, added REAL NOT NULL);
CREATE INDEX images_by_id ON images (image_id);
CREATE TABLE names (name TEXT PRIMARY KEY, target TEXT NOT NULL REFERENCES images) WITHOUT ROWID;
CREATE INDEX names_by_target ON names (target);
CREATE TABLE repo_digests (
    repository TEXT, digest TEXT, target TEXT NOT NULL REFERENCES images ON DELETE CASCADE,
    PRIMARY KEY (repository, digest)) WITHOUT ROWID;
CREATE INDEX repo_digests_by_target ON repo_digests (target);
CREATE TABLE image_layers (
    target TEXT REFERENCES images ON DELETE CASCADE, diff_id TEXT, PRIMARY KEY (target, diff_id)) WITHOUT ROWID;
CREATE INDEX image_layers_by_layer ON image_layers (diff_id);
CREATE TABLE image_blobs (
    target TEXT REFERENCES images ON DELETE CASCADE, digest TEXT, PRIMARY KEY (target, digest)) WITHOUT ROWID;
CREATE INDEX image_blobs_by_digest ON image_blobs (digest);
CREATE TABLE layers (
    diff_id TEXT PRIMARY KEY, size INTEGER NOT NULL, disk INTEGER NOT NULL, entries INTEGER NOT NULL,
    data_bytes INTEGER NOT NULL, added REAL NOT NULL, bad TEXT) WITHOUT ROWID;
CREATE TABLE layer_blobs (
    digest TEXT PRIMARY KEY, diff_id TEXT NOT NULL, size INTEGER NOT NULL, media_type TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX layer_blobs_by_layer ON layer_blobs (diff_id);
CREATE TABLE blob_sources (digest TEXT, repository TEXT, PRIMARY KEY (digest, repository)) WITHOUT ROWID;
CREATE TABLE snapshots (
    key TEXT PRIMARY KEY, kind TEXT NOT NULL, diff_ids TEXT NOT NULL, added REAL NOT NULL,
    mounted TEXT, boot_id TEXT) WITHOUT ROWID;
CREATE TABLE containers (
    id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, target TEXT, image_id TEXT, created REAL NOT NULL,
    state TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE leases (id TEXT PRIMARY KEY, added REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE lease_items (
    lease TEXT REFERENCES leases ON DELETE CASCADE, digest TEXT, PRIMARY KEY (lease, digest)) WITHOUT ROWID;
CREATE INDEX lease_items_by_digest ON lease_items (digest);
CREATE TABLE records (kind TEXT, key TEXT, value TEXT NOT NULL, used REAL NOT NULL, PRIMARY KEY (kind, key));
CREATE TABLE record_layers (
    kind TEXT, key TEXT, diff_id TEXT, PRIMARY KEY (kind, key, diff_id),
    FOREIGN KEY (kind, key) REFERENCES records ON DELETE CASCADE) WITHOUT ROWID;
CREATE INDEX record_layers_by_layer ON record_layers (diff_id);
"""

_NEEDED = """(
    EXISTS (SELECT 1 FROM image_layers AS i WHERE i.diff_id = layers.diff_id)
    OR EXISTS (SELECT 1 FROM record_layers AS r WHERE r.diff_id = layers.diff_id)
    OR EXISTS (SELECT 1 FROM lease_items AS l WHERE l.digest = layers.diff_id)
    OR layers.diff_id IN (SELECT value FROM snapshots, json_each(snapshots.diff_ids)))
"""


class ImageRow(msgspec.Struct, frozen=True):
    """An image that is here: what its names point at, and the image ID (None: an artifact)."""

    target: Descriptor
    image_id: Digest | None
    added: float


class LayerRow(msgspec.Struct, frozen=True):
    """A layer that is here; ``bad`` says what is wrong with it, when something is."""

    diff_id: Digest
    size: int
    disk: int
    entries: int
    data_bytes: int
    added: float
    bad: str | None = None


class SnapshotRow(msgspec.Struct, frozen=True):
    """A snapshot: its layers base first; where it is mounted, in which boot of the machine."""

    key: str
    kind: str
    diff_ids: tuple[Digest, ...]
    added: float
    mounted: str | None = None
    boot_id: str | None = None


class ContainerRow(msgspec.Struct, frozen=True):
    """A container; ``state`` is its owner's document."""

    id: str
    name: str
    target: Digest | None
    image_id: Digest | None
    created: float
    state: dict[str, Any]


class Database:
    """The store's SQLite file; made when it is missing, unless ``readonly``. Any thread may use it."""

    def __init__(self, path: Path, *, readonly: bool = False) -> None:
        self.path = path
        self.readonly = readonly
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self._guard = threading.Lock()
        if not readonly:
            self._migrate()

    # ---- connections and transactions ----

    @property
    def _db(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._connect()
            self._local.connection = connection
            self._local.depth = 0
        return connection

    def _connect(self) -> sqlite3.Connection:
        # A store on a read-only file system cannot have the shared memory that WAL needs.
        uri = self.path.absolute().as_uri() + ("?mode=ro&immutable=1" if self.readonly else "")
        with _translated(self.path):
            connection = sqlite3.connect(
                uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute("PRAGMA synchronous = NORMAL")
        with self._guard:
            self._connections.append(connection)
        return connection

    def _migrate(self) -> None:
        with _translated(self.path):
            db = self._db
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version == 0:
                db.execute("PRAGMA journal_mode = WAL")
                with self.transaction(durable=True):
                    if db.execute("PRAGMA user_version").fetchone()[0] == 0:
                        for statement in _SCHEMA.split(";"):
                            db.execute(statement)
                        db.execute(f"PRAGMA user_version = {_VERSION}")
            elif version > _VERSION:
                raise UnsupportedError(
                    f"open {self.path}: the store has version {version}, this program knows {_VERSION}",
                    hint="use a newer layerfs",
                )

    @contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[None]:
        """All or nothing; inside another one of the same thread it is part of that."""
        db = self._db
        if self._local.depth:
            yield
            return
        with _translated(self.path):
            db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            db.execute("BEGIN IMMEDIATE")
        self._local.depth = 1
        try:
            yield
            with _translated(self.path):
                db.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            raise
        finally:
            self._local.depth = 0

    def _run(self, sql: str, *values: Any) -> sqlite3.Cursor:
        with _translated(self.path):
            return self._db.execute(sql, values)

    def _rows(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        with _translated(self.path):
            return self._db.execute(sql, values).fetchall()

    def _row(self, sql: str, *values: Any) -> sqlite3.Row | None:
        rows = self._rows(sql, *values)
        return rows[0] if rows else None

    def close(self) -> None:
        """Close the connections of all threads; again is allowed."""
        with self._guard:
            for connection in self._connections:
                connection.close()
            self._connections.clear()
        self._local = threading.local()

    def check(self) -> list[str]:
        """What SQLite finds wrong with the file; empty when nothing is."""
        found = [row[0] for row in self._rows("PRAGMA integrity_check")]
        return [] if found == ["ok"] else found

    # ---- settings ----

    def setting(self, key: str) -> str | None:
        """A fact about the store, as its layer format."""
        row = self._row("SELECT value FROM store WHERE key = ?", key)
        return row["value"] if row else None

    def set_setting(self, key: str, value: str) -> None:
        """Record a fact about the store."""
        with self.transaction(durable=True):
            self._run("INSERT OR REPLACE INTO store VALUES (?, ?)", key, value)

    # ---- images and names ----

    def add_image(
        self,
        target: Descriptor,
        image_id: Digest | None,
        diff_ids: Iterable[Digest],
        blobs: Iterable[Digest],
        name: str | None = None,
    ) -> None:
        """Record an image with the layers and blobs that it needs, and let ``name`` point at it."""
        with self.transaction(durable=True):
            self._run(
                "INSERT INTO images VALUES (?, ?, ?, ?, ?) ON CONFLICT (target) DO UPDATE SET image_id = ?4",
                target.digest, target.media_type, target.size, image_id, time.time(),
            )  # fmt: skip
            for diff_id in diff_ids:
                self._run("INSERT OR IGNORE INTO image_layers VALUES (?, ?)", target.digest, diff_id)
            for digest in blobs:
                self._run("INSERT OR IGNORE INTO image_blobs VALUES (?, ?)", target.digest, digest)
            if name is not None:
                self.set_name(name, target.digest)

    def remove_image(self, target: Digest) -> None:
        """Forget an image and its names."""
        with self.transaction(durable=True):
            self._run("DELETE FROM names WHERE target = ?", target)
            self._run("DELETE FROM images WHERE target = ?", target)

    def image(self, target: Digest) -> ImageRow | None:
        """The image that a manifest's or index's digest names."""
        row = self._row("SELECT * FROM images WHERE target = ?", target)
        return _image(row) if row else None

    def images(self) -> list[ImageRow]:
        """All images, the newest first."""
        return [_image(row) for row in self._rows("SELECT * FROM images ORDER BY added DESC, target")]

    def find_images(self, prefix: str) -> list[ImageRow]:
        """Images whose ID or digest begins with ``sha256:`` and hexadecimal digits."""
        low, high = prefix, prefix + "g"
        rows = self._rows(
            "SELECT * FROM images WHERE (image_id >= ?1 AND image_id < ?2) OR (target >= ?1 AND target < ?2)"
            " ORDER BY added DESC",
            low,
            high,
        )
        return [_image(row) for row in rows]

    def set_name(self, name: str, target: Digest) -> None:
        """Let a name point at an image that is here, away from any other."""
        with self.transaction(durable=True):
            self._run("INSERT OR REPLACE INTO names VALUES (?, ?)", name, target)

    def remove_name(self, name: str) -> bool:
        """Forget a name; whether it was there."""
        with self.transaction(durable=True):
            return self._run("DELETE FROM names WHERE name = ?", name).rowcount > 0

    def resolve(self, name: str) -> Digest | None:
        """What a name points at."""
        row = self._row("SELECT target FROM names WHERE name = ?", name)
        return Digest(row["target"]) if row else None

    def names(self, target: Digest | None = None) -> list[tuple[str, Digest]]:
        """(name, target) of all names, or of those of one image."""
        if target is None:
            rows = self._rows("SELECT * FROM names ORDER BY name")
        else:
            rows = self._rows("SELECT * FROM names WHERE target = ? ORDER BY name", target)
        return [(row["name"], Digest(row["target"])) for row in rows]

    def add_repo_digest(self, repository: str, digest: Digest, target: Digest) -> None:
        """Record that a registry has the image under this digest."""
        with self.transaction(durable=True):
            self._run("INSERT OR REPLACE INTO repo_digests VALUES (?, ?, ?)", repository, digest, target)

    def repo_digests(self, target: Digest) -> list[tuple[str, Digest]]:
        """(repository, digest) under which registries have the image."""
        rows = self._rows("SELECT * FROM repo_digests WHERE target = ? ORDER BY repository, digest", target)
        return [(row["repository"], Digest(row["digest"])) for row in rows]

    def resolve_repo_digest(self, repository: str, digest: Digest) -> Digest | None:
        """The image that ``repository@digest`` names."""
        row = self._row("SELECT target FROM repo_digests WHERE repository = ? AND digest = ?", repository, digest)
        return Digest(row["target"]) if row else None

    # ---- layers and their blobs ----

    def add_layer(self, diff_id: Digest, size: int, disk: int, entries: int, data_bytes: int) -> None:
        """Record a layer that is whole on disk."""
        with self.transaction(durable=True):
            self._run(
                "INSERT OR REPLACE INTO layers VALUES (?, ?, ?, ?, ?, ?, NULL)",
                diff_id, size, disk, entries, data_bytes, time.time(),
            )  # fmt: skip

    def layer(self, diff_id: Digest) -> LayerRow | None:
        """What is known of a layer."""
        row = self._row("SELECT * FROM layers WHERE diff_id = ?", diff_id)
        return _layer(row) if row else None

    def layers(self) -> list[LayerRow]:
        """All layers."""
        return [_layer(row) for row in self._rows("SELECT * FROM layers ORDER BY added, diff_id")]

    def set_layer_bad(self, diff_id: Digest, reason: str | None) -> None:
        """Record that a layer is damaged, or with None that it is whole again."""
        with self.transaction(durable=True):
            self._run("UPDATE layers SET bad = ? WHERE diff_id = ?", reason, diff_id)

    def remove_layer(self, diff_id: Digest) -> None:
        """Forget a layer."""
        with self.transaction(durable=True):
            self._run("DELETE FROM layers WHERE diff_id = ?", diff_id)

    def add_layer_blob(self, digest: Digest, diff_id: Digest, size: int, media_type: str) -> None:
        """Record that a blob, unpacked, is a layer."""
        with self.transaction():
            self._run("INSERT OR REPLACE INTO layer_blobs VALUES (?, ?, ?, ?)", digest, diff_id, size, media_type)

    def layer_of_blob(self, digest: Digest) -> Digest | None:
        """The diff ID of a layer blob, where that is known."""
        row = self._row("SELECT diff_id FROM layer_blobs WHERE digest = ?", digest)
        return Digest(row["diff_id"]) if row else None

    def blobs_of_layer(self, diff_id: Digest) -> list[Descriptor]:
        """The blobs known to unpack to a layer."""
        rows = self._rows("SELECT * FROM layer_blobs WHERE diff_id = ? ORDER BY size", diff_id)
        return [
            Descriptor(media_type=row["media_type"], digest=Digest(row["digest"]), size=row["size"]) for row in rows
        ]

    def add_blob_source(self, digest: Digest, repository: str) -> None:
        """Record that a repository (with its registry) has a blob."""
        with self.transaction():
            self._run("INSERT OR IGNORE INTO blob_sources VALUES (?, ?)", digest, repository)

    def blob_sources(self, digest: Digest) -> list[str]:
        """Repositories that had a blob when last seen."""
        rows = self._rows("SELECT repository FROM blob_sources WHERE digest = ? ORDER BY repository", digest)
        return [row["repository"] for row in rows]

    # ---- snapshots ----

    def add_snapshot(self, key: str, diff_ids: Sequence[Digest], kind: str = "active") -> None:
        """Record a snapshot; ExistsError."""
        with self.transaction():
            if self.snapshot(key) is not None:
                raise ExistsError(f"snapshot {key}: there is one already")
            self._run(
                "INSERT INTO snapshots VALUES (?, ?, ?, ?, NULL, NULL)",
                key, kind, json.dumps(diff_ids), time.time(),
            )  # fmt: skip

    def snapshot(self, key: str) -> SnapshotRow | None:
        """A snapshot by its key."""
        row = self._row("SELECT * FROM snapshots WHERE key = ?", key)
        return _snapshot(row) if row else None

    def snapshots(self) -> list[SnapshotRow]:
        """All snapshots."""
        return [_snapshot(row) for row in self._rows("SELECT * FROM snapshots ORDER BY added, key")]

    def set_snapshot_layers(self, key: str, diff_ids: Sequence[Digest]) -> None:
        """Put a snapshot on another stack, as after a commit that froze its upper."""
        with self.transaction(durable=True):
            self._run("UPDATE snapshots SET diff_ids = ? WHERE key = ?", json.dumps(diff_ids), key)

    def set_mounted(self, key: str, target: str | None, boot_id: str | None) -> None:
        """Record where a snapshot is mounted, or with None that it is not."""
        with self.transaction():
            self._run("UPDATE snapshots SET mounted = ?, boot_id = ? WHERE key = ?", target, boot_id, key)

    def mounted_snapshots(self) -> list[SnapshotRow]:
        """Snapshots that were mounted, in whatever boot."""
        return [_snapshot(row) for row in self._rows("SELECT * FROM snapshots WHERE mounted IS NOT NULL")]

    def remove_snapshot(self, key: str) -> None:
        """Forget a snapshot."""
        with self.transaction():
            self._run("DELETE FROM snapshots WHERE key = ?", key)

    # ---- containers ----

    def add_container(
        self, id: str, name: str, target: Digest | None, image_id: Digest | None, state: dict[str, Any]
    ) -> None:
        """Record a container; ExistsError when the name is taken."""
        with self.transaction():
            other = self._row("SELECT id FROM containers WHERE name = ?", name)
            if other is not None:
                raise ExistsError(
                    f"container name {name!r}: in use by container {other['id'][:12]}",
                    hint="remove or rename that one, or take another name",
                )
            self._run(
                "INSERT INTO containers VALUES (?, ?, ?, ?, ?, ?)",
                id, name, target, image_id, time.time(), json.dumps(state),
            )  # fmt: skip

    def container(self, text: str) -> ContainerRow:
        """A container by name, ID or the beginning of its ID; NotFoundError, also when several match."""
        row = self._row("SELECT * FROM containers WHERE id = ?1 OR name = ?1", text)
        if row is None and text and set(text) <= set("0123456789abcdef"):
            rows = self._rows("SELECT * FROM containers WHERE id >= ? AND id < ?", text, text + "g")
            if len(rows) > 1:
                raise NotFoundError(f"container {text}: several IDs begin so", hint="give more digits")
            row = rows[0] if rows else None
        if row is None:
            raise NotFoundError(f"container {text}: no such container")
        return _container(row)

    def containers(self) -> list[ContainerRow]:
        """All containers, the newest first."""
        return [_container(row) for row in self._rows("SELECT * FROM containers ORDER BY created DESC, id")]

    def set_container_state(self, id: str, state: dict[str, Any]) -> None:
        """Replace a container's state."""
        with self.transaction():
            self._run("UPDATE containers SET state = ? WHERE id = ?", json.dumps(state), id)

    def rename_container(self, id: str, name: str) -> None:
        """Give a container another name; ExistsError."""
        with self.transaction():
            if self._row("SELECT id FROM containers WHERE name = ?", name) is not None:
                raise ExistsError(f"container name {name!r}: in use")
            self._run("UPDATE containers SET name = ? WHERE id = ?", name, id)

    def remove_container(self, id: str) -> None:
        """Forget a container."""
        with self.transaction():
            self._run("DELETE FROM containers WHERE id = ?", id)

    def containers_of_image(self, image_id: Digest) -> list[ContainerRow]:
        """Containers made from an image."""
        rows = self._rows("SELECT * FROM containers WHERE image_id = ? ORDER BY created", image_id)
        return [_container(row) for row in rows]

    # ---- records of other modules: build cache, cache mounts, volumes ----

    def put_record(self, kind: str, key: str, value: dict[str, Any], diff_ids: Iterable[Digest] = ()) -> None:
        """Keep a document under a key; the layers that it names are not removed while it is there."""
        with self.transaction():
            self._run("DELETE FROM records WHERE kind = ? AND key = ?", kind, key)
            self._run("INSERT INTO records VALUES (?, ?, ?, ?)", kind, key, json.dumps(value), time.time())
            for diff_id in diff_ids:
                self._run("INSERT OR IGNORE INTO record_layers VALUES (?, ?, ?)", kind, key, diff_id)

    def record(self, kind: str, key: str) -> dict[str, Any] | None:
        """The document under a key."""
        row = self._row("SELECT value FROM records WHERE kind = ? AND key = ?", kind, key)
        return json.loads(row["value"]) if row else None

    def records(self, kind: str) -> list[tuple[str, dict[str, Any], float]]:
        """(key, document, when it was last used) of a kind, the least recently used first."""
        rows = self._rows("SELECT * FROM records WHERE kind = ? ORDER BY used", kind)
        return [(row["key"], json.loads(row["value"]), row["used"]) for row in rows]

    def touch_record(self, kind: str, key: str) -> None:
        """Record that a document was used."""
        with self.transaction():
            self._run("UPDATE records SET used = ? WHERE kind = ? AND key = ?", time.time(), kind, key)

    def remove_record(self, kind: str, key: str) -> bool:
        """Forget a document; whether it was there."""
        with self.transaction():
            return self._run("DELETE FROM records WHERE kind = ? AND key = ?", kind, key).rowcount > 0

    # ---- leases and reachability ----

    def add_lease(self, lease: str) -> None:
        """Record a lease."""
        with self.transaction():
            self._run("INSERT INTO leases VALUES (?, ?)", lease, time.time())

    def protect(self, lease: str, digests: Iterable[Digest]) -> None:
        """Keep blobs and layers from being removed while the lease is there, whether they are here yet or not."""
        with self.transaction():
            for digest in digests:
                self._run("INSERT OR IGNORE INTO lease_items VALUES (?, ?)", lease, digest)

    def remove_lease(self, lease: str) -> None:
        """End a lease."""
        with self.transaction():
            self._run("DELETE FROM leases WHERE id = ?", lease)

    def leases(self) -> list[str]:
        """All leases, also those of processes that are gone."""
        return [row["id"] for row in self._rows("SELECT id FROM leases")]

    def unneeded_layers(self) -> list[Digest]:
        """Layers that no image, snapshot, record or lease names."""
        return [Digest(row["diff_id"]) for row in self._rows(f"SELECT diff_id FROM layers WHERE NOT {_NEEDED}")]

    def take_layer(self, diff_id: Digest) -> bool:
        """Forget a layer if it is unneeded at this instant; whether its file may go."""
        with self.transaction(durable=True):
            done = self._run(f"DELETE FROM layers WHERE diff_id = ? AND NOT {_NEEDED}", diff_id)
            return done.rowcount > 0

    def is_leased(self, digest: Digest) -> bool:
        """Whether a lease names a blob or layer."""
        return self._row("SELECT 1 FROM lease_items WHERE digest = ?", digest) is not None

    def images_with(self, digest: Digest) -> list[str]:
        """The images that consist of a layer or blob, by a name where they have one, else by their digest."""
        rows = self._rows(
            "SELECT target FROM image_layers WHERE diff_id = ?1 UNION SELECT target FROM image_blobs WHERE digest = ?1",
            digest,
        )
        found = []
        for row in rows:
            names = self.names(Digest(row["target"]))
            found.append(names[0][0] if names else row["target"])
        return sorted(found)

    def is_image_blob(self, digest: Digest) -> bool:
        """Whether an image consists of a blob, among others."""
        return self._row("SELECT 1 FROM image_blobs WHERE digest = ?", digest) is not None


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as exc:
        text = str(exc)
        if "locked" in text or "busy" in text:
            raise LayerfsError(f"open {path}: busy for {_BUSY_SECONDS:.0f} seconds, held by another process") from exc
        if "readonly" in text or "unable to open" in text or "disk" in text:
            raise LayerfsError(f"open {path}: {text}", hint="is the store writable, and the disk not full?") from exc
        raise LayerfsError(f"database {path}: {text}") from exc
    except sqlite3.DatabaseError as exc:
        raise IntegrityError(f"database {path}: {exc}", hint="layerfs system check --repair makes it anew") from exc


def _image(row: sqlite3.Row) -> ImageRow:
    target = Descriptor(media_type=row["media_type"], digest=Digest(row["target"]), size=row["size"])
    return ImageRow(target, Digest(row["image_id"]) if row["image_id"] else None, row["added"])


def _layer(row: sqlite3.Row) -> LayerRow:
    values = dict(row)
    return LayerRow(**values | {"diff_id": Digest(values["diff_id"])})


def _snapshot(row: sqlite3.Row) -> SnapshotRow:
    values = dict(row)
    return SnapshotRow(**values | {"diff_ids": tuple(map(Digest, json.loads(values["diff_ids"])))})


def _container(row: sqlite3.Row) -> ContainerRow:
    values: dict[str, Any] = dict(row)
    for key in ("target", "image_id"):
        values[key] = Digest(values[key]) if values[key] else None
    return ContainerRow(**values | {"state": json.loads(values["state"])})
