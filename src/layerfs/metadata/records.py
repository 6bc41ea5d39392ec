"""Records of other modules, and leases."""

import time
from collections.abc import Iterable
from typing import Any

from layerfs.digest import Digest
from layerfs.metadata.connection import Connection
from layerfs.metadata.documents import from_text, to_text

__all__ = ["RecordTables"]


class RecordTables(Connection):
    """The tables of records and leases."""

    def put_record(self, kind: str, key: str, value: dict[str, Any], diff_ids: Iterable[Digest] = ()) -> None:
        """Keep a document under a key; the layers that it names are not removed while it is there."""
        with self.transaction():
            self._run("DELETE FROM records WHERE kind = ? AND key = ?", kind, key)
            self._run("INSERT INTO records VALUES (?, ?, ?, ?)", kind, key, to_text(value), time.time())
            for diff_id in diff_ids:
                self._run("INSERT OR IGNORE INTO record_layers VALUES (?, ?, ?)", kind, key, diff_id)

    def record(self, kind: str, key: str) -> dict[str, Any] | None:
        """The document under a key."""
        row = self._row("SELECT value FROM records WHERE kind = ? AND key = ?", kind, key)
        return from_text(row["value"]) if row else None

    def records(self, kind: str) -> list[tuple[str, dict[str, Any], float]]:
        """(key, document, when it was last used) of a kind, the least recently used first."""
        rows = self._rows("SELECT * FROM records WHERE kind = ? ORDER BY used", kind)
        return [(row["key"], from_text(row["value"]), row["used"]) for row in rows]

    def touch_record(self, kind: str, key: str) -> None:
        """Record that a document was used."""
        with self.transaction():
            self._run("UPDATE records SET used = ? WHERE kind = ? AND key = ?", time.time(), kind, key)

    def remove_record(self, kind: str, key: str) -> bool:
        """Forget a document; whether it was there."""
        with self.transaction():
            return self._run("DELETE FROM records WHERE kind = ? AND key = ?", kind, key).rowcount > 0

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

    def is_leased(self, digest: Digest) -> bool:
        """Whether a lease names a blob or layer."""
        return self._row("SELECT 1 FROM lease_items WHERE digest = ?", digest) is not None
