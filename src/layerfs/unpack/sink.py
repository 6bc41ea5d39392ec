"""``UnpackingSink``: takes images into the store."""

from collections.abc import Callable
from io import BytesIO
from typing import TYPE_CHECKING

from layerfs.blobs import NO_PROGRESS, PIECE, BlobReader, Progress
from layerfs.content import BlobWriter, ContentStore
from layerfs.digest import Digest, Verifier
from layerfs.errors import IntegrityError, NotFoundError
from layerfs.images import ImageStore
from layerfs.layers import Layer, LayerStore
from layerfs.leases import Lease
from layerfs.metadata import Database
from layerfs.oci import (
    CONFIG_LIMIT,
    MANIFEST_LIMIT,
    MAX_LAYER_BYTES,
    MAX_LAYER_ENTRIES,
    MAX_LAYER_METADATA,
    Descriptor,
    Index,
    Manifest,
    is_image,
    is_index,
    is_manifest,
    layer_compression,
    parse_config,
    parse_manifest,
)

if TYPE_CHECKING:
    from layerfs.layers import LayerWriter

__all__ = ["UnpackingSink", "record_layer"]

_DEPTH_LIMIT = 8


class UnpackingSink:
    """Takes images into the store: blobs as they are, layers unpacked while they come.

    The caller holds the lease until the image is recorded, by ``tag`` or ``ImageStore.add``. Without ``keep_blobs``
    layer blobs are not stored. A blob that is itself the plain tar never is: the layer gives it back exactly.
    A layer that is here is not wanted again, whatever blob it would come in.
    """

    def __init__(
        self,
        content: ContentStore,
        layers: LayerStore,
        images: ImageStore,
        database: Database,
        lease: Lease,
        *,
        keep_blobs: bool = True,
        max_bytes: int = MAX_LAYER_BYTES,
        max_entries: int = MAX_LAYER_ENTRIES,
        max_metadata: int = MAX_LAYER_METADATA,
    ) -> None:
        self._content = content
        self._layers = layers
        self._images = images
        self._database = database
        self._lease = lease
        self._keep_blobs = keep_blobs
        self._max_bytes = max_bytes
        self._limits = {"max_bytes": max_bytes, "max_entries": max_entries, "max_metadata": max_metadata}
        self._diff_ids: dict[Digest, Digest] = {}

    def has(self, descriptor: Descriptor) -> bool:
        """Whether a blob need not be brought: a layer that is unpacked, a manifest with all below it, else a blob."""
        self._lease.protect([descriptor.digest])
        if is_manifest(descriptor.media_type) or is_index(descriptor.media_type):
            return self._is_complete(descriptor, set(), _DEPTH_LIMIT)
        diff_id = self._diff_ids.get(descriptor.digest)
        return self._has_layer(diff_id) if diff_id is not None else self._content.has(descriptor)

    def expect(self, manifest: Manifest) -> None:
        """Learn the diff IDs of the layers to come from the configuration, which is here.

        IntegrityError when it names another number of layers, InvalidInputError for layers of an unknown kind.
        """
        self._diff_ids.update(self._diff_ids_of(manifest))
        self._lease.protect(self._diff_ids.values())

    def put(self, descriptor: Descriptor, reader: BlobReader, *, progress: Progress = NO_PROGRESS) -> None:
        """Take a blob; the layers of an image only after ``expect``. IntegrityError when anything is not right."""
        diff_id = self._diff_ids.get(descriptor.digest)
        if diff_id is not None:
            self._unpack(descriptor, diff_id, reader, progress)
        elif is_manifest(descriptor.media_type):
            self._put_manifest(descriptor, reader)
        else:
            self._content.put(descriptor, reader, progress=progress)

    def tag(self, descriptor: Descriptor, name: str) -> None:
        """Record the image under a name."""
        self._images.add(descriptor, name)

    def _diff_ids_of(self, manifest: Manifest) -> dict[Digest, Digest]:
        """Layer digests to diff IDs; empty for what is no image, as an artifact or an attestation."""
        if not is_image(manifest):
            return {}
        diff_ids = parse_config(self._content.read(manifest.config.digest, CONFIG_LIMIT)).diff_ids
        if len(diff_ids) != len(manifest.layers):
            raise IntegrityError(
                f"image {manifest.config.digest}: the manifest has {len(manifest.layers)} layers, "
                f"the configuration {len(diff_ids)}"
            )
        if any(layer.digest == manifest.config.digest for layer in manifest.layers):
            raise IntegrityError(f"image {manifest.config.digest}: the configuration is one of the layers too")
        found: dict[Digest, Digest] = {}
        for layer, diff_id in zip(manifest.layers, diff_ids, strict=True):
            layer_compression(layer.media_type)
            if found.setdefault(layer.digest, diff_id) != diff_id:
                raise IntegrityError(f"image {manifest.config.digest}: two diff IDs for layer {layer.digest}")
        return found

    def _is_complete(self, descriptor: Descriptor, seen: set[Digest], depth: int) -> bool:
        if descriptor.digest in seen:  # else an index that names one thing often could keep us for ever
            return True
        seen.add(descriptor.digest)
        if not depth or not self._content.has(descriptor):
            return False
        document = parse_manifest(self._content.read(descriptor.digest, MANIFEST_LIMIT), descriptor.media_type)
        if isinstance(document, Index):
            children = document.manifests
            self._lease.protect(child.digest for child in children)
            return all(self._is_complete(child, seen, depth - 1) for child in children)
        return self._has_parts(document)

    def _has_parts(self, manifest: Manifest) -> bool:
        self._lease.protect([manifest.config.digest, *(layer.digest for layer in manifest.layers)])
        if not self._content.has(manifest.config):
            return False
        diff_ids = self._diff_ids_of(manifest)
        self._lease.protect(diff_ids.values())
        return all(
            self._has_layer(diff_ids[layer.digest]) if layer.digest in diff_ids else self._content.has(layer)
            for layer in manifest.layers
        )

    def _has_layer(self, diff_id: Digest) -> bool:
        """Whether it is here and recorded. A crash may have left the one without the other."""
        if not self._layers.has(diff_id):
            return False
        if self._database.layer(diff_id) is None:
            record_layer(self._database, self._layers.get(diff_id))
        return True

    def _put_manifest(self, descriptor: Descriptor, reader: BlobReader) -> None:
        """Nothing that a manifest names may have gone meanwhile."""
        data = b"".join(iter(lambda: reader.read(PIECE), b""))
        document = parse_manifest(data, descriptor.media_type)
        if isinstance(document, Manifest) and not self._has_parts(document):
            raise NotFoundError(
                f"store manifest {descriptor.digest}: a part of it is not in the store", hint="try again"
            )
        self._content.put(descriptor, BytesIO(data))

    def _unpack(self, descriptor: Descriptor, diff_id: Digest, reader: BlobReader, progress: Progress) -> None:
        """One layer. Where its blob is here already, that is unpacked, and nothing is fetched."""
        if self._content.has(descriptor):
            with self._content.open(descriptor) as blob:
                self._unpack_blob(descriptor, diff_id, blob, progress)
        elif not self._keep_blobs or descriptor.digest == diff_id:
            self._unpack_blob(descriptor, diff_id, reader, progress)
        else:
            self._unpack_and_keep(descriptor, diff_id, reader, progress)

    def _unpack_and_keep(self, descriptor: Descriptor, diff_id: Digest, reader: BlobReader, progress: Progress) -> None:
        """A layer whose blob is stored on the way; what an earlier try left of it is not fetched again."""
        seek: Callable[[int], None] | None = getattr(reader, "seek", None)
        with self._content.writer(descriptor.digest, descriptor.size, resume=seek is not None) as blob:
            if blob.present:
                with self._content.open(descriptor) as here:
                    return self._unpack_blob(descriptor, diff_id, here, progress)
            while True:
                resumed = blob.offset
                if resumed and seek is not None:
                    seek(resumed)
                try:
                    return self._unpack_blob(descriptor, diff_id, reader, progress, blob)
                except IntegrityError:
                    if self._content.has(descriptor):
                        raise
                    # What a crash left may be damaged: that is no fault of the other side yet.
                    blob.restart()
                    if not resumed or seek is None:
                        raise
                    seek(0)

    def _unpack_blob(
        self,
        descriptor: Descriptor,
        diff_id: Digest,
        reader: BlobReader,
        progress: Progress,
        blob: BlobWriter | None = None,
    ) -> None:
        """Bytes of a blob into a layer, and into ``blob``, which may have some of them."""
        from layerfs.unpack.tapping import tapped  # an image that is here is not unpacked

        def count(size: int) -> None:
            progress.advance(descriptor.digest, size)

        verifier = (
            _Length(descriptor)
            if descriptor.digest == diff_id
            else Verifier(descriptor.digest, descriptor.size, "layer blob")
        )
        with self._layers.writer(diff_id, protect=None, **self._limits) as writer:
            if not writer.present:
                with tapped(reader, verifier.update if blob is None else blob.write, count) as source:
                    if blob is not None and blob.offset:
                        count(blob.offset)
                        source = _Chain(blob.written(), source)
                    malformed = self._pour(source, writer, f"unpack layer {descriptor.digest}")
                verifier.finish() if blob is None else blob.commit()
                if malformed is not None:
                    malformed.authentic = descriptor.digest != diff_id
                    raise malformed
            try:
                layer = writer.commit()
            except IntegrityError as exc:
                exc.authentic = descriptor.digest != diff_id
                raise
            record_layer(self._database, layer, descriptor)

    def _pour(self, reader: BlobReader, writer: "LayerWriter", what: str) -> IntegrityError | None:
        """Compressed bytes into a layer, to the very end of the blob; what is wrong with them, where it is no limit.

        Then too the rest was read: only the digest of all says whether it was the transport, or is the image.
        """
        from layerfs.unpack.pouring import pour  # as above

        try:
            pour(reader, writer, self._max_bytes)
            if reader.read(1):
                raise IntegrityError("there are bytes behind the end of the compressed stream")
        except IntegrityError as exc:
            failure = IntegrityError(f"{what}: {exc}", hint=exc.hint)
            if exc.hint is not None:
                raise failure from None
            while reader.read(PIECE):
                pass
            return failure
        return None


