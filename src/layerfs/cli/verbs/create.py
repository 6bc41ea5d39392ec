"""``layerfs create``: make a container, which ``layerfs start`` runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerfs.cli.context import Context
from layerfs.cli.fetching import PULL, fetch_image
from layerfs.cli.lean import import_values
from layerfs.cli.options import Args, Command
from layerfs.cli.run_options import RUN_OPTIONS, flags_of
from layerfs.errors import InvalidInputError

if TYPE_CHECKING:
    from layerfs.containers import CreateOptions

__all__ = ["COMMAND", "make_room", "options_of", "run"]

COMMAND = Command("[OPTIONS] IMAGE [COMMAND] [ARG...]", [*RUN_OPTIONS, *PULL], least=1, interspersed=False)


def run(args: Args, context: Context) -> None:
    """Create the container and print its ID."""
    from layerfs.cli.cidfile import Cidfile

    options = options_of(args)
    fetch_image(args, context)
    make_room(args, context, options.name)
    with Cidfile(args.cidfile) as cidfile:
        container = context.store.containers.create(options)
        cidfile.write(container.id)
    context.out(f"{container.id}\n")


def make_room(args: Args, context: Context, name: str | None) -> None:
    """With --replace, remove the container that has the name."""
    if not args.replace:
        return
    if name is None:
        raise InvalidInputError("option --replace: it goes with --name")
    for container in context.store.containers.list():
        if container.name == name.removeprefix("/"):
            container.remove(force=True)


def options_of(args: Args) -> CreateOptions:
    """Return what the user wants the container to be."""
    import_values()
    from layerfs.containers import create_options

    flags = flags_of(args)
    if not flags.get("attach") and not getattr(args, "detach", False):
        flags["attach"] = ("stdin", "stdout", "stderr")[0 if args.interactive else 1 :]
    return create_options(args.rest[0], args.rest[1:], flags)
