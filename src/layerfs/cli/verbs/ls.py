"""``layerfs ls``: the files of a container, or of an image, which are read from its layers without a mount."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from layerfs.cli.context import Context
from layerfs.cli.named import container_or_view
from layerfs.cli.options import Args, Command, flag
from layerfs.cli.texts import shown_path
from layerfs.cli.units import size

if TYPE_CHECKING:
    from layerfs.containers import Container
    from layerfs.layers import FileEntry, View

__all__ = ["COMMAND", "run"]

COMMAND = Command(
    "[OPTIONS] NAME [PATH...]",
    [
        flag("-d", "--directory", help="Show a directory itself, not what is in it"),
        flag("-h", "--human", help="Show sizes with units"),
        flag("-l", "--long", help="Show type, permissions, links, owner, size and time"),
        flag("-R", "--recursive", help="Show all below, by whole paths"),
    ],
    least=1,
    notes="A name is that of a container or an image, or the diff ID of a layer. Of a container that does not\n"
    "run, what is mounted in it is listed by a path into the mount alone.",
)


def run(args: Args, context: Context) -> None:
    """Print a line for each file."""
    with container_or_view(context, args.rest[0]) as files:
        for path in args.rest[1:] or ["/"]:
            if len(args.rest) > 2 and not args.recursive:
                context.out(f"{path}:\n")
            for entry in _entries(files, path, args):
                name = entry.path if args.recursive or args.directory else entry.name or b"/"
                context.out(shown_path(_line(entry, name, args)) + "\n")


def _entries(files: Container | View, path: str, args: Args) -> Iterator[FileEntry]:
    from layerfs.layers import View  # as in cat

    if not isinstance(files, View):
        yield from files.files(path, itself=args.directory, recursive=args.recursive)
        return
    name = os.fsencode(path)
    entry = files.stat(name) if args.directory else files.resolve(name)
    if args.directory or not entry.is_dir:
        yield entry
    elif args.recursive:
        yield from files.walk(entry)
    else:
        yield from files.listdir(entry)


def _line(entry: FileEntry, name: bytes, args: Args) -> bytes:
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
