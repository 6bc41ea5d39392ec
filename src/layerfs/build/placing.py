"""Files that are copied, placed over the stack that is there: the members of a layer tar, and the layer.

``lay_out`` decides where each file goes, by what the stack has at the destination; ``write_layer`` streams them into a
layer. Nothing is mounted and nothing runs.
"""

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import lru_cache
from heapq import merge
from operator import itemgetter

import msgspec

from layerfs.build.copying import CopyFlags
from layerfs.build.fingerprint import changed, same_file
from layerfs.build.pieces import Piece, Pieces, Source
from layerfs.build.tarball import END, Member, header, padding
from layerfs.build.tree import Cursor, Found, Names, Tree, kept_xattrs, shown
from layerfs.digest import Digest
from layerfs.errors import InvalidInputError, NotFoundError, native_error
from layerfs.layers import Entry, Layer, LayerStore, View
from layerfs.native import Status

__all__ = ["Placed", "lay_out", "make_directory", "write_layer"]

_PIECE = 1 << 20
_LINKS = 40
_SEEN = 4096
"""Of how many paths is remembered what the stack has there."""


class Placed(msgspec.Struct, frozen=True, eq=False):
    """A member of the layer, and where its content comes from."""

    member: Member
    source: Source | None = None
    piece: Piece | None = None


def lay_out(view: View | None, dest: str, pieces: Pieces, flags: CopyFlags, *, many: bool) -> Iterator[Placed]:
    """Where the files go: members, sorted, with the directories above them. ``dest`` is absolute; with ``view`` its
    links are resolved in the stack. ``many``: it is a directory whatever is there, as for several sources.

    InvalidInputError when a file would have to be a directory or the reverse.
    """
    layout = _Layout(view, flags, dest)
    if many or dest.endswith(("/", "/.")):
        layout.is_directory = True
        if layout.entry is not None and not layout.entry.is_dir:
            raise InvalidInputError(f"/{shown(layout.names)}: not a directory, files cannot be copied into it")
    return layout.members(pieces)


def make_directory(view: View, path: str, flags: CopyFlags) -> list[Placed]:
    """What has to be added for ``path`` to be a directory: nothing when it is. InvalidInputError for a file there."""
    layout = _Layout(view, flags, path)
    if layout.entry is not None and not layout.is_directory:
        raise InvalidInputError(f"{path}: there is a file in its place")
    return list(layout.completed([(layout.names, None, None)]))


_Item = tuple[Names, Source | None, Piece | None]
"""A file and where it goes; without one: a directory that is made where it is missing."""


