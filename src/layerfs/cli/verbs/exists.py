"""``exists`` of containers, images and volumes: an exit code for scripts, and no output."""

from __future__ import annotations

from layerfs.cli.context import Context
from layerfs.cli.options import Args, Command
from layerfs.errors import NotFoundError

__all__ = ["COMMANDS", "run"]

COMMANDS = {name: Command(name.upper(), least=1, most=1) for name in ("container", "image", "volume")}


def run(args: Args, context: Context) -> int:
    """End with 0 for one that is there, with 1 for one that is not."""
    store = context.store
    find = {"container": store.containers.get, "image": store.images.find, "volume": store.containers.volumes.get}
    try:
        find[context.kind](args.rest[0])
    except NotFoundError:
        return 1
    return 0
