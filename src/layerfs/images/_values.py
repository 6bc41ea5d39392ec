"""What the store says of images."""

from typing import Literal

import msgspec

from layerfs.digest import Digest
from layerfs.oci import Descriptor, ImageConfig, Manifest, Platform
from layerfs.reference import Reference

__all__ = ["Image", "ImageSummary", "Removal"]


class ImageSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What a list says of an image in the store."""

    id: Digest
    target: Descriptor
    config: ImageConfig
    names: tuple[str, ...]
    repo_digests: tuple[str, ...]
    added: float
    size: int

    @property
    def diff_ids(self) -> tuple[Digest, ...]:
        """The layers, base first."""
        return self.config.diff_ids

    @property
    def platform(self) -> Platform:
        """What the image is for."""
        return self.config.platform

    @property
    def created(self) -> float:
        """When it says it was made, in seconds since 1970; 0 where it does not say."""
        return self.config.created_seconds

    @property
    def familiar_names(self) -> tuple[str, ...]:
        """Its names as docker shows them."""
        return tuple(Reference.parse(name).familiar for name in self.names)


class Image(ImageSummary, frozen=True, kw_only=True):
    """An image in the store, for one platform."""

    manifest_descriptor: Descriptor
    manifest: Manifest
    config_bytes: bytes


class Removal(msgspec.Struct, frozen=True):
    """One thing that a removal did: a name that went, or an image (by target)."""

    kind: Literal["untagged", "deleted"]
    what: str
