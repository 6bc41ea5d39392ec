"""``layerfs container exists`` and ``layerfs volume exists``: an exit code for scripts, and no output."""

from __future__ import annotations

from layerfs.cli.context import Context
from layerfs.cli.options import Args, Command
from layerfs.errors import NotFoundError

__all__ = ["COMMANDS", "run"]

COMMANDS = {name: Command(name.upper(), least=1, most=1) for name in ("container", "volume")}


def run(args: Args, context: Context) -> int:
    """End with 0 for one that is there, with 1 for one that is not."""
    containers = context.store.containers
    try:
        (containers.get if context.kind == "container" else containers.volumes.get)(args.rest[0])
    except NotFoundError:
        return 1
    return 0
