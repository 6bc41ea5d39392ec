"""From blobs to layers and back: the sink of pull and load, the source of push and save, root file systems.

    reader ─┬─> blob in the content store (sha256 = layer digest)
            └─> inflate ─> layer in the layer store (sha256 = diff ID)

A layer is taken in one pass in the thread that brings it, 1 MiB at a time; nothing is read twice. Blob and layer
appear only when digest, size and diff ID are right.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from layerfs.archives import open_input
from layerfs.blobs import NO_PROGRESS, PIECE, BlobReader, Progress
from layerfs.compression import open_reader
from layerfs.content import BlobWriter, ContentStore
from layerfs.digest import Digest, Verifier
from layerfs.errors import IntegrityError, InvalidInputError, NotFoundError, native_error
from layerfs.images import ImageStore
from layerfs.layers import Layer, LayerStore, LayerWriter
from layerfs.leases import Lease
from layerfs.metadata import Database
from layerfs.native import Differ
from layerfs.oci import (
    CONFIG_LIMIT,
    MANIFEST_LIMIT,
    MEDIA_CONFIG,
    MEDIA_LAYER,
    MEDIA_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    descriptor_of,
    encode,
    is_config,
    is_index,
    is_layer,
    is_manifest,
    layer_compression,
    parse_config,
    parse_manifest,
)

__all__ = ["MAX_LAYER_BYTES", "MAX_LAYER_ENTRIES", "StoreSource", "UnpackingSink", "import_rootfs", "record_layer"]

MAX_LAYER_BYTES = 1 << 40
"""Most bytes of a layer's tar, unless told otherwise."""
MAX_LAYER_ENTRIES = 20_000_000
"""Most members of a layer's tar, unless told otherwise."""
_DEPTH_LIMIT = 8
_BOMB_HINT = "if it is meant to be so large, allow more by --max-layer-bytes"


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
    ) -> None:
        self._content = content
        self._layers = layers
        self._images = images
        self._database = database
        self._lease = lease
        self._keep_blobs = keep_blobs
        self._max_bytes = max_bytes
        self._max_entries = max_entries
        self._diff_ids: dict[Digest, Digest] = {}

    def has(self, descriptor: Descriptor) -> bool:
        """Whether a blob need not be brought: a layer that is unpacked, a manifest with all below it, else a blob."""
        self._lease.protect([descriptor.digest])
        if is_manifest(descriptor.media_type) or is_index(descriptor.media_type):
            return self._is_complete(descriptor, _DEPTH_LIMIT)
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
        if not is_config(manifest.config.media_type) or not any(is_layer(d.media_type) for d in manifest.layers):
            return {}
        diff_ids = parse_config(self._content.read(manifest.config.digest, CONFIG_LIMIT)).diff_ids
        if len(diff_ids) != len(manifest.layers):
            raise IntegrityError(
                f"image {manifest.config.digest}: the manifest has {len(manifest.layers)} layers, "
                f"the configuration {len(diff_ids)}"
            )
        found: dict[Digest, Digest] = {}
        for layer, diff_id in zip(manifest.layers, diff_ids, strict=True):
            layer_compression(layer.media_type)
            if found.setdefault(layer.digest, diff_id) != diff_id:
                raise IntegrityError(f"image {manifest.config.digest}: two diff IDs for layer {layer.digest}")
        return found

    def _is_complete(self, descriptor: Descriptor, depth: int) -> bool:
        if not depth or not self._content.has(descriptor):
            return False
        document = parse_manifest(self._content.read(descriptor.digest, MANIFEST_LIMIT), descriptor.media_type)
        if isinstance(document, Index):
            children = document.manifests
            self._lease.protect(child.digest for child in children)
            return all(self._is_complete(child, depth - 1) for child in children)
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

    def _unpack_and_keep(
        self, descriptor: Descriptor, diff_id: Digest, reader: BlobReader, progress: Progress
    ) -> None:
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

        def count(size: int) -> None:
            progress.advance(descriptor.digest, size)

        verifier = Verifier(descriptor.digest, descriptor.size, "layer blob")
        writing = self._layers.writer(diff_id, max_bytes=self._max_bytes, max_entries=self._max_entries)
        with writing as writer:
            if not writer.present:
                source: BlobReader = _Tap(reader, verifier.update if blob is None else blob.write, count)
                if blob is not None and blob.offset:
                    count(blob.offset)
                    source = _Chain(blob.written(), source)
                self._pour(source, writer, f"unpack layer {descriptor.digest}")
                verifier.finish() if blob is None else blob.commit()
            layer = writer.commit()
            record_layer(self._database, layer, descriptor)

    def _pour(self, reader: BlobReader, writer: LayerWriter, what: str) -> None:
        """Compressed bytes into a layer, to the very end of the blob."""
        try:
            _write_plain(open_reader(reader, "auto"), writer, self._max_bytes)
            if reader.read(1):
                raise IntegrityError("there are bytes behind the end of the compressed stream")
        except IntegrityError as exc:
            raise IntegrityError(f"{what}: {exc}", hint=exc.hint) from None


