"""``.dockerignore``: which paths of a context are left out.

The rules are those of docker (moby/patternmatcher), not of gitignore: patterns are anchored at the context's root,
``*`` and ``?`` do not cross a slash, ``**`` does, what is below a matched directory is matched too, ``!`` takes back,
and of all patterns the last that matches counts.
"""

import posixpath
import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import msgspec

from layerfs.errors import InvalidInputError

__all__ = ["Matcher", "compile_glob", "read_patterns"]

_SPECIAL = ".+()|{}$^"
_IN_NAME, _DIRECTORIES, _ANYTHING = "[^/]*", "(?:.*/)?", ".*"
_STARS = (_IN_NAME, _DIRECTORIES, _ANYTHING)


def read_patterns(text: str) -> list[str]:
    """The patterns of an ignore file, cleaned, ``!`` kept."""
    found = []
    for line in text.removeprefix("\ufeff").splitlines():
        if line.startswith("#"):
            continue
        pattern = line.strip()
        if not pattern:
            continue
        inverted = pattern.startswith("!")
        pattern = pattern[1:].strip() if inverted else pattern
        if pattern:
            pattern = posixpath.normpath(pattern)
            if len(pattern) > 1 and pattern.startswith("/"):
                pattern = pattern.lstrip("/") or "/"
        found.append(f"!{pattern}" if inverted else pattern)
    return found


def compile_glob(pattern: str) -> Callable[[str], bool]:
    """Tells whether a whole path is what a pattern describes; InvalidInputError for a pattern that is none.

    Patterns come with contexts of others: the time that one takes must not explode with its stars, as that of a regular
    expression does, so those of more than two stars are walked.
    """
    items = _items(pattern)
    if not _is_simple(items):
        return partial(_walk, [item if item in _STARS else re.compile(item, re.DOTALL) for item in items])
    regex = re.compile("".join(items), re.DOTALL)
    return lambda path: regex.fullmatch(path) is not None


def _is_simple(items: Sequence[str]) -> bool:
    return sum(item in _STARS for item in items) <= 2


def _walk(items: "Sequence[str | re.Pattern[str]]", path: str) -> bool:
    """The places in the pattern at which one may be after each character, all at once."""
    places = _entered(items, 0)
    for char in path:
        found: set[int] = set()
        for at in places:
            item = items[at] if at < len(items) else ""
            if not isinstance(item, str):
                if item.fullmatch(char) is not None:
                    found |= _entered(items, at + 1)
            elif item == _ANYTHING or (item == _IN_NAME and char != "/"):
                found |= _entered(items, at)
            elif item == _DIRECTORIES:
                found.add(at)
                if char == "/":
                    found |= _entered(items, at + 1)
        places = found
        if not places:
            return False
    return len(items) in places


def _entered(items: "Sequence[str | re.Pattern[str]]", at: int) -> set[int]:
    """A place, and those behind the stars there, each of which may stand for nothing."""
    found = {at}
    while at < len(items) and isinstance(items[at], str):
        at += 1
        found.add(at)
    return found


def _items(pattern: str) -> list[str]:
    """Regular expressions of single characters, and stars."""
    out: list[str] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*":
            if pattern[at : at + 1] != "*":
                out.append(_IN_NAME)
                continue
            at += 1
            if pattern[at : at + 1] == "/":
                at += 1
            out.append(_ANYTHING if at >= len(pattern) else _DIRECTORIES)
        elif char == "?":
            out.append("[^/]")
        elif char == "[":
            end = _class_end(pattern, at)
            out.append(_class(pattern[at:end]))
            at = end + 1
        elif char == "\\":
            if at == len(pattern):
                raise InvalidInputError(f"pattern {pattern!r}: nothing follows the backslash")
            out.append(re.escape(pattern[at]))
            at += 1
        else:
            out.append(f"\\{char}" if char in _SPECIAL else char)
    return out


def _class_end(pattern: str, at: int) -> int:
    start = at
    if pattern[at : at + 1] == "^":
        start = at = at + 1
    while at < len(pattern):
        if pattern[at] == "\\":
            at += 2
        elif pattern[at] == "]" and at > start:
            return at
        else:
            at += 1
    raise InvalidInputError(f"pattern {pattern!r}: a bracket is not closed")


def _class(text: str) -> str:
    inverted = text.startswith("^")
    body = text[1:] if inverted else text
    # Only ranges and escapes mean anything inside brackets.
    ranges = re.findall(r"(\\?.)(-\\?.)?", body, re.DOTALL)
    body = "".join(_plain(first) + (f"-{_plain(last[1:])}" if last else "") for first, last in ranges)
    regex = f"[{'^/' if inverted else ''}{body}]"
    try:
        re.compile(regex)
    except re.error:
        raise InvalidInputError(f"pattern [{text}]: not a class of characters") from None
    return regex


def _plain(char: str) -> str:
    return char if char.startswith("\\") else re.escape(char)


class _Pattern(msgspec.Struct, frozen=True):
    text: str
    is_path: Callable[[str], bool]
    inverted: bool


class Matcher:
    """Tells what is left out. Paths are relative, with slashes, without dots."""

    def __init__(self, patterns: Iterable[str]) -> None:
        """InvalidInputError for a pattern that is none."""
        self.patterns = tuple(pattern for pattern in patterns if pattern)
        self._patterns = [_compiled(pattern) for pattern in self.patterns]
        self._inverted = [pattern for pattern in self._patterns if pattern.inverted]
        self._any = _any_of([pattern.text for pattern in self._patterns if not pattern.inverted])

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def matches(self, path: str) -> bool:
        """Whether a path is left out, by itself or because a directory above it is."""
        if self._any is not None and self._any.fullmatch(path) is None:
            return False
        matched = False
        parents: Sequence[str] | None = None
        for pattern in self._patterns:
            if pattern.inverted != matched:
                continue
            if pattern.is_path(path):
                matched = not matched
                continue
            if parents is None:
                parents = _parents(path)
            if any(map(pattern.is_path, parents)):
                matched = not matched
        return matched

    def may_include_below(self, directory: str) -> bool:
        """Whether something below a directory that is left out may be taken back."""
        names = directory.split("/")
        return any(_may_reach(pattern.text.split("/"), names) for pattern in self._inverted)


def _may_reach(pattern: Sequence[str], names: Sequence[str]) -> bool:
    for part, name in zip(pattern, names, strict=False):
        if "**" in part:
            return True
        if not compile_glob(part)(name):
            return False
    return True


def _parents(path: str) -> list[str]:
    names = path.split("/")
    return ["/".join(names[:count]) for count in range(1, len(names))]


def _any_of(patterns: Sequence[str]) -> "re.Pattern[str] | None":
    """Matches a path that any of the patterns leaves out, or a directory above it: so most files are asked about once.
    None where one of them is walked."""
    every = [_items(pattern) for pattern in patterns]
    if not every or not all(map(_is_simple, every)):
        return None
    return re.compile(f"(?:{'|'.join(''.join(items) for items in every)})(?:/.*)?", re.DOTALL)


def _compiled(pattern: str) -> _Pattern:
    inverted = pattern.startswith("!")
    text = pattern[1:] if inverted else pattern
    if not text:
        raise InvalidInputError("pattern '!': it names nothing to take back")
    return _Pattern(text, compile_glob(text), inverted)
