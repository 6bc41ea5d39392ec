"""``layerfs pause``: stop the processes of containers where they are."""

from __future__ import annotations

from layerfs.cli.context import Context
from layerfs.cli.named import each_container
from layerfs.cli.options import Args, Command

__all__ = ["COMMAND", "run"]

COMMAND = Command("CONTAINER [CONTAINER...]", least=1)


def run(args: Args, context: Context) -> int:
    """Pause each container."""
    return each_container(context, args.rest, lambda container: container.pause())
