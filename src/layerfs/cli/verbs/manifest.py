"""``layerfs manifest inspect``: an index that is here, or the manifest or index that a registry has under a name."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from layerfs.cli.access import ACCESS, open_access
from layerfs.cli.context import Context
from layerfs.cli.options import Args, Command, flag, one
from layerfs.errors import InvalidInputError, NotFoundError

if TYPE_CHECKING:
    from layerfs.oci import Platform

__all__ = ["COMMAND", "run"]

COMMAND = Command(
    "[OPTIONS] NAME[:TAG|@DIGEST]",
    [
        one("--platform", help="Of an index, show the manifest for this platform", metavar="os/arch[/variant]"),
        flag("--raw", help="Print the bytes as they are, whose digest the registry knows"),
        *ACCESS,
    ],
    least=1,
    most=1,
)


def run(args: Args, context: Context) -> None:
    """Print it, laid out to be read."""
    import json

    from layerfs.exchange import inspect_manifest
    from layerfs.oci import Platform

    platform = Platform.parse(args.platform) if args.platform else None
    data = _here(context, args.rest[0], platform)
    if data is None:
        with open_access(args) as access:
            data = inspect_manifest(args.rest[0], platform=platform, access=access).data
    if args.raw:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    else:
        context.out(json.dumps(json.loads(data), indent=4, ensure_ascii=False) + "\n")


def _here(context: Context, text: str, platform: Platform | None) -> bytes | None:
    """The bytes of an index that is in the store, or of its manifest for a platform; None for all else."""
    from layerfs.oci import MANIFEST_LIMIT

    store = context.store
    try:
        store.images.index(text)
    except (NotFoundError, InvalidInputError):
        return None
    image = store.images.get(text, platform) if platform else None
    digest = image.manifest_descriptor.digest if image else store.images.find(text).target.digest
    return store.content.read(digest, MANIFEST_LIMIT)