class _Layout:
    def __init__(self, view: View | None, flags: CopyFlags, dest: str) -> None:
        self.view = view
        self.flags = flags
        self.look = lru_cache(_SEEN)(self._look)
        """What the stack has at a path that has no links in it."""
        self._unpacked: dict[Names, Names] = {}
        """Directories of archives, and where their files go."""
        self._latest = 0
        self.names, self.entry = self.locate(dest)
        self.is_directory = self.entry is not None and self.entry.is_dir

    def locate(self, path: str) -> tuple[Names, Entry | None]:
        """Where a destination leads, through links, and what is there."""
        names: list[bytes] = []
        pending = os.fsencode(path).split(b"/")[::-1]
        links = 0
        while pending:
            name = pending.pop()
            if name in (b"", b"."):
                continue
            if name == b"..":
                del names[-1:]
                continue
            entry = self.look((*names, name))
            if entry is not None and stat.S_ISLNK(entry.mode):
                links += 1
                if links > _LINKS:
                    raise InvalidInputError(f"{path}: too many symbolic links")
                names = [] if entry.target.startswith(b"/") else names
                pending += entry.target.split(b"/")[::-1]
                continue
            if entry is not None and not entry.is_dir and any(part not in (b"", b".") for part in pending):
                raise InvalidInputError(f"{path}: /{shown((*names, name))} is not a directory")
            names.append(name)
        found = tuple(names)
        return found, self.look(found)

    def _look(self, names: Names) -> Entry | None:
        if self.view is None:
            return None
        above = self.look(names[:-1]) if names else None
        if not names or (above is not None and above.is_dir):
            try:
                return self.view.stat(b"/" + b"/".join(names))
            except (NotFoundError, InvalidInputError):
                pass
        return None

    def members(self, pieces: Pieces) -> Iterator[Placed]:
        """All members. Files of one source come sorted; where those of several do not, they are merged."""
        runs: list[tuple[int, int]] = []
        before: Names | None = None
        begin = 0
        for at, source, piece in pieces.read():
            item = self._item(source, piece)
            if item is None:
                continue
            if before is not None and item[0] < before:
                runs.append((begin, at))
                begin = at
            before = item[0]
            if item[2] is not None:
                self._latest = max(self._latest, self._mtime(piece))
        sorted_runs = [self._run(pieces, begin, end) for begin, end in [*runs, (begin, None)]]
        return self.completed(merge(*sorted_runs, key=itemgetter(0)) if runs else sorted_runs[0])

    def _run(self, pieces: Pieces, begin: int, end: int | None) -> Iterator[_Item]:
        for _, source, piece in pieces.read(begin, end):
            item = self._item(source, piece)
            if item is not None:
                yield item

    def _item(self, source: Source, piece: Piece) -> _Item | None:
        """Where a file goes; None: nowhere."""
        if source.spread:
            if self.entry is not None and not self.entry.is_dir:
                raise InvalidInputError(f"/{shown(self.names)}: not a directory, a directory cannot be copied over it")
            where = (*self.names, *source.title, *piece.below)
            if not piece.below and not source.title:
                # The content is copied, not the directory: that is only made where it is missing, as any that is.
                return where, None, None
        else:
            base = (*self.names, *source.title) if self.is_directory else self.names
            where = (*base, *piece.below)
        if not where:
            raise InvalidInputError("/: a file cannot be copied over the root")
        if source.keep_owner:
            at = self._unpacked_at(where, piece)
            return (at, source, piece) if at is not None else None
        return where, source, piece

    def _unpacked_at(self, where: Names, piece: Piece) -> Names | None:
        """A file of an archive takes the place of whatever is there, as tar has it; but a directory that the archive
        only implies is the one that is there, be it through a link."""
        at = (*self._unpacked.get(where[:-1], where[:-1]), where[-1])
        if piece.is_dir:
            if piece.status is not None and _is_implied(piece.status):
                there, entry = self.locate("/" + os.fsdecode(b"/".join(at)))
                if entry is not None and entry.is_dir:
                    self._unpacked[where] = there
                    return None
            self._unpacked[where] = at
        return at

    def completed(self, items: Iterable[_Item]) -> Iterator[Placed]:
        """Sorted files as members, with those directories above them that are missing, or that would lose their
        attributes. Of several files in one place the last one counts."""
        latest = self._latest or self._clamped(self.flags.now)
        done: Names = ()
        is_dir = True
        for where, source, piece in _last_of_each(items):
            if piece is None or source is None:
                if where and self.look(where) is None:
                    yield from self._above(done, where, latest)
                    yield Placed(self._new_directory(where, latest))
                    done, is_dir = where, True
                continue
            if not is_dir and where[: len(done)] == done:
                raise _both_kinds(done)
            yield from self._above(done, where, latest)
            yield self._put(where, source, piece)
            done, is_dir = where, piece.is_dir

    def _above(self, done: Names, where: Names, latest: int) -> Iterator[Placed]:
        """The directories above a path, but for those that are above ``done``, or are it."""
        for count in range(1, len(where)):
            above = where[:count]
            if done[:count] != above:
                entry = self.look(above)
                yield Placed(_existing(entry) if entry is not None else self._new_directory(above, latest))

    def _put(self, where: Names, source: Source, piece: Piece) -> Placed:
        if where[-1].startswith(b".wh."):
            raise InvalidInputError(f"/{shown(where)}: a layer cannot hold a name that begins with .wh.")
        before = self.look(where)
        if before is not None and before.is_dir != piece.is_dir and not source.keep_owner:
            if piece.is_dir:
                raise InvalidInputError(f"/{shown(where)}: not a directory, a directory cannot be copied over it")
            raise InvalidInputError(f"/{shown(where)}: a directory, a file cannot be copied over it")
        return Placed(self._member(where, source, piece), source, piece)

    def _member(self, where: Names, source: Source, piece: Piece) -> Member:
        flags, status = self.flags, piece.status
        owner = flags.owner if not source.keep_owner else None  # files of an archive keep those that it says
        if owner is None:
            owner = (status.st_uid, status.st_gid) if status is not None and source.keeps_owner else (0, 0)
        mode = status.st_mode if status is not None else stat.S_IFREG | 0o644
        if flags.chmod is not None and not stat.S_ISLNK(mode):
            mode = flags.chmod(mode)
        return Member(
            b"/".join(where),
            mode,
            *owner,
            size=status.st_size if status is not None else len(source.text or b""),
            mtime_ns=self._mtime(piece),
            link=piece.digest if stat.S_ISLNK(mode) else b"",
            rdev=status.st_rdev if status is not None and not stat.S_ISREG(mode) else 0,
        )

    def _mtime(self, piece: Piece) -> int:
        return self._clamped(piece.status.st_mtime_ns if piece.status is not None else self.flags.now)

    def _clamped(self, ns: int) -> int:
        return ns if self.flags.clamp is None else min(ns, self.flags.clamp * 10**9)

    def _new_directory(self, names: Names, latest: int) -> Member:
        if names[-1].startswith(b".wh."):
            raise InvalidInputError(f"/{shown(names)}: a layer cannot hold a name that begins with .wh.")
        return Member(b"/".join(names), stat.S_IFDIR | 0o755, *(self.flags.owner or (0, 0)), mtime_ns=latest)


