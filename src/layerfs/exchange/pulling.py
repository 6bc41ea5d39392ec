"""Pull: what a registry has under a name, unpacked into the store while it arrives.

The manifest is resolved by one request. When what it names is here under the name, that was all, and the store is only
read. Else ``transfer.copy`` brings what is missing; layers that other images have are not fetched, and those of which
an earlier try left a part are gone on with. Names and records come last.
"""

from collections.abc import Iterator
from contextlib import ExitStack

import msgspec

from layerfs.blobs import NO_PROGRESS, Progress
from layerfs.digest import Digest
from layerfs.errors import InvalidInputError, NotFoundError
from layerfs.exchange.parts import StoreParts, about
from layerfs.images import Image
from layerfs.leases import Lease, NoLease
from layerfs.oci import MANIFEST_LIMIT, Descriptor, Index, Platform, is_image, is_layer, parse_manifest
from layerfs.reference import Reference
from layerfs.registry.access import Access
from layerfs.registry.source import RegistrySource
from layerfs.transfer import copy
from layerfs.unpack import MAX_LAYER_BYTES, MAX_LAYER_ENTRIES, MAX_LAYER_METADATA, UnpackingSink

__all__ = ["Pulled", "pull", "pull_all_tags"]


class Pulled(msgspec.Struct, frozen=True):
    """What a pull brought. ``digest``: of the manifest or index that the registry has under the name; ``target``:
    what is in the store, the manifest of one platform as a rule; ``image``: None for an artifact; ``new``: whether the
    name pointed elsewhere, or nowhere, before.
    """

    reference: Reference
    digest: Digest
    target: Descriptor
    image: Image | None
    new: bool


def pull(
    parts: StoreParts,
    reference: str,
    *,
    platform: Platform | None = None,
    all_platforms: bool = False,
    jobs: int = 4,
    max_bytes: int = MAX_LAYER_BYTES,
    max_entries: int = MAX_LAYER_ENTRIES,
    max_metadata: int = MAX_LAYER_METADATA,
    progress: Progress = NO_PROGRESS,
    access: Access | None = None,
) -> Pulled:
    """Bring an image or artifact into the store; ``platform``: None is this machine's.

    Raises InvalidInputError for what is no reference, NotFoundError when the registry has it not (then also a
    RegistryError) or not for the platform, RegistryError, and IntegrityError when what comes is not what it should be.
    """
    if all_platforms and platform is not None:
        raise InvalidInputError("pull: one platform and all of them cannot be asked for at once")
    parsed = Reference.parse(reference, default_tag="latest")
    platforms = None if all_platforms else [platform or Platform.host()]
    with ExitStack() as stack, about(f"pull {parsed}"):
        if access is None:
            access = stack.enter_context(Access.load(note=progress.note))
        source = stack.enter_context(RegistrySource(access.pull_clients(parsed)))
        found = source.resolve(parsed.digest or parsed.tag or "latest")
        here = _up_to_date(parts, parsed, found, platforms)
        if here is not None:
            target, image, new = *here, False
        else:
            sink = UnpackingSink(
                parts.content,
                parts.layers,
                parts.images,
                parts.database,
                stack.enter_context(Lease(parts.database, parts.ingest)),
                keep_blobs=parts.keep_blobs,
                max_bytes=max_bytes,
                max_entries=max_entries,
                max_metadata=max_metadata,
            )
            target = _already_here(parts, sink, parsed, found, platforms) or copy(
                source, sink, found, platforms=platforms, jobs=jobs, progress=progress
            )
            with parts.database.transaction(durable=True):  # or another command removes the image in between
                new = _record(parts, parsed, found, target, str(access.config.push_endpoint(parsed)))
                image = _image(parts, target)
    if image is not None and platforms is not None and not platforms[0].matches(image.platform):
        progress.note(f"{parsed.familiar} is for {image.platform} alone, not for {platforms[0]}")
    return Pulled(parsed, found.digest, target, image, new)


def pull_all_tags(
    parts: StoreParts,
    repository: str,
    *,
    platform: Platform | None = None,
    all_platforms: bool = False,
    jobs: int = 4,
    progress: Progress = NO_PROGRESS,
    access: Access | None = None,
) -> Iterator[Pulled]:
    """Bring all tags of a repository, one after the other, over the same connections."""
    parsed = Reference.parse(repository)
    if parsed.tag is not None or parsed.digest is not None:
        raise InvalidInputError(f"pull {repository!r}: with all tags, neither tag nor digest can be given")
    with ExitStack() as stack, about(f"pull {parsed}"):
        if access is None:
            access = stack.enter_context(Access.load(note=progress.note))
        for tag in list(access.pull_clients(parsed)[-1].tags()):
            yield pull(
                parts,
                str(parsed.with_tag(tag)),
                platform=platform,
                all_platforms=all_platforms,
                jobs=jobs,
                progress=progress,
                access=access,
            )


def _up_to_date(
    parts: StoreParts, reference: Reference, found: Descriptor, platforms: list[Platform] | None
) -> tuple[Descriptor, Image | None] | None:
    """Target and image of an earlier pull that leaves nothing to bring and nothing to record."""
    sink = UnpackingSink(parts.content, parts.layers, parts.images, parts.database, NoLease())
    try:
        target = _already_here(parts, sink, reference, found, platforms)
        if target is None:
            return None
        if reference.digest is None and parts.database.resolve(str(reference)) != target.digest:
            return None
        return target, _image(parts, target)
    except NotFoundError:  # it is being removed
        return None


def _already_here(
    parts: StoreParts,
    sink: UnpackingSink,
    reference: Reference,
    found: Descriptor,
    platforms: list[Platform] | None,
) -> Descriptor | None:
    """The target of an earlier pull of the same thing, if it is whole and for the platform."""
    known = parts.database.resolve_repo_digest(reference.name, found.digest)
    row = parts.database.image(known) if known is not None else None
    if row is None or not sink.has(row.target):
        return None
    if platforms is None or row.image_id is None:
        return row.target if row.target.digest == found.digest else None
    return row.target if platforms[0].matches(parts.images.load(row).platform) else None


def _record(parts: StoreParts, reference: Reference, found: Descriptor, target: Descriptor, repository: str) -> bool:
    """Image, name, the digest it has there, and which blobs are there. True when the name is new or moved."""
    name = None if reference.digest is not None else str(reference)
    before = parts.database.resolve(name) if name is not None else None
    parts.images.add(target, name)
    parts.database.add_repo_digest(reference.name, found.digest, target.digest)
    for layer in _layers(parts, target, set()):
        parts.database.add_blob_source(layer.digest, repository)
    return before != target.digest


def _layers(parts: StoreParts, descriptor: Descriptor, seen: set[Digest]) -> Iterator[Descriptor]:
    """The layers of a manifest, or of all manifests of an index that are here."""
    if descriptor.digest in seen or not parts.content.has(descriptor):
        return
    seen.add(descriptor.digest)
    document = parse_manifest(parts.content.read(descriptor.digest, MANIFEST_LIMIT), descriptor.media_type)
    if isinstance(document, Index):
        for child in document.manifests:
            yield from _layers(parts, child, seen)
    else:
        yield from (layer for layer in document.layers if is_layer(layer.media_type))


def _image(parts: StoreParts, target: Descriptor) -> Image | None:
    row = parts.database.image(target.digest)
    if row is None or row.image_id is None:
        return None
    image = parts.images.load(row)
    return image if is_image(image.manifest) else None
