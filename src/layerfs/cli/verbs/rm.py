"""``layerfs rm``: remove containers with their changes."""

from __future__ import annotations

from layerfs.cli.choosing import INSTEAD, choices, chosen
from layerfs.cli.context import Context
from layerfs.cli.options import Args, Command, flag, one
from layerfs.errors import NotFoundError

__all__ = ["COMMAND", "run"]

COMMAND = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    [
        *choices("", short="a"),
        flag("-f", "--force", help="Kill one that runs; one that is not there is no error"),
        flag("-i", "--ignore", help="One that is not there is no error"),
        one("-t", "--time", help="With --force, seconds between asking it to end and its end by force", type=int),
        flag("-v", "--volumes", help="Remove the volumes without a name that it brought"),
    ],
    least=1,
    instead=INSTEAD,
)


def run(args: Args, context: Context) -> int:
    """Remove each container and print its name as it was given."""

    def remove(name: str) -> None:
        try:
            container = context.store.containers.get(name)
            if args.force and args.time is not None:
                container.stop(args.time)
            container.remove(force=args.force, volumes=args.volumes)
        except NotFoundError:
            if not args.force and not args.ignore:
                raise
            return
        context.out(f"{name}\n")

    return context.each(chosen(args, context), remove)
