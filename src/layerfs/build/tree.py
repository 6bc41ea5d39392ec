"""Reading a tree that others may write in: the context, a stage, an image. No link is ever followed by the kernel.

``Tree`` is a directory descriptor with the patterns of what is left out. Names in it are tuples of components.
"""

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

import msgspec

from layerfs.build.ignore import Matcher, compile_glob
from layerfs.build.stamp import Stamp
from layerfs.digest import Digest
from layerfs.errors import BuildError, InvalidInputError, NotFoundError, native_error
from layerfs.native import Listing, Status
from layerfs.runtime.beneath import Place

__all__ = ["Cursor", "Found", "Names", "Tree", "is_pattern", "kept_xattrs", "packed", "shown"]

Names = tuple[bytes, ...]
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DEPTH = 400
"""Each level is a frame of Python's stack and an open directory."""
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Found(msgspec.Struct, frozen=True, eq=False, gc=False):
    """A file of a tree: where it is, and where it is below the source that was asked for (empty: that itself)."""

    names: Names
    below: Names
    status: Status


def shown(names: Sequence[bytes]) -> str:
    """A path for messages."""
    return b"/".join(names).decode("utf-8", "backslashreplace") or "."


def is_pattern(text: str) -> bool:
    """Whether a source is a pattern, and not one name."""
    return any(char in text for char in "*?[") or "\\" in text