class _Tap:
    """A reader that shows what passes to someone else first."""

    def __init__(self, reader: BlobReader, take: Callable[[bytes], None], count: Callable[[int], None]) -> None:
        self._reader = reader
        self._take = take
        self._count = count

    def read(self, size: int = PIECE, /) -> bytes:
        piece = self._reader.read(size)
        self._take(piece)
        self._count(len(piece))
        return piece


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


def _write_plain(plain: BlobReader, writer: LayerWriter, max_bytes: int) -> None:
    """All of ``plain`` into a layer; IntegrityError beyond ``max_bytes`` (0: any number)."""
    total = 0
    while piece := plain.read(PIECE):
        total += len(piece)
        if max_bytes and total > max_bytes:
            raise IntegrityError(f"more than the {max_bytes} bytes allowed", hint=_BOMB_HINT)
        writer.write(piece)


def record_layer(database: Database, layer: Layer, blob: Descriptor | None = None) -> None:
    """Record a layer that is whole on disk, and the blob that it came in. The caller has it in a lease."""
    with database.transaction(durable=True):
        if database.layer(layer.diff_id) is None:
            database.add_layer(layer.diff_id, layer.size, layer.disk, layer.entries, layer.data_bytes)
        if blob is not None and blob.digest != layer.diff_id:
            database.add_layer_blob(blob.digest, layer.diff_id, blob.size, blob.media_type)


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
        if not isinstance(manifest, Manifest) or not is_config(manifest.config.media_type):
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


def import_rootfs(
    layers: LayerStore,
    source: Path | str | BinaryIO,
    *,
    max_bytes: int = MAX_LAYER_BYTES,
    max_entries: int = MAX_LAYER_ENTRIES,
    clamp_mtime: int | None = None,
) -> Layer:
    """A layer of a whole root file system: a tar in any compression (a path or an open file), or a directory.

    Of a directory, times after ``clamp_mtime`` (seconds since 1970) are set back to it. Raises IntegrityError for a
    damaged archive and beyond the limits, NotFoundError and NativeError. The layer is not recorded yet.
    """
    directory = isinstance(source, Path | str) and os.path.isdir(source)
    opened = _open_tree(source, clamp_mtime) if directory else _open_tar(source)  # type: ignore[arg-type]
    with opened as (reader, what), layers.writer(max_bytes=max_bytes, max_entries=max_entries) as writer:
        try:
            _write_plain(reader, writer, max_bytes)
            return writer.commit()
        except IntegrityError as exc:
            raise IntegrityError(f"import {what}: {exc}", hint=exc.hint) from None


@contextmanager
def _open_tree(path: Path | str, clamp_mtime: int | None) -> Iterator[tuple[BlobReader, str]]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as exc:
        raise native_error(exc, f"import {path}") from exc
    try:
        with Differ(fd, tree=True, clamp_mtime=clamp_mtime) as differ:
            yield differ, f"directory {path}"
    finally:
        os.close(fd)


@contextmanager
def _open_tar(source: Path | str | BinaryIO) -> Iterator[tuple[BlobReader, str]]:
    with open_input(source) as (fd, what), open(fd, "rb", buffering=0, closefd=False) as file:
        yield open_reader(file, "auto"), what
