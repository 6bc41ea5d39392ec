"""Mount points that an image lacks, as a layer of their own between the image and the upper directory.

A runtime that has to mount at ``/etc/hosts`` or at a volume's place makes a file or directory there when none is.
Made in the upper it would show as a change and be committed.  Here it is part of what the container begins with: a
small layer with empty files and directories, and with the directories above them as the image has them.  Containers
of one image with the same mounts share it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from layerfs.digest import Digest
from layerfs.errors import InvalidInputError, NotFoundError, system_errors
from layerfs.fsutil import Ingest
from layerfs.metadata import Database

if TYPE_CHECKING:
    from layerfs.layers import Entry, LayerStore, View
    from layerfs.leases import Lease
    from layerfs.native import DiffStats

__all__ = ["SupportLayers"]

_KIND = "support"
_LINKS = 40
_PIECE = 1 << 20
_STANDARD = ((b"/proc", True), (b"/sys", True), (b"/dev", True))


class SupportLayers:
    """Makes and remembers support layers."""

    def __init__(self, layers: LayerStore, database: Database, ingest: Ingest) -> None:
        self._layers = layers
        self._database = database
        self._ingest = ingest

    def get(
        self, stack: Sequence[Digest], targets: Sequence[tuple[str, bool]], modes: Mapping[str, int] | None = None
    ) -> Digest | None:
        """The layer that gives ``stack`` (base first) all mount points; None when it has them.

        ``targets`` are (path, whether it is a directory); ``modes`` has those of new ones that are not the usual: some
        runtimes give a tmpfs that of its mount point. InvalidInputError for one that leads into /proc, or through
        something that is no directory.
        """
        wanted = sorted({*_STANDARD, *((os.fsencode(path), is_dir) for path, is_dir in targets)})
        key = Digest.of(repr((list(stack), wanted, sorted((modes or {}).items()))).encode()).hex
        record = self._database.record(_KIND, key)
        if record is not None:
            diff_id = Digest(record["layer"]) if record["layer"] else None
            if diff_id is None or self._layers.has(diff_id):
                return diff_id
        from layerfs.leases import Lease  # most containers are of an image that had its layer made

        with Lease(self._database, self._ingest) as lease:
            made = {os.fsencode(path): mode for path, mode in (modes or {}).items()}
            diff_id = self._make(stack, wanted, made, lease)
            protected = [*stack, *([diff_id] if diff_id else [])]
            self._database.put_record(_KIND, key, {"layer": diff_id, "stack": list(stack)}, protected[len(stack) :])
        return diff_id

    def prune(self, needed: set[Digest], images: set[tuple[Digest, ...]]) -> None:
        """Forget support layers that no container has, of stacks that are no image's any more."""
        for key, record, _ in self._database.records(_KIND):
            if record["layer"] not in needed and tuple(record["stack"]) not in images:
                self._database.remove_record(_KIND, key)

    def _make(
        self, stack: Sequence[Digest], wanted: Sequence[tuple[bytes, bool]], modes: Mapping[bytes, int], lease: Lease
    ) -> Digest | None:
        with self._layers.view(stack) as view, self._ingest.directory("support") as work:
            tree = work / "tree"
            tree.mkdir(mode=0o755)
            made: dict[bytes, Entry | None] = {}
            for path, is_dir in wanted:
                names, missing = _locate(view, path)
                if missing:
                    _add(view, tree, names, missing, is_dir, made)
                    if path in modes:
                        os.chmod(tree / os.fsdecode(b"/".join(names)), modes[path])
            if not made:
                return None
            # What is inside comes before its directory. Attributes are read before another process needs them.
            looks = [
                (tree / os.fsdecode(place[1:]), entry, entry.xattrs if entry is not None else {})
                for place, entry in sorted(made.items(), reverse=True)
            ]
            return self._frozen(tree, looks, lease)

    def _frozen(self, tree: Path, looks: list[tuple[Path, Entry | None, dict[bytes, bytes]]], lease: Lease) -> Digest:
        """The layer of a tree that is yet to be made to look so."""
        from layerfs.commit import freeze_pieces, freeze_upper  # as above

        if os.geteuid() == 0:
            _dress(looks)
            return freeze_upper(self._layers, self._database, lease, tree).layer.diff_id
        from layerfs.native import Differ
        from layerfs.userns import Stream  # root needs none

        def work() -> Generator[bytes, None, DiffStats]:
            _dress(looks)
            fd = os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            with Differ(fd, userxattr=True) as differ:
                while piece := differ.read(_PIECE):
                    yield piece
                return differ.stats

        with Stream(work) as stream:
            frozen = freeze_pieces(self._layers, self._database, lease, lambda _: stream.read(), lambda: stream.result)
            return frozen.layer.diff_id


def _locate(view: View, path: bytes) -> tuple[list[bytes], int]:
    """The components that a path leads to inside the stack, and how many of the last ones are not there."""
    names: list[bytes] = []
    missing = links = 0
    pending = path.split(b"/")[::-1]
    while pending:
        name = pending.pop()
        if name in (b"", b"."):
            continue
        if name == b"..":
            del names[-1:]
            missing = max(0, missing - 1)
            continue
        entry = None
        if not missing:
            with suppress(NotFoundError):
                entry = view.stat(b"/" + b"/".join([*names, name]))
        if entry is None:
            names.append(name)
            missing += 1
        elif stat.S_ISLNK(entry.mode):
            links += 1
            if links > _LINKS:
                raise InvalidInputError(f"mount at {os.fsdecode(path)}: too many symbolic links in the image")
            names = [] if entry.target.startswith(b"/") else names
            pending += entry.target.split(b"/")[::-1]
        else:
            names.append(name)
    if not names or (names[0] == b"proc" and path != b"/proc"):
        place = os.fsdecode(b"/".join(names))
        raise InvalidInputError(f"mount at {os.fsdecode(path)}: in the image this leads to /{place}")
    return names, missing


def _add(
    view: View, tree: Path, names: Sequence[bytes], missing: int, is_dir: bool, made: dict[bytes, Entry | None]
) -> None:
    made.setdefault(b"/", view.stat(b"/"))
    for count in range(1, len(names) + 1):
        place = b"/" + b"/".join(names[:count])
        if place in made:
            continue
        last = count == len(names)
        target = tree / os.fsdecode(place[1:])
        with system_errors(f"make mount point {os.fsdecode(place)}"):
            if last and not is_dir:
                target.touch(mode=0o644)
            else:
                target.mkdir(mode=0o755)
        made[place] = view.stat(place) if count <= len(names) - missing else None


def _dress(looks: list[tuple[Path, Entry | None, dict[bytes, bytes]]]) -> None:
    """Give files the attributes of entries; for root, perhaps of a user namespace."""
    for target, entry, xattrs in looks:
        if entry is None:
            os.utime(target, (0, 0))
            continue
        with system_errors(f"copy the attributes of {os.fsdecode(entry.path)}"):
            for name, value in xattrs.items():
                os.setxattr(target, name, value)
            os.chown(target, entry.uid, entry.gid)
            os.chmod(target, entry.mode & 0o7777)
            os.utime(target, ns=(entry.mtime_ns, entry.mtime_ns))
