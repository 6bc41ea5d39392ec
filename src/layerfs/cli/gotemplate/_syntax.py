"""The nodes of a parsed template, and the tokens of one action."""

from __future__ import annotations

import re
from typing import Any, TypeAlias

import msgspec

from layerfs.errors import InvalidInputError

__all__ = [
    "Action",
    "Block",
    "Call",
    "Command",
    "Field",
    "Jump",
    "Literal",
    "Node",
    "Operand",
    "Pipe",
    "Text",
    "Token",
    "Variable",
    "failure",
    "tokens",
]


class Text(msgspec.Struct, frozen=True):
    """Text between actions."""

    text: str


class Literal(msgspec.Struct, frozen=True):
    """A constant; ``nil`` is None."""

    value: Any
    at: int


class Field(msgspec.Struct, frozen=True):
    """``base.a.b``: the base is the dot (None), a variable, or a pipeline in parentheses."""

    base: Operand | None
    names: tuple[str, ...]
    at: int


class Variable(msgspec.Struct, frozen=True):
    """``$name``; ``$`` alone is the data of the whole template."""

    name: str
    at: int


class Call(msgspec.Struct, frozen=True):
    """A function by its name."""

    name: str
    at: int


class Command(msgspec.Struct, frozen=True):
    """One stage of a pipeline: an operand and its arguments."""

    words: tuple[Operand, ...]
    at: int


class Pipe(msgspec.Struct, frozen=True):
    """A pipeline, with the variables that it sets (``declare``: new ones, by ``:=``)."""

    commands: tuple[Command, ...]
    variables: tuple[str, ...]
    declare: bool
    at: int


class Action(msgspec.Struct, frozen=True):
    """A pipeline whose value is printed, unless it only sets a variable."""

    pipe: Pipe


class Jump(msgspec.Struct, frozen=True):
    """``break`` or ``continue`` in a range."""

    kind: str


class Block(msgspec.Struct, frozen=True):
    """``if``, ``with`` or ``range`` with its two bodies."""

    kind: str
    pipe: Pipe
    body: tuple[Node, ...]
    otherwise: tuple[Node, ...]
    at: int


Operand: TypeAlias = Literal | Field | Variable | Call | Pipe
Node: TypeAlias = Text | Action | Jump | Block


class Token(msgspec.Struct, frozen=True):
    """One word of an action: its kind, text, place, and whether a blank stands before it."""

    kind: str
    text: str
    at: int
    spaced: bool


_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n]+)
    | (?P<string>"(?:[^"\\\n]|\\.)*"|`[^`]*`)
    | (?P<char>'(?:[^'\\\n]|\\[^\n])[^'\n]{0,10}')
    | (?P<number>[+-]?(?:\d[0-9A-Za-z_.]*(?:(?<=[eE])[+-]\d+)?|\.\d+))
    | (?P<field>\.[^\W\d]\w*)
    | (?P<variable>\$\w*)
    | (?P<word>[^\W\d]\w*)
    | (?P<mark>:=|[.=|(),])""",
    re.VERBOSE,
)


def failure(source: str, at: int, reason: str) -> InvalidInputError:
    """Return the error for what is wrong at character ``at`` of the template."""
    line = source.count("\n", 0, at) + 1
    column = at - (source.rfind("\n", 0, at) + 1) + 1
    return InvalidInputError(f"template {line}:{column}: {reason}")


def tokens(source: str, start: int, end: int) -> list[Token]:
    """Return the words of the action that stands between two places of the template."""
    found: list[Token] = []
    at, spaced = start, True
    while at < end:
        match = _TOKEN.match(source, at, end)
        if match is None:
            what = "an unterminated quoted string" if source[at] in "\"'`" else f"unexpected {source[at]!r}"
            raise failure(source, at, what)
        kind = match.lastgroup or ""
        if kind != "space":
            found.append(Token(kind, match[0], at, spaced))
        spaced = kind == "space"
        at = match.end()
    return found
