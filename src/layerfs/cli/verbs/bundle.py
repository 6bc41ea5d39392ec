"""``layerfs bundle``: an OCI bundle of an image, for a runtime of the user's own."""

from __future__ import annotations

import shlex
from pathlib import Path

from layerfs.cli.context import Context
from layerfs.cli.fetching import PULL, fetch_image
from layerfs.cli.lean import import_values
from layerfs.cli.options import Args, Command, flag
from layerfs.cli.run_options import RUN_OPTIONS, flags_of

__all__ = ["COMMAND", "run"]

COMMAND = Command(
    "[OPTIONS] IMAGE DIRECTORY [COMMAND] [ARG...]",
    [
        *RUN_OPTIONS,
        *PULL,
        flag("--mount-instructions", help="Do not mount the root: print the commands that do, after the ID"),
    ],
    least=2,
    interspersed=False,
    notes="The directory is new or empty. The root stays mounted in it until the container is removed.",
)


def run(args: Args, context: Context) -> None:
    """Make the container, write the bundle, and print the container's ID."""
    import_values()
    from layerfs.cli.cidfile import Cidfile
    from layerfs.containers import create_options

    image, directory, *command = args.rest
    options = create_options(image, command, flags_of(args))
    fetch_image(args, context)
    with Cidfile(args.cidfile) as cidfile:
        container, bundle = context.store.containers.bundle(
            options, Path(directory), mounted=not args.mount_instructions
        )
        cidfile.write(container.id)
    context.out(f"{container.id}\n")
    for words in bundle.mounts:
        context.out(f"{shlex.join(words)}\n")
