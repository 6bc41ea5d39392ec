"""Commit: what was changed in a snapshot becomes a layer, and a layer over an image a new image.

A commit is unpacking with another source: the upper directory is walked, comes out as the bytes of a layer tar, and
goes straight into the one writer of layers.  Nothing is written twice, and what lies below is not looked at.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec

from layerfs.digest import Digest
from layerfs.errors import InvalidInputError, UnsupportedError, system_errors
from layerfs.imageconfig import apply_changes, new_config, timestamp
from layerfs.images import Image, ImageStore
from layerfs.layers import Layer, LayerStore
from layerfs.layers.feeding import feed
from layerfs.leases import Lease
from layerfs.metadata import Database
from layerfs.native import Buffer, Differ, DiffStats
from layerfs.oci import (
    DOCKER_LAYER,
    DOCKER_LAYER_GZIP,
    DOCKER_LAYER_ZSTD,
    MEDIA_LAYER,
    MEDIA_LAYER_GZIP,
    MEDIA_LAYER_ZSTD,
    Descriptor,
    Platform,
)
from layerfs.reference import Reference
from layerfs.unpack import record_layer

__all__ = [
    "CommitOptions", "Frozen", "commit_image", "freeze_difference", "freeze_pieces", "freeze_tree", "freeze_upper",
    "layer_descriptors", "source_date_epoch",
]  # fmt: skip

_TO_DOCKER = {
    MEDIA_LAYER: DOCKER_LAYER,
    MEDIA_LAYER_GZIP: DOCKER_LAYER_GZIP,
    MEDIA_LAYER_ZSTD: DOCKER_LAYER_ZSTD,
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip": (
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    ),
    "application/vnd.oci.image.layer.nondistributable.v1.tar": "application/vnd.docker.image.rootfs.foreign.diff.tar",
}
_TO_OCI = {docker: oci for oci, docker in _TO_DOCKER.items()}


class CommitOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a new image is to say: ``changes`` are instructions as of a Dockerfile, ``format`` is oci or docker."""

    author: str = ""
    message: str = ""
    changes: tuple[str, ...] = ()
    created_by: str = ""
    format: str = "oci"

    def check(self) -> None:
        """InvalidInputError for a format or an instruction that is none; before any work is done."""
        if self.format not in ("oci", "docker"):
            raise InvalidInputError(f"image format {self.format!r}: not known", hint="there are oci and docker")
        apply_changes({"os": "linux", "architecture": "amd64"}, self.changes)


class Frozen(msgspec.Struct, frozen=True):
    """A layer that was made, and totals of what went into it."""

    layer: Layer
    stats: DiffStats


