"""``StoreSource``: what the store has, for push and save."""

from contextlib import AbstractContextManager, nullcontext
from io import BytesIO

from layerfs.blobs import BlobReader
from layerfs.content import ContentStore
from layerfs.digest import Digest
from layerfs.errors import InvalidInputError
from layerfs.layers import LayerStore
from layerfs.oci import (
    CONFIG_LIMIT,
    MANIFEST_LIMIT,
    MEDIA_CONFIG,
    MEDIA_LAYER,
    MEDIA_MANIFEST,
    Descriptor,
    Manifest,
    descriptor_of,
    encode,
    is_image,
    parse_config,
    parse_manifest,
)

__all__ = ["StoreSource"]


class StoreSource:
    """What the store has, as a source of copying: blobs, and every layer as its exact tar by its diff ID."""

    def __init__(self, content: ContentStore, layers: LayerStore) -> None:
        self._content = content
        self._layers = layers
        self._made: dict[Digest, bytes] = {}

    def resolve(self, name: str) -> Descriptor:
        """Names are the image store's."""
        return self._content.resolve(name)

    def has(self, descriptor: Descriptor) -> bool:
        """Whether ``open`` would find it."""
        digest = descriptor.digest
        return digest in self._made or self._content.has(digest) or self._layers.has(digest)

    def open(self, descriptor: Descriptor) -> AbstractContextManager[BlobReader]:
        """A blob, or a layer's exact tar; NotFoundError."""
        digest = descriptor.digest
        if digest in self._made:
            return nullcontext(BytesIO(self._made[digest]))
        if self._content.has(digest) or not self._layers.has(digest):
            return self._content.open(digest)
        return self._layers.open_tar(digest)

    def exportable(self, descriptor: Descriptor, *, plain: bool = False) -> Descriptor:
        """The image manifest ``descriptor`` if every layer blob is here, else one over the plain layers.

        ``plain`` asks for the latter anyway. It has the same configuration, so the same image ID; its layers are
        tars, their digests the diff IDs. It is made anew each time and can be opened from this source alone.
        """
        data = self._content.read(descriptor.digest, MANIFEST_LIMIT)
        manifest = parse_manifest(data, descriptor.media_type)
        if not isinstance(manifest, Manifest) or not is_image(manifest):
            raise InvalidInputError(f"export {descriptor.digest}: not an image")
        if not plain and all(self.has(layer) for layer in manifest.layers):
            return descriptor
        config = parse_config(self._content.read(manifest.config.digest, CONFIG_LIMIT))
        made = encode(
            Manifest(
                media_type=MEDIA_MANIFEST,
                config=Descriptor(media_type=MEDIA_CONFIG, digest=manifest.config.digest, size=manifest.config.size),
                layers=tuple(self._plain_layer(diff_id) for diff_id in config.diff_ids),
                annotations=manifest.annotations,
            )
        )
        result = descriptor_of(made, MEDIA_MANIFEST)
        self._made[result.digest] = made
        return result

    def _plain_layer(self, diff_id: Digest) -> Descriptor:
        return Descriptor(media_type=MEDIA_LAYER, digest=diff_id, size=self._layers.get(diff_id).size)
