"""``layerfs commit``: make an image of a container's changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerfs.cli.context import Context
from layerfs.cli.options import Args, Command, flag, many, one
from layerfs.errors import UnsupportedError, native_error

if TYPE_CHECKING:
    from layerfs.containers import Committed

__all__ = ["COMMAND", "run"]

COMMAND = Command(
    "[OPTIONS] CONTAINER [NAME[:TAG]]",
    [
        one("-a", "--author", help="Who made it", default="", metavar="text"),
        many("-c", "--change", help="Apply an instruction of a Dockerfile, as CMD or ENV", metavar="instruction"),
        one("-f", "--format", help="The media types of the manifest", default="oci", choices=("oci", "docker")),
        one("--iidfile", help="Write the image ID to this file", metavar="FILE"),
        one("-m", "--message", help="A comment for the history", default="", metavar="text"),
        flag("-p", "--pause", help="Let its processes stand still meanwhile", default=True),
        flag("-q", "--quiet", help="Do not say what of the container the image has not"),
        flag("-s", "--squash", help="Make one layer of all"),
        flag("--stack", help="Put only what is new since the last commit with --stack on top of that"),
    ],
    least=1,
    most=2,
)


def run(args: Args, context: Context) -> None:
    """Commit and print the image ID."""
    committed = _commit(args, context)
    if not args.quiet:
        for note in committed.notes:
            context.report(note)
    if args.iidfile:
        try:
            with open(args.iidfile, "w") as file:
                file.write(committed.image.id)
        except OSError as error:
            raise native_error(error, f"write {args.iidfile}") from error
    context.out(f"{committed.image.id}\n")


def _commit(args: Args, context: Context) -> Committed:
    container = context.store.containers.get(args.rest[0])

    def commit(pause: bool) -> Committed:
        return container.commit(
            args.rest[1] if len(args.rest) > 1 else None,
            author=args.author,
            message=args.message,
            changes=args.change,
            pause=pause,
            squash=args.squash,
            stack=args.stack,
            format=args.format,
        )

    try:
        return commit(args.pause)
    except UnsupportedError:
        # Nobody asked for the pause that this host cannot give.
        if not args.pause or "pause" in args.given:
            raise
        return commit(False)