def freeze_upper(
    layers: LayerStore,
    database: Database,
    lease: Lease,
    upper: Path,
    *,
    below: Sequence[Digest] = (),
    clamp: int | None = None,
) -> Frozen:
    """The changes in an upper directory as a layer, recorded and protected by the lease.

    ``below``: the layers under it, base first, for a socket that hides something of theirs: a layer cannot hold the
    socket, but it has a whiteout in its place. ``clamp``: no time is later than this second; None: than
    $SOURCE_DATE_EPOCH, where that is set. InvalidInputError for what a layer cannot hold, as a file named ``.wh.x``.
    """
    with system_errors(f"read {upper}"):
        fd = os.open(upper, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        frozen = _freeze(layers, database, lease, lambda: _differ(layers, fd, clamp))
        if not frozen.stats.sockets or not below:
            return frozen
        with ExitStack() as held:  # rare, so what is below is opened only then

            def differ() -> Differ:
                made = _differ(layers, fd, clamp)
                held.callback(made.close)
                for diff_id in dict.fromkeys(reversed(below)):
                    if layers.format == "erofs":
                        made.add_lower(held.enter_context(layers.reader(diff_id)))
                    else:
                        lower = layers.mount(diff_id)
                        held.callback(os.close, lower)
                        made.add_lower_dir(lower)
                return made

            return _freeze(layers, database, lease, differ)
    finally:
        os.close(fd)


def _differ(layers: LayerStore, fd: int, clamp: int | None) -> Differ:
    return Differ(fd, userxattr=layers.userxattr, clamp_mtime=_clamp(clamp))


def freeze_tree(layers: LayerStore, database: Database, lease: Lease, fd: int) -> Frozen:
    """A whole tree, by a descriptor of its root, as one layer."""
    return _freeze(layers, database, lease, lambda: Differ(fd, tree=True, clamp_mtime=_clamp(None)))


def freeze_difference(
    layers: LayerStore, database: Database, lease: Lease, base: int, target: int, *, clamp: int | None = None
) -> Frozen:
    """What makes the tree ``base`` into the tree ``target``, both by descriptors of their roots, as a layer."""
    return _freeze(layers, database, lease, lambda: Differ.trees(base, target, clamp_mtime=_clamp(clamp)))


def freeze_pieces(
    layers: LayerStore,
    database: Database,
    lease: Lease,
    read: Callable[[memoryview], Buffer],
    stats: Callable[[], DiffStats],
) -> Frozen:
    """A layer of a tar that a ``Differ`` makes: ``read`` gives its pieces, as ``feed`` asks for them, and ``stats``
    then its totals."""
    with layers.writer(protect=lease.protect) as writer:
        feed(writer, read)
        layer = writer.commit()
    record_layer(database, layer)
    return Frozen(layer, stats())


def _clamp(given: int | None) -> int | None:
    return given if given is not None else source_date_epoch()


def source_date_epoch() -> int | None:
    """The latest second that a time in a layer may be, where $SOURCE_DATE_EPOCH says."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    return int(epoch) if epoch and epoch.isdecimal() and len(epoch) < 19 else None


def _freeze(layers: LayerStore, database: Database, lease: Lease, opener: Callable[[], Differ]) -> Frozen:
    with opener() as differ:
        read = lambda buffer: buffer[: differ.read_into(buffer)]  # noqa: E731
        return freeze_pieces(layers, database, lease, read, lambda: differ.stats)


def commit_image(
    images: ImageStore,
    layers: LayerStore,
    *,
    parent: Image | None,
    stack: Sequence[Digest],
    layer: Layer | None,
    section: Mapping[str, Any] | None,
    options: CommitOptions,
    platform: Platform,
    reference: str | None = None,
    squashed: bool = False,
) -> Image:
    """A new image: ``layer`` (None: no change of files) over the layers ``stack``, with the run configuration
    ``section`` (as an image's ``config``; None: the parent's).

    ``parent`` is the image whose layers ``stack`` begins with, where it is still known; ``squashed`` drops its history
    and layers, and ``layer`` is then all there is.
    """
    options.check()
    name = str(Reference.parse_new(reference)) if reference is not None else None
    base = json.loads(parent.config_bytes) if parent is not None else None
    if squashed:
        base, stack = _without_layers(base), ()
    elif base is None and stack:
        base = {"os": platform.os, "architecture": platform.architecture, "rootfs": {"type": "layers"}}
    if base is not None and not squashed:
        # The stack may have grown since the parent, by commits that went on from it.
        base["rootfs"] = {"type": "layers", "diff_ids": [str(diff_id) for diff_id in stack]}
    if section is not None:
        base = {**(base or {}), "config": dict(section)}
    document = new_config(
        base,
        created=timestamp(),
        platform=None if base and base.get("os") else platform,
        author=options.author,
        comment=options.message,
        created_by=options.created_by,
        diff_id=layer.diff_id if layer is not None else None,
    )
    document = apply_changes(document, options.changes)
    docker = options.format == "docker"
    whole = [*stack, *([layer.diff_id] if layer is not None else [])]
    return images.create(document, layer_descriptors(layers, parent, whole, docker=docker), name, docker=docker)


def layer_descriptors(
    layers: LayerStore, parent: Image | None, stack: Sequence[Digest], *, docker: bool
) -> list[Descriptor]:
    """What a manifest says of the layers ``stack``, which may begin with those of ``parent``.

    UnsupportedError for a layer of the parent whose media type the format has not.
    """
    described = [_described(layers, parent, diff_id, number) for number, diff_id in enumerate(stack)]
    return [_converted(entry, docker) for entry in described]


def _without_layers(base: dict[str, Any] | None) -> dict[str, Any] | None:
    if base is None:
        return None
    return {**base, "rootfs": {"type": "layers", "diff_ids": []}, "history": []}


def _described(layers: LayerStore, parent: Image | None, diff_id: Digest, number: int) -> Descriptor:
    """The parent's own descriptor, whose blob a registry may have already; else that of the plain tar."""
    if parent is not None and number < len(parent.manifest.layers) and parent.diff_ids[number] == diff_id:
        return parent.manifest.layers[number]
    return Descriptor(media_type=MEDIA_LAYER, digest=diff_id, size=layers.get(diff_id).size)


def _converted(descriptor: Descriptor, docker: bool) -> Descriptor:
    """The descriptor with the media type that the format has for it."""
    table = _TO_DOCKER if docker else _TO_OCI
    kind = table.get(descriptor.media_type, descriptor.media_type)
    if kind not in table.values():
        raise UnsupportedError(
            f"layer {descriptor.digest}: media type {descriptor.media_type} has no counterpart in the image format",
            hint="commit with --squash",
        )
    return msgspec.structs.replace(descriptor, media_type=kind)
