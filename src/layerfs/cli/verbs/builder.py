"""``layerfs builder``: what builds keep for the next ones."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from layerfs.cli.context import Context
from layerfs.cli.filters import Filters, parse_boolean
from layerfs.cli.format import FORMAT, Row, Table, rows_text
from layerfs.cli.options import Args, Command, flag, many, one
from layerfs.cli.texts import shorten
from layerfs.cli.units import ago, parse_bytes, size
from layerfs.errors import LayerfsError, system_errors

if TYPE_CHECKING:
    from layerfs.build.keeping import CacheEntry

__all__ = ["COMMANDS", "TABLE", "cache_row", "run"]

_FILTERS = ("until", "unused-for", "id", "type", "shared", "inuse")

COMMANDS = {
    "ls": Command(
        "[OPTIONS]",
        [FORMAT, flag("--no-trunc", help="Do not shorten anything"), flag("-q", "--quiet", help="Show only IDs")],
        most=0,
    ),
    "export": Command(
        "[OPTIONS] ID",
        [one("-o", "--output", help="The file (default: the standard output)", metavar="FILE")],
        least=1,
        most=1,
    ),
    "import": Command("ID FILE|-", least=2, most=2),
    "prune": Command(
        "[OPTIONS]",
        [
            flag("-a", "--all", help="Also layers that an image has, which frees nothing"),
            flag("--dry-run", help="Show what would go, and leave it"),
            many("--filter", help=f"Remove only what matches key=value: {', '.join(_FILTERS)}", metavar="filter"),
            flag("-f", "--force", help="Do not ask"),
            one(
                "--keep-storage",
                "--reserved-space",
                "--max-used-space",
                help="Remove no more than needed to be below this size",
                metavar="size",
                type=parse_bytes,
            ),
        ],
        most=0,
    ),
}

TABLE = Table(
    {
        "ID": "ID",
        "CacheType": "TYPE",
        "Size": "SIZE",
        "LastUsedSince": "LAST USED",
        "Shared": "SHARED",
        "InUse": "IN USE",
        "Description": "DESCRIPTION",
    },
    ("ID", "CacheType", "Size", "LastUsedSince", "Shared", "InUse", "Description"),
)


def run(args: Args, context: Context) -> None:
    """List, ask and remove, write or read."""
    {"ls": _list, "prune": _prune, "export": _export, "import": _import}[context.kind](args, context)


def _export(args: Args, context: Context) -> None:
    from layerfs.cli.output import output

    with output(context, args.output, "a cache mount") as sink:
        context.store.build_cache().export_mount(args.rest[0], sink)


def _import(args: Args, context: Context) -> None:
    id, path = args.rest
    cache = context.store.build_cache()
    if path == "-":
        cache.import_mount(id, context.binary_in("a tar archive"))
        return
    with system_errors(f"read {path}"):
        file = open(path, "rb")
    with file:
        cache.import_mount(id, file)


def _list(args: Args, context: Context) -> None:
    rows = [cache_row(entry, args.no_trunc) for entry in context.store.build_cache().list()]
    context.out(rows_text(rows, TABLE, format=args.format, quiet=args.quiet))


def cache_row(entry: CacheEntry, full: bool) -> Row:
    """Return what a list says of an entry; ``full``: nothing is shortened."""
    return {
        "ID": entry.id if full else entry.id[:12],
        "CacheType": entry.type,
        "Size": size(entry.size),
        "LastUsedSince": ago(entry.used),
        "Shared": str(entry.shared).lower(),
        "InUse": str(entry.in_use).lower(),
        "Description": shorten(entry.title, 45, full),
    }


def _prune(args: Args, context: Context) -> None:
    filters = Filters(args.filter, _FILTERS)
    if not args.force and not args.dry_run:
        context.err("This will remove what builds keep for the next ones.\nContinue? [y/N] ")
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise LayerfsError("cancelled", hint="with --force it does not ask")
    until = filters.until() if "until" in filters else None
    if "unused-for" in filters:
        from layerfs.cli.filters import parse_until

        until = parse_until(filters["unused-for"][-1])
    pruned = context.store.build_cache().prune(
        all_entries=args.all,
        older_than=time.time() - until if until is not None else None,
        keep_bytes=args.max_used_space,
        wanted=lambda entry: _accepts(filters, entry),
        dry_run=args.dry_run,
    )
    lines = [f"{entry.id}\t{size(entry.size)}" for entry in pruned.entries]
    if lines:
        context.out("\n".join([f"{'Unused' if args.dry_run else 'Deleted'} build cache:", *lines, "", ""]))
    context.out(f"Total {'reclaimable' if args.dry_run else 'reclaimed'} space: {size(pruned.reclaimed, 4)}\n")


def _accepts(filters: Filters, entry: CacheEntry) -> bool:
    flags = (("shared", entry.shared), ("inuse", entry.in_use))
    return (
        (not filters["id"] or any(entry.id.startswith(text) for text in filters["id"]))
        and filters.accepts("type", entry.type)
        and all(parse_boolean(f"filter {key}", text) == value for key, value in flags for text in filters[key])
    )
