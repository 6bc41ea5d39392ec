"""``layerfs wait``: wait until containers end."""

from __future__ import annotations

from layerfs.cli.context import Context
from layerfs.cli.options import Args, Command

__all__ = ["COMMAND", "run"]

COMMAND = Command("CONTAINER [CONTAINER...]", least=1)


def run(args: Args, context: Context) -> int:
    """Print the exit code of each container, as it ends."""

    def wait(name: str) -> None:
        context.out(f"{context.store.containers.get(name).wait()}\n")

    return context.each(args.rest, wait)
