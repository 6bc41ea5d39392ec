"""Whether a store is whole: every layer, blob, image and record against each other, and what can be mended."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Literal

import msgspec

from layerfs.blobs import NO_PROGRESS, PIECE, BlobReader, Progress
from layerfs.compression import open_reader
from layerfs.containers.record import decode_config
from layerfs.digest import Digest, Verifier
from layerfs.errors import IntegrityError, LayerfsError, NotFoundError
from layerfs.leases import Lease
from layerfs.metadata import ContainerRow, ImageRow
from layerfs.oci import MANIFEST_LIMIT, Descriptor, Index, parse_manifest
from layerfs.store._damage import damaged_paths
from layerfs.store._parts import Parts
from layerfs.store._rebuilding import rebuild
from layerfs.unpack import record_layer

__all__ = ["Finding", "check"]

_SHOWN = 5
_HINT_AGAIN = "pull or load the image again"


class Finding(msgspec.Struct, frozen=True):
    """Something that is wrong with the store, the images that it touches, and whether it was mended.

    ``paths`` are those of files in a damaged layer that are hit, where there is a good copy to tell it by.
    """

    kind: Literal["database", "blob", "layer", "image", "container", "litter"]
    name: str
    reason: str
    images: tuple[str, ...] = ()
    repaired: bool = False
    paths: tuple[str, ...] = ()


def check(
    parts: Parts, *, quick: bool = False, repair: bool = False, progress: Progress = NO_PROGRESS
) -> Iterator[Finding]:
    """What is wrong with the store, as it is found.

    Layers are verified (``quick``: headers, metadata and the rest; else every byte against the diff ID), blobs against
    their digests (``quick``: their presence), records against what they describe, and each image must have all its
    parts. A damaged layer or blob is put out of use, into ``bad/``, so that nothing starts from it. With ``repair`` it
    is made again where that can be done: a layer from its blob, a blob from its layer, both from a registry that has
    the image; good data are never removed.
    """
    yield from _Check(parts, quick, repair, progress).run()


class _Check:
    def __init__(self, parts: Parts, quick: bool, repair: bool, progress: Progress) -> None:
        self.parts, self.quick, self.repair, self.progress = parts, quick, repair, progress
        self.mender = Mender(parts) if repair else None
        self.readable = True

    def run(self) -> Iterator[Finding]:
        yield from self._database()
        if not self.readable:
            return  # nothing can be looked up
        if not self.quick:
            yield from self._blobs()
        yield from self._layers()
        yield from self._images()
        yield from self._containers()
        for stray in (*self.parts.content.strays(), *self.parts.layers.strays()):
            yield Finding("litter", str(stray), "no blob or layer has such a name: nothing reads it, remove it")
        if self.repair and self.parts.ingest.sweep():
            yield Finding("litter", str(self.parts.places.ingest), "left by a command that was killed", repaired=True)

    def _database(self) -> Iterator[Finding]:
        """A damaged database is made anew before anything is looked up in it."""
        try:
            reasons = self.parts.database.check()
            for table in () if reasons else ("images", "layers", "names", "snapshots", "containers"):
                getattr(self.parts.database, table)()
            reasons = reasons or list(self._without_directory())
        except (LayerfsError, ValueError) as exc:
            reasons = [str(exc)]
        self.readable = not reasons or self.repair
        done = ""
        if reasons and self.repair:
            self.parts.database.close()
            self.parts.use.release()
            done = f"; {rebuild(self.parts.places)}"
            self.parts.use.acquire()
        for reason in reasons:
            yield Finding("database", str(self.parts.places.database), reason + done, (), bool(done))

    def _without_directory(self) -> Iterator[str]:
        """Containers that have no snapshot, or that nothing on disk answers to while there is what no container answers
        to: these had other keys once."""
        database = self.parts.database
        snapshots = {row.key for row in database.snapshots() if row.kind == "active"}
        rows = database.containers()
        strangers = set(os.listdir(self.parts.places.root / "containers")) - {row.id for row in rows}
        for row in rows:
            if row.id not in snapshots or (strangers and not self._has_directories(row.id)):
                # It may be that it was made or removed meanwhile: what is made has all before its row, and keeps all
                # until that is gone.
                lost = database.snapshot(row.id) is None or not self._has_directories(row.id)
                if lost and self._is_recorded(row.id):
                    yield f"container {row.id}: it has no directory, or no snapshot"

    def _is_recorded(self, id: str) -> bool:
        """Whether a container has not been removed meanwhile."""
        return any(id == row.id for row in self.parts.database.containers())

    def _has_directories(self, id: str) -> bool:
        root = self.parts.places.root
        return (root / "containers" / id).is_dir() and (root / "snapshots" / id).is_dir()

    # ---- blobs ----

    def _blobs(self) -> Iterator[Finding]:
        for digest in list(self.parts.content.digests()):
            self.progress.start(digest, f"blob {digest.short}", None)
            try:
                self._verify_blob(digest)
            except NotFoundError:
                continue
            except (IntegrityError, OSError) as exc:
                images = self._images_of(digest)
                self.parts.content.put_away(digest)
                repaired = self.mender is not None and self.mender.blob(digest)
                yield Finding("blob", digest, f"{exc}; it was put away", images, repaired)
            self.progress.finish(digest)

    def _verify_blob(self, digest: Digest) -> None:
        verifier = Verifier(digest, None)
        with self.parts.content.open(digest) as file:
            while piece := file.read(PIECE):
                verifier.update(piece)
        verifier.finish()

    # ---- layers ----

    def _layers(self) -> Iterator[Finding]:
        database, layers = self.parts.database, self.parts.layers
        found: set[Digest] = set()
        for diff_id in layers.list():
            self.progress.start(diff_id, f"layer {diff_id.short}", None)
            images = self._images_of(diff_id)
            try:
                layers.verify(diff_id, self.quick)
            except NotFoundError:
                continue
            except LayerfsError as exc:
                found.add(diff_id)
                repaired = self.mender is not None and self.mender.layer(diff_id)
                if not repaired:
                    database.set_layer_bad(diff_id, str(exc))
                paths = self._paths(diff_id)
                yield Finding("layer", diff_id, f"{exc}{_listed(paths)}", images, repaired, paths)
            else:
                yield from self._layer_row(diff_id)
            self.progress.finish(diff_id)
        for row in database.layers():
            if row.diff_id in found:
                continue
            if not layers.has(row.diff_id) and database.is_layer_needed(row.diff_id):
                repaired = self.mender is not None and self.mender.layer(row.diff_id)
                reason = f"missing: {row.bad}" if row.bad else "missing on disk"
                yield Finding("layer", row.diff_id, reason, self._images_of(row.diff_id), repaired)

    def _paths(self, diff_id: Digest) -> tuple[str, ...]:
        """The files that are hit in a layer that was put away: by the layer made again, or by its blob."""
        parts = self.parts
        blobs = [blob for blob in parts.database.blobs_of_layer(diff_id) if parts.content.has(blob)]

        @contextmanager
        def good() -> Iterator[BlobReader]:
            if parts.layers.has(diff_id):
                with parts.layers.open_tar(diff_id) as tar:
                    yield tar
            else:
                with parts.content.open(blobs[0]) as file:
                    yield open_reader(file, "auto")

        if not blobs and not parts.layers.has(diff_id):
            return ()
        return tuple(damaged_paths(parts.layers, diff_id, good, parts.places.ingest))

    def _layer_row(self, diff_id: Digest) -> Iterator[Finding]:
        """The record of a good layer says what the layer says. One without a record is litter, unless it is needed."""
        database = self.parts.database
        row = database.layer(diff_id)
        try:
            layer = self.parts.layers.get(diff_id)
        except NotFoundError:
            return  # it has been removed meanwhile
        if row is None:
            if database.is_layer_needed(diff_id) and not database.is_leased(diff_id):
                if self.repair:
                    record_layer(database, layer)
                yield self._record(f"layer {diff_id}", "it has no record", self._images_of(diff_id))
            return
        if row.bad is not None:
            database.set_layer_bad(diff_id, None)
        if (row.size, row.disk, row.entries, row.data_bytes) != (
            layer.size,
            layer.disk,
            layer.entries,
            layer.data_bytes,
        ):
            if self.repair:
                database.add_layer(diff_id, layer.size, layer.disk, layer.entries, layer.data_bytes)
            yield self._record(f"layer {diff_id}", "its record is wrong", self._images_of(diff_id))

    # ---- images ----

    def _images(self) -> Iterator[Finding]:
        for row in self.parts.database.images():
            try:
                yield from self._image(row)
            except LayerfsError as exc:
                if self.parts.database.image(row.target.digest) is None:
                    continue  # it has been removed meanwhile
                names = self._names(row)
                if self.mender is not None and self.mender.image(row):
                    yield Finding("image", row.target.digest, str(exc), names, True)
                    with suppress(LayerfsError):
                        yield from self._image(row)
                else:
                    yield Finding("image", row.target.digest, f"{exc} ({_HINT_AGAIN})", names)

    def _image(self, row: ImageRow) -> Iterator[Finding]:
        database, digest = self.parts.database, row.target.digest
        document = parse_manifest(self.parts.content.read(digest, MANIFEST_LIMIT), row.target.media_type)
        if not self.parts.images.is_recorded(row) and database.image(digest) is not None:
            if self.repair:
                self.parts.images.add(row.target)
            yield self._record(f"image {digest}", "its record is wrong", self._names(row))
        if row.image_id is None or isinstance(document, Index):
            return
        image = self.parts.images.load(row)
        for diff_id in image.diff_ids:
            missing = not self.parts.layers.has(diff_id) and database.layer(diff_id) is None
            if missing and database.image(digest) is not None:
                repaired = self.mender is not None and self.mender.layer(diff_id)
                yield Finding("layer", diff_id, "missing", self._names(row), repaired)

    def _containers(self) -> Iterator[Finding]:
        """A container's row says what the record beside its files says."""
        database = self.parts.database
        for row in database.containers():
            if not self._has_directories(row.id):
                yield from self._gone(row)
                continue
            try:
                place = self.parts.places.root / "containers" / row.id / "config.json"
                config = decode_config(place.read_bytes(), row.id)
            except FileNotFoundError:
                if self._is_recorded(row.id):
                    yield Finding("container", row.id, "its config.json is missing", (), False)
                continue
            except (LayerfsError, OSError) as exc:
                yield Finding("container", row.id, str(exc), (), False)
                continue
            snapshot = database.snapshot(row.id)
            stack = config.stack if snapshot is None else list(snapshot.diff_ids)
            if (row.target, row.image_id, stack) != (config.image_target, config.image_id, config.stack):
                if self.repair:
                    target, image_id = Digest(config.image_target), Digest(config.image_id)
                    database.correct_container(row.id, target, image_id, config.stack)
                yield self._record(f"container {row.name}", "its record is wrong", ())

    def _gone(self, row: ContainerRow) -> Iterator[Finding]:
        """The removal of a container is not synced, so after a power cut its row may be back, and no more than that."""
        database = self.parts.database
        if not self._is_recorded(row.id):
            return
        if self.repair:
            with database.transaction():
                database.remove_container(row.id)
                database.remove_snapshot(row.id)
        reason = f"{row.name}: its files are gone; the power went while it was removed, or somebody deleted them"
        yield Finding("container", row.id, reason, (), self.repair)

    def _record(self, name: str, reason: str, images: tuple[str, ...]) -> Finding:
        return Finding("database", name, reason, images, self.repair)

    def _names(self, row: ImageRow) -> tuple[str, ...]:
        return tuple(name for name, _ in self.parts.database.names(row.target.digest))

    def _images_of(self, digest: Digest) -> tuple[str, ...]:
        """The images, by a name where they have one, that consist of a layer or blob."""
        return tuple(self.parts.database.images_with(digest))


