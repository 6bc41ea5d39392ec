"""``layerfs pause``: stop the processes of containers where they are."""

from __future__ import annotations

from layerfs.cli.choosing import INSTEAD, choices, chosen
from layerfs.cli.context import Context
from layerfs.cli.named import each_container
from layerfs.cli.options import Args, Command

__all__ = ["COMMAND", "run"]

COMMAND = Command("[OPTIONS] CONTAINER [CONTAINER...]", choices(" that run"), least=1, instead=INSTEAD)


def run(args: Args, context: Context) -> int:
    """Pause each container."""
    names = chosen(args, context, lambda each: each.status == "running")
    return each_container(context, names, lambda container: container.pause())
