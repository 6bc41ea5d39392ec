"""``layerfs history``: how an image was made, the last step first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from layerfs.cli.context import Context
from layerfs.cli.format import FORMAT, Row, Table, rows_text
from layerfs.cli.options import Args, Command, flag
from layerfs.cli.texts import shorten, shown_id
from layerfs.cli.units import ago, moment, size, time_text

if TYPE_CHECKING:
    from layerfs.images import Image
    from layerfs.oci import History

__all__ = ["COMMAND", "run"]

COMMAND = Command(
    "[OPTIONS] IMAGE",
    [
        FORMAT,
        flag("-H", "--human", help="Print sizes and times for people", default=True),
        flag("--no-trunc", help="Do not shorten anything"),
        flag("-q", "--quiet", help="Show only image IDs"),
    ],
    least=1,
    most=1,
)

_TABLE = Table(
    {
        "ID": "IMAGE",
        "CreatedSince": "CREATED",
        "CreatedAt": "CREATED AT",
        "CreatedBy": "CREATED BY",
        "Size": "SIZE",
        "Comment": "COMMENT",
    },
    ("ID", "CreatedSince", "CreatedBy", "Size", "Comment"),
)


def run(args: Args, context: Context) -> None:
    """Print a row for each entry of the image's history."""
    image = context.store.images.get(args.rest[0])
    rows = list(_rows(context, image, args))[::-1]
    if rows:
        rows[0] = {**rows[0], "ID": shown_id(image.id, args.no_trunc)}
    fields = () if args.human else ("ID", "CreatedAt", "CreatedBy", "Size", "Comment")
    context.out(rows_text(rows, _TABLE, format=args.format, quiet=args.quiet, fields=fields))


def _rows(context: Context, image: Image, args: Args) -> Iterator[Row]:
    """A row for each entry, base first; layers that no entry describes get a row of their own."""
    layers = list(image.diff_ids)
    for entry in image.config.history or ():
        diff_id = None if entry.empty_layer or not layers else layers.pop(0)
        yield _row(entry, _bytes(context, diff_id), args)
    for diff_id in layers:
        yield _row(None, _bytes(context, diff_id), args)


def _bytes(context: Context, diff_id: str | None) -> int:
    from layerfs.digest import Digest

    row = context.store.database.layer(Digest(diff_id)) if diff_id else None
    return row.data_bytes if row else 0


def _row(entry: History | None, count: int, args: Args) -> Row:
    created = moment(entry.created) if entry else None
    by = (entry.created_by or "" if entry else "").replace("\t", " ")
    return {
        "ID": "<missing>",
        "CreatedSince": ago(created),
        "CreatedAt": time_text(created),
        "CreatedBy": shorten(by, 45, args.no_trunc),
        "Size": size(count) if args.human else str(count),
        "Comment": shorten(entry.comment or "" if entry else "", 45, args.no_trunc),
    }
