"""``layerfs ps``: list containers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerfs.cli.context import Context
from layerfs.cli.format import FORMAT, Row, Table, rows_text
from layerfs.cli.options import Args, Command, flag, many, one
from layerfs.cli.texts import shorten, shown_command
from layerfs.cli.units import ago, duration, size, stamp

if TYPE_CHECKING:
    from layerfs.containers import Container

__all__ = ["COMMAND", "TABLE", "container_row", "run"]

COMMAND = Command(
    "[OPTIONS]",
    [
        flag("-a", "--all", help="Show all containers, not only those that run"),
        many("-f", "--filter", help="Show only what matches key=value", metavar="filter"),
        FORMAT,
        one("-n", "--last", help="Show so many of the newest, in any state", type=int, metavar="count", default=-1),
        flag("-l", "--latest", help="Show the newest, in any state"),
        flag("--no-trunc", help="Do not shorten anything"),
        flag("-q", "--quiet", help="Show only IDs"),
        flag("-s", "--size", help="Show how much they take"),
    ],
    most=0,
    notes="Filters: id, name, label, exited, status, ancestor, before, since, volume, network, health.",
)

TABLE = Table(
    {
        "ID": "CONTAINER ID",
        "Image": "IMAGE",
        "Command": "COMMAND",
        "CreatedAt": "CREATED AT",
        "RunningFor": "CREATED",
        "Status": "STATUS",
        "State": "STATE",
        "Ports": "PORTS",
        "Names": "NAMES",
        "Size": "SIZE",
        "Labels": "LABELS",
        "Mounts": "MOUNTS",
        "LocalVolumes": "LOCAL VOLUMES",
        "Networks": "NETWORKS",
        "HealthStatus": "HEALTH",
        "Platform": "PLATFORM",
    },
    ("ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names"),
    methods=("Label",),
)


def run(args: Args, context: Context) -> None:
    """Print a row for each container, the newest first."""
    containers = context.store.containers.list()
    if args.filter:
        from layerfs.cli.container_filters import filtered

        containers = filtered(context, containers, args.filter)
    last = 1 if args.latest else args.last
    in_any_state = args.all or last >= 0 or any(word.startswith(("status=", "exited=")) for word in args.filter)
    if not in_any_state:
        containers = [each for each in containers if each.status in ("running", "paused", "restarting")]
    if last >= 0:
        containers = containers[:last]
    rows = [_row(context, container, args) for container in containers]
    fields = (*TABLE.default, "Size") if args.size else ()
    context.out(rows_text(rows, TABLE, format=args.format, quiet=args.quiet, fields=fields))


def _row(context: Context, container: Container, args: Args) -> Row:
    if args.quiet and not args.format:
        return {"ID": container.id if args.no_trunc else container.id[:12]}
    return container_row(context, container, args.no_trunc)


def container_row(context: Context, container: Container, full: bool) -> Row:
    """Return what a list says of a container; ``full``: nothing is shortened."""
    labels = container.labels
    mounts = [use.volume or use.source or use.option.target for use in container.mounts]
    config = container.config
    return {
        "ID": container.id if full else container.id[:12],
        "Image": _image(context, container, full),
        "Command": shown_command(container.command, full),
        "CreatedAt": stamp(container.created),
        "RunningFor": ago(container.created),
        "Status": status(container),
        "State": container.status,
        "Ports": "",
        "Names": container.name,
        "Size": lambda: _size(container),
        "Labels": ",".join(f"{name}={value}" for name, value in sorted(labels.items())),
        "Mounts": ",".join(shorten(name, 15, full) for name in mounts),
        "LocalVolumes": str(sum(1 for use in container.mounts if use.volume)),
        "Networks": config.options.network,
        "HealthStatus": "" if container.health == "none" else container.health,
        "Platform": "/".join(filter(None, (config.os, config.architecture, config.variant))),
        "Label": lambda key: labels.get(key, ""),
    }


def _image(context: Context, container: Container, full: bool) -> str:
    """The image as it was named; its ID where that name means another image now."""
    from layerfs.errors import LayerfsError

    try:
        same = context.store.images.find(container.image).image_id == container.image_id
    except LayerfsError:
        same = False
    if same or container.image_id is None:
        text = container.image
        return text if full or not text.startswith("sha256:") else text[7:19]
    return container.image_id if full else container.image_id.hex[:12]


_HEALTH = {"starting": "health: starting"}


def status(container: Container) -> str:
    """Return its state in docker's words."""
    import time

    now = time.time()
    ended = f"({container.exit_code}) {ago(container.finished_at, now)}"
    running = f"Up {duration(now - container.started_at)}"
    checked = f" ({_HEALTH.get(container.health, container.health)})" if container.health != "none" else ""
    return {
        "running": running + checked,
        "paused": f"{running} (Paused)",
        "exited": f"Exited {ended}",
        "restarting": f"Restarting {ended}",
        "removing": "Removal In Progress",
        "dead": "Dead",
    }.get(container.status, "Created")


def _size(container: Container) -> str:
    changes, total = container.size()
    return f"{size(changes)} (virtual {size(total)})"
