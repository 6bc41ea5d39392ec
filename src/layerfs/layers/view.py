"""What a stack of layers looks like, read without a mount: the rules of overlayfs over the trees of the layers.

A directory of the view is the list of the layers' directories that are merged in it, top-most first. It ends above the
first opaque one's lowers, above a whiteout, and above anything that is no directory. Symbolic links are resolved
inside the view, whose root ``..`` never leaves.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Self

import msgspec

from layerfs.errors import InvalidInputError, NotFoundError, system_errors
from layerfs.late import LateModule
from layerfs.layers.formats import PIECE
from layerfs.layers.tree import DT_CHR, DT_DIR, Attributes, LayerTree, Node

if TYPE_CHECKING:
    from layerfs import userns
else:  # root needs none
    userns = LateModule("layerfs.userns")

__all__ = ["Entry", "FileEntry", "RootDirectory", "View"]

_MAX_LINKS = 40  # as the kernel
_MARKS = (b"trusted.overlay.", b"user.overlay.")
_OPAQUE = (b"trusted.overlay.opaque", b"user.overlay.opaque")
_TYPES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "char",
    stat.S_IFBLK: "block",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}

_Part = tuple[int, Node]
"""A layer, counted from the base, and a node of its tree."""


class FileEntry(msgspec.Struct, frozen=True, eq=False):
    """A file of a tree. ``path`` is absolute and free of links; names of one file have one ``inode``. ``mode`` has the
    type too, as ``st_mode`` does; ``target`` is that of a symbolic link, else empty; ``rdev`` is (major, minor);
    directories have size 0."""

    name: bytes
    path: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    nlink: int
    rdev: tuple[int, int]
    inode: int
    target: bytes

    @property
    def type(self) -> str:
        """``file``, ``directory``, ``symlink``, ``char``, ``block``, ``fifo`` or ``socket``."""
        return _TYPES.get(stat.S_IFMT(self.mode), "unknown")

    @property
    def is_dir(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.mode)


class Entry(FileEntry, frozen=True, eq=False):
    """A file of a view. ``layer`` counts from the base, and is the one whose attributes and content these are, and
    whose is the ``inode``."""

    layer: int
    _tree: LayerTree | None
    _parts: list[_Part]

    @property
    def xattrs(self) -> dict[bytes, bytes]:
        """Extended attributes, read now; overlayfs's own are left out, as a mount leaves them out."""
        if self._tree is None:
            return {}
        with _reading(self.path):
            found = self._tree.xattrs(self._parts[0][1])
        return {name: value for name, value in found.items() if not name.startswith(_MARKS)}


