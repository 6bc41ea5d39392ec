"""Images in and out of a store by files: import, load, save."""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import msgspec

from layerfs.archives import ArchiveImage, ArchiveSource, create_archive, open_archive
from layerfs.blobs import NO_PROGRESS, Progress, read_all
from layerfs.digest import Digest
from layerfs.errors import InvalidInputError, NotFoundError
from layerfs.imageconfig import apply_changes, new_config, timestamp
from layerfs.images import Image
from layerfs.leases import Lease
from layerfs.oci import (
    CONFIG_LIMIT,
    MANIFEST_LIMIT,
    MEDIA_LAYER,
    Descriptor,
    Index,
    Platform,
    is_image,
    is_index,
    is_manifest,
    parse_config,
    parse_manifest,
)
from layerfs.reference import Reference
from layerfs.store._parts import Limits, Parts
from layerfs.transfer import DEPTH_LIMIT, copy
from layerfs.unpack import StoreSource, UnpackingSink, import_rootfs, record_layer

__all__ = ["Loaded", "import_image", "load", "save"]


class Loaded(msgspec.Struct, frozen=True):
    """An image that ``load`` brought, and the names that it set, as docker shows them."""

    image: Image
    names: tuple[str, ...]


def import_image(
    parts: Parts,
    source: Path | str | BinaryIO,
    reference: str | None = None,
    *,
    changes: Sequence[str] = (),
    message: str = "",
    platform: Platform | None = None,
    limits: Limits | None = None,
) -> Image:
    """An image of one layer from a root file system: a tar in any compression, or a directory."""
    name = str(Reference.parse_new(reference)) if reference is not None else None
    platform = platform or Platform.host()
    created = timestamp()
    limits = limits or Limits()
    # Wrong instructions are told before the work, not after it.
    apply_changes(new_config(None, created=created, platform=platform), changes)
    with Lease(parts.database, parts.ingest) as lease:
        layer = import_rootfs(
            parts.layers,
            source,
            protect=lease.protect,
            max_bytes=limits.max_layer_bytes,
            max_entries=limits.max_layer_entries,
            max_metadata=limits.max_layer_metadata,
        )
        record_layer(parts.database, layer)
        document = new_config(
            None,
            created=created,
            platform=platform,
            comment=message or _imported_from(source),
            diff_id=layer.diff_id,
        )
        descriptor = Descriptor(media_type=MEDIA_LAYER, digest=layer.diff_id, size=layer.size)
        return parts.images.create(apply_changes(document, changes), [descriptor], name)


def _imported_from(source: Path | str | BinaryIO) -> str:
    text = str(source) if isinstance(source, str | Path) else "-"
    return f"Imported from {os.fsencode(text).decode('utf-8', 'replace')}"  # a file's name may be any bytes


def load(
    parts: Parts,
    source: Path | str | BinaryIO,
    *,
    platform: Platform | None = None,
    progress: Progress = NO_PROGRESS,
    limits: Limits | None = None,
) -> list[Loaded]:
    """All images of an archive or OCI layout directory; with ``platform`` those for it alone.

    NotFoundError where none is for it. What is no image, as a signature, is left out.
    """
    loaded, artifacts = [], 0
    limits = limits or Limits()
    with open_archive(source, parts.places.ingest, max_layer_bytes=limits.max_layer_bytes) as archive:
        for entry in archive.images() if platform is None else _for_platform(archive, platform):
            if not _holds_image(archive, entry.descriptor, set(), DEPTH_LIMIT):
                artifacts += 1
                continue
            with Lease(parts.database, parts.ingest) as lease:
                sink = UnpackingSink(
                    parts.content,
                    parts.layers,
                    parts.images,
                    parts.database,
                    lease,
                    keep_blobs=parts.keep_blobs,
                    max_bytes=limits.max_layer_bytes,
                    max_entries=limits.max_layer_entries,
                    max_metadata=limits.max_layer_metadata,
                )
                platforms = [platform] if platform is not None else None
                target = copy(archive, sink, entry.descriptor, platforms=platforms, progress=progress)
                parts.images.add(target)
                for name in entry.names:
                    parts.images.add(target, name)
            image = parts.images.get(target.digest)
            loaded.append(Loaded(image, tuple(Reference.parse(name).familiar for name in entry.names)))
    if not loaded:
        what = f"no image in it{', artifacts alone' if artifacts else ''}"
        raise InvalidInputError(f"load {source if isinstance(source, str | Path) else '-'}: {what}")
    if artifacts:
        progress.note(f"{artifacts} artifacts, which are no images, were left out")
    return loaded


