"""Push: what is in the store, under a name of a registry.

Every byte goes as it is where it is here: manifests, configurations, and layer blobs as they were pulled. A layer
without a blob (made here, or its blob was dropped) is looked for in the registry; if that has it not either, its
exact tar is compressed again while it is sent, and a manifest that names the new blob, with the same configuration,
takes the place of the local one. Compression is reproducible, so a second push finds everything there.
"""

import json
import queue
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, nullcontext
from io import BytesIO
from typing import Any

import msgspec

from layerfs.blobs import NO_PROGRESS, PIECE, BlobReader, Progress
from layerfs.compression import compress
from layerfs.content import ContentStore
from layerfs.digest import Digest, verified
from layerfs.errors import IntegrityError, InvalidInputError, LayerfsError
from layerfs.exchange.parts import StoreParts, about
from layerfs.layers import LayerStore
from layerfs.leases import Lease
from layerfs.oci import (
    CONFIG_LIMIT,
    DOCKER_LAYER,
    DOCKER_LAYER_GZIP,
    DOCKER_LAYER_ZSTD,
    DOCKER_MANIFEST,
    MANIFEST_LIMIT,
    MEDIA_LAYER,
    MEDIA_LAYER_GZIP,
    MEDIA_LAYER_ZSTD,
    Descriptor,
    Index,
    Manifest,
    descriptor_of,
    encode,
    is_image,
    is_index,
    is_layer,
    is_manifest,
    layer_compression,
    parse_config,
    parse_manifest,
)
from layerfs.reference import Reference
from layerfs.registry.access import Access
from layerfs.registry.sink import RegistrySink
from layerfs.registry.upload import ChunksRefused
from layerfs.transfer import copy
from layerfs.unpack import StoreSource

__all__ = ["Pushed", "push"]

_OCI_TYPES = {"none": MEDIA_LAYER, "gzip": MEDIA_LAYER_GZIP, "zstd": MEDIA_LAYER_ZSTD}
_DOCKER_TYPES = {"none": DOCKER_LAYER, "gzip": DOCKER_LAYER_GZIP, "zstd": DOCKER_LAYER_ZSTD}
_DEPTH_LIMIT = 8
_ASKING = 4
_COMPRESSING = 2
_PLAIN_AHEAD, _SENT_AHEAD = 2, 8
"""Pieces, of 1 MiB and more, that wait to be compressed; and to be sent: some while the registry syncs what it got."""


class Pushed(msgspec.Struct, frozen=True):
    """What a push left in the registry; ``target`` has a new digest when layers had to be compressed again."""

    reference: Reference
    target: Descriptor


def push(
    parts: StoreParts,
    image: str,
    remote: str | None = None,
    *,
    compression: str = "gzip",
    level: int | None = None,
    jobs: int = 4,
    progress: Progress = NO_PROGRESS,
    access: Access | None = None,
) -> Pushed:
    """Send an image, with all platforms that its name has here, to ``remote`` (default: where its name says).

    ``compression`` (gzip, zstd, none) and ``level`` are for layers that have no blob. Raises InvalidInputError,
    NotFoundError when the store has no such image, RegistryError, and IntegrityError for a layer that is damaged.
    """
    if compression not in _OCI_TYPES:
        raise InvalidInputError(f"compression {compression!r}: layers can be sent as {', '.join(_OCI_TYPES)}")
    list(compress((), compression, level))
    row = parts.images.find(image)
    destination = Reference.parse(remote if remote is not None else image, default_tag="latest")
    if destination.digest is not None:
        raise InvalidInputError(f"push {destination}: a tag has to be named, not a digest")
    with ExitStack() as stack, about(f"push {destination}"):
        if access is None:
            access = stack.enter_context(Access.load(note=progress.note))
        lease = stack.enter_context(Lease(parts.database, parts.ingest))
        client = access.push_client(destination)
        place = str(client.session.endpoint)
        sink = RegistrySink(client, mount_from=lambda digest: _same_registry(parts, digest, place))
        work = _Push(parts, sink, lease, compression, level, progress)
        target = work.prepare(row.target, _DEPTH_LIMIT)
        copy(work, sink, target, name=str(destination), jobs=jobs, progress=progress)
        with parts.database.transaction():
            for digest in work.layers:
                parts.database.add_blob_source(digest, place)
        parts.database.add_repo_digest(destination.name, target.digest, row.target.digest)
    return Pushed(destination, target)


def _same_registry(parts: StoreParts, digest: Digest, place: str) -> list[str]:
    registry = place.partition("/")[0]
    sources = (source.partition("/") for source in parts.database.blob_sources(digest))
    return [repository for host, _, repository in sources if host == registry]


