"""``layerfs export``: the files of a container, or an image, as a tar archive."""

from __future__ import annotations

from layerfs.cli.context import Context
from layerfs.cli.options import Args, Command, one
from layerfs.cli.output import output

__all__ = ["COMMAND", "run"]

COMMAND = Command(
    "[OPTIONS] CONTAINER|IMAGE",
    [one("-o", "--output", help="Write to this file, not to the standard output", metavar="FILE")],
    least=1,
    most=1,
)


def run(args: Args, context: Context) -> None:
    """Write one flat tar; what is mounted in the container is left out."""
    with output(context, args.output, "a tar archive") as sink:
        context.store.export(args.rest[0], sink)
