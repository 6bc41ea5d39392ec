"""``layerfs load``: bring in the images of an archive."""

from __future__ import annotations

from layerfs.cli.context import Context
from layerfs.cli.limits import LIMITS, limits_of
from layerfs.cli.options import Args, Command, flag, one

__all__ = ["COMMAND", "run"]

COMMAND = Command(
    "[OPTIONS]",
    [
        one("-i", "--input", help="Read this file or OCI layout directory, not the standard input", metavar="FILE"),
        one("--platform", help="Take the images for this platform alone", metavar="os/arch[/variant]"),
        flag("-q", "--quiet", help="Show no progress"),
        *LIMITS,
    ],
    most=0,
    notes="Archives of docker and podman are read, OCI archives, and both compressed by gzip, zstd, bzip2, xz or lz4.",
)


def run(args: Args, context: Context) -> None:
    """Load and print the name of each image, or its ID where the archive has no name for it."""
    from layerfs.oci import Platform

    loaded = context.store.load(
        args.input if args.input and args.input != "-" else context.binary_in("an archive"),
        platform=Platform.parse(args.platform) if args.platform else None,
        progress=context.progress(args.quiet),
        limits=limits_of(args),
    )
    for each in loaded:
        for name in each.names:
            context.out(f"Loaded image: {name}\n")
        if not each.names:
            context.out(f"Loaded image ID: {each.image.id}\n")