def _holds_image(archive: ArchiveSource, descriptor: Descriptor, seen: set[Digest], depth: int) -> bool:
    """Whether a manifest is an image, or an index leads to one. What is missing or too deep, the copying tells."""
    if descriptor.digest in seen:
        return False
    seen.add(descriptor.digest)
    if not depth:
        return True
    try:
        document = parse_manifest(read_all(archive, descriptor, MANIFEST_LIMIT), descriptor.media_type)
    except NotFoundError:
        return True
    if not isinstance(document, Index):
        return is_image(document)
    children = [child for child in document.manifests if is_manifest(child.media_type) or is_index(child.media_type)]
    return any(_holds_image(archive, child, seen, depth - 1) for child in children)


def _for_platform(archive: ArchiveSource, platform: Platform) -> list[ArchiveImage]:
    """The images of an archive that run on a platform: what their configurations say, where an index says nothing."""
    there: set[str] = set()
    found = []
    for entry in archive.images():
        offered = list(_platforms(archive, entry.descriptor, ()))
        there.update(f"{each!s:.60}" for each in offered)
        if any(map(platform.matches, offered)):
            found.append(entry)
    if not found:
        raise NotFoundError(
            f"load {archive.what}: platform {platform}: no image for it",
            hint=f"there are: {', '.join(sorted(there)[:20]) or 'none'}",
        )
    return found


def _platforms(archive: ArchiveSource, descriptor: Descriptor, above: tuple[Digest, ...]) -> Iterator[Platform]:
    """What the manifests below a manifest or index are for; one whose blobs are not there is for nothing."""
    if descriptor.digest in above or len(above) > DEPTH_LIMIT:
        return  # copying says what is wrong with it
    if descriptor.platform is not None:
        if descriptor.platform.os != "unknown":  # an attestation
            yield descriptor.platform
        return
    with suppress(NotFoundError):
        document = parse_manifest(read_all(archive, descriptor, MANIFEST_LIMIT), descriptor.media_type)
        if isinstance(document, Index):
            for child in document.manifests:
                if is_manifest(child.media_type) or is_index(child.media_type):
                    yield from _platforms(archive, child, (*above, descriptor.digest))
        elif is_image(document):
            yield parse_config(read_all(archive, document.config, CONFIG_LIMIT)).platform


def save(
    parts: Parts,
    references: Sequence[str],
    sink: Path | str | BinaryIO,
    *,
    format: str = "docker-archive",
    platform: Platform | None = None,
    progress: Progress = NO_PROGRESS,
) -> None:
    """Images into one archive. Names go with them; an image that is given by its ID goes without."""
    if not references:
        raise InvalidInputError("save: no image named")
    images = [(parts.images.get(reference, platform), reference) for reference in references]
    source = StoreSource(parts.content, parts.layers)
    with Lease(parts.database, parts.ingest) as lease, create_archive(sink, format, sync=parts.sync) as archive:
        for image, reference in images:
            lease.protect([image.manifest_descriptor.digest, image.id, *image.diff_ids])
            wanted = source.exportable(image.manifest_descriptor, plain=format == "docker-archive")
            copy(source, archive, wanted, name=_given_name(image, reference), progress=progress)


def _given_name(image: Image, reference: str) -> str | None:
    """The name that the user meant; None for an ID or a digest."""
    try:
        parsed = Reference.parse(reference, default_tag="latest")
    except InvalidInputError:
        return None
    return str(parsed) if str(parsed) in image.names else None
