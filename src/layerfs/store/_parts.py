"""What the operations of a store work with."""

import os

import msgspec

from layerfs.content import ContentStore
from layerfs.fsutil import Ingest, Lock
from layerfs.images import ImageStore
from layerfs.layers import LayerStore
from layerfs.metadata import Database
from layerfs.oci import MAX_LAYER_BYTES, MAX_LAYER_ENTRIES, MAX_LAYER_METADATA
from layerfs.snapshots import SnapshotStore
from layerfs.store._places import Places, layers_directory

__all__ = ["Limits", "Parts", "make_parts"]


class Limits(msgspec.Struct, frozen=True):
    """What is too much of an archive or image from outside (docs/security.md)."""

    max_layer_bytes: int = MAX_LAYER_BYTES
    max_layer_entries: int = MAX_LAYER_ENTRIES
    max_layer_metadata: int = MAX_LAYER_METADATA


class Parts(msgspec.Struct, frozen=True):
    """The stores below one root; ``use`` is held shared while they are open.

    With ``sync`` what is said to be stored is on the disk.
    """

    places: Places
    database: Database
    content: ContentStore
    layers: LayerStore
    ingest: Ingest
    images: ImageStore
    snapshots: SnapshotStore
    use: Lock
    sync: bool = True
    keep_blobs: bool = True


def make_parts(places: Places, database: Database, layer_format: str, use: Lock, sync: bool) -> Parts:
    """The stores of an open database, as the user who asks may use them."""
    content = ContentStore(places.root / "blobs", places.ingest, sync=sync)
    rootless = os.geteuid() != 0
    layers = LayerStore(
        layers_directory(places, database),
        places.run / "layers",
        places.ingest,
        layer_format,
        userxattr=rootless,
        chown=not rootless,
        sync=sync,
    )
    return Parts(
        places=places,
        database=database,
        content=content,
        layers=layers,
        ingest=layers.ingest,
        images=ImageStore(content, database),
        snapshots=SnapshotStore(places.root / "snapshots", layers, database),
        use=use,
        sync=sync,
        keep_blobs=database.setting("keep_blobs") != "no",
    )
