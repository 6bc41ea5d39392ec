"""``layerfs run``: make a container, run it, and end with its exit code."""

from __future__ import annotations

from layerfs.cli.context import Context
from layerfs.cli.fetching import PULL, fetch_image
from layerfs.cli.options import Args, Command, Option, flag
from layerfs.cli.run_options import RUN_OPTIONS
from layerfs.errors import UnsupportedError

__all__ = ["COMMAND", "run"]

_NOT_OFFERED = (
    Option(("-a", "--attach"), "", type=str, metavar="", repeated=True, hidden=True),
    Option(("-d", "--detach"), "", type=None, metavar="", hidden=True),
    Option(("--detach-keys",), "", type=str, metavar="", hidden=True),
)

COMMAND = Command(
    "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    [
        *RUN_OPTIONS,
        *PULL,
        *_NOT_OFFERED,
        flag("--sig-proxy", help="Hand signals on to it", default=True),
    ],
    least=1,
    interspersed=False,
)


def run(args: Args, context: Context) -> int:
    """Run the command in the foreground; its exit code is that of layerfs."""
    from layerfs.cli.verbs.create import options_of

    for option in _NOT_OFFERED:
        if getattr(args, option.key):
            raise UnsupportedError(f"option {option.names[-1]}: not offered")
    options = options_of(args)
    fetch_image(args, context)
    containers = context.store.containers
    if args.cidfile is None:
        return containers.run(options, sig_proxy=args.sig_proxy)[1]
    from layerfs.cli.cidfile import Cidfile

    with Cidfile(args.cidfile) as cidfile:
        container = containers.create(options)
        cidfile.write(container.id)
    return container.run(sig_proxy=args.sig_proxy)
