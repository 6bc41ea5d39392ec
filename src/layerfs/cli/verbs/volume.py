"""``layerfs volume``: directories that outlive containers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from layerfs.cli.context import Context
from layerfs.cli.filters import Filters
from layerfs.cli.format import FORMAT, Row, Table, formatted, rows_text
from layerfs.cli.options import Args, Command, flag, many, one
from layerfs.errors import UnsupportedError

if TYPE_CHECKING:
    from layerfs.containers import Volume

__all__ = ["COMMANDS", "run", "volume_document"]

_FILTERS = ("dangling", "driver", "label", "label!", "name")

COMMANDS = {
    "create": Command(
        "[OPTIONS] [NAME]",
        [
            one("-d", "--driver", help="Who keeps it", default="local", metavar="driver"),
            many("-l", "--label", help="Set a label", metavar="NAME[=VALUE]"),
        ],
        most=1,
    ),
    "ls": Command(
        "[OPTIONS]",
        [
            many("-f", "--filter", help=f"Show only what matches key=value: {', '.join(_FILTERS)}", metavar="filter"),
            FORMAT,
            flag("-q", "--quiet", help="Show only names"),
        ],
        most=0,
    ),
    "inspect": Command(
        "[OPTIONS] VOLUME [VOLUME...]", [one("-f", "--format", help="'json' or a Go template")], least=1
    ),
    "rm": Command(
        "[OPTIONS] VOLUME [VOLUME...]", [flag("-f", "--force", help="One that is not there is no error")], least=1
    ),
}

_TABLE = Table(
    {
        "Driver": "DRIVER",
        "Name": "VOLUME NAME",
        "Mountpoint": "MOUNTPOINT",
        "Scope": "SCOPE",
        "Labels": "LABELS",
        "Size": "SIZE",
        "Links": "LINKS",
    },
    ("Driver", "Name"),
    quiet="Name",
    methods=("Label",),
)


def run(args: Args, context: Context) -> int | None:
    """Do what the word behind ``volume`` says."""
    return {"create": _create, "ls": _list, "inspect": _inspect, "rm": _remove}[context.kind](args, context)


def _create(args: Args, context: Context) -> None:
    if args.driver != "local":
        raise UnsupportedError(f"option --driver {args.driver!r}: not offered", hint="there is only local")
    labels = {name: value for name, _, value in (word.partition("=") for word in args.label)}
    # One without a name is among those that ``volume prune`` takes.
    volume = context.store.containers.volumes.create(*args.rest, labels=labels, anonymous=not args.rest)
    context.out(f"{volume.name}\n")


def _list(args: Args, context: Context) -> None:
    filters = Filters(args.filter, _FILTERS)
    volumes = context.store.containers.volumes
    users = volumes.users()
    dangling = filters.flag("dangling")
    rows = [
        _row(context, volume, len(users.get(volume.name, ())))
        for volume in volumes.list()
        if filters.labels(volume.labels)
        and filters.accepts("driver", "local")
        and (not filters["name"] or any(part in volume.name for part in filters["name"]))
        and dangling in (None, volume.name not in users)
    ]
    context.out(rows_text(rows, _TABLE, format=args.format, quiet=args.quiet))


def _row(context: Context, volume: Volume, links: int) -> Row:
    from layerfs.cli.units import size

    labels = volume.labels
    return {
        "Driver": "local",
        "Name": volume.name,
        "Mountpoint": str(volume.mountpoint),
        "Scope": "local",
        "Labels": ",".join(f"{name}={value}" for name, value in sorted(labels.items())),
        "Size": lambda: size(context.store.containers.volumes.usage(volume.name)),
        "Links": str(links),
        "Label": lambda key: labels.get(key, ""),
    }


def _inspect(args: Args, context: Context) -> int:
    found: list[dict[str, Any]] = []
    code = context.each(
        args.rest, lambda name: found.append(volume_document(context.store.containers.volumes.get(name)))
    )
    if args.format:
        for document in found:
            context.out(formatted(document, args.format))
    else:
        context.out(formatted(found, None))
    return code


def volume_document(volume: Volume) -> dict[str, Any]:
    """Return the document of docker's API for a volume."""
    from datetime import UTC, datetime

    from layerfs.cli.documents import as_fields

    document: dict[str, Any] = as_fields(
        {
            "CreatedAt": datetime.fromtimestamp(volume.created, UTC)
            .isoformat(timespec="seconds")
            .replace("+00:00", "Z"),
            "Driver": "local",
            "Labels": volume.labels,
            "Mountpoint": str(volume.mountpoint),
            "Name": volume.name,
            "Options": {},
            "Scope": "local",
        }
    )
    return document


def _remove(args: Args, context: Context) -> int:
    def remove(name: str) -> None:
        context.store.containers.volumes.remove(name, force=args.force)
        context.out(f"{name}\n")

    return context.each(args.rest, remove)
