"""``layerfs unpause``: let the processes of paused containers go on."""

from __future__ import annotations

from layerfs.cli.context import Context
from layerfs.cli.named import each_container
from layerfs.cli.options import Args, Command

__all__ = ["COMMAND", "run"]

COMMAND = Command("CONTAINER [CONTAINER...]", least=1)


def run(args: Args, context: Context) -> int:
    """Let each container go on."""
    return each_container(context, args.rest, lambda container: container.unpause())
