"""Layers, and the blobs that unpack to them."""

import time

from layerfs.digest import Digest
from layerfs.metadata.connection import Connection
from layerfs.metadata.rows import LayerRow, layer_row
from layerfs.metadata.schema import NEEDED
from layerfs.oci import Descriptor

__all__ = ["LayerTables"]


class LayerTables(Connection):
    """The tables of layers."""

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
        return layer_row(row) if row else None

    def layers(self) -> list[LayerRow]:
        """All layers."""
        return [layer_row(row) for row in self._rows("SELECT * FROM layers ORDER BY added, diff_id")]

    def layer_data_bytes(self) -> dict[str, int]:
        """The bytes of regular files in each layer, by diff ID."""
        rows = self._rows("SELECT diff_id, data_bytes FROM layers")
        return {diff_id: data_bytes for diff_id, data_bytes in rows}

    def set_layer_bad(self, diff_id: Digest, reason: str | None) -> None:
        """Record that a layer is damaged, or with None that it is whole again."""
        with self.transaction(durable=True):
            self._run("UPDATE layers SET bad = ? WHERE diff_id = ?", reason, diff_id)

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

    def is_layer_needed(self, diff_id: Digest) -> bool:
        """Whether an image, snapshot, record or lease names a layer, be it recorded or not."""
        return self._row(f"SELECT 1 FROM (SELECT ? AS diff_id) AS layers WHERE {NEEDED}", diff_id) is not None

    def unneeded_layers(self) -> list[Digest]:
        """Layers that no image, snapshot, record or lease names."""
        return [Digest(row["diff_id"]) for row in self._rows(f"SELECT diff_id FROM layers WHERE NOT {NEEDED}")]

    def take_layer(self, diff_id: Digest) -> bool:
        """Forget a layer if it is unneeded at this instant; whether its file may go."""
        with self.transaction(durable=True):
            done = self._run(f"DELETE FROM layers WHERE diff_id = ? AND NOT {NEEDED}", diff_id)
            return done.rowcount > 0
