"""``layerfs ls``: the files of an image, read from its layers without a mount."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from layerfs.cli.context import Context
from layerfs.cli.options import Args, Command, flag
from layerfs.cli.texts import shown_path
from layerfs.cli.units import size

if TYPE_CHECKING:
    from layerfs.layers import Entry, View

__all__ = ["COMMAND", "run"]

COMMAND = Command(
    "[OPTIONS] IMAGE [PATH...]",
    [
        flag("-d", "--directory", help="Show a directory itself, not what is in it"),
        flag("-h", "--human", help="Show sizes with units"),
        flag("-l", "--long", help="Show type, permissions, links, owner, size and time"),
        flag("-R", "--recursive", help="Show all below, by whole paths"),
    ],
    least=1,
    notes="IMAGE may also be the diff ID of a layer.",
)


def run(args: Args, context: Context) -> None:
    """Print a line for each file."""
    with context.store.view(args.rest[0]) as view:
        for path in args.rest[1:] or ["/"]:
            if len(args.rest) > 2 and not args.recursive:
                context.out(f"{path}:\n")
            for entry in _entries(view, os.fsencode(path), args):
                name = entry.path if args.recursive or args.directory else entry.name or b"/"
                context.out(shown_path(_line(entry, name, args)) + "\n")


def _entries(view: View, path: bytes, args: Args) -> Iterator[Entry]:
    entry = view.stat(path) if args.directory else view.resolve(path)
    if args.directory or not entry.is_dir:
        yield entry
    elif args.recursive:
        yield from view.walk(entry)
    else:
        yield from view.listdir(entry)


def _line(entry: Entry, name: bytes, args: Args) -> bytes:
    if not args.long:
        return name
    if entry.type in ("char", "block"):
        length = f"{entry.rdev[0]}, {entry.rdev[1]}"
    else:
        length = size(entry.size) if args.human else str(entry.size)
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.mtime_ns // 10**9))
    mode = stat.filemode(entry.mode)
    text = f"{mode} {entry.nlink:>3} {entry.uid:>5} {entry.gid:>5} {length:>10} {when} "
    return text.encode() + name + (b" -> " + entry.target if entry.type == "symlink" else b"")
