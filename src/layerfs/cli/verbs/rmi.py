"""``layerfs rmi``: remove names of images, and images."""

from __future__ import annotations

from collections.abc import Iterable

from layerfs.cli.context import Context
from layerfs.cli.options import Args, Command, flag
from layerfs.errors import NotFoundError

__all__ = ["COMMAND", "run"]

COMMAND = Command(
    "[OPTIONS] IMAGE [IMAGE...]",
    [
        flag("-a", "--all", help="All images, but those that containers were made from"),
        flag(
            "-f",
            "--force",
            help="Also remove an image that has several names, or that a container was made from; it need not be there",
        ),
        flag("-i", "--ignore", help="One that is not there is no error"),
        flag("--no-prune", help="Leave layers and blobs that nothing needs any more; a later prune takes them"),
    ],
    least=1,
    instead=("all",),
)


def run(args: Args, context: Context) -> int:
    """Remove each image and print what went."""

    def remove(name: str) -> None:
        try:
            for removal in context.store.remove_image(name, force=args.force, prune=not args.no_prune and not args.all):
                context.out(f"{removal.kind.capitalize()}: {removal.what}\n")
        except NotFoundError:
            if not args.ignore:
                raise

    code = context.each(_all(context) if args.all else args.rest, remove, ignored=NotFoundError if args.force else None)
    if args.all and not args.no_prune:
        for layer in context.store.sweep().layers:  # once, not for each image
            context.out(f"Deleted: {layer}\n")
    return code


def _all(context: Context) -> Iterable[str]:
    """All names, and the digests of images that have none; of those whose documents are damaged, too."""
    from layerfs.reference import Reference

    database = context.store.database
    names = database.names()
    named = {target for _, target in names}
    bare = [row.target.digest for row in database.images() if row.target.digest not in named]
    return [*(Reference.parse(name).familiar for name, _ in names), *bare]
