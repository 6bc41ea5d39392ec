"""``layerfs rename``: give a container another name."""

from __future__ import annotations

from layerfs.cli.context import Context
from layerfs.cli.options import Args, Command

__all__ = ["COMMAND", "run"]

COMMAND = Command("CONTAINER NAME", least=2, most=2)


def run(args: Args, context: Context) -> None:
    """Rename it."""
    context.store.containers.get(args.rest[0]).rename(args.rest[1])
