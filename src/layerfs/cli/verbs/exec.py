"""``layerfs exec``: run one more command in a container that runs."""

from __future__ import annotations

from layerfs.cli.context import Context
from layerfs.cli.options import Args, Command, flag, many, one

__all__ = ["COMMAND", "run"]

COMMAND = Command(
    "[OPTIONS] CONTAINER COMMAND [ARG...]",
    [
        flag("-d", "--detach", help="Do not wait for it"),
        one("--detach-keys", help="Keys that leave its terminal", default="ctrl-p,ctrl-q", metavar="keys"),
        many("-e", "--env", help="Set a variable; a NAME alone takes the value from here", metavar="NAME[=VALUE]"),
        many("--env-file", help="Set the variables in a file", metavar="FILE"),
        flag("-i", "--interactive", help="Keep the standard input open"),
        flag("--privileged", help="Let it do all that root may"),
        flag("-t", "--tty", help="Give it a terminal"),
        one("-u", "--user", help="Run as this user, by name or number", metavar="user[:group]"),
        one("-w", "--workdir", help="Start in this directory", metavar="DIR"),
    ],
    least=2,
    interspersed=False,
)


def run(args: Args, context: Context) -> int:
    """Run it; its exit code is that of layerfs."""
    from layerfs.containers import create_options

    # Variables are read as those of run.
    env = create_options("", (), {"env": args.env, "env_file": args.env_file}).env
    return context.store.containers.get(args.rest[0]).exec(
        args.rest[1:],
        env=env,
        user=args.user,
        workdir=args.workdir,
        tty=args.tty,
        interactive=args.interactive,
        privileged=args.privileged,
        detach=args.detach,
        detach_keys=args.detach_keys,
    )
