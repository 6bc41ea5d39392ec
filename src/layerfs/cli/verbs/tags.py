"""``layerfs tags``: the tags of a repository in a registry."""

from __future__ import annotations

from layerfs.cli.access import ACCESS, open_access
from layerfs.cli.context import Context
from layerfs.cli.options import Args, Command, one

__all__ = ["COMMAND", "run"]

COMMAND = Command(
    "[OPTIONS] REPOSITORY",
    [one("--format", help="'json': one list", choices=("json",)), *ACCESS],
    least=1,
    most=1,
)


def run(args: Args, context: Context) -> None:
    """Print a line for each tag."""
    from layerfs.exchange import list_tags

    with open_access(args) as access:
        tags = list_tags(args.rest[0], access=access)
    if args.format:
        import json

        context.out(json.dumps(tags) + "\n")
    else:
        context.out("".join(f"{tag}\n" for tag in tags))
