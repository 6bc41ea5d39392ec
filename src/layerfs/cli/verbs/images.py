"""``layerfs images``: list images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from layerfs.cli.context import Context
from layerfs.cli.filters import Filters
from layerfs.cli.format import FORMAT, Row, Table, rows_text
from layerfs.cli.options import Args, Command, flag, many, one
from layerfs.cli.texts import NONE, image_names, matches_reference, shown_id
from layerfs.cli.units import ago, size, stamp

if TYPE_CHECKING:
    from layerfs.errors import LayerfsError
    from layerfs.images import ImageSummary

__all__ = ["COMMAND", "run"]

_FILTERS = (
    *("dangling", "label", "label!", "before", "since", "after", "reference", "until"),
    *("id", "digest", "containers"),
)

COMMAND = Command(
    "[OPTIONS] [REPOSITORY[:TAG]|IMAGE_ID]",
    [
        flag("-a", "--all", help="Accepted because docker has it; no image is hidden"),
        flag("--digests", help="Show the digests under which registries have the images"),
        many("-f", "--filter", help=f"Show only what matches key=value: {', '.join(_FILTERS)}", metavar="filter"),
        FORMAT,
        flag("-n", "--noheading", help="Leave out the headers of the table"),
        flag("--no-trunc", help="Do not shorten IDs"),
        one(
            "--sort",
            help="What the rows are sorted by",
            default="created",
            choices=("created", "id", "repository", "size", "tag"),
        ),
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
_ORDERS: dict[str, Callable[[ImageSummary], Any]] = {
    "": lambda image: -image.created,
    "id": lambda image: image.id,
    "size": lambda image: image.size,
}
_SHOWN_DIGITS = 12
_WITH_DIGESTS = ("Repository", "Tag", "Digest", "ID", "CreatedSince", "Size")


def run(args: Args, context: Context) -> int:
    """Print a row for each name of each image, then what is wrong with those that are damaged."""
    filters = Filters(args.filter, _FILTERS)
    damaged: list[LayerfsError] = []
    images = sorted(_filtered(context, filters, damaged), key=_ORDERS.get(args.sort, _ORDERS[""]))
    rows = list(_rows(images, filters["reference"], filters.flag("dangling"), args))
    if args.sort in ("repository", "tag"):
        rows.sort(key=itemgetter(*(("Repository", "Tag") if args.sort == "repository" else ("Tag", "Repository"))))
    if args.quiet:
        rows = list({row["ID"]: row for row in rows}.values())
    fields = _WITH_DIGESTS if args.digests else ()
    context.out(
        rows_text(rows, _TABLE, format=args.format, quiet=args.quiet, fields=fields, heading=not args.noheading)
    )
    for error in damaged:
        context.report(str(error), error.hint)
    return damaged[0].exit_code if damaged else 0


def _filtered(context: Context, filters: Filters, damaged: list[LayerfsError]) -> Iterator[ImageSummary]:
    images = context.store.images
    before = [images.get(text).created for text in filters["before"]]
    since = [images.get(text).created for text in (*filters["since"], *filters["after"])]
    until = filters.until()
    in_use = filters.flag("containers")
    used = {row.image_id for row in context.store.database.containers()} if in_use is not None else set()
    for image in images.list(damaged):
        if before and not all(image.created < when for when in before):
            continue
        if since and not all(image.created > when for when in since):
            continue
        if until is not None and image.created >= until:
            continue
        if in_use is not None and in_use != (image.id in used):
            continue
        if filters["id"] and not any(_begins_so(image, text) for text in filters["id"]):
            continue
        if filters["digest"] and not any(text in _digests(image) for text in filters["digest"]):
            continue
        if filters.labels(image.config.run.labels or {}):
            yield image


def _begins_so(image: ImageSummary, text: str) -> bool:
    return bool(text) and image.id.startswith(text if text.startswith("sha256:") else f"sha256:{text}")


def _digests(image: ImageSummary) -> set[str]:
    """Those of its manifest or index, as it is here and as registries have it."""
    return {image.target.digest, *(text.partition("@")[2] for text in image.repo_digests)}


def _rows(images: Iterable[ImageSummary], patterns: list[str], dangling: bool | None, args: Args) -> Iterator[Row]:
    ids = [text for text in args.rest if len(text) >= _SHOWN_DIGITS]
    patterns = [*patterns, *args.rest]
    for image in images:
        named = any(_begins_so(image, text) for text in ids)
        created = image.created
        for repository, tag, digest in image_names(image, args.digests):
            if patterns and not named and not matches_reference(patterns, repository, tag):
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
