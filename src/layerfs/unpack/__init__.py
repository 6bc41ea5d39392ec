"""From blobs to layers and back: the sink of pull and load, the source of push and save, root file systems.

    reader ─┬─> blob in the content store (sha256 = layer digest)
            └─> inflate ─> layer in the layer store (sha256 = diff ID)

A layer is taken in one pass, 1 MiB at a time; nothing is read twice. Blob and layer appear only when digest, size and
diff ID are right. ``sink`` and ``source`` are the two ends of copying, ``rootfs`` takes what is no image yet,
``pouring`` is how the bytes of a tar get into a layer, one thread ahead of the other.
"""

from typing import TYPE_CHECKING

from layerfs.late import late_names
from layerfs.oci import MAX_LAYER_BYTES, MAX_LAYER_ENTRIES, MAX_LAYER_METADATA

if TYPE_CHECKING:
    from layerfs.unpack.rootfs import import_rootfs
    from layerfs.unpack.sink import UnpackingSink, record_layer
    from layerfs.unpack.source import StoreSource
else:
    __getattr__ = late_names(
        __name__,
        rootfs="import_rootfs",
        sink="UnpackingSink record_layer",
        source="StoreSource",
    )

__all__ = [
    "MAX_LAYER_BYTES",
    "MAX_LAYER_ENTRIES",
    "MAX_LAYER_METADATA",
    "StoreSource",
    "UnpackingSink",
    "import_rootfs",
    "record_layer",
]
