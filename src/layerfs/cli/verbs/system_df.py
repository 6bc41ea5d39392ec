"""``layerfs system df``: how much disk space the store takes, as it is on disk."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from layerfs.cli.context import Context
from layerfs.cli.format import FORMAT, Row, Table, rows_text
from layerfs.cli.options import Args, Command, flag
from layerfs.cli.texts import image_names, shown_id
from layerfs.cli.units import ago, size
from layerfs.errors import InvalidInputError

if TYPE_CHECKING:
    from layerfs.store._keeping import Usage

__all__ = ["COMMAND", "run"]

COMMAND = Command(
    "[OPTIONS]", [FORMAT, flag("-v", "--verbose", help="Show each image, container, volume and cache entry")], most=0
)

_TABLE = Table(
    {
        "Type": "TYPE",
        "TotalCount": "TOTAL",
        "Active": "ACTIVE",
        "Size": "SIZE",
        "Reclaimable": "RECLAIMABLE",
    },
    ("Type", "TotalCount", "Active", "Size", "Reclaimable"),
    quiet="Type",
)
_IMAGES = Table(
    {
        "Repository": "REPOSITORY",
        "Tag": "TAG",
        "ID": "IMAGE ID",
        "CreatedSince": "CREATED",
        "Size": "SIZE",
        "SharedSize": "SHARED SIZE",
        "UniqueSize": "UNIQUE SIZE",
        "Containers": "CONTAINERS",
    },
    ("Repository", "Tag", "ID", "CreatedSince", "Size", "SharedSize", "UniqueSize", "Containers"),
)
_OF_CONTAINERS = ("ID", "Image", "Command", "LocalVolumes", "Size", "RunningFor", "Status", "Names")
_VOLUMES = Table({"Name": "VOLUME NAME", "Links": "LINKS", "Size": "SIZE"}, ("Name", "Links", "Size"), quiet="Name")


def run(args: Args, context: Context) -> None:
    """Print the totals, or each thing."""
    usage = context.store.usage()
    if not args.verbose:
        context.out(rows_text(list(_totals(context, usage)), _TABLE, format=args.format))
        return
    if args.format:
        raise InvalidInputError("--format and --verbose cannot be given together")
    for title, text in _sections(context, usage):
        context.out(f"{title}\n\n{text}")


def _sections(context: Context, usage: Usage) -> Iterator[tuple[str, str]]:
    """(what stands above, table) of images, containers, volumes and what builds keep."""
    from layerfs.cli.verbs import builder, ps  # the totals need neither

    yield "Images space usage:", rows_text(list(_image_rows(usage)), _IMAGES)
    containers = context.store.containers
    rows = [
        {**ps.container_row(context, each, False), "Size": size(usage.snapshots.get(each.id, 0), 4)}
        for each in containers.list()
    ]
    yield "\nContainers space usage:", rows_text(rows, ps.TABLE, fields=_OF_CONTAINERS)
    users = containers.volumes.users()
    volumes = [
        {
            "Name": each.name,
            "Links": str(len(users.get(each.name, ()))),
            "Size": size(containers.volumes.usage(each.name), 4),
        }
        for each in containers.volumes.list()
    ]
    yield "\nLocal Volumes space usage:", rows_text(volumes, _VOLUMES)
    cache = list(context.store.build_cache().list())
    taken = size(sum(entry.size for entry in cache if not entry.shared), 4)  # as the totals have it
    yield f"\nBuild cache usage: {taken}", rows_text([builder.cache_row(each, False) for each in cache], builder.TABLE)


def _totals(context: Context, usage: Usage) -> Iterator[Row]:
    unused = sum(row.unique for row in usage.images if not row.containers)
    active = sum(1 for row in usage.images if row.containers)
    taken = usage.layers + usage.blobs
    yield _row("Images", len(usage.images), active, taken, min(taken, unused + usage.reclaimable))
    containers = context.store.containers.list()
    running = {each.id for each in containers if each.status in ("running", "paused", "restarting")}
    known = {each.id: usage.snapshots.get(each.id, 0) for each in containers}
    idle = sum(taken for id, taken in known.items() if id not in running)
    yield _row("Containers", len(known), len(running), sum(known.values()), idle)
    volumes = context.store.containers.volumes
    used = volumes.users()
    sizes = {each.name: volumes.usage(each.name) for each in volumes.list()}
    loose = sum(taken for name, taken in sizes.items() if name not in used)
    yield _row("Local Volumes", len(sizes), len(used), sum(sizes.values()), loose)
    # A layer that an image has too is counted there.
    cache = [entry for entry in context.store.build_cache().list() if not entry.shared]
    idle = sum(entry.size for entry in cache if not entry.in_use)
    yield _row("Build Cache", len(cache), sum(entry.in_use for entry in cache), sum(e.size for e in cache), idle)


def _row(kind: str, total: int, active: int, taken: int, reclaimable: int) -> Row:
    percent = f" ({100 * reclaimable // taken}%)" if taken else ""
    return {
        "Type": kind,
        "TotalCount": str(total),
        "Active": str(active),
        "Size": size(taken, 4),
        "Reclaimable": size(reclaimable, 4) + percent,
    }


def _image_rows(usage: Usage) -> Iterator[Row]:
    for row in usage.images:
        for repository, tag, _ in image_names(row.image):
            yield {
                "Repository": repository,
                "Tag": tag,
                "ID": shown_id(row.image.id, False),
                "CreatedSince": ago(row.image.created),
                "Size": size(row.shared + row.unique, 4),
                "SharedSize": size(row.shared, 4),
                "UniqueSize": size(row.unique, 4),
                "Containers": str(row.containers),
            }
