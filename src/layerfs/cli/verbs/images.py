"""``layerfs images``: list images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from layerfs.cli.context import Context
from layerfs.cli.filters import Filters
from layerfs.cli.format import FORMAT, Row, Table, rows_text
from layerfs.cli.options import Args, Command, flag, many
from layerfs.cli.texts import NONE, image_names, matches_reference, shown_id
from layerfs.cli.units import ago, size, stamp

if TYPE_CHECKING:
    from layerfs.errors import LayerfsError
    from layerfs.images import ImageSummary

__all__ = ["COMMAND", "run"]

_FILTERS = ("dangling", "label", "label!", "before", "since", "reference", "until")

COMMAND = Command(
    "[OPTIONS] [REPOSITORY[:TAG]]",
    [
        flag("-a", "--all", help="Accepted because docker has it; no image is hidden"),
        flag("--digests", help="Show the digests under which registries have the images"),
        many("-f", "--filter", help=f"Show only what matches key=value: {', '.join(_FILTERS)}", metavar="filter"),
        FORMAT,
        flag("--no-trunc", help="Do not shorten IDs"),
        flag("-q", "--quiet", help="Show only image IDs"),
    ],
    most=1,
)

_TABLE = Table(
    {
        "Repository": "REPOSITORY",
        "Tag": "TAG",
        "Digest": "DIGEST",
        "ID": "IMAGE ID",
        "CreatedSince": "CREATED",
        "CreatedAt": "CREATED AT",
        "Size": "SIZE",
        "Containers": "CONTAINERS",
        "SharedSize": "SHARED SIZE",
        "UniqueSize": "UNIQUE SIZE",
        "VirtualSize": "SIZE",
    },
    ("Repository", "Tag", "ID", "CreatedSince", "Size"),
)
_WITH_DIGESTS = ("Repository", "Tag", "Digest", "ID", "CreatedSince", "Size")


def run(args: Args, context: Context) -> int:
    """Print a row for each name of each image, the newest first, then what is wrong with those that are damaged."""
    filters = Filters(args.filter, _FILTERS)
    damaged: list[LayerfsError] = []
    images = sorted(_filtered(context, filters, damaged), key=lambda image: -image.created)
    patterns = [*filters["reference"], *args.rest]
    rows = list(_rows(images, patterns, filters.flag("dangling"), args))
    if args.quiet:
        rows = list({row["ID"]: row for row in rows}.values())
    fields = _WITH_DIGESTS if args.digests else ()
    context.out(rows_text(rows, _TABLE, format=args.format, quiet=args.quiet, fields=fields))
    for error in damaged:
        context.report(str(error), error.hint)
    return damaged[0].exit_code if damaged else 0


def _filtered(context: Context, filters: Filters, damaged: list[LayerfsError]) -> Iterator[ImageSummary]:
    images = context.store.images
    before = [images.get(text).created for text in filters["before"]]
    since = [images.get(text).created for text in filters["since"]]
    until = filters.until()
    for image in images.list(damaged):
        if before and not all(image.created < when for when in before):
            continue
        if since and not all(image.created > when for when in since):
            continue
        if until is not None and image.created >= until:
            continue
        if filters.labels(image.config.run.labels or {}):
            yield image


def _rows(images: Iterable[ImageSummary], patterns: list[str], dangling: bool | None, args: Args) -> Iterator[Row]:
    for image in images:
        created = image.created
        for repository, tag, digest in image_names(image, args.digests):
            if patterns and not matches_reference(patterns, repository, tag):
                continue
            if dangling is not None and dangling != (tag == NONE):
                continue
            yield {
                "Repository": repository,
                "Tag": tag,
                "Digest": digest,
                "ID": shown_id(image.id, args.no_trunc),
                "CreatedSince": ago(created),
                "CreatedAt": stamp(created),
                "Size": size(image.size),
                "Containers": "N/A",
                "SharedSize": "N/A",
                "UniqueSize": "N/A",
                "VirtualSize": size(image.size),
            }
