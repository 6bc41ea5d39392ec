"""``--chmod`` and ``--chown``: what they say, and what they make of a mode or an owner."""

import os
import re
import stat
from collections.abc import Callable, Sequence

from layerfs.digest import Digest
from layerfs.errors import InvalidInputError
from layerfs.runtime.user import resolve_user
from layerfs.snapshots import SnapshotStore

__all__ = ["Chmod", "parse_chmod", "resolve_chown", "resolve_owner"]

Chmod = Callable[[int], int]
_ACTION = r"[-+=](?:[ugo]|[rwxXst]*)"
_CLAUSE = re.compile(rf"([ugoa]*)((?:{_ACTION})+)")
_BITS = {"r": 0o444, "w": 0o222, "x": 0o111}
_SHIFT = {"u": 6, "g": 3, "o": 0}
_WHO = {"u": 0o4700, "g": 0o2070, "o": 0o1007, "a": 0o7777}
_HIGHEST = 2**31 - 1


def parse_chmod(text: str) -> Chmod:
    """What makes the new ``st_mode`` of an old one; InvalidInputError."""
    if re.fullmatch(r"[0-7]{1,5}", text) and int(text, 8) <= 0o7777:
        wanted = int(text, 8)
        return lambda mode: stat.S_IFMT(mode) | wanted
    clauses = [_CLAUSE.fullmatch(part) for part in text.split(",")]
    if not text or None in clauses:
        raise InvalidInputError(f"--chmod={text}: neither octal, as 755, nor symbolic, as u=rwX,go=rX")
    steps = [
        (match[1] or "a", action[0], action[1:])
        for match in clauses
        if match is not None
        for action in re.findall(_ACTION, match[2])
    ]

    def change(mode: int) -> int:
        for who, action, letters in steps:
            mode = _change(mode, who, action, letters)
        return mode

    return change


def _change(mode: int, who: str, action: str, letters: str) -> int:
    reach = 0
    for letter in who:
        reach |= _WHO[letter]
    bits = 0
    for letter in letters:
        if letter in _SHIFT:  # what others have now
            bits |= (mode >> _SHIFT[letter] & 0o7) * 0o111
        elif letter in _BITS:
            bits |= _BITS[letter]
        elif letter == "X":
            bits |= 0o111 if stat.S_ISDIR(mode) or mode & 0o111 else 0
        elif letter == "s":
            bits |= 0o6000
        else:
            bits |= 0o1000
    bits &= reach | (0o1000 if "t" in letters and who == "a" else 0)
    if action == "+":
        return mode | bits
    if action == "-":
        return mode & ~bits
    return mode & ~reach | bits


def resolve_chown(
    text: str, stack: Sequence[Digest], snapshots: SnapshotStore, what: str = "--chown="
) -> tuple[int, int]:
    """The numbers of ``user[:group]``; without a group that of the user's number, as docker has it.

    Names are looked up in the image's own files. NotFoundError for one that is not there, InvalidInputError; ``what``
    is where the text stands.
    """
    user, sign, group = text.partition(":")
    if sign:  # what is left empty, as by a variable that is not set, is root's
        user, group = user or "0", group or "0"
    numbers = [_number(word, what) for word in (user, group) if word]
    if None not in numbers:
        return numbers[0] or 0, numbers[-1] or 0
    if not stack:
        raise InvalidInputError(f"{what}{text}: there are no names in scratch", hint="give numbers")
    root = snapshots.view(stack)
    try:
        uid = resolve_user(root, user).uid
        return uid, resolve_user(root, f"0:{group}").gid if group else uid
    finally:
        os.close(root)


def resolve_owner(user: str, stack: Sequence[Digest], snapshots: SnapshotStore) -> tuple[int, int]:
    """The numbers of ``USER``, who gets a working directory that is made. Without names to look up in, only numbers
    are someone."""
    if not stack:
        return resolve_chown(user, stack, snapshots, "USER ")
    root = snapshots.view(stack)
    try:
        found = resolve_user(root, user)
        return found.uid, found.gid
    finally:
        os.close(root)


def _number(word: str, what: str) -> int | None:
    if not word.isdecimal():
        return None
    if len(word) > 10 or int(word) > _HIGHEST:
        raise InvalidInputError(f"{what}{word}: out of range, 0 to {_HIGHEST}")
    return int(word)
