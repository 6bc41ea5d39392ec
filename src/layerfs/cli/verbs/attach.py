"""``layerfs attach``: join this terminal to a container that runs in the background."""

from __future__ import annotations

from layerfs.cli.context import Context
from layerfs.cli.options import Args, Command, flag, one

__all__ = ["COMMAND", "run"]

COMMAND = Command(
    "[OPTIONS] CONTAINER",
    [
        one("--detach-keys", help="Keys that leave it", default="ctrl-p,ctrl-q", metavar="keys"),
        flag("--no-stdin", help="Do not give it what is typed"),
        flag("--sig-proxy", help="Hand signals on to it", default=True),
    ],
    least=1,
    most=1,
)


def run(args: Args, context: Context) -> int:
    """End with the container's exit code, or with 0 when it was left."""
    container = context.store.containers.get(args.rest[0])
    code = container.attach(stdin=not args.no_stdin, sig_proxy=args.sig_proxy, detach_keys=args.detach_keys)
    return code if code is not None else 0
