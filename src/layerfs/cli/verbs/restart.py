"""``layerfs restart``: stop containers and start them."""

from __future__ import annotations

from layerfs.cli.choosing import INSTEAD, choices, chosen
from layerfs.cli.context import Context
from layerfs.cli.named import STOPPING, each_container
from layerfs.cli.options import Args, Command

__all__ = ["COMMAND", "run"]

COMMAND = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    [*choices(""), *STOPPING],
    least=1,
    instead=INSTEAD,
)


def run(args: Args, context: Context) -> int:
    """Restart each container."""
    return each_container(
        context, chosen(args, context), lambda container: container.restart(args.timeout, signal=args.signal)
    )
