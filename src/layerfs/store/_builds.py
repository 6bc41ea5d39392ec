"""What a store gives to builds."""

from layerfs.build.options import BuildParts
from layerfs.store._parts import Parts

__all__ = ["build_parts"]


def build_parts(parts: Parts) -> BuildParts:
    """The parts of a store that a build works with."""
    return BuildParts(
        root=parts.places.root,
        run=parts.places.run,
        database=parts.database,
        content=parts.content,
        layers=parts.layers,
        ingest=parts.ingest,
        images=parts.images,
        snapshots=parts.snapshots,
        keep_blobs=parts.keep_blobs,
    )
