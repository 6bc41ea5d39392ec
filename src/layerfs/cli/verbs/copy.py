"""``layerfs copy``: copy an image between registries and archives, past the store."""

from __future__ import annotations

from layerfs.cli.access import ACCESS, open_access
from layerfs.cli.context import Context
from layerfs.cli.options import Args, Command, flag, many

__all__ = ["COMMAND", "run"]

COMMAND = Command(
    "[OPTIONS] SOURCE DESTINATION",
    [
        many("--platform", help="Copy this platform alone, or these", metavar="os/arch[/variant]"),
        flag("-q", "--quiet", help="Show no progress"),
        *ACCESS,
    ],
    least=2,
    most=2,
    notes="Each side is a name in a registry, docker-archive:FILE[:NAME], oci-archive:FILE[:NAME] or oci:DIR[:NAME].",
)


def run(args: Args, context: Context) -> None:
    """Copy and print the digest."""
    from layerfs.exchange import copy_image
    from layerfs.oci import Platform

    progress = context.progress(args.quiet, plain=True)
    with open_access(args, progress) as access:
        copied = copy_image(
            args.rest[0],
            args.rest[1],
            platforms=[Platform.parse(text) for text in args.platform] or None,
            progress=progress,
            access=access,
        )
    context.out(f"{copied.digest}\n")
