"""``layerfs wait``: wait until containers end."""

from __future__ import annotations

from layerfs.cli.choosing import INSTEAD, choices, chosen
from layerfs.cli.context import Context
from layerfs.cli.options import Args, Command, flag
from layerfs.errors import NotFoundError

__all__ = ["COMMAND", "run"]

COMMAND = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    [*choices(""), flag("--ignore", help="One that is not there has ended with -1")],
    least=1,
    instead=INSTEAD,
)


def run(args: Args, context: Context) -> int:
    """Print the exit code of each container, as it ends."""

    def wait(name: str) -> None:
        try:
            code = context.store.containers.get(name).wait(run=True)
        except NotFoundError:
            if not args.ignore:
                raise
            code = -1
        context.out(f"{code}\n")

    return context.each(chosen(args, context), wait)
