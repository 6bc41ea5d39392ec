"""Small pieces of text that many verbs print, and the names of things as docker shows them."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from layerfs.late import LateModule

if TYPE_CHECKING:
    import re

    from layerfs.images import ImageSummary
else:  # for filters
    re = LateModule("re")

__all__ = [
    "NONE",
    "glob_matches",
    "image_names",
    "matches_reference",
    "shorten",
    "shown_command",
    "shown_id",
    "shown_path",
]

NONE = "<none>"
_ESCAPED = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"})


def shown_id(digest: str, full: bool) -> str:
    """Return an image ID or digest: whole, or its first 12 digits."""
    return digest if full else digest.rpartition(":")[2][:12]


def shown_path(path: bytes) -> str:
    """Return a path as it is, but for a terminal without what that would obey."""
    text = os.fsdecode(path)
    if text.isprintable() or not sys.stdout.isatty():
        return text
    return "".join(char if char.isprintable() else "?" for char in text)


def shorten(text: str, width: int, full: bool = False) -> str:
    """Return a text, cut to ``width`` characters with an ellipsis unless ``full``."""
    return text if full or len(text) <= width else text[: width - 1] + "…"


def shown_command(words: Sequence[str], full: bool = False) -> str:
    """Return a command in quotes on one line: an argument with a blank has quotes of its own."""
    text = " ".join(f"'{word}'" if " " in word else word for word in words)
    return '"' + shorten(text, 20, full).translate(_ESCAPED) + '"'


def image_names(image: ImageSummary, digests: bool = False) -> list[tuple[str, str, str]]:
    """Return (repository, tag, digest) of each name of an image, with ``<none>`` for what there is not.

    ``digests``: a repository under several digests makes as many rows.
    """
    from layerfs.reference import Reference

    by_repository: dict[str, list[str]] = {}
    for text in image.repo_digests:
        reference = Reference.parse(text)
        by_repository.setdefault(reference.familiar_name, []).append(str(reference.digest))
    rows = []
    for name in image.names:
        reference = Reference.parse(name)
        known = by_repository.get(reference.familiar_name, [NONE])
        rows += [
            (reference.familiar_name, reference.tag or NONE, digest) for digest in (known if digests else known[:1])
        ]
    if not rows:
        rows = [(name, NONE, digest) for name, known in by_repository.items() for digest in known]
    return rows or [(NONE, NONE, NONE)]


def glob_matches(pattern: str, text: str) -> bool:
    """Whether a pattern of ``*``, ``?`` and ``[...]`` matches, where none of them matches a slash."""
    out = ""
    for piece in re.findall(r"\[\^?[^]]+\]|.", pattern, re.DOTALL):
        out += {"*": "[^/]*", "?": "[^/]"}.get(piece) or (piece if len(piece) > 1 else re.escape(piece))
    try:
        return re.fullmatch(out, text) is not None
    except re.error:
        return False


def matches_reference(patterns: Sequence[str], repository: str, tag: str) -> bool:
    """Whether one of the patterns of ``--filter reference=`` fits a name, as it is shown or as it is in full."""
    full = repository
    if repository != NONE and any("/" in pattern for pattern in patterns):
        from layerfs.reference import Reference

        full = Reference.parse(repository).name
    texts = (repository, f"{repository}:{tag}", full, f"{full}:{tag}")
    return any(glob_matches(pattern, text) for pattern in patterns for text in texts)
