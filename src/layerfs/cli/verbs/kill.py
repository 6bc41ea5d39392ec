"""``layerfs kill``: send a signal to containers."""

from __future__ import annotations

import signal

from layerfs.cli.choosing import INSTEAD, choices, chosen, lives
from layerfs.cli.context import Context
from layerfs.cli.named import each_container, signal_type
from layerfs.cli.options import Args, Command, one

__all__ = ["COMMAND", "run"]

COMMAND = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    [
        *choices(" that run"),
        one("-s", "--signal", help="The signal, by name or number (default KILL)", type=signal_type, metavar="signal"),
    ],
    least=1,
    instead=INSTEAD,
)


def run(args: Args, context: Context) -> int:
    """Signal the first process of each container."""
    number = args.signal if args.signal is not None else signal.SIGKILL
    names = chosen(args, context, lives)
    return each_container(context, names, lambda container: container.kill(number))
