"""What builds keep: layers of the cache and cache mounts, listed and pruned."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import BinaryIO, Literal

import msgspec

from layerfs.blobs import BlobReader
from layerfs.build.cache import KIND as LAYER_KIND
from layerfs.build.cachemounts import CacheMounts
from layerfs.build.context import TreeKeeper, drop_layers
from layerfs.build.options import BuildParts
from layerfs.build.running import sweep_dead_builds
from layerfs.digest import Digest
from layerfs.errors import InUseError
from layerfs.gc import Swept, sweep
from layerfs.leases import Lease

__all__ = ["BuildCacheStore", "CacheEntry", "CachePruned"]


class CacheEntry(msgspec.Struct, frozen=True):
    """Something that is kept. ``shared``: an image has the layer too, so removing the entry frees nothing."""

    id: str
    type: Literal["layer", "mount"]
    title: str
    size: int
    used: float
    in_use: bool
    shared: bool
    layer: Digest | None = None


class CachePruned(msgspec.Struct, frozen=True):
    """What a pruning removed."""

    entries: tuple[CacheEntry, ...]
    reclaimed: int


class BuildCacheStore:
    """The build cache of a store."""

    def __init__(self, parts: BuildParts) -> None:
        self._parts = parts
        self._mounts = CacheMounts(parts.root, parts.database)

    def list(self) -> Sequence[CacheEntry]:
        """All entries, the least recently used first."""
        return sorted([*self._layers(), *self._mount_entries()], key=lambda entry: entry.used)

    def _layers(self) -> Sequence[CacheEntry]:
        database = self._parts.database
        disk = {row.diff_id: row.disk for row in database.layers()}
        shared = {diff_id for image in self._parts.images.list() for diff_id in image.diff_ids}
        found = []
        for key, record, used in database.records(LAYER_KIND):
            layer = Digest(record["layer"]) if record["layer"] else None
            title = str(record.get("title") or "")
            size = disk.get(layer, 0) if layer else 0
            found.append(CacheEntry(key[:24], "layer", title, size, used, False, layer in shared, layer))
        return found

    def _mount_entries(self) -> Sequence[CacheEntry]:
        return [
            CacheEntry(mount.key[:24], "mount", mount.id, mount.size, mount.used, mount.in_use, False)
            for mount in self._mounts.list()
        ]

    def prune(
        self,
        *,
        all_entries: bool = False,
        older_than: float | None = None,
        keep_bytes: int | None = None,
        wanted: Callable[[CacheEntry], bool] = lambda entry: True,
        dry_run: bool = False,
    ) -> CachePruned:
        """Remove entries, the least recently used first: those unused for ``older_than`` seconds, until no more than
        ``keep_bytes`` are left. Without ``all_entries`` layers that an image has stay known, as they cost nothing."""
        sweep_dead_builds(self._parts.snapshots, self._parts.run)
        entries = self.list()
        left = sum(entry.size for entry in entries if not entry.shared)
        now = time.time()
        removed = []
        for entry in entries:
            if keep_bytes is not None and left <= keep_bytes:
                break
            if entry.in_use or not wanted(entry) or (entry.shared and not all_entries):
                continue
            if older_than is not None and now - entry.used < older_than:
                continue
            if dry_run or self._remove(entry):
                removed.append(entry)
                left -= 0 if entry.shared else entry.size
        swept = Swept() if dry_run else self._sweep()
        mounts = sum(entry.size for entry in removed if entry.type == "mount")
        layers = {entry.layer: entry.size for entry in removed if entry.type == "layer" and not entry.shared}
        return CachePruned(tuple(removed), mounts + (sum(layers.values()) if dry_run else swept.reclaimed))

    def export_mount(self, id: str, sink: BinaryIO) -> None:
        """Write a cache mount, by its ID in Dockerfiles, as a tar; NotFoundError."""
        self._mounts.export(id, sink)

    def import_mount(self, id: str, source: BlobReader) -> None:
        """Make a cache mount of a tar in any compression; ExistsError when there is one, IntegrityError."""
        parts = self._parts
        temporary: list[Digest] = []
        try:
            with Lease(parts.database, parts.ingest) as lease, TreeKeeper(parts, lease) as keeper:
                temporary = keeper.temporary
                self._mounts.take(id, keeper.archive(source, f"the cache mount {id}").fd)
        finally:
            drop_layers(parts, temporary)

    def _remove(self, entry: CacheEntry) -> bool:
        database = self._parts.database
        if entry.type == "layer":
            for key, _, _ in database.records(LAYER_KIND):
                if key.startswith(entry.id):
                    return database.remove_record(LAYER_KIND, key)
            return False
        for mount in self._mounts.list():
            if mount.key.startswith(entry.id):
                with suppress(InUseError):
                    self._mounts.remove(mount.key)
                    return True
        return False

    def _sweep(self) -> Swept:
        parts = self._parts
        return sweep(
            parts.content, parts.layers, parts.database, parts.ingest, keep_layer_blobs=parts.keep_blobs, blobs=()
        )
