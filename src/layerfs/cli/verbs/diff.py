"""``layerfs diff``: which paths differ."""

from __future__ import annotations

import os
from itertools import islice

from layerfs.cli.context import Context
from layerfs.cli.options import Args, Command, one
from layerfs.cli.texts import shown_path

__all__ = ["COMMAND", "run"]

_LINES = 1000
_KINDS = {"C": "changed", "A": "added", "D": "deleted"}

COMMAND = Command(
    "[OPTIONS] NAME [NAME]",
    [one("--format", help="'json': one object with three lists", choices=("json",))],
    least=1,
    most=2,
    notes="A name is that of a container or an image, or the diff ID of a layer. With one name: what the container\n"
    "changed, or what the last layer of the image did. A is added, C changed, D deleted.",
)


def run(args: Args, context: Context) -> None:
    """Print a line for each path, sorted."""
    changes = context.store.diff(*args.rest)
    if not args.format:
        lines = (f"{change.kind} {shown_path(_absolute(change.path))}\n" for change in changes)
        while piece := "".join(islice(lines, _LINES)):
            context.out(piece)
        return
    import json

    found: dict[str, list[str]] = {"changed": [], "added": [], "deleted": []}
    for change in changes:
        found[_KINDS[change.kind]].append(os.fsdecode(_absolute(change.path)))
    context.out(json.dumps({name: paths for name, paths in found.items() if paths}) + "\n")


def _absolute(path: bytes) -> bytes:
    return b"/" + path.lstrip(b"/")
