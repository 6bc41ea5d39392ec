"""``layerfs mount``: see an image or a container as a directory."""

from __future__ import annotations

from pathlib import Path

from layerfs.cli.context import Context
from layerfs.cli.format import FORMAT, Table, rows_text
from layerfs.cli.options import Args, Command, flag

__all__ = ["COMMAND", "run"]

COMMAND = Command(
    "[OPTIONS] [CONTAINER|IMAGE [DIRECTORY]]",
    [FORMAT, flag("--no-trunc", help="Do not shorten IDs")],
    most=2,
    notes="A container is mounted writable, an image read-only. Without a name: list what is mounted.",
)

_TABLE = Table(
    {"ID": "ID", "Type": "TYPE", "Names": "NAMES", "Mountpoint": "MOUNTPOINT"},
    ("ID", "Type", "Names", "Mountpoint"),
)


def run(args: Args, context: Context) -> None:
    """Mount and print where, or list."""
    if args.rest:
        context.out(f"{context.store.mount(args.rest[0], *map(Path, args.rest[1:]))}\n")
        return
    rows = [
        {
            "ID": info.id if args.no_trunc else info.id.removeprefix("sha256:")[:12],
            "Type": info.kind,
            "Names": ",".join(info.names),
            "Mountpoint": str(info.path),
        }
        for info in context.store.mounts()
    ]
    context.out(rows_text(rows, _TABLE, format=args.format))
