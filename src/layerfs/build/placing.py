"""Files that are copied, placed over the stack that is there: the members of a layer tar, and the layer.

``lay_out`` decides where each file goes, by what the stack has at the destination; ``write_layer`` streams them into a
layer. Nothing is mounted and nothing runs.
"""

import os
import stat
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack

import msgspec

from layerfs.build.copying import CopyFlags, Piece
from layerfs.build.fingerprint import changed, file_xattrs, same_file
from layerfs.build.tarball import END, Member, header, padding
from layerfs.build.tree import Cursor, Found, Names, Tree, shown
from layerfs.digest import Digest
from layerfs.errors import InvalidInputError, NotFoundError, native_error
from layerfs.layers import Entry, Layer, LayerStore, View

__all__ = ["Placed", "lay_out", "make_directory", "write_layer"]

_PIECE = 1 << 20
_LINKS = 40


class Placed(msgspec.Struct, frozen=True, eq=False):
    """A member of the layer, and where its content comes from."""

    member: Member
    piece: Piece | None = None


def lay_out(view: View | None, dest: str, pieces: Sequence[Piece], flags: CopyFlags, *, many: bool) -> list[Placed]:
    """Where the files go: members, sorted, with the directories above them. ``dest`` is absolute; with ``view`` its
    links are resolved in the stack. ``many``: it is a directory whatever is there, as for several sources.

    InvalidInputError when a file would have to be a directory or the reverse.
    """
    layout = _Layout(view, flags)
    names, entry = layout.locate(dest)
    is_directory = many or dest.endswith(("/", "/.")) or (entry is not None and entry.is_dir)
    if is_directory and entry is not None and not entry.is_dir:
        raise InvalidInputError(f"/{shown(names)}: not a directory, files cannot be copied into it")
    for piece in pieces:
        layout.place(piece, names, entry, is_directory)
    return layout.finished()


class _Layout:
    def __init__(self, view: View | None, flags: CopyFlags) -> None:
        self.view = view
        self.flags = flags
        self.placed: dict[Names, Placed] = {}
        self._entries: dict[Names, Entry | None] = {}
        self._above: dict[Names, Entry | None] = {}
        self._unpacked: dict[Names, Names] = {}
        """Directories of archives, and where their files go."""
        self._latest = 0

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

    def look(self, names: Names) -> Entry | None:
        """What the stack has at a path that has no links in it."""
        if self.view is None:
            return None
        if names in self._entries:
            return self._entries[names]
        entry = None
        above = self.look(names[:-1]) if names else None
        if not names or (above is not None and above.is_dir):
            try:
                entry = self.view.stat(b"/" + b"/".join(names))
            except (NotFoundError, InvalidInputError):
                entry = None
        self._entries[names] = entry
        return entry

    def place(self, piece: Piece, names: Names, entry: Entry | None, is_directory: bool) -> None:
        source, found = piece.source, piece.found
        if source.spread:
            if entry is not None and not entry.is_dir:
                raise InvalidInputError(f"/{shown(names)}: not a directory, a directory cannot be copied over it")
            where = (*names, *source.title, *(found.below if found else ()))
            top = found is not None and not found.below
            if top and not source.title:
                # The content is copied, not the directory: that is only made where it is missing, as any that is.
                self._require_directory(where)
                return
        else:
            base = (*names, *source.title) if is_directory else names
            where = (*base, *(found.below if found else ()))
        if not where:
            raise InvalidInputError("/: a file cannot be copied over the root")
        if source.keep_owner:
            self._unpack(where, piece)
        else:
            self._put(where, piece)

    def _unpack(self, where: Names, piece: Piece) -> None:
        """A file of an archive takes the place of whatever is there, as tar has it; but a directory that the archive
        only implies is the one that is there, be it through a link."""
        at = (*self._unpacked.get(where[:-1], where[:-1]), where[-1])
        found = piece.found
        if found is not None and stat.S_ISDIR(found.status.st_mode):
            if _is_implied(found.status):
                there, entry = self.locate("/" + os.fsdecode(b"/".join(at)))
                if entry is not None and entry.is_dir:
                    self._unpacked[where] = there
                    return
            self._unpacked[where] = at
        self._put(at, piece)

    def _require_directory(self, names: Names) -> None:
        if names and names not in self.placed and self.look(names) is None:
            self.placed[names] = Placed(self._new_directory(names))

    def _put(self, where: Names, piece: Piece) -> None:
        if where[-1].startswith(b".wh."):
            raise InvalidInputError(f"/{shown(where)}: a layer cannot hold a name that begins with .wh.")
        member = self._member(where, piece)
        is_dir = stat.S_ISDIR(member.mode)
        before = self.look(where)
        if before is not None and before.is_dir != is_dir and not piece.source.keep_owner:
            if is_dir:
                raise InvalidInputError(f"/{shown(where)}: not a directory, a directory cannot be copied over it")
            raise InvalidInputError(f"/{shown(where)}: a directory, a file cannot be copied over it")
        earlier = self.placed.get(where)
        if earlier is not None and stat.S_ISDIR(earlier.member.mode) != is_dir:
            raise InvalidInputError(f"/{shown(where)}: copied as a file and as a directory")
        self._latest = max(self._latest, member.mtime_ns)
        self.placed[where] = Placed(member, piece)

    def _member(self, where: Names, piece: Piece) -> Member:
        flags, source, found = self.flags, piece.source, piece.found
        status = found.status if found is not None else None
        owner = flags.owner if not source.keep_owner else None  # files of an archive keep those that it says
        if owner is None:
            owner = (status.st_uid, status.st_gid) if status is not None and source.keeps_owner else (0, 0)
        mode = status.st_mode if status is not None else stat.S_IFREG | source.mode
        if flags.chmod is not None and not stat.S_ISLNK(mode):
            mode = flags.chmod(mode)
        return Member(
            b"/".join(where),
            mode,
            *owner,
            size=status.st_size if status is not None else len(source.text or b""),
            mtime_ns=self._clamped(status.st_mtime_ns if status is not None else flags.now),
            link=piece.digest if stat.S_ISLNK(mode) else b"",
            rdev=status.st_rdev if status is not None and not stat.S_ISREG(mode) else 0,
        )

    def _clamped(self, ns: int) -> int:
        return ns if self.flags.clamp is None else min(ns, self.flags.clamp * 10**9)

    def _new_directory(self, names: Names) -> Member:
        if names[-1].startswith(b".wh."):
            raise InvalidInputError(f"/{shown(names)}: a layer cannot hold a name that begins with .wh.")
        return Member(b"/".join(names), stat.S_IFDIR | 0o755, *(self.flags.owner or (0, 0)), mtime_ns=-1)

    def finished(self) -> list[Placed]:
        """All members, with those directories above them that are missing, or that would lose their attributes."""
        for where in list(self.placed):
            for count in range(len(where) - 1, 0, -1):
                above = where[:count]
                if above in self.placed:
                    break
                entry = self.look(above)
                self.placed[above] = Placed(_existing(entry) if entry is not None else self._new_directory(above))
        latest = self._latest or self._clamped(self.flags.now)
        for placed in self.placed.values():
            if placed.member.mtime_ns == -1 and placed.piece is None:
                placed.member.mtime_ns = latest
        return [self.placed[names] for names in sorted(self.placed)]