class _Push:
    """The store as a source of one push, with the manifests that are made for it."""

    def __init__(
        self,
        parts: StoreParts,
        sink: RegistrySink,
        lease: Lease,
        compression: str,
        level: int | None,
        progress: Progress,
    ) -> None:
        self._content: ContentStore = parts.content
        self._layers: LayerStore = parts.layers
        self._database = parts.database
        self._sink = sink
        self._lease = lease
        self._compression = compression
        self._level = level
        self._progress = progress
        self._store = StoreSource(parts.content, parts.layers)
        self._made: dict[Digest, bytes] = {}
        self._sent: dict[Digest, Descriptor] = {}
        self._prepared: dict[Digest, Descriptor] = {}
        self._stop = threading.Event()
        self.layers: set[Digest] = set()
        """The layer blobs of what was prepared."""

    def resolve(self, name: str) -> Descriptor:
        """Names are the image store's."""
        return self._store.resolve(name)

    def open(self, descriptor: Descriptor) -> AbstractContextManager[BlobReader]:
        """A blob, a plain layer, or a manifest made for this push; NotFoundError."""
        if descriptor.digest in self._made:
            return nullcontext(BytesIO(self._made[descriptor.digest]))
        return self._store.open(descriptor)

    def prepare(self, descriptor: Descriptor, depth: int) -> Descriptor:
        """The manifest or index to send: this one, unless layers below it had to be compressed and sent."""
        known = self._prepared.get(descriptor.digest)
        if known is not None:
            return msgspec.structs.replace(descriptor, digest=known.digest, size=known.size)
        if depth == 0:
            raise IntegrityError(f"index {descriptor.digest}: too many indexes in one another")
        self._prepared[descriptor.digest] = prepared = self._prepare(descriptor, depth)
        return prepared

    def _prepare(self, descriptor: Descriptor, depth: int) -> Descriptor:
        self._lease.protect([descriptor.digest])
        data = self._content.read(descriptor.digest, MANIFEST_LIMIT)
        document = parse_manifest(data, descriptor.media_type)
        if isinstance(document, Index):
            children = [
                self.prepare(child, depth - 1) if is_manifest(child.media_type) or is_index(child.media_type) else child
                for child in document.manifests
            ]
            return self._renewed(descriptor, data, "manifests", document.manifests, children)
        layers = self._layers_of(document)
        self.layers.update(layer.digest for layer in layers if is_layer(layer.media_type))
        return self._renewed(descriptor, data, "layers", document.layers, layers)

    def _renewed(
        self,
        descriptor: Descriptor,
        data: bytes,
        member: str,
        before: Sequence[Descriptor],
        after: Sequence[Descriptor],
    ) -> Descriptor:
        """The document with other children; all that it says beside them stays."""
        if list(before) == list(after):
            return descriptor
        document: dict[str, Any] = json.loads(data)
        for entry, child in zip(document[member], after, strict=True):
            entry.update(mediaType=child.media_type, digest=child.digest, size=child.size)
        made = encode(document)
        digest = descriptor_of(made, descriptor.media_type).digest
        self._made[digest] = made
        return msgspec.structs.replace(descriptor, digest=digest, size=len(made))

    def _layers_of(self, manifest: Manifest) -> list[Descriptor]:
        """The layers to send, base first."""
        layers = list(manifest.layers)
        self._lease.protect([manifest.config.digest, *(layer.digest for layer in layers)])
        if not is_image(manifest):
            return layers
        config = parse_config(self._content.read(manifest.config.digest, CONFIG_LIMIT))
        if len(config.diff_ids) != len(layers):
            raise IntegrityError(f"image {manifest.config.digest}: its manifest has another number of layers")
        self._lease.protect(config.diff_ids)
        docker = manifest.media_type == DOCKER_MANIFEST
        without = {
            layer.digest: (layer, diff_id)
            for layer, diff_id in zip(layers, config.diff_ids, strict=True)
            if not self._content.has(layer) and not (layer.digest == diff_id and self._compression == "none")
        }
        replaced = self._replaced(without, docker)
        return [replaced.get(layer.digest, layer) for layer in layers]

    def _replaced(self, without: dict[Digest, tuple[Descriptor, Digest]], docker: bool) -> dict[Digest, Descriptor]:
        """What goes instead of layers without blobs; those that the registry has anyway go as they are."""
        asking = ThreadPoolExecutor(_ASKING, thread_name_prefix="ask")
        compressing = ThreadPoolExecutor(_COMPRESSING, thread_name_prefix="compress")
        try:
            # A plain layer is sent compressed, wherever else it is.
            asked = [layer for layer, diff_id in without.values() if layer.digest != diff_id]
            answers = asking.map(self._sink.has, asked)
            there = {layer.digest for layer, has in zip(asked, answers, strict=True) if has}
            futures = {
                digest: compressing.submit(self._send, layer, diff_id, docker)
                for digest, (layer, diff_id) in without.items()
                if digest not in there
            }
            return {digest: future.result() for digest, future in futures.items()}
        except BaseException as exc:
            self._stop.set()
            self._sink.interrupt()
            # One that is connecting cannot be woken, and a program that is being ended does not wait for it.
            ended = isinstance(exc, KeyboardInterrupt | SystemExit)
            for pool in (asking, compressing):
                pool.shutdown(wait=not ended, cancel_futures=True)
            raise
        finally:
            for pool in (asking, compressing):
                pool.shutdown(wait=False)

    def _send(self, layer: Descriptor, diff_id: Digest, docker: bool) -> Descriptor:
        """The blob to name instead of ``layer``; compressed and sent, unless it is known and there."""
        media_type = (_DOCKER_TYPES if docker else _OCI_TYPES)[self._compression]
        blob = self._sent.get(diff_id) or self._known(diff_id)
        if blob is None:
            self._progress.start(diff_id, diff_id.short, self._layers.get(diff_id).size)
            blob = self._compress(diff_id)
            self._progress.finish(diff_id)
            self._database.add_layer_blob(blob.digest, diff_id, blob.size, media_type)
        self._sent[diff_id] = blob
        return msgspec.structs.replace(layer, media_type=media_type, digest=blob.digest, size=blob.size)

    def _known(self, diff_id: Digest) -> Descriptor | None:
        """A blob that an earlier push, or a pull, had of this layer in the compression wanted, if it can be had."""
        if self._level is not None or self._compression == "none":
            return None
        for blob in self._database.blobs_of_layer(diff_id):
            if layer_compression(blob.media_type) == self._compression:
                self._lease.protect([blob.digest])
                if self._content.has(blob) or self._sink.has(blob):
                    return blob
        return None

    def _compress(self, diff_id: Digest) -> Descriptor:
        try:
            return self._stream(diff_id)
        except ChunksRefused:
            self._progress.start(diff_id, diff_id.short, self._layers.get(diff_id).size)
            return self._stream(diff_id, whole=True)

    def _stream(self, diff_id: Digest, *, whole: bool = False) -> Descriptor:
        with self._layers.open_tar(diff_id) as tar:
            count = self._layers.get(diff_id).size
            pieces = verified(self._pieces(tar, diff_id), diff_id, count, "layer")
            with (
                _Pipe(pieces, _PLAIN_AHEAD) as plain,
                _Pipe(compress(iter(plain.read, b""), self._compression, self._level), _SENT_AHEAD) as pipe,
            ):
                sent = self._sink.put_stream(f"layer {diff_id}", pipe, lambda count: None, whole=whole)
        return Descriptor(media_type=MEDIA_LAYER, digest=sent.digest, size=sent.size)

    def _pieces(self, reader: BlobReader, key: str) -> Iterator[bytes]:
        while piece := reader.read(PIECE):
            if self._stop.is_set():
                raise LayerfsError("push: given up")
            self._progress.advance(key, len(piece))
            yield piece


