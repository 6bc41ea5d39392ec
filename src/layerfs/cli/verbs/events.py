"""``layerfs events``: what happens to containers."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from layerfs.cli.context import Context
from layerfs.cli.filters import Filters, parse_until
from layerfs.cli.options import Args, Command, many, one

if TYPE_CHECKING:
    from layerfs.containers import Event

__all__ = ["COMMAND", "run"]

_FILTERS = ("container", "event", "image", "label", "type")

COMMAND = Command(
    "[OPTIONS]",
    [
        many("-f", "--filter", help=f"Show only what matches key=value: {', '.join(_FILTERS)}", metavar="filter"),
        one("--format", help="'json' or a Go template", metavar="string"),
        one("--since", help="Begin with what happened from a time on, as 10m or 2026-01-31T12:00:00", metavar="time"),
        one("--until", help="End at a time", metavar="time"),
    ],
    most=0,
    notes="Without --until it goes on until it is interrupted.",
)


def run(args: Args, context: Context) -> None:
    """Print a line for each event, as it happens."""
    filters = Filters(args.filter, _FILTERS)
    until = parse_until(args.until) if args.until else None
    events = context.store.containers.events(
        since=parse_until(args.since) if args.since else None,
        until=until,
        follow=lambda: until is None or time.time() < until,
    )
    for event in events:
        if _accepts(filters, event):
            context.out(_line(event, args.format))
            sys.stdout.flush()


def _accepts(filters: Filters, event: Event) -> bool:
    names = (event.id, event.id[:12], event.attributes.get("name", ""))
    return (
        filters.accepts("event", event.action.partition(":")[0])  # behind it stands the command
        and filters.accepts("type", event.type)
        and filters.accepts("image", event.attributes.get("image", ""))
        and ("container" not in filters or any(name in filters["container"] for name in names))
        and filters.labels(event.attributes)
    )


def _line(event: Event, format: str | None) -> str:
    if format:
        from layerfs.cli.documents import as_fields
        from layerfs.cli.format import formatted

        return formatted(as_fields(_document(event)), format)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(event.time // 10**9))
    zone = time.strftime("%z", time.localtime(event.time // 10**9))
    offset = "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}"
    attributes = ", ".join(f"{name}={value}" for name, value in sorted(event.attributes.items()))
    return f"{stamp}.{event.time % 10**9:09}{offset} {event.type} {event.action} {event.id} ({attributes})\n"


def _document(event: Event) -> dict[str, Any]:
    return {
        "status": event.action,
        "id": event.id,
        "from": event.attributes.get("image", ""),
        "Type": event.type,
        "Action": event.action,
        "Actor": {"ID": event.id, "Attributes": event.attributes},
        "scope": "local",
        "time": event.time // 10**9,
        "timeNano": event.time,
    }