def _is_implied(status: os.stat_result) -> bool:
    """Whether a directory of an archive has no entry of its own there: such a one is made with these attributes."""
    wanted = (stat.S_IFDIR | 0o755, 0, 0, 0)
    return (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns) == wanted


def _existing(entry: Entry) -> Member:
    return Member(
        entry.path.strip(b"/"), entry.mode, entry.uid, entry.gid, mtime_ns=entry.mtime_ns, xattrs=entry.xattrs
    )


def make_directory(view: View, path: str, flags: CopyFlags) -> list[Placed]:
    """What has to be added for ``path`` to be a directory: nothing when it is. InvalidInputError for a file there."""
    layout = _Layout(view, flags)
    names, entry = layout.locate(path)
    if entry is not None and not entry.is_dir:
        raise InvalidInputError(f"{path}: there is a file in its place")
    layout._require_directory(names)
    return layout.finished()


def write_layer(layers: LayerStore, placed: Iterable[Placed], protect: Callable[[Iterable[Digest]], None]) -> Layer:
    """The members as a layer, which ``protect`` (of a lease) is told before it appears.

    BuildError when a file is not as it was looked at.
    """
    with ExitStack() as stack, layers.writer(protect=protect) as writer:
        cursors: dict[int, Cursor] = {}
        links: dict[tuple[int, int, int], bytes] = {}
        out = bytearray()
        for each in placed:
            member, piece = each.member, each.piece
            if piece is None or not stat.S_ISREG(member.mode):
                out += header(member)
            elif piece.found is None:
                out += header(member) + (piece.source.text or b"") + padding(member.size)
            else:
                tree, status = piece.source.tree, piece.found.status
                assert tree is not None
                identity = (tree.fd, status.st_dev, status.st_ino)
                if status.st_nlink > 1 and identity in links:
                    member.hard, member.link = True, links[identity]
                    out += header(member)
                elif piece.content is not None:
                    links[identity] = member.path
                    member.xattrs = piece.content.xattrs
                    out += header(member) + piece.content.data + padding(member.size)
                else:
                    links[identity] = member.path
                    if tree.fd not in cursors:
                        cursors[tree.fd] = stack.enter_context(Cursor(tree.fd))
                    _append_file(writer.write, out, member, tree, cursors[tree.fd], piece.found)
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
        member.xattrs = file_xattrs(fd)
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
