"""``layerfs diff``: which paths differ."""

from __future__ import annotations

import os
import sys
from itertools import islice
from typing import TYPE_CHECKING

from layerfs.cli.context import Context
from layerfs.cli.options import Args, Command, one
from layerfs.cli.texts import shown_path

if TYPE_CHECKING:
    from layerfs.native import Change

__all__ = ["COMMAND", "run"]

_LINES = 1000
_KINDS = {"C": "changed", "A": "added", "D": "deleted"}
_LINE = {kind: f"{kind} /".encode() for kind in _KINDS}

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
        write = _shown if sys.stdout.isatty() else _exact
        while piece := list(islice(changes, _LINES)):
            context.out(write(piece))
        return
    import json

    found: dict[str, list[str]] = {"changed": [], "added": [], "deleted": []}
    for change in changes:
        found[_KINDS[change.kind]].append(os.fsdecode(b"/" + change.path))
    context.out(json.dumps({name: paths for name, paths in found.items() if paths}) + "\n")


def _exact(changes: list[Change]) -> str:
    """Many are decoded at once: there may be a million."""
    return os.fsdecode(b"\n".join([_LINE[change.kind] + change.path for change in changes]) + b"\n")


def _shown(changes: list[Change]) -> str:
    return "".join([f"{change.kind} {shown_path(b'/' + change.path)}\n" for change in changes])
