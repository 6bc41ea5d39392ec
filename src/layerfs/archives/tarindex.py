"""The members of a tar file by name: one pass over its headers, then bytes are read where they lie.

Nothing is extracted, so a member's name or link can lead nowhere but to another member. Names are taken as GNU
tar takes them (``./`` and ``/`` in front do not count); one that climbs out by ``..`` is refused. All that the
archive claims is checked against the size of the file before it is used.
"""

import os
from collections.abc import Iterator

import msgspec

from layerfs.errors import IntegrityError, NotFoundError, native_error

__all__ = ["Member", "Section", "TarIndex"]

_BLOCK = 512
_EXTENSION_LIMIT = 1 << 20
_MEMBERS_LIMIT = 1_000_000
_NAMES_LIMIT = 256 << 20
_LINKS_LIMIT = 20
_FILES = b"0\0007"
_LINKS = b"12"
_DATALESS = b"123456"
_END = bytes(_BLOCK)


class Member(msgspec.Struct, frozen=True):
    """One file or link: where its bytes lie, or the name of the member that it stands for."""

    name: str
    offset: int
    size: int
    link: str | None = None


class Section:
    """A reader of ``size`` bytes at ``offset`` of an open file, with a position of its own."""

    def __init__(self, fd: int, offset: int, size: int, what: str) -> None:
        self._fd = fd
        self._at = offset
        self._left = size
        self._what = what

    def read(self, size: int = 1 << 20, /) -> bytes:
        """At most ``size`` bytes; empty at the end. IntegrityError if the file became shorter."""
        wanted = min(size, self._left) if size >= 0 else self._left
        if not wanted:
            return b""
        try:
            data = os.pread(self._fd, wanted, self._at)
        except OSError as exc:
            raise native_error(exc, f"read {self._what}") from exc
        if not data:
            raise IntegrityError(f"read {self._what}: the file is cut short")
        self._at += len(data)
        self._left -= len(data)
        return data


