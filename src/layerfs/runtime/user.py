"""Who a process inside a container is: ``user[:group]`` of an image or an option, looked up inside the root.

A number is only ever a number and never a name that looks like one; numbers from 2^31 on are refused; when a group
is named, the user's further groups are not taken; the group itself is always among the supplementary ones, so that
a file that denies the group is denied.  Source: image-spec config.md ("User").
"""

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from layerfs.errors import InvalidInputError, NotFoundError, native_error
from layerfs.runtime.beneath import read_beneath

__all__ = ["AccountReader", "User", "resolve_user"]

_LIMIT = 1 << 20
_HIGHEST = 2**31 - 1


class User(msgspec.Struct, frozen=True):
    """Numbers that a process gets, and the home directory that belongs to them."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = (0,)
    home: str = "/"


class _Account(msgspec.Struct, frozen=True):
    name: str
    uid: int
    gid: int
    home: str


class _Group(msgspec.Struct, frozen=True):
    name: str
    gid: int
    members: tuple[str, ...]


AccountReader = Callable[[bytes], bytes | None]
"""Gives the content of /etc/passwd or /etc/group of a tree; None where there is none."""


def resolve_user(root: int | AccountReader, text: str, group_add: Sequence[str] = ()) -> User:
    """The numbers of ``text`` (user, uid, user:group and so on; empty: root) in the tree ``root``, a descriptor of
    it or what reads its files.

    Raises NotFoundError for a name that the tree's passwd or group does not have, InvalidInputError for what
    is not a user.
    """
    user, sign, group = text.partition(":")
    if ":" in group or (sign and not group) or "\0" in text:
        raise InvalidInputError(f"user {text!r}: wanted is user[:group]")
    read = root if callable(root) else _reader(root)
    accounts = list(_accounts(read))
    account = _find_user(accounts, user)
    groups: list[_Group] = list(_groups(read))
    if group:
        gid, further = _find_group(groups, group), []
    else:
        gid = account.gid
        further = [entry.gid for entry in groups if account.name and account.name in entry.members]
    further += [_find_group(groups, name) for name in group_add]
    return User(account.uid, gid, tuple(dict.fromkeys([gid, *further])), account.home or "/")


def _find_user(accounts: Sequence[_Account], text: str) -> _Account:
    if not text:
        text = "0"
    number = _number(text, "user")
    for account in accounts:
        if account.uid == number if number is not None else account.name == text:
            return account
    if number is None:
        raise NotFoundError(f"user {text!r}: the image's /etc/passwd has no such user")
    return _Account("", number, 0, "/root" if number == 0 else "/")


def _find_group(groups: Iterable[_Group], text: str) -> int:
    number = _number(text, "group")
    if number is not None:
        return number
    for group in groups:
        if group.name == text:
            return group.gid
    raise NotFoundError(f"group {text!r}: the image's /etc/group has no such group")


def _number(text: str, what: str) -> int | None:
    digits = text[1:] if text[:1] in ("+", "-") else text
    if not (digits.isascii() and digits.isdecimal()):
        return None
    if not text.isdecimal() or len(text) > 10 or int(text) > _HIGHEST:
        raise InvalidInputError(f"{what} {text}: out of range, 0 to {_HIGHEST}")
    return int(text)


def _reader(root: int) -> AccountReader:
    return lambda path: read_beneath(root, path, _LIMIT)


def _accounts(read: AccountReader) -> Iterator[_Account]:
    for fields in _lines(read, b"/etc/passwd", 6):
        uid, gid = _id(fields[2]), _id(fields[3])
        if uid is not None and gid is not None:
            yield _Account(fields[0], uid, gid, fields[5])


def _groups(read: AccountReader) -> Iterator[_Group]:
    for fields in _lines(read, b"/etc/group", 3):
        gid = _id(fields[2])
        if gid is not None:
            members = fields[3].split(",") if len(fields) > 3 else ()
            yield _Group(fields[0], gid, tuple(name.strip() for name in members if name.strip()))


def _id(text: str) -> int | None:
    return int(text) if text.isdecimal() and len(text) <= 10 and int(text) <= _HIGHEST else None


def _lines(read: AccountReader, path: bytes, fewest: int) -> Iterator[list[str]]:
    try:
        data = read(path)
    except OSError as exc:
        if exc.errno == errno.EFBIG:
            raise InvalidInputError(f"read the image's {os.fsdecode(path)}: more than {_LIMIT} bytes") from exc
        raise native_error(exc, f"read the image's {os.fsdecode(path)}") from exc
    for line in (data or b"").decode("utf-8", "surrogateescape").split("\n"):
        fields = line.strip().split(":")
        if len(fields) >= fewest and fields[0] and not fields[0].startswith(("#", "+", "-")):
            yield fields
