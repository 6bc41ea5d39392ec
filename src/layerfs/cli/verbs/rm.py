"""``layerfs rm``: remove containers with their changes."""

from __future__ import annotations

from layerfs.cli.context import Context
from layerfs.cli.options import Args, Command, flag
from layerfs.errors import NotFoundError

__all__ = ["COMMAND", "run"]

COMMAND = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    [
        flag("-f", "--force", help="Kill one that runs; one that is not there is no error"),
        flag("-v", "--volumes", help="Remove the volumes without a name that it brought"),
    ],
    least=1,
)


def run(args: Args, context: Context) -> int:
    """Remove each container and print its name as it was given."""

    def remove(name: str) -> None:
        try:
            context.store.containers.get(name).remove(force=args.force, volumes=args.volumes)
        except NotFoundError:
            if not args.force:
                raise
            return
        context.out(f"{name}\n")

    return context.each(args.rest, remove)
