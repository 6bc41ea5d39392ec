"""``layerfs unmount``: the end of ``layerfs mount``."""

from __future__ import annotations

from layerfs.cli.context import Context
from layerfs.cli.options import Args, Command, flag
from layerfs.errors import InvalidInputError

__all__ = ["COMMAND", "run"]

COMMAND = Command(
    "[OPTIONS] CONTAINER|IMAGE|PATH [CONTAINER|IMAGE|PATH...]",
    [
        flag("-a", "--all", help="Unmount all that is mounted"),
        flag("-f", "--force", help="Detach it even while something in it is in use"),
    ],
)


def run(args: Args, context: Context) -> int:
    """Unmount and print the IDs."""
    if args.all == bool(args.rest):
        raise InvalidInputError("unmount: a name or --all is wanted")
    if args.all:
        for id in context.store.unmount(force=args.force):
            context.out(f"{id}\n")
        return 0

    def unmount(name: str) -> None:
        for id in context.store.unmount(name, force=args.force):
            context.out(f"{id}\n")

    return context.each(args.rest, unmount)
