"""``layerfs rmi``: remove names of images, and images."""

from __future__ import annotations

from layerfs.cli.context import Context
from layerfs.cli.options import Args, Command, flag
from layerfs.errors import NotFoundError

__all__ = ["COMMAND", "run"]

COMMAND = Command(
    "[OPTIONS] IMAGE [IMAGE...]",
    [
        flag(
            "-f",
            "--force",
            help="Also remove an image that has several names, or that a container was made from; it need not be there",
        ),
        flag("--no-prune", help="Leave layers and blobs that nothing needs any more; a later prune takes them"),
    ],
    least=1,
)


def run(args: Args, context: Context) -> int:
    """Remove each image and print what went."""

    def remove(name: str) -> None:
        for removal in context.store.remove_image(name, force=args.force, prune=not args.no_prune):
            context.out(f"{removal.kind.capitalize()}: {removal.what}\n")

    return context.each(args.rest, remove, ignored=NotFoundError if args.force else None)
