"""From the text of a template to its nodes."""

from __future__ import annotations

import re
from typing import Any

from layerfs.cli.gotemplate._syntax import (
    Action,
    Block,
    Call,
    Command,
    Field,
    Jump,
    Literal,
    Node,
    Operand,
    Pipe,
    Text,
    Token,
    Variable,
    failure,
    tokens,
)

__all__ = ["MAX_SOURCE", "parse"]

MAX_SOURCE = 64 << 10
_MAX_NESTING = 40
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3})|(.))", re.DOTALL)
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_INTEGER = re.compile(r"[+-]?(?:0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO]?[0-7_]+|\d[\d_]*)")
_FLOAT = re.compile(r"[+-]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
# The inside of an action: quoted strings may hold the closing braces.
_INSIDE = re.compile(r"""(?:"(?:[^"\\\n]|\\.)*"|`[^`]*`|'(?:[^'\\\n]|\\.)*'|(?!}})[^"`'])*""", re.DOTALL)
_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_UNSUPPORTED = ("define", "template", "block")


def parse(source: str, functions: frozenset[str]) -> tuple[Node, ...]:
    """Return the nodes of the template.  Raises InvalidInputError with line and column."""
    if len(source) > MAX_SOURCE:
        raise failure(source, 0, f"longer than {MAX_SOURCE} characters")
    return _Parser(source, functions).run()


class _Parser:
    """One parse: ``items`` are texts (str) and actions (lists of tokens), in order."""

    def __init__(self, source: str, functions: frozenset[str]) -> None:
        self.source = source
        self.functions = functions
        self.items = _split(source)
        self.next = 0
        self.scopes: list[set[str]] = [{"$"}]
        self.ranges = 0
        self.depth = 0

    def run(self) -> tuple[Node, ...]:
        nodes, stop = self.body()
        if stop is not None:
            raise failure(self.source, stop[0].at, f"unexpected {{{{{stop[0].text}}}}}")
        return nodes

    def body(self) -> tuple[tuple[Node, ...], list[Token] | None]:
        """Nodes up to an ``else`` or ``end`` of an outer block (returned), or the template's end (None)."""
        nodes: list[Node] = []
        while self.next < len(self.items):
            item = self.items[self.next]
            self.next += 1
            if isinstance(item, str):
                nodes.append(Text(item))
                continue
            word = item[0].text if item[0].kind == "word" else ""
            if word in ("else", "end"):
                return tuple(nodes), item
            nodes.append(self.node(word, item))
        return tuple(nodes), None

    def node(self, word: str, item: list[Token]) -> Node:
        if word in ("if", "with", "range"):
            return self.block(word, item[0], item[1:])
        if word in ("break", "continue"):
            if len(item) > 1 or not self.ranges:
                raise failure(self.source, item[0].at, f"{word} is not allowed here")
            return Jump(word)
        if word in _UNSUPPORTED:
            raise failure(self.source, item[0].at, f"{word} is not supported")
        return Action(_Pipeline(self, item).whole())

    def block(self, kind: str, opening: Token, words: list[Token]) -> Block:
        self.enter(opening.at)
        self.scopes.append(set())
        pipe = _Pipeline(self, words, opening).whole(loop=kind == "range")
        self.ranges += kind == "range"
        body, stop = self.inner()
        self.ranges -= kind == "range"
        otherwise: tuple[Node, ...] = ()
        if stop is not None and stop[0].text == "else":
            otherwise, stop = self.alternative(kind, stop)
        self.scopes.pop()
        if stop is None:
            raise failure(self.source, opening.at, f"{kind} has no end")
        if len(stop) > 1:
            raise failure(self.source, stop[1].at, f"unexpected {stop[1].text!r} in {stop[0].text}")
        self.depth -= 1
        return Block(kind, pipe, body, otherwise, opening.at)

    def inner(self) -> tuple[tuple[Node, ...], list[Token] | None]:
        self.scopes.append(set())
        result = self.body()
        self.scopes.pop()
        return result

    def alternative(self, kind: str, stop: list[Token]) -> tuple[tuple[Node, ...], list[Token] | None]:
        """What follows an ``else``: a block of the same kind that shares the ``end``, or a plain body."""
        if len(stop) == 1:
            return self.inner()
        if stop[1].text != kind or kind == "range":
            raise failure(self.source, stop[1].at, f"unexpected {stop[1].text!r} in else")
        return (self.block(kind, stop[1], stop[2:]),), [Token("word", "end", stop[0].at, False)]

    def enter(self, at: int) -> None:
        self.depth += 1
        if self.depth > _MAX_NESTING:
            raise failure(self.source, at, f"nested deeper than {_MAX_NESTING}")

    def known(self, name: str) -> bool:
        return any(name in scope for scope in self.scopes)


class _Pipeline:
    """Parses the words of one pipeline."""

    def __init__(self, parser: _Parser, words: list[Token], opening: Token | None = None) -> None:
        self.parser = parser
        self.words = words
        self.next = 0
        self.start = words[0].at if words else opening.at + len(opening.text) if opening else 0

    def fail(self, reason: str, at: int | None = None) -> Exception:
        if at is None:
            token = self.peek()
            at = token.at if token else self.words[-1].at if self.words else self.start
        return failure(self.parser.source, at, reason)

    def peek(self, ahead: int = 0) -> Token | None:
        at = self.next + ahead
        return self.words[at] if at < len(self.words) else None

    def mark(self, text: str) -> bool:
        token = self.peek()
        if token is None or token.kind != "mark" or token.text != text:
            return False
        self.next += 1
        return True

    def whole(self, loop: bool = False) -> Pipe:
        variables, declare = self.variables(loop)
        pipe = self.pipe(variables, declare)
        if self.peek() is not None:
            raise self.fail(f"unexpected {self.words[self.next].text!r}")
        # A variable is known only behind its declaration.
        if declare:
            self.parser.scopes[-1].update(variables)
        return pipe

    def variables(self, loop: bool) -> tuple[tuple[str, ...], bool]:
        names: list[str] = []
        saved = self.next
        while (token := self.peek()) is not None and token.kind == "variable":
            names.append(token.text)
            self.next += 1
            if self.mark(":="):
                if "$" in names:
                    raise self.fail("a variable needs a name")
                return tuple(names), True
            if self.mark("="):
                for name in names:
                    self.check(name, token.at)
                return tuple(names), False
            if not (loop and len(names) == 1 and self.mark(",")):
                break
        self.next = saved
        return (), False

    def check(self, name: str, at: int) -> None:
        if not self.parser.known(name):
            raise self.fail(f"undefined variable {name!r}", at)

    def pipe(self, variables: tuple[str, ...] = (), declare: bool = False) -> Pipe:
        at = self.words[self.next].at if self.peek() else self.start
        commands = [self.command()]
        while self.mark("|"):
            commands.append(self.command())
            first = commands[-1].words[0]
            if isinstance(first, Literal):
                raise self.fail("a constant cannot take the value of a pipeline", first.at)
        return Pipe(tuple(commands), variables, declare, at)

    def command(self) -> Command:
        words: list[Operand] = []
        while (token := self.peek()) is not None and not (token.kind == "mark" and token.text in "|),"):
            if words and not token.spaced and token.kind not in ("string",):
                raise self.fail(f"unexpected {token.text!r}")
            words.append(self.operand())
        if not words:
            raise self.fail("a value is missing")
        return Command(tuple(words), words[0].at)

    def operand(self) -> Operand:
        token = self.words[self.next]
        self.next += 1
        base: Operand | None
        if token.kind == "field":
            self.next -= 1
            base = None
        elif token.kind == "mark" and token.text == ".":
            base = Field(None, (), token.at)
        elif token.kind == "variable":
            self.check(token.text, token.at)
            base = Variable(token.text, token.at)
        elif token.kind == "mark" and token.text == "(":
            base = self.parenthesis(token)
        else:
            return self.constant(token)
        names = self.names(first=base is None)
        if base is not None and not names:
            return base
        return Field(base, names, token.at)

    def names(self, first: bool) -> tuple[str, ...]:
        names: list[str] = []
        while (token := self.peek()) is not None and token.kind == "field" and (first or not token.spaced):
            names.append(token.text[1:])
            self.next += 1
            first = False
        return tuple(names)

    def parenthesis(self, opening: Token) -> Pipe:
        self.parser.enter(opening.at)
        pipe = self.pipe()
        if not self.mark(")"):
            raise self.fail("a parenthesis is not closed", opening.at)
        self.parser.depth -= 1
        return pipe

    def constant(self, token: Token) -> Operand:
        if token.kind == "string":
            return Literal(self.unquote(token), token.at)
        if token.kind == "char":
            text = self.unquote(token)
            if len(text) != 1:
                raise self.fail(f"malformed character constant {token.text}", token.at)
            return Literal(ord(text), token.at)
        if token.kind == "number":
            return Literal(self.number(token), token.at)
        if token.kind == "word" and token.text in _CONSTANTS:
            return Literal(_CONSTANTS[token.text], token.at)
        if token.kind == "word":
            if token.text not in self.parser.functions:
                raise self.fail(f"function {token.text!r} is not defined", token.at)
            return Call(token.text, token.at)
        raise self.fail(f"unexpected {token.text!r}", token.at)

    def unquote(self, token: Token) -> str:
        if token.text[0] == "`":
            return token.text[1:-1]

        def plain(match: re.Match[str]) -> str:
            code = match[1] or match[2] or match[3]
            value = int(code, 16) if code else int(match[4], 8) if match[4] else -1
            if 0 <= value <= 0x10FFFF and not 0xD800 <= value <= 0xDFFF:
                return chr(value)
            if value >= 0 or (match[5] not in _ESCAPES and match[5] not in ("\\", token.text[0])):
                raise self.fail(f"invalid escape {match[0]!r}", token.at)
            return _ESCAPES.get(match[5], match[5])

        return _ESCAPE.sub(plain, token.text[1:-1])

    def number(self, token: Token) -> int | float:
        text = token.text.replace("_", "")
        if len(text) <= 70 and _INTEGER.fullmatch(token.text):
            digits = text.lstrip("+-")
            try:
                value = int(digits, 8 if len(digits) > 1 and digits[0] == "0" and digits.isdecimal() else 0)
            except ValueError:
                raise self.fail(f"bad number {token.text!r}", token.at) from None
            value = -value if text[0] == "-" else value
            if -(2**63) <= value < 2**64:
                return value
        elif len(text) <= 70 and _FLOAT.fullmatch(token.text):
            return float(text)
        raise self.fail(f"bad number {token.text!r}", token.at)


_CONSTANTS: dict[str, Any] = {"true": True, "false": False, "nil": None}


def _split(source: str) -> list[str | list[Token]]:
    """Cut the template into texts and actions; comments go, and so do the blanks that ``-`` trims."""
    items: list[str | list[Token]] = []
    at, trim = 0, False
    while True:
        opening = source.find("{{", at)
        text = source[at : opening if opening >= 0 else len(source)]
        text = text.lstrip(" \t\r\n") if trim else text
        if opening < 0:
            items.extend([text] if text else [])
            return items
        start = opening + 2
        if source[start : start + 1] == "-" and source[start + 1 : start + 2] in (" ", "\t", "\r", "\n"):
            text = text.rstrip(" \t\r\n")
            start += 2
        items.extend([text] if text else [])
        words, at, trim = _action(source, opening, start)
        items.extend([words] if words is not None else [])


def _action(source: str, opening: int, start: int) -> tuple[list[Token] | None, int, bool]:
    """The tokens of one action (None for a comment), where it ends, and whether it trims what follows."""
    comment = _COMMENT.match(source, start)
    if comment is None and source.startswith("/*", start):
        raise failure(source, opening, "the comment is not closed")
    end = comment.end() if comment else _INSIDE.match(source, start).end()  # type: ignore[union-attr]
    if comment and re.match(r"[ \t\r\n]-}}", source[end : end + 4]):
        end += 2
    if source[end : end + 2] != "}}":
        where = end if end < len(source) and source[end] in "\"'`" else opening
        what = "a quoted string is not closed" if where == end else "the action is not closed"
        raise failure(source, where, "the comment holds more than a comment" if comment else what)
    trim = source[end - 1] == "-" and source[end - 2] in " \t\r\n" and end - 2 >= start
    if comment:
        return None, end + 2, trim
    words = tokens(source, start, end - 2 if trim else end)
    if not words:
        raise failure(source, opening, "the action is empty")
    return words, end + 2, trim
