"""``layerfs kill``: send a signal to containers."""

from __future__ import annotations

from layerfs.cli.context import Context
from layerfs.cli.options import Args, Command, one

__all__ = ["COMMAND", "run"]

COMMAND = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    [one("-s", "--signal", help="The signal, by name or number", default="KILL", metavar="signal")],
    least=1,
)


def run(args: Args, context: Context) -> int:
    """Signal the first process of each container and print its name as it was given."""
    from layerfs.runtime import signal_number

    number = signal_number(args.signal)

    def kill(name: str) -> None:
        context.store.containers.get(name).kill(number)
        context.out(f"{name}\n")

    return context.each(args.rest, kill)