class _Pipe:
    """Makes bytes in a thread of its own, ``ahead`` pieces ahead of who reads them."""

    def __init__(self, pieces: Iterator[bytes], ahead: int) -> None:
        self._source = pieces
        self._queue: queue.Queue[list[bytes] | BaseException] = queue.Queue(ahead)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="compress", daemon=True)
        self._batch: list[bytes] = []  # reversed
        self._ended = False

    def read(self, size: int = PIECE, /) -> bytes:
        """The next bytes; raises what making them raised."""
        if not self._batch and not self._ended:
            batch = self._queue.get()
            if isinstance(batch, BaseException):
                self._ended = True
                raise batch
            self._batch, self._ended = batch[::-1], not batch
        if not self._batch:
            return b""
        piece = self._batch.pop()
        if len(piece) > size:
            self._batch.append(piece[size:])
        return piece[:size]

    def __enter__(self) -> "_Pipe":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        while self._thread.is_alive():
            # Make room for a thread that waits to put its next piece.
            try:
                self._queue.get_nowait()
            except queue.Empty:
                self._thread.join(0.01)

    def _run(self) -> None:
        held: list[bytes] = []
        count = 0
        try:
            for piece in self._source:
                if piece:
                    held.append(piece)
                    count += len(piece)
                # In bulk: each hand-over wakes the other side.
                if count >= PIECE:
                    self._queue.put(held)
                    held, count = [], 0
                if self._stopped.is_set():
                    return
            if held:
                self._queue.put(held)
            self._queue.put([])
        except BaseException as exc:
            self._queue.put(exc)