class TarIndex:
    """The index of the plain tar file ``fd``, which stays the caller's; ``what`` names it in errors.

    Raises IntegrityError for what is no tar, is damaged, or is cut short.
    """

    def __init__(self, fd: int, what: str) -> None:
        self._fd = fd
        self._what = what
        self._size = os.fstat(fd).st_size
        self._members: dict[str, Member] = {}
        names = 0
        self.duplicates: set[str] = set()
        for member in self._scan():
            if member.name in self._members:
                self.duplicates.add(member.name)
            self._members[member.name] = member
            if len(self._members) > _MEMBERS_LIMIT:
                raise self._bad(f"more than {_MEMBERS_LIMIT} members")
            names += len(member.name) + len(member.link or "")
            if names > _NAMES_LIMIT:
                raise self._bad(f"more than {_NAMES_LIMIT} bytes of names")

    def __contains__(self, name: str) -> bool:
        return name in self._members

    def names(self) -> list[str]:
        """All names, in the order of their first member."""
        return list(self._members)

    def find(self, name: str) -> Member:
        """The file of that name, links followed inside the archive; the last where there are several.

        Raises NotFoundError, and IntegrityError for links that lead outside or in circles.
        """
        wanted = name
        for _ in range(_LINKS_LIMIT):
            member = self._members.get(name)
            if member is None:
                reason = "" if name == wanted else f", which {wanted} is a link to"
                raise NotFoundError(f"read {self._what}: there is no member {name:.200}{reason:.250}")
            if member.link is None:
                return member
            name = member.link
        raise self._bad(f"the links of {wanted:.200} lead in circles")

    def open(self, member: Member) -> Section:
        """The bytes of a file."""
        return Section(self._fd, member.offset, member.size, f"{self._what}, member {member.name}")

    def read(self, name: str, limit: int) -> bytes:
        """A small file whole; IntegrityError for one of more than ``limit`` bytes."""
        member = self.find(name)
        if member.size > limit:
            raise self._bad(f"{name:.200} has {member.size} bytes, more than the {limit} allowed")
        section = self.open(member)
        return b"".join(iter(section.read, b""))

    def _bad(self, reason: str) -> IntegrityError:
        return IntegrityError(f"read {self._what}: {reason}")

    def _block(self, at: int, size: int) -> bytes:
        try:
            return os.pread(self._fd, size, at)
        except OSError as exc:
            raise native_error(exc, f"read {self._what}") from exc

    def _scan(self) -> Iterator[Member]:
        """Header after header; ``extended`` is what PAX and GNU headers say about the next member."""
        at = 0
        extended: dict[str, str] = {}
        while header := self._block(at, _BLOCK):
            if header == _END:
                break
            kind, size = self._check_header(header, at)
            size = _decimal(extended.get("size"), size)
            data = at + _BLOCK
            if kind in _DATALESS:
                size = 0
            if size < 0 or size > self._size - data:
                raise self._bad(f"cut short at byte {at}: a member of {size} bytes is announced")
            at = data + (size + _BLOCK - 1) // _BLOCK * _BLOCK
            if kind in b"xgLK":
                self._extend(extended, kind, data, size)
                continue
            member = self._member(header, kind, extended, data, size)
            extended = {}
            if member is not None:
                yield member
        else:
            if not at:
                raise self._bad("it is empty")

    def _check_header(self, header: bytes, at: int) -> tuple[bytes, int]:
        """Type and size of a header whose checksum holds."""
        if len(header) < _BLOCK and at:
            raise self._bad(f"cut short at byte {at}")
        if len(header) == _BLOCK:
            total = sum(header) - sum(header[148:156]) + 8 * 32
            if _number(header[148:156]) == total:
                size = _number(header[124:136])
                if size is not None:
                    return header[156:157], size
        if at == 0:
            raise self._bad("not a tar archive")
        raise self._bad(f"no valid tar header at byte {at}")

    def _extend(self, extended: dict[str, str], kind: bytes, data: int, size: int) -> None:
        if size > _EXTENSION_LIMIT:
            raise self._bad(f"an extended header of {size} bytes, more than the {_EXTENSION_LIMIT} allowed")
        if kind == b"g":  # comments of git and of pax: nothing that concerns single members
            return
        content = self._block(data, size)
        if kind == b"L":
            extended["path"] = _text(content)
        elif kind == b"K":
            extended["linkpath"] = _text(content)
        else:
            for key, value in self._records(content):
                extended[key] = value

    def _records(self, content: bytes) -> Iterator[tuple[str, str]]:
        """The ``LENGTH key=value`` lines of a PAX header."""
        at = 0
        while at < len(content):
            length, space, _ = content[at : at + 10].partition(b" ")
            end = at + (int(length) if length.isdigit() and len(length) < 9 else 0)
            record = content[at + len(length) + 1 : end]
            if not space or end > len(content) or not record.endswith(b"\n"):
                raise self._bad("a damaged PAX header")
            key, _, value = record[:-1].partition(b"=")
            yield os.fsdecode(key), os.fsdecode(value)
            at = end

    def _member(self, header: bytes, kind: bytes, extended: dict[str, str], data: int, size: int) -> Member | None:
        """The file or link; None for what is neither, and for files with holes, which no archive of images has."""
        sparse = any(key.startswith("GNU.sparse") for key in extended)
        if sparse or kind not in _FILES + _LINKS:
            return None
        prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else ""
        short = _text(header[:100])
        raw = extended.get("path", f"{prefix}/{short}" if prefix else short)
        if kind in _FILES and raw.endswith("/"):  # how old tars write directories
            return None
        name = self._normal(raw, "")
        if kind in _FILES:
            return Member(name, data, size)
        target = extended.get("linkpath", _text(header[157:257]))
        base = name.rpartition("/")[0] if kind == b"2" and not target.startswith("/") else ""
        return Member(name, 0, 0, self._normal(target, base))

    def _normal(self, raw: str, base: str) -> str:
        """The name that ``raw`` means, seen from the directory ``base``."""
        parts = base.split("/") if base else []
        for part in raw.split("/"):
            if part == "..":
                if not parts:
                    raise self._bad(f"the member or link {raw[:200]!r} leads out of the archive")
                parts.pop()
            elif part not in ("", "."):
                parts.append(part)
        return "/".join(parts)


def _text(field: bytes) -> str:
    return os.fsdecode(field.partition(b"\0")[0])


def _number(field: bytes) -> int | None:
    """A numeric header field, octal or base-256; None for a damaged one."""
    if field[0] & 0x80:
        return -1 if field[0] == 0xFF else int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    digits = field.strip(b" \0")
    if not digits:
        return 0
    return int(digits, 8) if digits.isdigit() and not digits.strip(b"01234567") else None


def _decimal(text: str | None, default: int) -> int:
    if text is None:
        return default
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else -1
