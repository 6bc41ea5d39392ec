"""What the tables hold, as values."""

import sqlite3
from typing import Any

import msgspec

from layerfs.digest import Digest
from layerfs.metadata.documents import from_text
from layerfs.oci import Descriptor

__all__ = [
    "ContainerRow",
    "ImageRow",
    "LayerRow",
    "SnapshotRow",
    "container_row",
    "image_row",
    "layer_row",
    "snapshot_row",
]


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


def image_row(row: sqlite3.Row) -> ImageRow:
    """An image as it was read."""
    target = Descriptor(media_type=row["media_type"], digest=Digest(row["target"]), size=row["size"])
    return ImageRow(target, Digest(row["image_id"]) if row["image_id"] else None, row["added"])


def layer_row(row: sqlite3.Row) -> LayerRow:
    """A layer as it was read."""
    values = dict(row)
    return LayerRow(**values | {"diff_id": Digest(values["diff_id"])})


def snapshot_row(row: sqlite3.Row) -> SnapshotRow:
    """A snapshot as it was read."""
    values = dict(row)
    return SnapshotRow(**values | {"diff_ids": tuple(map(Digest, from_text(values["diff_ids"])))})


def container_row(row: sqlite3.Row) -> ContainerRow:
    """A container as it was read."""
    values: dict[str, Any] = dict(row)
    for key in ("target", "image_id"):
        values[key] = Digest(values[key]) if values[key] else None
    return ContainerRow(**values | {"state": from_text(values["state"])})
