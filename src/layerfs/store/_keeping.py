"""Keeping a store: what it holds and needs, what can go, whether it is whole."""

from collections.abc import Callable, Iterator
from typing import Literal

import msgspec

from layerfs.blobs import NO_PROGRESS, PIECE, Progress
from layerfs.digest import Digest, Verifier
from layerfs.errors import IntegrityError, InUseError, LayerfsError, NotFoundError
from layerfs.fsutil import disk_usage
from layerfs.gc import Swept, sweep
from layerfs.images import Image, Removal
from layerfs.oci import MANIFEST_LIMIT, Index, parse_manifest
from layerfs.store._parts import Parts
from layerfs.unpack import record_layer

__all__ = ["Finding", "ImageUsage", "Pruned", "Usage", "check", "prune_images", "remove_image", "sweep_store", "usage"]

_HINT_AGAIN = "pull or load the image again"


class ImageUsage(msgspec.Struct, frozen=True):
    """What an image takes on disk, in bytes: with other images, alone, and by how many containers it is used."""

    image: Image
    shared: int
    unique: int
    containers: int


class Usage(msgspec.Struct, frozen=True):
    """What a store takes on disk, in bytes. ``layers`` and ``blobs`` are all of them, needed or not."""

    images: tuple[ImageUsage, ...]
    layers: int
    blobs: int
    snapshots: dict[str, int]
    ingest: int
    database: int
    reclaimable: int


class Pruned(msgspec.Struct, frozen=True):
    """What a pruning removed, or would remove."""

    images: tuple[Removal, ...]
    swept: Swept


class Finding(msgspec.Struct, frozen=True):
    """Something that is wrong with the store, the images that it touches, and whether it was mended."""

    kind: Literal["database", "blob", "layer", "image", "litter"]
    name: str
    reason: str
    images: tuple[str, ...] = ()
    repaired: bool = False


# ---- sizes ----


def usage(parts: Parts) -> Usage:
    """Sizes as they are on disk. Shared and unique of an image add up to its layers and blobs."""
    images = parts.images.list()
    layer_disk = {row.diff_id: row.disk for row in parts.database.layers()}
    users: dict[Digest, int] = {}
    needs = {image.target.digest: _needs(parts, image) for image in images}
    for needed in needs.values():
        for digest in needed:
            users[digest] = users.get(digest, 0) + 1
    rows = []
    for image in images:
        shared = unique = 0
        for digest, size in needs[image.target.digest].items():
            shared, unique = (shared + size, unique) if users[digest] > 1 else (shared, unique + size)
        rows.append(ImageUsage(image, shared, unique, len(parts.database.containers_of_image(image.id))))
    dry = sweep_store(parts, dry_run=True)
    return Usage(
        images=tuple(rows),
        layers=sum(layer_disk.values()),
        blobs=disk_usage(parts.content.root),
        snapshots={row.key: parts.snapshots.usage(row.key) for row in parts.database.snapshots()},
        ingest=disk_usage(parts.places.ingest),
        database=sum(path.stat().st_blocks * 512 for path in parts.places.root.glob("layerfs.db*") if path.is_file()),
        reclaimable=dry.reclaimed,
    )


def _needs(parts: Parts, image: Image) -> dict[Digest, int]:
    """The layers and blobs of an image that are here, with their bytes on disk."""
    found: dict[Digest, int] = {}
    for diff_id in image.diff_ids:
        row = parts.database.layer(diff_id)
        if row is not None:
            found[diff_id] = row.disk
    manifest = image.manifest
    for digest in (
        image.target.digest,
        image.manifest_descriptor.digest,
        image.id,
        *(d.digest for d in manifest.layers),
    ):
        if digest not in found and parts.content.has(digest):
            found[digest] = parts.content.disk(digest)
    return found


# ---- removal ----


def sweep_store(parts: Parts, *, keep_layer_blobs: bool | None = None, dry_run: bool = False) -> Swept:
    """Remove what nothing names."""
    keep = parts.keep_blobs if keep_layer_blobs is None else keep_layer_blobs
    return sweep(parts.content, parts.layers, parts.database, parts.ingest, keep_layer_blobs=keep, dry_run=dry_run)


def remove_image(parts: Parts, text: str, *, force: bool = False, prune: bool = True) -> list[Removal]:
    """Remove a name or an image, and with ``prune`` the layers and blobs that nothing else needs."""
    removed = parts.images.remove(text, force=force)
    if not prune or all(each.kind == "untagged" for each in removed):
        return removed
    swept = sweep_store(parts)
    return [*removed, *(Removal("deleted", diff_id) for diff_id in swept.layers)]


