"""``layerfs untag``: take names from an image, which stays."""

from __future__ import annotations

from layerfs.cli.context import Context
from layerfs.cli.options import Args, Command

__all__ = ["COMMAND", "run"]

COMMAND = Command(
    "IMAGE [NAME[:TAG]...]",
    least=1,
    notes="Without names all that the image has. An image without a name stays until it is pruned.",
)


def run(args: Args, context: Context) -> None:
    """Take all of the names, or none where one of them is not the image's."""
    context.store.images.untag(args.rest[0], args.rest[1:])
