"""``layerfs version``: the version, and what it runs on."""

from __future__ import annotations

from layerfs.cli.context import Context
from layerfs.cli.format import formatted
from layerfs.cli.options import Args, Command, one

__all__ = ["COMMAND", "run"]

COMMAND = Command(
    "[OPTIONS]",
    [one("-f", "--format", help="'json' or a Go template over .Version .Python .Kernel .Os .Arch")],
    most=0,
)


def run(args: Args, context: Context) -> None:
    """Print the version."""
    import os
    import sys

    import layerfs
    from layerfs.platforms import Platform

    host = Platform.host()
    facts = {
        "Version": layerfs.__version__,
        "Python": sys.version.split()[0],
        "Kernel": os.uname().release,
        "Os": host.os,
        "Arch": host.architecture,
    }
    if args.format:
        from layerfs.cli.gotemplate import Fields

        context.out(formatted(Fields(facts), args.format))
        return
    platform = f"{facts.pop('Os')}/{facts.pop('Arch')}"
    for name, value in [*facts.items(), ("Platform", platform)]:
        context.out(f"{name + ':':10}{value}\n")
