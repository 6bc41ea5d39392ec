"""``layerfs cat``: the content of files of an image, read from its layers without a mount."""

from __future__ import annotations

import os
import sys

from layerfs.cli.context import Context
from layerfs.cli.options import Args, Command

__all__ = ["COMMAND", "run"]

COMMAND = Command("IMAGE PATH [PATH...]", least=2, notes="IMAGE may also be the diff ID of a layer.")


def run(args: Args, context: Context) -> None:
    """Write the files one after another."""
    with context.store.view(args.rest[0]) as view:
        for path in args.rest[1:]:
            for piece in view.read(os.fsencode(path)):
                sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()
