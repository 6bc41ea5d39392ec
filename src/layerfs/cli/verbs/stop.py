"""``layerfs stop``: ask containers to end, and end them when they do not."""

from __future__ import annotations

from layerfs.cli.choosing import INSTEAD, choices, chosen, lives
from layerfs.cli.context import Context
from layerfs.cli.named import STOPPING
from layerfs.cli.options import Args, Command, flag
from layerfs.errors import NotFoundError

__all__ = ["COMMAND", "run"]

COMMAND = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    [*choices(" that run"), *STOPPING, flag("-i", "--ignore", help="One that is not there is no error")],
    least=1,
    instead=INSTEAD,
)


def run(args: Args, context: Context) -> int:
    """Stop each container and print its name as it was given."""

    def stop(name: str) -> None:
        try:
            context.store.containers.get(name).stop(args.timeout, signal=args.signal)
        except NotFoundError:
            if not args.ignore:
                raise
            return
        context.out(f"{name}\n")

    return context.each(chosen(args, context, lives), stop)
