"""A container becomes an image: its image's layers, its changes as one more, its run configuration."""

from collections.abc import Sequence

import msgspec

from layerfs.commit import CommitOptions, Frozen, commit_image, freeze_tree, freeze_upper
from layerfs.containers.merged import merged
from layerfs.containers.parts import Parts
from layerfs.containers.record import Config
from layerfs.errors import NotFoundError
from layerfs.images import Image
from layerfs.leases import Lease
from layerfs.oci import Platform

__all__ = ["Committed", "commit_container"]


class Committed(msgspec.Struct, frozen=True):
    """The new image, and in ``notes`` what of the container it has not, one line each."""

    image: Image
    notes: tuple[str, ...] = ()


def commit_container(
    parts: Parts, config: Config, options: CommitOptions, reference: str | None, *, squash: bool
) -> Committed:
    """Freeze the changes of a container and make an image of them; an upper without changes adds no layer."""
    options.check()
    with Lease(parts.database, parts.ingest) as lease:
        lease.protect(config.diff_ids)
        if squash:
            with merged(parts, config) as root:
                frozen: Frozen | None = freeze_tree(parts.layers, parts.database, lease, root)
        else:
            frozen = freeze_upper(parts.layers, parts.database, lease, parts.snapshots.upper(config.id))
        image = commit_image(
            parts.images,
            parts.layers,
            parent=_parent(parts, config),
            stack=config.diff_ids,
            layer=frozen.layer if frozen is not None else None,
            section=config.section,
            options=options,
            platform=Platform(os=config.os, architecture=config.architecture, variant=config.variant),
            reference=reference,
            squashed=squash,
        )
        return Committed(image, tuple(_notes(config, frozen)))


def _parent(parts: Parts, config: Config) -> Image | None:
    """The image that the container was made of, if it is still here."""
    try:
        return parts.images.get(config.image_id)
    except NotFoundError:
        return None


def _notes(config: Config, frozen: Frozen | None) -> Sequence[str]:
    notes = []
    for use in config.mounts:
        kind = f"volume {use.volume[:12]}" if use.volume else use.option.type
        notes.append(f"{use.option.target}: left out, it is a {kind} mounted in the container")
    if frozen is not None and frozen.stats.sockets:
        notes.append(f"{frozen.stats.sockets} sockets: left out, a layer cannot hold them")
    return notes
