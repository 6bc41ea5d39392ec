"""The options that bound what an archive or a registry may bring."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerfs.cli.options import Args, one
from layerfs.cli.units import parse_bytes

if TYPE_CHECKING:
    from layerfs.store import Limits

__all__ = ["LIMITS", "limits_of"]

LIMITS = (
    one("--max-layer-bytes", help="Refuse a layer of more bytes, unpacked", metavar="size", type=parse_bytes),
    one("--max-layer-entries", help="Refuse a layer of more files", metavar="count", type=int),
    one("--max-layer-metadata", help="Refuse a layer of more bytes of names", metavar="size", type=parse_bytes),
)


def limits_of(args: Args) -> Limits:
    """Return the limits that the user gave, and the defaults of the store for the others."""
    from layerfs.store import Limits

    given = {name: getattr(args, name) for name in ("max_layer_bytes", "max_layer_entries", "max_layer_metadata")}
    return Limits(**{name: value for name, value in given.items() if value is not None})
