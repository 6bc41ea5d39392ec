"""``layerfs import``: make an image of a root file system."""

from __future__ import annotations

from layerfs.cli.context import Context
from layerfs.cli.limits import LIMITS, limits_of
from layerfs.cli.options import Args, Command, many, one
from layerfs.errors import InvalidInputError

__all__ = ["COMMAND", "run"]

COMMAND = Command(
    "[OPTIONS] FILE|DIRECTORY|- [NAME[:TAG]]",
    [
        many("-c", "--change", help="Apply an instruction of a Dockerfile, as CMD or ENV", metavar="instruction"),
        one("-m", "--message", help="A comment for the image's history", metavar="text", default=""),
        one("--platform", help="What the image runs on", metavar="os/arch[/variant]"),
        *LIMITS,
    ],
    least=1,
    most=2,
    notes="The file is a tar, plain or compressed by gzip, zstd, bzip2, xz or lz4; - is the standard input.",
)


def run(args: Args, context: Context) -> None:
    """Import and print the image ID."""
    from layerfs.oci import Platform

    source, name = args.rest[0], args.rest[1] if len(args.rest) > 1 else None
    if source.startswith(("http://", "https://")):
        raise InvalidInputError(f"import {source}: URLs are not offered", hint="curl -L URL | layerfs import - NAME")
    image = context.store.import_image(
        context.binary_in("a tar archive") if source == "-" else source,
        name,
        changes=args.change,
        message=args.message,
        platform=Platform.parse(args.platform) if args.platform else None,
        limits=limits_of(args),
    )
    context.out(f"{image.id}\n")
