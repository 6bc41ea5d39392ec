"""``layerfs logs``: what a container wrote."""

from __future__ import annotations

import sys

from layerfs.cli.context import Context
from layerfs.cli.filters import parse_until
from layerfs.cli.options import Args, Command, flag, one
from layerfs.errors import InvalidInputError, NotFoundError

__all__ = ["COMMAND", "run"]

COMMAND = Command(
    "[OPTIONS] CONTAINER",
    [
        flag("-f", "--follow", help="Go on until the container ends"),
        one("--since", help="From a time on, as 2026-01-31T12:00:00, or a span before now, as 10m", metavar="time"),
        one("-n", "--tail", help="The last lines alone", default="all", metavar="count"),
        flag("-t", "--timestamps", help="Begin each line with its time"),
        one("--until", help="Up to a time", metavar="time"),
    ],
    least=1,
    most=1,
)


def run(args: Args, context: Context) -> None:
    """Write to the standard output what it wrote there, and to the error stream what went there."""
    if args.tail != "all" and not args.tail.removeprefix("-").isdecimal():
        raise InvalidInputError(f"logs: --tail {args.tail!r}: not a number of lines, or all")
    container = context.store.containers.get(args.rest[0])
    if not container.logged:
        raise NotFoundError(f"logs of container {container.name}: it was made with --log-driver none")
    entries = container.logs(
        follow=args.follow,
        tail=None if args.tail == "all" or args.tail.startswith("-") else int(args.tail),
        since=parse_until(args.since) if args.since else None,
        until=parse_until(args.until) if args.until else None,
    )
    begins = {"stdout": True, "stderr": True}
    for entry in entries:
        out = (sys.stderr if entry.stream == "stderr" else sys.stdout).buffer
        if args.timestamps and begins[entry.stream]:
            out.write(f"{entry.time} ".encode())
        out.write(entry.text)
        # Order between the two streams is kept, and who follows sees a line when it comes.
        out.flush()
        begins[entry.stream] = entry.complete
