"""``layerfs run``: make a container, run it, and end with its exit code."""

from __future__ import annotations

import sys

from layerfs.cli.context import Context
from layerfs.cli.fetching import PULL, fetch_image
from layerfs.cli.options import Args, Command, flag, one
from layerfs.cli.run_options import RUN_OPTIONS
from layerfs.errors import InvalidInputError

__all__ = ["COMMAND", "run"]

COMMAND = Command(
    "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    [
        *RUN_OPTIONS,
        *PULL,
        flag("-d", "--detach", help="Run it in the background and print its ID"),
        one("--detach-keys", help="Keys that leave it", default="ctrl-p,ctrl-q", metavar="keys"),
        flag("--sig-proxy", help="Hand signals on to it", default=True),
    ],
    least=1,
    interspersed=False,
)


def run(args: Args, context: Context) -> int:
    """Run the command in the foreground, and end with its exit code; or in the background."""
    from layerfs.cli.verbs.create import make_room, options_of

    if args.detach and args.attach:
        raise InvalidInputError("run: --attach and --detach contradict one another")
    keys = args.detach_keys if "detach_keys" in args.given else ""
    if keys:  # no image is pulled for keys that are none
        from layerfs.runtime import parse_keys

        parse_keys(keys)
    options = options_of(args)
    fetch_image(args, context)
    make_room(args, context, options.name)
    containers = context.store.containers
    how = {"sig_proxy": args.sig_proxy, "detach_keys": keys}
    silent = options.attach == ("stdin",)  # nothing is shown, and so its ID is
    if args.cidfile is None and not args.detach and not silent:
        return containers.run(options, **how)[1] or 0
    from layerfs.cli.cidfile import Cidfile

    with Cidfile(args.cidfile) as cidfile:
        container = containers.start(options) if args.detach else containers.create(options)
        cidfile.write(container.id)
    if args.detach or silent:
        context.out(f"{container.id}\n")
        sys.stdout.flush()
    return 0 if args.detach else container.run(streams=options.attach, **how) or 0