def prune_images(
    parts: Parts,
    *,
    all_unused: bool = False,
    keep: Callable[[Image], bool] = lambda image: False,
    dry_run: bool = False,
    blobs: bool = False,
) -> Pruned:
    """Remove images without a name (``all_unused``: all that no container uses), except those to ``keep``.

    ``blobs`` also drops the compressed blobs of unpacked layers.
    """
    removed: list[Removal] = []
    for image in parts.images.list():
        used = parts.database.containers_of_image(image.id)
        if (image.names and not all_unused) or used or keep(image):
            continue
        if dry_run:
            removed += [Removal("untagged", name) for name in image.familiar_names]
            removed.append(Removal("deleted", image.id))
            continue
        try:
            removed += parts.images.remove(image.id, force=True)
        except (InUseError, NotFoundError):
            continue  # another command was faster: a container was made, or the image removed
    return Pruned(tuple(removed), sweep_store(parts, keep_layer_blobs=False if blobs else None, dry_run=dry_run))


# ---- wholeness ----


def check(
    parts: Parts, *, quick: bool = False, repair: bool = False, progress: Progress = NO_PROGRESS
) -> Iterator[Finding]:
    """What is wrong with the store, as it is found.

    Layers are verified (``quick``: headers, metadata and the rest; else every byte against the diff ID), blobs against
    their digests (``quick``: their presence), and each image must have all its parts. A damaged layer or blob is put
    out of use, so that nothing starts from it. With ``repair`` it is made again where that can be done from what is
    here: a blob from its layer, a layer from its blob; good data are never removed.
    """
    for reason in parts.database.check():
        yield Finding("database", str(parts.places.database), reason)
    yield from _check_layers(parts, quick, repair, progress)
    if not quick:
        yield from _check_blobs(parts, repair, progress)
    yield from _check_images(parts, repair)
    if repair and parts.ingest.sweep():
        yield Finding("litter", str(parts.places.ingest), "left by a command that was killed", repaired=True)


def _check_layers(parts: Parts, quick: bool, repair: bool, progress: Progress) -> Iterator[Finding]:
    recorded = {row.diff_id for row in parts.database.layers()}
    for diff_id in parts.layers.list():
        progress.start(diff_id, f"layer {diff_id.short}", None)
        try:
            parts.layers.verify(diff_id, quick)
        except NotFoundError:
            continue
        except LayerfsError as exc:
            repaired = repair and _remake_layer(parts, diff_id)
            if not repaired:
                parts.database.set_layer_bad(diff_id, str(exc))
            yield Finding("layer", diff_id, str(exc), _images_of(parts, diff_id), repaired)
        else:
            row = parts.database.layer(diff_id)
            if row is not None and row.bad is not None:
                parts.database.set_layer_bad(diff_id, None)
        progress.finish(diff_id)
    for diff_id in recorded - set(parts.layers.list()):
        row = parts.database.layer(diff_id)
        if row is not None and row.bad is None:
            repaired = repair and _remake_layer(parts, diff_id)
            yield Finding("layer", diff_id, "missing on disk", _images_of(parts, diff_id), repaired)


def _remake_layer(parts: Parts, diff_id: Digest) -> bool:
    """Unpack a layer again from a blob that is here and whole."""
    from layerfs.compression import open_reader  # only when something is broken

    for blob in parts.database.blobs_of_layer(diff_id):
        if not parts.content.has(blob):
            continue
        try:
            with parts.content.open(blob) as file, parts.layers.writer(diff_id) as writer:
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


def _check_blobs(parts: Parts, repair: bool, progress: Progress) -> Iterator[Finding]:
    for digest in list(parts.content.digests()):
        progress.start(digest, f"blob {digest.short}", None)
        try:
            verifier = Verifier(digest, None)
            with parts.content.open(digest) as file:
                while piece := file.read(PIECE):
                    verifier.update(piece)
            verifier.finish()
        except NotFoundError:
            continue
        except (IntegrityError, OSError) as exc:
            # Out of the way, so that the next pull brings it. A layer's blob can be missed: the layer is here.
            parts.content.delete(digest)
            diff_id = parts.database.layer_of_blob(digest)
            mended = repair and diff_id is not None and parts.layers.has(diff_id)
            yield Finding("blob", digest, f"{exc}; it was removed", _images_of(parts, digest), mended)
        progress.finish(digest)


def _check_images(parts: Parts, repair: bool) -> Iterator[Finding]:
    for row in parts.database.images():
        digest = row.target.digest
        names = tuple(name for name, _ in parts.database.names(digest))
        try:
            document = parse_manifest(parts.content.read(digest, MANIFEST_LIMIT), row.target.media_type)
            if row.image_id is None or isinstance(document, Index):
                continue
            image = parts.images.load(row)
        except LayerfsError as exc:
            yield Finding("image", digest, f"{exc} ({_HINT_AGAIN})", names)
            continue
        missing = [diff_id for diff_id in image.diff_ids if not parts.layers.has(diff_id)]
        for diff_id in missing:
            if not (repair and _remake_layer(parts, diff_id)):
                yield Finding("image", image.id, f"layer {diff_id} is missing ({_HINT_AGAIN})", names)


def _images_of(parts: Parts, digest: Digest) -> tuple[str, ...]:
    """The images, by a name where they have one, that consist of a layer or blob."""
    return tuple(parts.database.images_with(digest))
