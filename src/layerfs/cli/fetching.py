"""``--pull`` of ``run`` and ``create``: bring the image that is missing."""

from __future__ import annotations

from layerfs.cli.context import Context
from layerfs.cli.lean import import_http
from layerfs.cli.options import Args, flag, one
from layerfs.errors import NotFoundError

__all__ = ["PULL", "fetch_image"]

PULL = (
    one("--pull", help="When to pull the image", default="missing", choices=("always", "missing", "never")),
    flag("-q", "--quiet", help="Show no progress of the pull"),
    flag("--disable-content-trust", help="Accepted because docker has it, and ignored", default=True),
)


def fetch_image(args: Args, context: Context) -> None:
    """Pull the image that the first argument names, as ``--pull`` asks for it."""
    name = args.rest[0]
    if args.pull != "always":
        try:
            context.store.images.find(name)
            return
        except NotFoundError as error:
            if args.pull == "never":
                error.hint = "with --pull missing it is pulled"
                raise
    import_http()
    from layerfs.exchange import pull  # most runs find their image here
    from layerfs.oci import Platform

    if not args.quiet and args.pull == "missing":
        context.err(f"Image {name} is not here, pulling it.\n")
    platform = Platform.parse(args.platform) if args.platform else None
    pull(context.store.parts, name, platform=platform, progress=context.progress(args.quiet, plain=True))
    context.close_progress()
