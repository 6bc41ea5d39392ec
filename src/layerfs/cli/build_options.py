"""The small languages of ``build``'s options: outputs, secrets, pairs."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from layerfs.cli.context import Context
from layerfs.errors import InvalidInputError

if TYPE_CHECKING:
    from layerfs.build import Output, Secret

__all__ = ["pairs", "parse_output", "parse_secret", "parse_ssh"]


def pairs(words: Iterable[str], option: str) -> dict[str, str]:
    """Read ``name=value`` of an option that may be repeated; the last one counts."""
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not name or not equals:
            raise InvalidInputError(f"{option} {word!r}: not of the form name=value")
        found[name] = value
    return found


def _fields(word: str, option: str) -> dict[str, str]:
    """Read ``key=value,key=value``, where a field with a comma in it is quoted as in CSV."""
    try:
        (parts,) = csv.reader([word])
    except (ValueError, csv.Error):
        raise InvalidInputError(f"{option} {word!r}: not of the form key=value,...") from None
    return pairs(parts, option)


def parse_output(word: str, context: Context) -> Output:
    """Read ``-o``: a directory alone, ``-`` (a tar on the standard output), or ``type=...,dest=...``."""
    from layerfs.build import Output

    plain = {"type": "tar" if word == "-" else "local", "dest": word}
    fields = _fields(word, "--output") if "=" in word else plain
    kind, dest = fields.pop("type", ""), fields.pop("dest", None)
    if not kind:
        raise InvalidInputError(f"--output {word!r}: the type is missing")
    if dest == "-" or (dest is None and kind in ("tar", "oci", "docker") and not sys.stdout.isatty()):
        return Output(kind, context.binary_out("an archive"), fields)
    return Output(kind, dest, fields)


def parse_secret(word: str) -> Secret:
    """Read ``--secret id=NAME[,src=FILE|env=VARIABLE]``."""
    from layerfs.build import Secret

    fields = _fields(word, "--secret")
    kind = fields.pop("type", None)
    known = {key: fields.pop(key, None) for key in ("id", "src", "source", "env")}
    if fields or kind not in (None, "file", "env"):
        raise InvalidInputError(f"--secret {word!r}: unknown are {', '.join(fields) or kind}")
    source = known["src"] or known["source"]
    id = known["id"] or source
    if not id:
        raise InvalidInputError(f"--secret {word!r}: the id is missing")
    if kind == "env" and not known["env"]:
        return Secret(id, None, source or id)
    return Secret(id, source, known["env"])


def parse_ssh(words: Iterable[str]) -> dict[str, str | None]:
    """Read ``--ssh default`` and ``--ssh id=SOCKET|KEY``."""
    found: dict[str, str | None] = {}
    for word in words:
        id, equals, source = word.partition("=")
        if not id:
            raise InvalidInputError(f"--ssh {word!r}: the id is missing")
        found[id] = source if equals else None
    return found