class View:
    """A stack of layers as one tree; for a ``with``, and one thread at a time.

    Paths are bytes, taken from the root whether they begin with a slash or not. Links on the way are always followed.
    NotFoundError for what is not there, InvalidInputError for what is of the wrong type.
    """

    def __init__(self, trees: Sequence[LayerTree], owner: ExitStack) -> None:
        """``trees`` base first; ``owner`` closes them."""
        self._trees = trees
        self._owner = owner

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the layers; again is allowed."""
        self._owner.close()

    # ---- paths ----

    def resolve(self, path: bytes, follow: bool = True) -> Entry:
        """The file that a path leads to; with ``follow`` also through a link at its end."""
        trail = [self._root()]
        pending = path.split(b"/")[::-1]
        links = 0
        while pending:
            name, here = pending.pop(), trail[-1]
            if name in (b"", b"."):
                continue
            if not here.is_dir:
                raise InvalidInputError(f"open {_text(path)}: {_text(here.path)} is not a directory")
            if name == b"..":
                del trail[max(1, len(trail) - 1) :]
                continue
            child = self._child(here, name)
            if child is None:
                raise NotFoundError(f"open {_text(path)}: not there")
            if not stat.S_ISLNK(child.mode) or not (follow or any(pending)):
                trail.append(child)
                continue
            links += 1
            if links > _MAX_LINKS:
                raise InvalidInputError(f"open {_text(path)}: too many symbolic links")
            pending += child.target.split(b"/")[::-1]
            if child.target.startswith(b"/"):
                del trail[1:]
        return trail[-1]

    def stat(self, path: bytes) -> Entry:
        """A file; a symbolic link itself."""
        return self.resolve(path, follow=False)

    def readlink(self, path: bytes) -> bytes:
        """The target of a symbolic link."""
        entry = self.stat(path)
        if not stat.S_ISLNK(entry.mode):
            raise InvalidInputError(f"read link {_text(path)}: it is a {entry.type}")
        return entry.target

    # ---- contents ----

    def read(self, path: bytes | Entry) -> Iterator[bytes]:
        """The content of a regular file, in pieces of at most 1 MiB."""
        entry = path if isinstance(path, Entry) else self.resolve(path)
        if not stat.S_ISREG(entry.mode):
            raise InvalidInputError(f"read {_text(entry.path)}: it is a {entry.type}")
        return self._content(entry)

    def _content(self, entry: Entry) -> Iterator[bytes]:
        layer, node = entry._parts[0]
        with _reading(entry.path):
            yield from self._trees[layer].read(node, PIECE)

    def listdir(self, path: bytes | Entry = b"/") -> list[Entry]:
        """What a directory has, sorted by name."""
        entry = path if isinstance(path, Entry) else self.resolve(path)
        if not entry.is_dir:
            raise InvalidInputError(f"list {_text(entry.path)}: it is a {entry.type}")
        with _reading(entry.path):
            merged = self._merge(entry._parts)
            found = (self._entry(entry.path, name, merged[name]) for name in sorted(merged))
            return [child for child in found if child is not None]

    def walk(self, path: bytes | Entry = b"/") -> Iterator[Entry]:
        """A file and, where it is a directory, all below it: sorted, a directory before what it has."""
        start = path if isinstance(path, Entry) else self.resolve(path)
        pending = [iter([start])]
        while pending:
            entry = next(pending[-1], None)
            if entry is None:
                pending.pop()
                continue
            yield entry
            if entry.is_dir:
                pending.append(iter(self.listdir(entry)))

    # ---- merging ----

    def _root(self) -> Entry:
        parts = [(layer, tree.root) for layer, tree in enumerate(self._trees)][::-1]
        if not parts:
            return Entry(b"", b"/", stat.S_IFDIR | 0o755, 0, 0, 0, 0, 2, (0, 0), 0, b"", -1, None, [])
        with _reading(b"/"):
            return self._make(b"", b"/", self._attributes(parts[0]), self._visible(parts))

    def _attributes(self, part: _Part) -> Attributes:
        return self._trees[part[0]].stat(part[1])

    def _make(self, name: bytes, path: bytes, st: Attributes, parts: list[_Part]) -> Entry:
        layer, node = parts[0]
        tree = self._trees[layer]
        target = tree.readlink(node) if stat.S_ISLNK(st.mode) else b""
        return Entry(
            name,
            path,
            st.mode,
            st.uid,
            st.gid,
            st.size,
            st.mtime_ns,
            st.nlink,
            st.rdev,
            st.inode,
            target,
            layer,
            tree,
            parts,
        )

    def _visible(self, parts: list[_Part]) -> list[_Part]:
        """Of directories that lie over each other, those down to the first opaque one."""
        for count, (layer, node) in enumerate(islice(parts, len(parts) - 1), 1):
            attributes = self._trees[layer].xattrs(node)
            if any(attributes.get(name) == b"y" for name in _OPAQUE):
                return parts[:count]
        return parts

    def _child(self, directory: Entry, name: bytes) -> Entry | None:
        """One name of a directory, without reading the rest of it."""
        parts: list[_Part] = []
        first: Attributes | None = None
        with _reading(directory.path):
            for layer, node in directory._parts:
                child = self._trees[layer].lookup(node, name)
                if child is None:
                    continue
                st = self._trees[layer].stat(child)
                if first is None and st.is_whiteout:
                    return None
                if first is None or stat.S_ISDIR(st.mode):
                    parts.append((layer, child))
                first = first or st
                if not stat.S_ISDIR(st.mode):
                    break
            if first is None:
                return None
            return self._make(name, _join(directory.path, name), first, self._visible(parts))

    def _merge(self, parts: list[_Part]) -> dict[bytes, list[tuple[_Part, int]]]:
        """All that merged directories have: for each name its parts with their types, down to the first that is no
        directory. Each layer's directory is read once."""
        merged: dict[bytes, list[tuple[_Part, int]]] = {}
        for layer, node in parts:
            for name, child, dtype in self._trees[layer].names(node):
                above = merged.get(name)
                if above is None:
                    merged[name] = [((layer, child), dtype)]
                elif above[-1][1] == DT_DIR:
                    above.append(((layer, child), dtype))
        return merged

    def _entry(self, directory: bytes, name: bytes, found: list[tuple[_Part, int]]) -> Entry | None:
        part, dtype = found[0]
        st = self._attributes(part)
        if dtype == DT_CHR and st.is_whiteout:
            return None
        parts = [part]
        if dtype == DT_DIR and len(found) > 1:
            parts = self._visible([below for below, kind in found if kind == DT_DIR])
        return self._make(name, _join(directory, name), st, parts)


class RootDirectory(msgspec.Struct, frozen=True):
    """How the root directory of a layer looks. The upper directory of a snapshot is the root of what is merged, and has
    to look the same."""

    uid: int
    gid: int
    mode: int
    mtime_ns: int
    xattrs: dict[bytes, bytes]

    @classmethod
    def of(cls, entry: Entry) -> "RootDirectory":
        """As an entry of a view has them."""
        return cls(entry.uid, entry.gid, entry.mode & 0o7777, entry.mtime_ns, entry.xattrs)

    def give(self, path: Path, *, privileged: bool) -> None:
        """Make a directory look so; without privilege as far as this user's numbers go."""
        if privileged:
            self._give(path)
        elif (self.uid or self.gid) and not userns.own_maps().alone:
            userns.in_userns(lambda: self._give(path))
        else:
            self._give(path, privileged=False)

    def _give(self, path: Path, *, privileged: bool = True) -> None:
        if privileged:
            os.chown(path, self.uid, self.gid)
        for name, value in self.xattrs.items():
            # Without privilege some cannot be set; the layers then do not have them either.
            with ExitStack() if privileged else suppress(PermissionError):
                os.setxattr(path, name, value)
        os.chmod(path, self.mode)
        os.utime(path, ns=(self.mtime_ns, self.mtime_ns))


def _reading(path: bytes) -> AbstractContextManager[None]:
    return system_errors(f"read {_text(path)}")


def _join(directory: bytes, name: bytes) -> bytes:
    return directory.rstrip(b"/") + b"/" + name


def _text(path: bytes) -> str:
    return path.decode("utf-8", "backslashreplace")