def _listed(paths: Sequence[str]) -> str:
    """The first of the paths, for the reason."""
    more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    return f"; hit: {', '.join(paths[:_SHOWN])}{more}" if paths else ""


class Mender:
    """Makes layers and blobs again, from each other or from a registry."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._asked: set[Digest] = set()

    def layer(self, diff_id: Digest) -> bool:
        """Unpack a layer again from a blob that is here and whole, or bring the image again."""
        with Lease(self._parts.database, self._parts.ingest) as lease:
            lease.protect([diff_id])
            if self._unpack(diff_id):
                return True
            return self._pull(self._parts.database.targets_with(diff_id)) and self._parts.layers.has(diff_id)

    def _unpack(self, diff_id: Digest) -> bool:
        parts = self._parts
        for blob in parts.database.blobs_of_layer(diff_id):
            if not parts.content.has(blob):
                continue
            try:
                with parts.content.open(blob) as file, parts.layers.writer(diff_id) as writer:
                    if not writer.present:
                        plain = open_reader(file, "auto")
                        while piece := plain.read(PIECE):
                            writer.write(piece)
                    layer = writer.commit()
            except IntegrityError:
                continue
            record_layer(parts.database, layer)
            parts.database.set_layer_bad(diff_id, None)
            return True
        return False

    def blob(self, digest: Digest) -> bool:
        """A layer's blob can be missed, because the layer gives its tar; others come from a registry."""
        diff_id = self._parts.database.layer_of_blob(digest)
        if diff_id is not None and self._is_good(diff_id):
            return True
        return self._pull(self._parts.database.targets_with(digest)) and self._parts.content.has(digest)

    def _is_good(self, diff_id: Digest) -> bool:
        try:
            self._parts.layers.verify(diff_id)
        except LayerfsError:
            return False
        return True

    def image(self, row: ImageRow) -> bool:
        """An image whose manifest or configuration is gone, or whose record says what they do not."""
        with suppress(LayerfsError):
            digest = row.target.digest
            document = parse_manifest(self._parts.content.read(digest, MANIFEST_LIMIT))
            if document.media_type is not None:
                size = self._parts.content.size(digest)
                self._parts.images.add(Descriptor(media_type=document.media_type, digest=digest, size=size))
                return True
        return self._pull([row.target.digest])

    def _pull(self, targets: Sequence[Digest]) -> bool:
        """Bring images again by the digests under which registries have them."""
        from layerfs.exchange import pull  # only when something is broken, and here is nothing to make it of

        done = False
        for target in targets:
            if target in self._asked:
                continue
            self._asked.add(target)
            for repository, digest in self._parts.database.repo_digests(target):
                with suppress(LayerfsError):
                    pull(self._parts, f"{repository}@{digest}")
                    done = True
                    break
        return done
