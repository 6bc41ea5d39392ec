"""Keeping a store: what it holds and needs, what can go, whether it is whole."""

from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import msgspec

from layerfs.digest import Digest
from layerfs.errors import InUseError, NotFoundError
from layerfs.fsutil import disk_usage
from layerfs.gc import Swept, sweep
from layerfs.images import ImageSummary, Removal
from layerfs.store._migrating import remove_other_layers
from layerfs.store._parts import Parts
from layerfs.userns import usage_owned

__all__ = ["ImageUsage", "Pruned", "Usage", "prune_images", "remove_image", "sweep_store", "usage"]


class ImageUsage(msgspec.Struct, frozen=True):
    """What an image takes on disk, in bytes: with other images, alone, and by how many containers it is used."""

    image: ImageSummary
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


# ---- sizes ----


def usage(parts: Parts) -> Usage:
    """Sizes as they are on disk. Shared and unique of an image add up to its layers and blobs."""
    images = parts.images.list()
    layer_disk = {row.diff_id: row.disk for row in parts.database.layers()}
    users: dict[Digest, int] = {}
    needs = {image.target.digest: _needs(parts, image.target.digest, layer_disk) for image in images}
    containers = Counter(row.image_id for row in parts.database.containers())
    for needed in needs.values():
        for digest in needed:
            users[digest] = users.get(digest, 0) + 1
    rows = []
    for image in images:
        shared = unique = 0
        for digest, size in needs[image.target.digest].items():
            shared, unique = (shared + size, unique) if users[digest] > 1 else (shared, unique + size)
        rows.append(ImageUsage(image, shared, unique, containers[image.id]))
    dry = sweep_store(parts, dry_run=True)
    return Usage(
        images=tuple(rows),
        layers=sum(layer_disk.values()),
        blobs=disk_usage(parts.content.root),
        snapshots={row.key: parts.snapshots.usage(row.key) for row in parts.database.snapshots()},
        ingest=usage_owned(parts.places.ingest),
        database=sum(path.stat().st_blocks * 512 for path in parts.places.root.glob("layerfs.db*") if path.is_file()),
        reclaimable=dry.reclaimed,
    )


def _needs(parts: Parts, target: Digest, layer_disk: dict[Digest, int]) -> dict[Digest, int]:
    """The layers and blobs of an image, for all its platforms, that are here, with their bytes on disk."""
    layers, blobs = parts.database.image_parts(target)
    found = {diff_id: layer_disk[diff_id] for diff_id in layers if diff_id in layer_disk}
    for digest in blobs - found.keys():
        with suppress(NotFoundError):
            found[digest] = parts.content.disk(digest)
    return found


# ---- removal ----


def sweep_store(
    parts: Parts, *, keep_layer_blobs: bool | None = None, dry_run: bool = False, damaged: bool = False
) -> Swept:
    """Remove what nothing names, and with ``damaged`` what a check has put away."""
    if not dry_run:
        if any(row.key.startswith("build-") for row in parts.snapshots.list()):  # what builds left that were killed
            from layerfs.build.running import sweep_dead_builds

            sweep_dead_builds(parts.snapshots, parts.places.run)
        parts.snapshots.sweep()
    left = remove_other_layers(parts.places, parts.database, dry_run=dry_run) if damaged else 0
    swept = sweep(
        parts.content,
        parts.layers,
        parts.database,
        parts.ingest,
        keep_layer_blobs=parts.keep_blobs if keep_layer_blobs is None else keep_layer_blobs,
        dry_run=dry_run,
        damaged=damaged,
    )
    return msgspec.structs.replace(swept, reclaimed=swept.reclaimed + left)


def remove_image(parts: Parts, text: str, *, force: bool = False, prune: bool = True) -> list[Removal]:
    """Remove a name or an image, and with ``prune`` the layers and blobs that nothing else needs."""
    removed = parts.images.remove(text, force=force)
    if not prune or all(each.kind == "untagged" for each in removed):
        return removed
    swept = sweep_store(parts)
    return [*removed, *(Removal("deleted", diff_id) for diff_id in swept.layers)]


def _remove_unused(parts: Parts, image: ImageSummary, named: bool) -> list[Removal]:
    """Remove an image if still no container has it, and unless ``named``, no name."""
    database = parts.database
    with database.transaction(durable=True):
        if database.containers_of_image(image.id) or (not named and database.names(image.target.digest)):
            return []
        same = [row for row in database.find_images(image.id) if row.image_id == image.id]
        if not named and any(database.names(row.target.digest) for row in same):
            database.remove_image(image.target.digest)  # an index of which the image itself has a name
            return [Removal("deleted", image.target.digest)]
        return parts.images.remove(image.id, force=True)


def prune_images(
    parts: Parts,
    *,
    all_unused: bool = False,
    keep: Callable[[ImageSummary], bool] = lambda image: False,
    dry_run: bool = False,
    blobs: bool = False,
) -> Pruned:
    """Remove images without a name (``all_unused``: all that no container uses), except those to ``keep``.

    ``blobs`` also drops the compressed blobs of unpacked layers.
    """
    removed: list[Removal] = []
    for image in parts.images.list():
        if (image.names and not all_unused) or keep(image):
            continue
        if dry_run and not parts.database.containers_of_image(image.id):
            removed += [Removal("untagged", name) for name in image.familiar_names]
            removed.append(Removal("deleted", image.id))
        if not dry_run:
            with suppress(InUseError, NotFoundError):  # another command was faster
                removed += _remove_unused(parts, image, all_unused)
    keep_layer_blobs = False if blobs else None
    return Pruned(tuple(removed), sweep_store(parts, keep_layer_blobs=keep_layer_blobs, dry_run=dry_run, damaged=True))
