"""``layerfs top``: the processes of a container."""

from __future__ import annotations

from layerfs.cli.context import Context
from layerfs.cli.format import align, clean
from layerfs.cli.options import Args, Command

__all__ = ["COMMAND", "run"]

COMMAND = Command(
    "CONTAINER [OPTIONS OF ps]", least=1, interspersed=False, notes="The options are those of ps on this host."
)


def run(args: Args, context: Context) -> None:
    """Print a row for each process."""
    found = context.store.containers.get(args.rest[0]).top(args.rest[1:])
    context.out(align([list(found.titles), *([clean(word) for word in row] for row in found.rows)]))
