"""``layerfs start``: run a container that was created, or that ended, once more."""

from __future__ import annotations

from layerfs.cli.context import Context
from layerfs.cli.options import Args, Command, flag
from layerfs.errors import UnsupportedError

__all__ = ["COMMAND", "run"]

COMMAND = Command(
    "[OPTIONS] CONTAINER",
    [
        flag("-a", "--attach", help="Stay with it, and end with its exit code"),
        flag("-i", "--interactive", help="The same; its input is as it was created"),
        flag("--sig-proxy", help="Hand signals on to it", default=True),
    ],
    least=1,
    most=1,
)


def run(args: Args, context: Context) -> int:
    """Run the container in the foreground."""
    if not args.attach and not args.interactive:
        raise UnsupportedError("start in the background: not offered", hint="with -a it runs in the foreground")
    return context.store.containers.get(args.rest[0]).run(sig_proxy=args.sig_proxy)