class _Length:
    """Checks the size of a blob that is the plain tar: its digest is the diff ID, which the layer's writer checks."""

    def __init__(self, descriptor: Descriptor) -> None:
        self._descriptor = descriptor
        self._left = descriptor.size

    def update(self, chunk: bytes) -> None:
        self._left -= len(chunk)
        if self._left < 0:
            raise self._wrong("longer")

    def finish(self) -> None:
        if self._left:
            raise self._wrong("shorter")

    def _wrong(self, how: str) -> IntegrityError:
        descriptor = self._descriptor
        return IntegrityError(f"layer blob {descriptor.digest}: {how} than the {descriptor.size} bytes announced")


class _Chain:
    """One reader after another."""

    def __init__(self, *readers: BlobReader) -> None:
        self._readers = list(readers)

    def read(self, size: int = PIECE, /) -> bytes:
        while self._readers:
            if piece := self._readers[0].read(size):
                return piece
            self._readers.pop(0)
        return b""


def record_layer(database: Database, layer: Layer, blob: Descriptor | None = None) -> None:
    """Record a layer that is whole on disk, and the blob that it came in. The caller has it in a lease."""
    with database.transaction(durable=True):
        if database.layer(layer.diff_id) is None:
            database.add_layer(layer.diff_id, layer.size, layer.disk, layer.entries, layer.data_bytes)
        if blob is not None and blob.digest != layer.diff_id:
            database.add_layer_blob(blob.digest, layer.diff_id, blob.size, blob.media_type)
