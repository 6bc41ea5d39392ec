"""``layerfs cat``: the content of files of a container, or of an image, read from its layers without a mount."""

from __future__ import annotations

import os
import sys

from layerfs.cli.context import Context
from layerfs.cli.named import container_or_view
from layerfs.cli.options import Args, Command

__all__ = ["COMMAND", "run"]

COMMAND = Command(
    "NAME PATH [PATH...]", least=2, notes="A name is that of a container or an image, or the diff ID of a layer."
)


def run(args: Args, context: Context) -> None:
    """Write the files one after another."""
    from layerfs.layers import View  # help needs it not

    with container_or_view(context, args.rest[0]) as files:
        for path in args.rest[1:]:
            for piece in files.read(os.fsencode(path)) if isinstance(files, View) else files.read(path):
                sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()
