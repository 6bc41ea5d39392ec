"""``layerfs sharing``: what images share, by whole layers and, with ``--files``, by equal files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerfs.cli.context import Context
from layerfs.cli.format import FORMAT, Row, Table, rows_text
from layerfs.cli.options import Args, Command, flag, one
from layerfs.cli.texts import shorten
from layerfs.cli.units import size

if TYPE_CHECKING:
    from layerfs.sharing import FileSharing, LayerSharing

__all__ = ["COMMAND", "run"]

COMMAND = Command(
    "[OPTIONS] [IMAGE...]",
    [
        FORMAT,
        flag("--files", help="Find equal files in the layers, and compare their bytes"),
        one("--min-size", help="With --files: leave out smaller ones", metavar="bytes", type=int, default=1),
        one(
            "-n",
            "--most",
            help="With --files: show so many of the most wasteful",
            metavar="count",
            type=int,
            default=20,
        ),
        flag("--no-trunc", help="Do not shorten anything"),
    ],
)

_LAYERS = Table(
    {"ID": "LAYER", "Size": "SIZE", "Count": "IMAGES", "Images": "NAMES"}, ("ID", "Size", "Count", "Images")
)
_FILES = Table(
    {"Size": "SIZE", "Count": "COPIES", "Wasted": "WASTED", "Path": "PATH", "Layer": "LAYER"},
    ("Size", "Count", "Wasted", "Path", "Layer"),
)


def run(args: Args, context: Context) -> None:
    """Print the layers with their images, or the equal files; the totals last."""
    if args.files:
        found = context.store.share_files(args.rest, minimum=args.min_size, progress=context.progress())
        rows = [
            {
                "Size": size(group.size),
                "Count": str(len(group.places)),
                "Wasted": size(group.wasted),
                "Path": group.places[0][1].decode("utf-8", "backslashreplace"),
                "Layer": group.places[0][0] if args.no_trunc else group.places[0][0].short,
            }
            for group in found.copies[: max(0, args.most)]
        ]
        context.out(rows_text(rows, _FILES, format=args.format))
        if not args.format:
            context.out(_file_totals(found))
        return
    sharing = context.store.share_layers(args.rest)
    context.out(rows_text(_layer_rows(sharing, args.no_trunc), _LAYERS, format=args.format))
    if not args.format:
        context.out(_layer_totals(sharing))


def _layer_rows(sharing: LayerSharing, whole: bool) -> list[Row]:
    return [
        {
            "ID": row.diff_id if whole else row.diff_id.short,
            "Size": size(row.disk),
            "Count": str(len(row.images)),
            "Images": shorten(", ".join(row.images), 60, whole),
        }
        for row in sharing.layers
    ]


def _layer_totals(sharing: LayerSharing) -> str:
    saved = sharing.apart - sharing.together
    return (
        f"\n{len(sharing.layers)} layers, {size(sharing.together)}; each image with its own would take "
        f"{size(sharing.apart)}: {_percent(saved, sharing.apart)} saved.\n"
    )


def _file_totals(found: FileSharing) -> str:
    wasted = found.data_bytes - found.distinct_bytes
    return (
        f"\n{found.files} files, {size(found.data_bytes)}; {found.distinct_files} are different, "
        f"{size(found.distinct_bytes)}. Copies take {size(wasted)} ({_percent(wasted, found.data_bytes)}): "
        f"{size(found.across)} in other layers, {size(found.within)} within one.\n"
    )


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}%" if whole else "0%"
