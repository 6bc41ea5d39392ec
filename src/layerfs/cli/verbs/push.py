"""``layerfs push``: send images to a registry."""

from __future__ import annotations

from layerfs.cli.access import ACCESS, open_access
from layerfs.cli.context import Context
from layerfs.cli.options import Args, Command, flag, one
from layerfs.errors import InvalidInputError, NotFoundError

__all__ = ["COMMAND", "run"]

COMMAND = Command(
    "[OPTIONS] IMAGE [NAME[:TAG]]",
    [
        flag("-a", "--all-tags", help="Send all tags of the repository that are here"),
        one(
            "--compression",
            help="How to send layers whose blobs are not here",
            default="gzip",
            choices=("gzip", "zstd", "none"),
        ),
        one("--compression-level", help="How hard to compress them", type=int, metavar="number"),
        flag("--disable-content-trust", help="Accepted because docker has it, and ignored", default=True),
        flag("-q", "--quiet", help="Print only the name"),
        *ACCESS,
    ],
    least=1,
    most=2,
    notes="With a second name the image goes there; else to where its own name says.",
)


def run(args: Args, context: Context) -> None:
    """Push and print the digests."""
    from layerfs.exchange import push

    progress = context.progress(args.quiet, plain=True)
    with open_access(args, progress) as access:
        for image in _images(args, context):
            pushed = push(
                context.store.parts,
                image,
                args.rest[1] if len(args.rest) > 1 else None,
                compression=args.compression,
                level=args.compression_level,
                progress=progress,
                access=access,
            )
            if args.quiet:
                context.out(f"{pushed.reference}\n")
            else:
                context.out(f"The push refers to repository [{pushed.reference.name}]\n")
                context.out(f"{pushed.reference.tag}: digest: {pushed.target.digest} size: {pushed.target.size}\n")


def _images(args: Args, context: Context) -> list[str]:
    """The names to push: the one that is given, or all of its repository."""
    from layerfs.reference import Reference

    if not args.all_tags:
        return [args.rest[0]]
    wanted = Reference.parse(args.rest[0])
    if wanted.tag is not None or wanted.digest is not None or len(args.rest) > 1:
        raise InvalidInputError("push: with --all-tags a repository alone is wanted")
    names = [name for name, _ in context.store.database.names() if Reference.parse(name).name == wanted.name]
    if not names:
        raise NotFoundError(f"push {wanted.familiar_name}: no tag of it is in the store")
    return names
