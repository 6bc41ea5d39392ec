"""``layerfs tag``: give an image more names."""

from __future__ import annotations

from layerfs.cli.context import Context
from layerfs.cli.options import Args, Command

__all__ = ["COMMAND", "run"]

COMMAND = Command("IMAGE NAME[:TAG] [NAME[:TAG]...]", least=2)


def run(args: Args, context: Context) -> None:
    """Let each name point at the image."""
    for name in args.rest[1:]:
        context.store.images.tag(args.rest[0], name)
