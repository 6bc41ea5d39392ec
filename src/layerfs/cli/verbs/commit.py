"""``layerfs commit``: make an image of a container's changes."""

from __future__ import annotations

from layerfs.cli.context import Context
from layerfs.cli.options import Args, Command, Option, flag, many, one
from layerfs.errors import UnsupportedError, native_error

__all__ = ["COMMAND", "run"]

COMMAND = Command(
    "[OPTIONS] CONTAINER [NAME[:TAG]]",
    [
        one("-a", "--author", help="Who made it", default="", metavar="text"),
        many("-c", "--change", help="Apply an instruction of a Dockerfile, as CMD or ENV", metavar="instruction"),
        one("-f", "--format", help="The media types of the manifest", default="oci", choices=("oci", "docker")),
        one("--iidfile", help="Write the image ID to this file", metavar="FILE"),
        one("-m", "--message", help="A comment for the history", default="", metavar="text"),
        Option(("-p", "--pause"), "", type=None, metavar="", hidden=True),
        flag("-q", "--quiet", help="Do not say what of the container the image has not"),
        flag("-s", "--squash", help="Make one layer of all"),
    ],
    least=1,
    most=2,
)


def run(args: Args, context: Context) -> None:
    """Commit and print the image ID."""
    if args.pause:
        raise UnsupportedError("option --pause: not offered")
    committed = context.store.containers.get(args.rest[0]).commit(
        args.rest[1] if len(args.rest) > 1 else None,
        author=args.author,
        message=args.message,
        changes=args.change,
        squash=args.squash,
        format=args.format,
    )
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
