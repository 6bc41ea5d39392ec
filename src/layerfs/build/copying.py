"""What COPY and ADD are to copy: files of trees, and what they come down to (the cache key).

Small files are read once, for the key, and their content is kept for the layer as long as there is not much of it; all
else is read once for each. ``pieces`` has what is kept, ``placing`` where the files go.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Iterable

import msgspec

from layerfs.build.fingerprint import fingerprint
from layerfs.build.ignore import Matcher
from layerfs.build.memory import FileMemory
from layerfs.build.modes import Chmod
from layerfs.build.pieces import Piece, Pieces, Source
from layerfs.build.stamp import Stamp
from layerfs.build.tree import Cursor, Tree, shown

__all__ = ["CopyFlags", "gather", "known_content"]


class CopyFlags(msgspec.Struct, frozen=True, eq=False):
    """What the flags of an instruction mean for each file."""

    owner: tuple[int, int] | None = None
    chmod: Chmod | None = None
    exclude: Matcher | None = None
    clamp: int | None = None
    """SOURCE_DATE_EPOCH: no time is later than that second."""
    now: int = 0
    """The time, in nanoseconds, of what has none of its own."""


def gather(
    sources: Iterable[Source],
    flags: CopyFlags,
    memory: Callable[[Tree], FileMemory],
    note: Callable[[str], None],
    pieces: Pieces | None = None,
) -> bytes:
    """What all files of the sources come down to together; ``pieces`` gets them. Sockets are left out, with a note."""
    total = hashlib.sha256()
    for source in sources:
        if pieces is not None:
            pieces.begin(source)
        if source.tree is None:
            digest = hashlib.sha256(source.text or b"").digest()
            if pieces is not None:
                pieces.add(Piece((), None, digest))
            total.update(_described(source) + digest)
        elif not _is_excluded(flags.exclude, source):
            total.update(_described(source) + _gather_files(pieces, source, flags.exclude, memory(source.tree), note))
    return total.digest()


def known_content(
    sources: Iterable[Source], flags: CopyFlags, memory: Callable[[Tree], FileMemory], note: Callable[[str], None]
) -> bytes | None:
    """What ``gather`` says that sources come down to, without reading a file or looking at each; None where they are
    not as they were in an earlier build."""
    total = hashlib.sha256()
    for source in sources:
        if source.tree is None or source.status is None:
            total.update(_described(source) + hashlib.sha256(source.text or b"").digest())
        elif not _is_excluded(flags.exclude, source):
            known = memory(source.tree)
            if stat.S_ISDIR(source.status.st_mode):
                digest = known.tree(source.tree, source.names, source.status, flags.exclude)
            elif known.get(b"/".join(source.names), source.status) is not None:
                digest = _gather_files(None, source, flags.exclude, known, note)
            else:
                digest = None
            if digest is None:
                return None
            total.update(_described(source) + digest)
    return total.digest()


def _described(source: Source) -> bytes:
    return repr((source.title, source.spread, source.unpack)).encode()


def _gather_files(
    pieces: Pieces | None, source: Source, exclude: Matcher | None, known: FileMemory, note: Callable[[str], None]
) -> bytes:
    """Add the files of a tree; what they come down to."""
    tree, status = source.tree, source.status
    assert tree is not None
    assert status is not None
    total, stamp, sockets = hashlib.sha256(), Stamp() if known else None, False
    keeps = source.keeps_owner
    with Cursor(tree.fd) as cursor:
        for found in tree.walk(source.names, status, exclude, stamp):
            mode = found.status.st_mode
            if stat.S_ISSOCK(mode):
                note(f"{shown(found.names)} in {tree.what} is a socket and left out")
                sockets = True
                continue
            digest, content = fingerprint(tree, cursor, found, known, pieces.spare if pieces is not None else 0)
            if pieces is not None:
                pieces.add(Piece(found.below, found.status, digest, content))
            owner = b"(%d, %d)" % (found.status.st_uid, found.status.st_gid) if keeps else b"()"
            path, size = b"/".join(found.below), len(digest).to_bytes(4, "little")
            total.update(b"%b\0%o%b%b%b" % (path, mode, owner, size, digest))
    if stamp is not None and stat.S_ISDIR(status.st_mode) and not sockets:  # of which each build tells
        known.put_tree(tree, source.names, status, exclude, stamp, total.digest())
    return total.digest()


def _is_excluded(exclude: Matcher | None, source: Source) -> bool:
    """Whether a source itself is: by its name, or its path. The content of a directory is looked at later."""
    if not exclude or not source.title or source.spread:
        return False
    return exclude.matches(os.fsdecode(source.title[-1])) or exclude.matches(os.fsdecode(b"/".join(source.names)))