def _last_of_each(items: Iterable[_Item]) -> Iterator[_Item]:
    """One for each place: the last file, or what stands for a directory where there is no file."""
    kept: _Item | None = None
    for item in items:
        if kept is not None and item[0] == kept[0]:
            if item[2] is None:
                continue
            if kept[2] is not None and kept[2].is_dir != item[2].is_dir:
                raise _both_kinds(item[0])
        elif kept is not None:
            yield kept
        kept = item
    if kept is not None:
        yield kept


def _both_kinds(where: Names) -> InvalidInputError:
    return InvalidInputError(f"/{shown(where)}: copied as a file and as a directory")


def _is_implied(status: Status) -> bool:
    """Whether a directory of an archive has no entry of its own there: such a one is made with these attributes."""
    wanted = (stat.S_IFDIR | 0o755, 0, 0, 0)
    return (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns) == wanted


def _existing(entry: Entry) -> Member:
    return Member(
        entry.path.strip(b"/"), entry.mode, entry.uid, entry.gid, mtime_ns=entry.mtime_ns, xattrs=entry.xattrs
    )


def write_layer(layers: LayerStore, placed: Iterable[Placed], protect: Callable[[Iterable[Digest]], None]) -> Layer:
    """The members as a layer, which ``protect`` (of a lease) is told before it appears.

    BuildError when a file is not as it was looked at.
    """
    with ExitStack() as stack, layers.writer(protect=protect) as writer:
        cursors: dict[int, Cursor] = {}
        links: dict[tuple[int, int, int], bytes] = {}
        out = bytearray()
        for each in placed:
            member, source, piece = each.member, each.source, each.piece
            if source is None or piece is None or not stat.S_ISREG(member.mode):
                if piece is not None and piece.content is not None:
                    member.xattrs = piece.content.xattrs
                out += header(member)
            elif piece.status is None:
                out += header(member) + (source.text or b"") + padding(member.size)
            else:
                tree, status = source.tree, piece.status
                assert tree is not None
                if status.st_nlink > 1:
                    first = links.setdefault((tree.fd, status.st_dev, status.st_ino), member.path)
                    if first != member.path:
                        member.hard, member.link = True, first
                if member.hard:
                    out += header(member)
                elif piece.content is not None:
                    member.xattrs = piece.content.xattrs
                    out += header(member) + piece.content.data + padding(member.size)
                else:
                    if tree.fd not in cursors:
                        cursors[tree.fd] = stack.enter_context(Cursor(tree.fd))
                    _append_file(writer.write, out, member, tree, cursors[tree.fd], piece.found(source))
            if len(out) >= _PIECE:
                writer.write(out)
                out = bytearray()
        writer.write(out + END)
        return writer.commit()


def _append_file(
    write: Callable[[bytearray], None], out: bytearray, member: Member, tree: Tree, cursor: Cursor, found: Found
) -> None:
    """Header and content behind ``out``, which is written and emptied where it gets large."""
    try:
        fd = cursor.open(found.names)
    except OSError as exc:
        raise native_error(exc, f"read {shown(found.names)} in {tree.what}") from exc
    try:
        if not same_file(os.fstat(fd), found.status):
            raise changed(tree, found)
        member.xattrs = kept_xattrs(fd)
        out += header(member)
        left = member.size
        while left:
            piece = os.read(fd, min(left, _PIECE))
            if not piece:
                raise changed(tree, found)
            left -= len(piece)
            out += piece
            if len(out) >= _PIECE:
                write(out)
                out.clear()
        out += padding(member.size)
    finally:
        os.close(fd)
