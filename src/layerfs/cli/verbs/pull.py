"""``layerfs pull``: bring images from a registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from layerfs.cli.access import ACCESS, open_access
from layerfs.cli.context import Context
from layerfs.cli.limits import LIMITS, limits_of
from layerfs.cli.options import Args, Command, flag, one
from layerfs.errors import InvalidInputError

if TYPE_CHECKING:
    from layerfs.exchange import Pulled

__all__ = ["COMMAND", "run"]

COMMAND = Command(
    "[OPTIONS] NAME[:TAG|@DIGEST]",
    [
        flag("-a", "--all-tags", help="Bring all tags of the repository"),
        flag("--all-platforms", help="Bring the image for all platforms"),
        flag("--disable-content-trust", help="Accepted because docker has it, and ignored", default=True),
        one("--platform", help="Bring the image for this platform", metavar="os/arch[/variant]"),
        flag("-q", "--quiet", help="Print only the name"),
        *LIMITS,
        *ACCESS,
    ],
    least=1,
    most=1,
)


def run(args: Args, context: Context) -> None:
    """Pull and print what came."""
    from layerfs.exchange import pull, pull_all_tags
    from layerfs.oci import Platform
    from layerfs.reference import Reference

    if args.all_tags and args.given & {"max_layer_bytes", "max_layer_entries", "max_layer_metadata"}:
        raise InvalidInputError("pull: limits cannot go with --all-tags")
    reference = Reference.parse(args.rest[0])
    platform = Platform.parse(args.platform) if args.platform else None
    progress = context.progress(args.quiet, plain=True)
    limits = limits_of(args)
    with open_access(args, progress) as access:
        if args.all_tags:
            for pulled in pull_all_tags(
                context.store.parts,
                args.rest[0],
                platform=platform,
                all_platforms=args.all_platforms,
                progress=progress,
                access=access,
            ):
                _report(context, args, pulled)
            return
        if not args.quiet and reference.tag is None and reference.digest is None:
            context.out("Using default tag: latest\n")
        pulled = pull(
            context.store.parts,
            args.rest[0],
            platform=platform,
            all_platforms=args.all_platforms,
            max_bytes=limits.max_layer_bytes,
            max_entries=limits.max_layer_entries,
            max_metadata=limits.max_layer_metadata,
            progress=progress,
            access=access,
        )
    _report(context, args, pulled)


def _report(context: Context, args: Args, pulled: Pulled) -> None:
    if not args.quiet:
        what = "Downloaded newer image for" if pulled.new else "Image is up to date for"
        context.out(f"Digest: {pulled.digest}\nStatus: {what} {pulled.reference.familiar}\n")
    context.out(f"{pulled.reference}\n")
