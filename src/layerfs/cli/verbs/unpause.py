"""``layerfs unpause``: let the processes of paused containers go on."""

from __future__ import annotations

from layerfs.cli.choosing import INSTEAD, choices, chosen
from layerfs.cli.context import Context
from layerfs.cli.named import each_container
from layerfs.cli.options import Args, Command

__all__ = ["COMMAND", "run"]

COMMAND = Command("[OPTIONS] CONTAINER [CONTAINER...]", choices(" that are paused"), least=1, instead=INSTEAD)


def run(args: Args, context: Context) -> int:
    """Let each container go on."""
    names = chosen(args, context, lambda each: each.status == "paused")
    return each_container(context, names, lambda container: container.unpause())
