"""``layerfs system migrate``: keep layers in the other format."""

from __future__ import annotations

from layerfs.cli.context import Context
from layerfs.cli.options import Args, Command, flag

__all__ = ["COMMAND", "run"]

COMMAND = Command(
    "[OPTIONS] FORMAT",
    [flag("-q", "--quiet", help="Show no progress")],
    least=1,
    most=1,
    notes="FORMAT is erofs or dir. No container may run and nothing be mounted; it takes all layers' space twice.\n"
    "Without privilege, dir again gives layers their owners that were made before this user had ranges in /etc/subuid.",
)


def run(args: Args, context: Context) -> None:
    """Convert every layer and print how many there were."""
    count = context.store.migrate(args.rest[0], progress=context.progress(args.quiet))
    context.close_progress()
    context.out(f"Layers are kept in format {context.store.layer_format} now; {count} were changed over.\n")
