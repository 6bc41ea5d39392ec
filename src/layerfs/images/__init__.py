"""Images: names that point at manifests or indexes, and what those lead to.

A target is a manifest, or an index when an image for several platforms was taken whole.  The image ID is the digest of
the configuration of this machine's platform.  A target without a name is *dangling*; it stays until it is removed or
pruned.
"""

from layerfs.images._store import ImageStore
from layerfs.images._values import Image, ImageSummary, Removal

__all__ = ["Image", "ImageStore", "ImageSummary", "Removal"]
