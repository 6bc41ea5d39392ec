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
    Option(("--detach-keys",), "", type=str, metavar="", hidden=True),
)
_SUPERVISED = ("health_cmd", "health_interval", "health_retries", "health_start_period", "health_timeout", "restart")

COMMAND = Command(
    "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    [
        *RUN_OPTIONS,
        *PULL,
        *_NOT_OFFERED,
        flag("-d", "--detach", help="Run it in the background and print its ID"),
        flag("--sig-proxy", help="Hand signals on to it", default=True),
    ],
    least=1,
    interspersed=False,
)


def run(args: Args, context: Context) -> int:
    """Run the command in the foreground, and end with its exit code; or in the background."""
    from layerfs.cli.verbs.create import options_of

    for option in _NOT_OFFERED:
        if option.key in args.given:
            raise UnsupportedError(f"option {option.names[-1]}: not offered")
    for name in _SUPERVISED:
        if name in args.given and not args.detach and getattr(args, name) != "no":
            raise UnsupportedError(f"option --{name.replace('_', '-')}: not offered in the foreground", hint="give -d")
    options = options_of(args)
    fetch_image(args, context)
    containers = context.store.containers
    if args.cidfile is None and not args.detach:
        return containers.run(options, sig_proxy=args.sig_proxy)[1]
    from layerfs.cli.cidfile import Cidfile

    with Cidfile(args.cidfile) as cidfile:
        container = containers.start(options) if args.detach else containers.create(options)
        cidfile.write(container.id)
    if not args.detach:
        return container.run(sig_proxy=args.sig_proxy)
    context.out(f"{container.id}\n")
    return 0
