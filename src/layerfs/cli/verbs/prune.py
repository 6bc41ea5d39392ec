"""``layerfs prune``, and ``prune`` of containers, images and volumes: remove what is not used."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from layerfs.cli.context import Context
from layerfs.cli.filters import Filters
from layerfs.cli.options import Args, Command, flag, many
from layerfs.cli.units import size
from layerfs.errors import InvalidInputError, LayerfsError

if TYPE_CHECKING:
    from layerfs.containers import Container
    from layerfs.images import ImageSummary

__all__ = ["COMMANDS", "run"]

_FILTERS = ("until", "label", "label!")
_IMAGE_FILTERS = (*_FILTERS, "dangling")
_VOLUME_FILTERS = (*_FILTERS, "all")
_FILTER = many("--filter", help=f"Remove only what matches key=value: {', '.join(_FILTERS)}", metavar="filter")
_IMAGE_FILTER = many(
    "--filter", help=f"Remove only what matches key=value: {', '.join(_IMAGE_FILTERS)}", metavar="filter"
)
_VOLUME_FILTER = many(
    "--filter", help=f"Remove only what matches key=value: {', '.join(_VOLUME_FILTERS)}", metavar="filter"
)
_FORCE = flag("-f", "--force", help="Do not ask")
_DRY_RUN = flag("--dry-run", help="Show what would go, and leave it")
_ALL_IMAGES = flag("-a", "--all", help="Also images that have a name and that no container was made from")
_BLOBS = flag("--blobs", help="Also the compressed blobs of unpacked layers; a push compresses them again")

COMMANDS = {
    "container": Command("[OPTIONS]", [_FILTER, _FORCE, _DRY_RUN], most=0),
    "image": Command("[OPTIONS]", [_IMAGE_FILTER, _FORCE, _DRY_RUN, _ALL_IMAGES, _BLOBS], most=0),
    "system": Command(
        "[OPTIONS]",
        [
            *(_FILTER, _FORCE, _DRY_RUN, _ALL_IMAGES, _BLOBS),
            flag("--volumes", help="Also volumes without a name that no container has"),
        ],
        most=0,
    ),
    "volume": Command(
        "[OPTIONS]",
        [_VOLUME_FILTER, _FORCE, _DRY_RUN, flag("-a", "--all", help="Also volumes that have a name")],
        most=0,
    ),
}


def run(args: Args, context: Context) -> None:
    """Ask, remove, and print what went."""
    filters = Filters(args.filter, {"image": _IMAGE_FILTERS, "volume": _VOLUME_FILTERS}.get(context.kind, _FILTERS))
    volumes = context.kind == "volume" or (context.kind == "system" and args.volumes)
    if volumes and "until" in filters:
        raise InvalidInputError("filter until: volumes have no time of last use", hint="leave out the volumes")
    if not args.force and not args.dry_run:
        _confirm(context, args, filters, volumes)
    reclaimed = 0
    if context.kind in ("system", "container"):
        reclaimed += _containers(args, context, filters)
    if volumes:
        reclaimed += _volumes(args, context, filters)
    if context.kind == "system" and not filters["label"] and not filters["label!"]:
        reclaimed += _cache(args, context, filters)
    if context.kind in ("system", "image"):
        reclaimed += _images(args, context, filters)
    context.out(f"Total {'reclaimable' if args.dry_run else 'reclaimed'} space: {size(reclaimed, 4)}\n")


def _confirm(context: Context, args: Args, filters: Filters, volumes: bool) -> None:
    what = ["all containers that do not run"] if context.kind in ("system", "container") else []
    if volumes:
        what.append("volumes that no container has")
    if context.kind == "system":
        what.append("what builds keep and no image has")
    if context.kind in ("system", "image"):
        what.append("all images that no container uses" if _every_image(args, filters) else "all images without a name")
        what.append("layers and blobs that nothing needs")
    context.err(f"This will remove {', '.join(what)}.\nContinue? [y/N] ")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise LayerfsError("cancelled", hint="with --force it does not ask")


def _every_image(args: Args, filters: Filters) -> bool:
    """Whether images that have a name are meant, too: docker takes ``dangling=false`` for that."""
    return bool(args.all) or filters.flag("dangling") is False


def _listed(args: Args, context: Context, what: str, lines: list[str]) -> None:
    if lines:
        context.out("\n".join([f"{'Unused' if args.dry_run else 'Deleted'} {what}:", *lines, "", ""]))


def _containers(args: Args, context: Context, filters: Filters) -> int:
    until = filters.until()

    def keep(container: Container) -> bool:
        return (until is not None and container.created >= until) or not filters.labels(container.labels)

    gone = context.store.containers.prune(keep=keep, dry_run=args.dry_run)
    _listed(args, context, "Containers", list(gone))
    return sum(gone.values())


def _volumes(args: Args, context: Context, filters: Filters) -> int:
    volumes = context.store.containers.volumes
    keep = {volume.name for volume in volumes.list() if not filters.labels(volume.labels)}
    all_unused = context.kind == "volume" and (args.all or filters.flag("all") is True)
    if args.dry_run:
        used = volumes.users()
        unused = [each for each in volumes.list() if each.name not in used and each.name not in keep]
        gone = {each.name: volumes.usage(each.name) for each in unused if each.anonymous or all_unused}
    else:
        gone = volumes.prune(all_unused=all_unused, keep=keep)
    _listed(args, context, "Volumes", list(gone))
    return sum(gone.values())


def _cache(args: Args, context: Context, filters: Filters) -> int:
    """What builds keep has no labels: with a filter for labels nothing of it matches."""
    until = filters.until()
    older_than = time.time() - until if until is not None else None
    pruned = context.store.build_cache().prune(older_than=older_than, dry_run=args.dry_run)
    _listed(args, context, "build cache", [entry.id for entry in pruned.entries])
    return pruned.reclaimed


def _images(args: Args, context: Context, filters: Filters) -> int:
    until = filters.until()

    def keep(image: ImageSummary) -> bool:
        return (until is not None and image.created >= until) or not filters.labels(image.config.run.labels or {})

    all_unused = _every_image(args, filters)
    pruned = context.store.prune_images(all_unused=all_unused, keep=keep, dry_run=args.dry_run, blobs=args.blobs)
    lines = [f"{removal.kind}: {removal.what}" for removal in pruned.images]
    _listed(args, context, "Images", lines + [f"deleted: {diff_id}" for diff_id in pruned.swept.layers])
    _listed(args, context, "Damaged", list(pruned.swept.damaged))
    return pruned.swept.reclaimed
