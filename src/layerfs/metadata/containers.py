"""Snapshots and containers."""

import time
from collections.abc import Sequence
from typing import Any

from layerfs.digest import Digest
from layerfs.errors import ExistsError, NotFoundError
from layerfs.metadata.connection import Connection
from layerfs.metadata.documents import to_text
from layerfs.metadata.rows import ContainerRow, SnapshotRow, container_row, snapshot_row

__all__ = ["ContainerTables"]


class ContainerTables(Connection):
    """The tables of snapshots and containers."""

    def add_snapshot(self, key: str, diff_ids: Sequence[Digest], kind: str = "active") -> None:
        """Record a snapshot; ExistsError."""
        with self.transaction():
            if self.snapshot(key) is not None:
                raise ExistsError(f"snapshot {key}: there is one already")
            self._run(
                "INSERT INTO snapshots VALUES (?, ?, ?, ?, NULL, NULL)",
                key, kind, to_text(diff_ids), time.time(),
            )  # fmt: skip

    def snapshot(self, key: str) -> SnapshotRow | None:
        """A snapshot by its key."""
        row = self._row("SELECT * FROM snapshots WHERE key = ?", key)
        return snapshot_row(row) if row else None

    def snapshots(self) -> list[SnapshotRow]:
        """All snapshots."""
        return [snapshot_row(row) for row in self._rows("SELECT * FROM snapshots ORDER BY added, key")]

    def set_mounted(self, key: str, target: str | None, boot_id: str | None) -> None:
        """Record where a snapshot is mounted, or with None that it is not."""
        with self.transaction():
            self._run("UPDATE snapshots SET mounted = ?, boot_id = ? WHERE key = ?", target, boot_id, key)

    def mounted_snapshots(self) -> list[SnapshotRow]:
        """Snapshots that were mounted, in whatever boot."""
        return [snapshot_row(row) for row in self._rows("SELECT * FROM snapshots WHERE mounted IS NOT NULL")]

    def remove_snapshot(self, key: str) -> None:
        """Forget a snapshot."""
        with self.transaction():
            self._run("DELETE FROM snapshots WHERE key = ?", key)

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
                id, name, target, image_id, time.time(), to_text(state),
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
        return container_row(row)

    def containers(self) -> list[ContainerRow]:
        """All containers, the newest first."""
        return [container_row(row) for row in self._rows("SELECT * FROM containers ORDER BY created DESC, id")]

    def set_container_state(self, id: str, state: dict[str, Any]) -> None:
        """Replace a container's state."""
        with self.transaction():
            self._run("UPDATE containers SET state = ? WHERE id = ?", to_text(state), id)

    def correct_container(self, id: str, target: Digest, image_id: Digest, diff_ids: Sequence[Digest]) -> None:
        """Correct the image that a container was made of, and the layers of its snapshot."""
        with self.transaction(durable=True):
            self._run("UPDATE containers SET target = ?, image_id = ? WHERE id = ?", target, image_id, id)
            self._run("UPDATE snapshots SET diff_ids = ? WHERE key = ?", to_text(diff_ids), id)

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
        return [container_row(row) for row in rows]
