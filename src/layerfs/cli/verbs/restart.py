"""``layerfs restart``: stop containers and start them."""

from __future__ import annotations

from layerfs.cli.context import Context
from layerfs.cli.named import each_container, signal_type
from layerfs.cli.options import Args, Command, one

__all__ = ["COMMAND", "run"]

COMMAND = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    [
        one(
            "-s",
            "--signal",
            help="The signal that asks it to end, by name or number",
            type=signal_type,
            metavar="signal",
        ),
        one("-t", "--time", "--timeout", help="Seconds until it is killed, -1: never", type=int, metavar="seconds"),
    ],
    least=1,
)


def run(args: Args, context: Context) -> int:
    """Restart each container."""
    return each_container(context, args.rest, lambda container: container.restart(args.timeout, signal=args.signal))
