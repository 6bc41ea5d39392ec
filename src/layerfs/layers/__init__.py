"""Layers by diff ID: taken in as tar, kept unpacked in one of two formats, given out as the same tar, mounted, read.

``header`` is what a layer says of itself, ``erofs`` and ``directory`` are the formats, ``writer`` and ``tarout`` the
ways in and out, ``tree`` and ``view`` reading without a mount, ``mounting`` the shared mounts, ``store`` all together.
"""

from typing import TYPE_CHECKING

from layerfs.late import late_names

if TYPE_CHECKING:
    from layerfs.layers.header import HEADER_SIZE, Header
    from layerfs.layers.probe import probe_format
    from layerfs.layers.store import Layer, LayerStore
    from layerfs.layers.tarout import TarReader
    from layerfs.layers.view import Entry, FileEntry, View
    from layerfs.layers.writer import LayerWriter
else:
    __getattr__ = late_names(
        __name__,
        header="HEADER_SIZE Header",
        probe="probe_format",
        store="Layer LayerStore",
        tarout="TarReader",
        view="Entry FileEntry View",
        writer="LayerWriter",
    )

__all__ = [
    "HEADER_SIZE",
    "Entry",
    "FileEntry",
    "Header",
    "Layer",
    "LayerStore",
    "LayerWriter",
    "TarReader",
    "View",
    "probe_format",
]
