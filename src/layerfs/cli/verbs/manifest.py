"""``layerfs manifest inspect``: the manifest or index that a registry has under a name."""

from __future__ import annotations

import sys

from layerfs.cli.access import ACCESS, open_access
from layerfs.cli.context import Context
from layerfs.cli.options import Args, Command, flag, one

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
    with open_access(args) as access:
        found = inspect_manifest(args.rest[0], platform=platform, access=access)
    if args.raw:
        sys.stdout.buffer.write(found.data)
        sys.stdout.buffer.flush()
    else:
        context.out(json.dumps(json.loads(found.data), indent=4, ensure_ascii=False) + "\n")
