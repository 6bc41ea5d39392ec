"""``layerfs start``: run containers that were created, or that ended, once more."""

from __future__ import annotations

from layerfs.cli.choosing import INSTEAD, choices, chosen, lives
from layerfs.cli.context import Context
from layerfs.cli.named import each_container
from layerfs.cli.options import Args, Command, flag, one
from layerfs.errors import InvalidInputError

__all__ = ["COMMAND", "run"]

COMMAND = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    [
        *choices(" that do not run", short=""),
        flag("-a", "--attach", help="Stay with it, and end with its exit code"),
        one("--detach-keys", help="Keys that leave it", default="ctrl-p,ctrl-q", metavar="keys"),
        flag("-i", "--interactive", help="Stay with it, and give it what is typed if it was created with -i"),
        flag("--sig-proxy", help="Hand signals on to it", default=True),
    ],
    least=1,
    instead=INSTEAD,
)


def run(args: Args, context: Context) -> int:
    """Start in the background, or with --attach one in the foreground."""
    names = chosen(args, context, lambda each: not lives(each))
    if not args.attach and not args.interactive:
        return each_container(context, names, lambda container: container.start())
    if len(names) != 1:
        raise InvalidInputError("start: one container alone can be attached to")
    container = context.store.containers.get(names[0])
    if container.status in ("running", "paused", "restarting"):
        code = container.attach(stdin=args.interactive, sig_proxy=args.sig_proxy, detach_keys=args.detach_keys)
        return code if code is not None else 0
    streams = ("stdin", "stdout", "stderr") if args.interactive else ("stdout", "stderr")
    return container.run(streams=streams, sig_proxy=args.sig_proxy, detach_keys=args.detach_keys) or 0
