"""A container becomes an image: its image's layers, its changes as one more, its run configuration."""

import os
from collections.abc import Generator, Sequence
from contextlib import ExitStack

import msgspec

from layerfs.commit import (
    CommitOptions,
    Frozen,
    commit_image,
    freeze_difference,
    freeze_pieces,
    freeze_tree,
    freeze_upper,
    source_date_epoch,
)
from layerfs.containers.merged import merged, view_of
from layerfs.containers.parts import Parts, is_rootless
from layerfs.containers.record import Config
from layerfs.digest import Digest
from layerfs.errors import InvalidInputError, NotFoundError, system_errors
from layerfs.images import Image
from layerfs.leases import Lease
from layerfs.native import Differ, DiffStats
from layerfs.oci import Platform
from layerfs.reference import Reference
from layerfs.userns import Stream

__all__ = ["Committed", "commit_container"]

_PIECE = 1 << 20


class Committed(msgspec.Struct, frozen=True):
    """The new image, and in ``notes`` what of the container it has not, one line each."""

    image: Image
    notes: tuple[str, ...] = ()


def commit_container(
    parts: Parts,
    config: Config,
    options: CommitOptions,
    reference: str | None,
    *,
    squash: bool = False,
    stack: bool = False,
) -> Committed:
    """Freeze the changes of a container and make an image of them.

    ``stack``: the layer has only what came after the last commit of that kind, and lies on its layer.
    """
    options.check()
    if reference is not None:
        Reference.parse_new(reference)
    if squash and stack:
        raise InvalidInputError("commit: --squash and --stack exclude each other")
    state = parts.state(parts.database.container(config.id))
    below = [*config.diff_ids, *(Digest(text) for text in (state.stacked if stack else ()))]
    with Lease(parts.database, parts.ingest) as lease:
        lease.protect(below)
        frozen = _freeze(parts, config, lease, below, squash=squash, stack=bool(stack and state.stacked))
        image = commit_image(
            parts.images,
            parts.layers,
            parent=_parent(parts, config),
            stack=below,
            layer=frozen.layer,
            section={**config.section, "Env": [word for word in config.section.get("Env") or [] if "=" in word]},
            options=options,
            platform=Platform(os=config.os, architecture=config.architecture, variant=config.variant),
            reference=reference,
            squashed=squash,
        )
        if stack:
            _keep_stack(parts, config, [*below[len(config.diff_ids) :], frozen.layer.diff_id])
        return Committed(image, tuple(_notes(config, frozen)))


def _freeze(
    parts: Parts, config: Config, lease: Lease, below: Sequence[Digest], *, squash: bool, stack: bool
) -> Frozen:
    if is_rootless():
        with Stream(lambda: _differ_pieces(parts, config, below, squash=squash, stack=stack)) as stream:
            return freeze_pieces(parts.layers, parts.database, lease, lambda _: stream.read(), lambda: stream.result)
    if not squash and not stack:
        upper = parts.snapshots.upper(config.id)
        return freeze_upper(parts.layers, parts.database, lease, upper, below=config.diff_ids)
    with ExitStack() as open_trees:
        root = open_trees.enter_context(merged(parts, config))
        if squash:
            return freeze_tree(parts.layers, parts.database, lease, root)
        # Both trees are walked, though little came after the last commit. The upper alone does not tell what did: of a
        # file that was committed and then deleted it has nothing, where the image has no such file. A memory of inodes
        # and times would miss what changed within a tick of the clock, and a running container cannot be given another
        # upper over the present one.
        before = open_trees.enter_context(view_of(parts, below))
        return freeze_difference(parts.layers, parts.database, lease, before, root)


def _differ_pieces(
    parts: Parts, config: Config, below: Sequence[Digest], *, squash: bool, stack: bool
) -> Generator[bytes, None, DiffStats]:
    """The tar that is frozen, in a user namespace: there its owners are those that the container sees."""
    with ExitStack() as held, system_errors(f"read container {config.id[:12]}"):
        if squash or stack:
            root = held.enter_context(merged(parts, config))
            tree = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)
        else:
            tree = os.open(parts.snapshots.upper(config.id), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        held.callback(os.close, tree)
        if stack:
            before = held.enter_context(view_of(parts, below))
            differ = held.enter_context(Differ.trees(before, root, clamp_mtime=source_date_epoch()))
        else:
            differ = held.enter_context(
                Differ(tree, userxattr=not squash, tree=squash, clamp_mtime=source_date_epoch())
            )
        while piece := differ.read(_PIECE):
            yield piece
        return differ.stats


def _keep_stack(parts: Parts, config: Config, stacked: Sequence[Digest]) -> None:
    """The layers that the next such commit goes on from; kept while the container is there."""
    parts.database.put_record("stacked", config.id, {}, stacked)
    state = parts.state(parts.database.container(config.id))
    parts.set_state(config.id, msgspec.structs.replace(state, stacked=tuple(map(str, stacked))))


def _parent(parts: Parts, config: Config) -> Image | None:
    """The image that the container was made of, if it is still here."""
    try:
        return parts.images.get(config.image_id)
    except NotFoundError:
        return None


def _notes(config: Config, frozen: Frozen) -> Sequence[str]:
    notes = []
    for use in config.mounts:
        kind = f"volume {use.volume[:12]}" if use.volume else use.option.type
        notes.append(f"{use.option.target}: left out, it is a {kind} mounted in the container")
    if frozen.stats.sockets:
        notes.append(f"{frozen.stats.sockets} sockets: left out, a layer cannot hold them")
    return notes