class Tree:
    """A directory to take files from; ``fd`` stays the caller's. ``what`` names it in messages."""

    def __init__(self, fd: int, what: str, ignore: Matcher | None = None, *, owned: bool = False) -> None:
        """``owned``: owners of files are kept; those of a context are not."""
        self.fd = fd
        self.what = what
        self.ignore = ignore or Matcher(())
        self.owned = owned
        self.stack: tuple[Digest, ...] | None = None
        """The layers that it is a view of, base first."""
        self.made: int | None = None
        """When it was made, in seconds, as the source says: the time of a commit, of a download."""

    @property
    def identity(self) -> str | None:
        """What the whole content is known by, as the layers of a stage; None: it must be looked at."""
        return " ".join(self.stack) if self.stack is not None else None

    def left_out(self, names: Names) -> bool:
        """Whether the ignore file leaves a path out."""
        return bool(names and self.ignore) and self.ignore.matches(_text(names))

    def resolve(self, path: str) -> tuple[Names, Status]:
        """Where a source leads, links followed inside the tree; NotFoundError, which says what removed it."""
        try:
            with Place(self.fd, os.fsencode(path)) as place:
                if place.fd is None:
                    raise self._missing(path)
                names = tuple(place.names)
                status = Status.of(os.fstat(place.fd))
        except (FileNotFoundError, NotADirectoryError):
            raise self._missing(path) from None
        except OSError as exc:
            raise BuildError(f"{path}: {os.strerror(exc.errno or 0)} in {self.what}") from exc
        if self.left_out(names) and not (stat.S_ISDIR(status.st_mode) and self._reaches(names)):
            raise NotFoundError(f"{path}: left out of {self.what} by the ignore file", hint="see .dockerignore")
        return names, status

    def _reaches(self, names: Names) -> bool:
        return self.ignore.may_include_below(_text(names))

    def _missing(self, path: str) -> NotFoundError:
        return NotFoundError(f"{path}: not in {self.what}", hint="paths are relative to its root")

    def glob(self, pattern: str) -> Iterator[str]:
        """The paths that match, sorted; those that are left out do not. InvalidInputError for a wrong pattern."""
        parts = [part for part in pattern.split("/") if part not in ("", ".")]
        if ".." in parts:
            raise InvalidInputError(f"pattern {pattern!r}: '..' cannot stand in a pattern")
        tests = [None if part == "**" else compile_glob(part) for part in parts]
        for names in sorted(set(self._glob((), tests))):
            if not self.left_out(names) or self._reaches(names):
                yield os.fsdecode(b"/".join(names))

    def _glob(self, above: Names, tests: Sequence[Callable[[str], bool] | None]) -> Iterator[Names]:
        if not tests:
            yield above
            return
        first, rest = tests[0], tests[1:]
        if first is None:  # ``**``: no directory, or any
            yield from self._glob(above, rest)
        for name, is_dir in self._children(above):
            if first is None:
                if is_dir:
                    yield from self._glob((*above, name), tests)
                elif not rest:
                    yield (*above, name)
            elif first(os.fsdecode(name)) and (is_dir or not rest):
                yield from self._glob((*above, name), rest)

    def _children(self, names: Names) -> list[tuple[bytes, bool]]:
        try:
            with Cursor(self.fd) as cursor, os.scandir(cursor.at(names)) as entries:
                return [(os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in entries]
        except (NotADirectoryError, FileNotFoundError):
            return []

    def age(self) -> int | None:
        """What SOURCE_DATE_EPOCH=context means: when it was made, or the newest file of an archive. Files of a
        directory of the host have times that mean nothing elsewhere: None."""
        if self.made is None and self.identity is not None:
            return max(found.status.st_mtime_ns for found in self.walk((), Status.of(os.fstat(self.fd)))) // 10**9
        return self.made

    def stamp(self, names: Names, exclude: Matcher | None = None) -> Stamp:
        """What a walk of a directory would come by, all at once."""
        stamp = Stamp()
        with Cursor(self.fd) as cursor:
            self._stamp(stamp, cursor, names, (), exclude)
        return stamp

    def _stamp(self, stamp: Stamp, cursor: "Cursor", names: Names, below: Names, exclude: Matcher | None) -> None:
        for name in self._add(stamp, cursor, names, self._list(cursor, names)):
            here, rel = (*names, name), (*below, name)
            if self.left_out(here) and not self._reaches(here):
                continue
            if not exclude or not _is_excluded(exclude, rel, is_dir=True):
                self._stamp(stamp, cursor, here, rel, exclude)

    def walk(
        self, names: Names, status: Status, exclude: Matcher | None = None, stamp: Stamp | None = None
    ) -> Iterator[Found]:
        """A file and all below it, sorted, a directory before what it has, without what is left out. ``stamp`` is told
        of what is come by."""
        yield Found(names, (), status)
        if stat.S_ISDIR(status.st_mode):
            with Cursor(self.fd) as cursor:
                yield from self._walk(cursor, names, (), exclude, stamp)

    def _list(self, cursor: "Cursor", names: Names) -> Listing:
        if len(names) > _DEPTH:
            raise InvalidInputError(
                f"{shown(names[:3])}/… in {self.what}: more than {_DEPTH} directories in one another"
            )
        try:
            return Listing(cursor.at(names))
        except OSError as exc:
            raise native_error(exc, f"read {shown(names)} in {self.what}") from exc

    @staticmethod
    def _add(stamp: Stamp, cursor: "Cursor", names: Names, listing: Listing) -> list[bytes]:
        return stamp.add(listing, packed(kept_xattrs(cursor.at(names))))

    def _walk(
        self, cursor: "Cursor", names: Names, below: Names, exclude: Matcher | None, stamp: Stamp | None
    ) -> Iterator[Found]:
        listing = self._list(cursor, names)
        if stamp is not None:
            self._add(stamp, cursor, names, listing)
        # For each file of a context: so as little as can be, and what is the same for all before.
        excluding, ignoring = bool(exclude), bool(self.ignore)
        for name, status in sorted(listing):
            here, rel = (*names, name), (*below, name)
            is_dir = stat.S_ISDIR(status.st_mode)
            if excluding and exclude and _is_excluded(exclude, rel, is_dir=is_dir):
                continue
            if ignoring and self.ignore.matches(_text(here)):
                if not is_dir or not self._reaches(here):
                    continue
                inner = list(self._walk(cursor, here, rel, exclude, stamp))
                if inner:  # the directory is only there for what was taken back
                    yield Found(here, rel, status)
                    yield from inner
                continue
            yield Found(here, rel, status)
            if is_dir:
                yield from self._walk(cursor, here, rel, exclude, stamp)


def _is_excluded(exclude: Matcher, below: Names, *, is_dir: bool) -> bool:
    text = _text(below)
    return exclude.matches(text) and not (is_dir and exclude.may_include_below(text))


def _text(names: Names) -> str:
    return os.fsdecode(b"/".join(names))


class Cursor:
    """Opens one directory of a tree after the other; what the way has in common stays open."""

    def __init__(self, root: int) -> None:
        self._names: list[bytes] = []
        self._fds = [os.open(".", _DIRECTORY, dir_fd=root)]

    def at(self, names: Sequence[bytes]) -> int:
        """A descriptor of a directory, good until the next call; OSError."""
        common = 0
        for ours, theirs in zip(self._names, names, strict=False):
            if ours != theirs:
                break
            common += 1
        while len(self._names) > common:
            self._names.pop()
            os.close(self._fds.pop())
        for name in names[common:]:
            self._fds.append(os.open(name, _DIRECTORY, dir_fd=self._fds[-1]))
            self._names.append(name)
        return self._fds[-1]

    def open(self, names: Names, flags: int = _FILE) -> int:
        """A file, for reading a regular one; OSError."""
        return os.open(names[-1], flags, dir_fd=self.at(names[:-1]))

    def __enter__(self) -> "Cursor":
        return self

    def __exit__(self, *_: object) -> None:
        while self._fds:
            os.close(self._fds.pop())


def kept_xattrs(fd: int) -> dict[bytes, bytes]:
    """The extended attributes that a copy keeps: the user's, and capabilities."""
    with suppress(OSError):
        names = [name for name in os.listxattr(fd) if name.startswith("user.") or name == "security.capability"]
        return {os.fsencode(name): os.getxattr(fd, name) for name in names if not name.startswith("user.overlay.")}
    return {}


def packed(xattrs: dict[bytes, bytes]) -> bytes:
    """Extended attributes as bytes, of which the same mean the same."""
    return b"".join(b"\0%b\0%b" % pair for pair in sorted(xattrs.items()))
