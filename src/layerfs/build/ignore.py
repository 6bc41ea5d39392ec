"""``.dockerignore``: which paths of a context are left out.

The rules are those of docker (moby/patternmatcher), not of gitignore: patterns are anchored at the context's root,
``*`` and ``?`` do not cross a slash, ``**`` does, what is below a matched directory is matched too, ``!`` takes back,
and of all patterns the last that matches counts.
"""

import posixpath
import re
from collections.abc import Iterable, Sequence

import msgspec

from layerfs.errors import InvalidInputError

__all__ = ["Matcher", "glob_regex", "read_patterns"]

_SPECIAL = ".+()|{}$^"


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


def glob_regex(pattern: str) -> str:
    """A regular expression for a whole path; InvalidInputError for a pattern that is none."""
    out: list[str] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*":
            if pattern[at : at + 1] != "*":
                out.append("[^/]*")
                continue
            at += 1
            if pattern[at : at + 1] == "/":
                at += 1
            out.append(".*" if at >= len(pattern) else "(?:.*/)?")
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
    return "".join(out)


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
    body = re.sub(r"(?<!\\)([\[&~|^])", r"\\\1", body)
    regex = f"[{'^/' if inverted else ''}{body}]"
    try:
        re.compile(regex)
    except re.error:
        raise InvalidInputError(f"pattern [{text}]: not a class of characters") from None
    return regex


class _Pattern(msgspec.Struct, frozen=True):
    text: str
    regex: "re.Pattern[str]"
    inverted: bool


class Matcher:
    """Tells what is left out. Paths are relative, with slashes, without dots."""

    def __init__(self, patterns: Iterable[str]) -> None:
        """InvalidInputError for a pattern that is none."""
        self._patterns = [_compiled(pattern) for pattern in patterns if pattern]
        self._inverted = [pattern for pattern in self._patterns if pattern.inverted]

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def matches(self, path: str) -> bool:
        """Whether a path is left out, by itself or because a directory above it is."""
        matched = False
        parents: Sequence[str] | None = None
        for pattern in self._patterns:
            if pattern.inverted != matched:
                continue
            if pattern.regex.fullmatch(path) is not None:
                matched = not matched
                continue
            if parents is None:
                parents = _parents(path)
            if any(pattern.regex.fullmatch(parent) is not None for parent in parents):
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
        if re.fullmatch(glob_regex(part), name) is None:
            return False
    return True


def _parents(path: str) -> list[str]:
    names = path.split("/")
    return ["/".join(names[:count]) for count in range(1, len(names))]


def _compiled(pattern: str) -> _Pattern:
    inverted = pattern.startswith("!")
    text = pattern[1:] if inverted else pattern
    if not text:
        raise InvalidInputError("pattern '!': it names nothing to take back")
    return _Pattern(text, re.compile(glob_regex(text), re.DOTALL), inverted)
