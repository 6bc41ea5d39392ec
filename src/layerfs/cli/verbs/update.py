"""``layerfs update``: change the limits of containers."""

from __future__ import annotations

from layerfs.cli.context import Context
from layerfs.cli.named import each_container
from layerfs.cli.options import Args, Command
from layerfs.cli.run_options import RUN_OPTIONS
from layerfs.errors import InvalidInputError

__all__ = ["COMMAND", "run"]

_NAMES = (
    "cpu_period",
    "cpu_quota",
    "cpu_shares",
    "cpus",
    "cpuset_cpus",
    "cpuset_mems",
    "memory",
    "memory_reservation",
    "memory_swap",
    "pids_limit",
    "restart",
)

COMMAND = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]", [option for option in RUN_OPTIONS if option.key in _NAMES], least=1
)


def run(args: Args, context: Context) -> int:
    """Change what is given."""
    from layerfs.containers import create_options

    if not args.given:
        raise InvalidInputError("update: nothing to change is given")
    options = create_options("", (), {name: getattr(args, name) for name in args.given})
    changes = {name: value for name in args.given if (value := getattr(options, name)) is not None}  # 0: as it was
    return each_container(context, args.rest, lambda container: container.update(**changes))
