"""``layerfs stats``: what containers use of this host."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from layerfs.cli.context import Context
from layerfs.cli.format import FORMAT, Row, Table, rows_text
from layerfs.cli.options import Args, Command, flag
from layerfs.cli.units import binary_size, size
from layerfs.errors import LayerfsError, NotFoundError

if TYPE_CHECKING:
    from layerfs.containers import Container
    from layerfs.runtime.cgroups import Usage

__all__ = ["COMMAND", "run"]

COMMAND = Command(
    "[OPTIONS] [CONTAINER...]",
    [
        flag("-a", "--all", help="Show all containers, not only those that run"),
        FORMAT,
        flag("--no-stream", help="Show it once"),
        flag("--no-trunc", help="Do not shorten IDs"),
    ],
)

_TABLE = Table(
    {
        "ID": "CONTAINER ID",
        "Container": "CONTAINER",
        "Name": "NAME",
        "CPUPerc": "CPU %",
        "MemUsage": "MEM USAGE / LIMIT",
        "MemPerc": "MEM %",
        "NetIO": "NET I/O",
        "BlockIO": "BLOCK I/O",
        "PIDs": "PIDS",
    },
    ("ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs"),
)
_SECONDS = 1.0
_CLEAR = "\x1b[2J\x1b[H"


def run(args: Args, context: Context) -> None:
    """Print a table once a second until it is interrupted, or once."""
    for name in args.rest:
        context.store.containers.get(name)  # a name that is wrong is told at the beginning
    at_terminal = sys.stdout.isatty() and not args.format
    while True:
        rows = [_row(*sample, args) for sample in _sample(args, context)]
        context.out(
            (_CLEAR if at_terminal and not args.no_stream else "") + rows_text(rows, _TABLE, format=args.format)
        )
        sys.stdout.flush()
        if args.no_stream:
            return


def _chosen(args: Args, context: Context) -> list[Container]:
    if not args.rest:
        found = context.store.containers.list()
        return [each for each in found if args.all or each.status in ("running", "paused")]
    chosen = []
    for name in args.rest:
        try:
            chosen.append(context.store.containers.get(name))
        except NotFoundError:
            continue  # it was removed meanwhile
    return chosen


def _sample(args: Args, context: Context) -> list[tuple[Container, Usage, Usage, float]]:
    """Each container with what it used at the beginning and at the end of a second, and how long that was."""
    first = []
    for container in _chosen(args, context):
        try:
            first.append((container, container.usage(), time.monotonic()))
        except LayerfsError:
            continue
    time.sleep(_SECONDS)
    return [(each, before, each.usage(), time.monotonic() - began) for each, before, began in first]


def _row(container: Container, before: Usage, after: Usage, seconds: float, args: Args) -> Row:
    limit = min(after.memory_limit or _host_memory(), _host_memory())
    return {
        "ID": container.id if args.no_trunc else container.id[:12],
        "Container": container.id if args.no_trunc else container.id[:12],
        "Name": container.name,
        "CPUPerc": f"{max(0, after.cpu - before.cpu) / 1e7 / seconds:.2f}%",
        "MemUsage": f"{binary_size(after.memory)} / {binary_size(limit)}",
        "MemPerc": f"{100 * after.memory / limit:.2f}%",
        "NetIO": "0B / 0B",  # the network is the host's, or none: docker counts nothing then, either
        "BlockIO": f"{size(after.read_bytes)} / {size(after.written_bytes)}",
        "PIDs": str(after.pids),
    }


def _host_memory() -> int:
    import os

    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
