"""``layerfs prune`` and ``layerfs image prune``: remove what is not used."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from layerfs.cli.context import Context
from layerfs.cli.filters import Filters
from layerfs.cli.options import Args, Command, flag, many
from layerfs.cli.units import size
from layerfs.errors import LayerfsError

if TYPE_CHECKING:
    from layerfs.images import Image
    from layerfs.store._keeping import Pruned

__all__ = ["COMMANDS", "run"]

_FILTERS = ("until", "label", "label!")
_COMMON = (
    many("--filter", help=f"Remove only what matches key=value: {', '.join(_FILTERS)}", metavar="filter"),
    flag("-f", "--force", help="Do not ask"),
    flag("--dry-run", help="Show what would go, and leave it"),
)
_IMAGES = (
    flag("-a", "--all", help="Also images that have a name and that no container was made from"),
    flag("--blobs", help="Also the compressed blobs of layers that are unpacked; a push compresses them again"),
)

COMMANDS = {
    "system": Command("[OPTIONS]", [*_COMMON, *_IMAGES], most=0),
    "image": Command("[OPTIONS]", [*_COMMON, *_IMAGES], most=0),
}


def run(args: Args, context: Context) -> None:
    """Ask, remove, and print what went."""
    filters = Filters(args.filter, _FILTERS)
    if not args.force and not args.dry_run:
        _confirm(context, args)
    reclaimed = _images(args, context, filters)
    context.out(f"Total {'reclaimable' if args.dry_run else 'reclaimed'} space: {size(reclaimed, 4)}\n")


def _confirm(context: Context, args: Args) -> None:
    what = "all images that no container uses" if args.all else "all images without a name"
    context.err(f"This will remove {what}, and layers and blobs that nothing needs.\nContinue? [y/N] ")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise LayerfsError("cancelled", hint="with --force it does not ask")


def _images(args: Args, context: Context, filters: Filters) -> int:
    until = filters.until()

    def keep(image: Image) -> bool:
        return (until is not None and image.created >= until) or not filters.labels(image.config.run.labels or {})

    pruned: Pruned = context.store.prune_images(all_unused=args.all, keep=keep, dry_run=args.dry_run, blobs=args.blobs)
    lines = [f"{removal.kind}: {removal.what}\n" for removal in pruned.images]
    lines += [f"deleted: {diff_id}\n" for diff_id in pruned.swept.layers]
    if lines:
        context.out("".join([f"{'Unused' if args.dry_run else 'Deleted'} Images:\n", *lines, "\n"]))
    return pruned.swept.reclaimed
