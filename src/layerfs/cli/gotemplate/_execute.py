"""Runs a parsed template over data."""

from __future__ import annotations

from typing import Any

from layerfs.cli.gotemplate._functions import FUNCTIONS, LAZY
from layerfs.cli.gotemplate._parse import parse
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
    Variable,
    failure,
)
from layerfs.cli.gotemplate._values import MAX_TEXT, ValueProblem, child, show, truth

__all__ = ["Template"]

_MAX_STEPS = 1_000_000
_NOTHING: Any = object()


class Template:
    """A parsed template.  Raises InvalidInputError, naming line and column, for one that is wrong."""

    def __init__(self, source: str) -> None:
        self.source = source
        self._nodes = parse(source, frozenset(FUNCTIONS))

    def render(self, data: Any) -> str:
        """Return the text that the template makes of the data.

        Raises InvalidInputError for an unknown field, a wrong argument, or a limit that is passed.
        """
        return _Run(self.source, data).whole(self._nodes)


class _Jump(Exception):
    """Leaves the body of a range."""


class _Run:
    def __init__(self, source: str, data: Any) -> None:
        self.source = source
        self.variables: list[dict[str, Any]] = [{"$": data}]
        self.out: list[str] = []
        self.size = 0
        self.steps = 0

    def whole(self, nodes: tuple[Node, ...]) -> str:
        self.walk(nodes, self.variables[0]["$"])
        return "".join(self.out)

    def step(self, at: int) -> None:
        self.steps += 1
        if self.steps > _MAX_STEPS:
            raise failure(self.source, at, f"takes more than {_MAX_STEPS} steps")

    def write(self, text: str, at: int) -> None:
        self.size += len(text)
        if self.size > MAX_TEXT:
            raise failure(self.source, at, f"the output is longer than {MAX_TEXT} characters")
        self.out.append(text)

    def walk(self, nodes: tuple[Node, ...], dot: Any) -> None:
        for node in nodes:
            if isinstance(node, Text):
                self.write(node.text, 0)
            elif isinstance(node, Action):
                value = self.pipe(node.pipe, dot)
                if not node.pipe.variables:
                    self.write(self.guard(node.pipe.at, show, value), node.pipe.at)
            elif isinstance(node, Jump):
                raise _Jump(node.kind)
            else:
                self.variables.append({})
                self.block(node, dot)
                self.variables.pop()

    def block(self, node: Block, dot: Any) -> None:
        if node.kind == "range":
            self.range(node, dot)
            return
        value = self.pipe(node.pipe, dot)
        inner = value if node.kind == "with" else dot
        if truth(value):
            self.body(node.body, inner)
        else:
            self.body(node.otherwise, dot)

    def body(self, nodes: tuple[Node, ...], dot: Any) -> None:
        depth = len(self.variables)
        self.variables.append({})
        try:
            self.walk(nodes, dot)
        finally:
            del self.variables[depth:]

    def range(self, node: Block, dot: Any) -> None:
        pairs = self.pairs(self.pipe(node.pipe, dot, assign=False), node)
        if not pairs:
            self.body(node.otherwise, dot)
            return
        for key, value in pairs:
            self.step(node.at)
            names = node.pipe.variables
            for name, item in zip(names, (value,) if len(names) == 1 else (key, value), strict=False):
                self.set(name, item, node.pipe.declare)
            try:
                self.body(node.body, value)
            except _Jump as jump:
                if jump.args[0] == "break":
                    return

    def pairs(self, value: Any, node: Block) -> list[tuple[Any, Any]]:
        if isinstance(value, dict):
            return sorted(value.items(), key=lambda pair: str(pair[0]))
        if isinstance(value, (list, tuple)):
            return list(enumerate(value))
        if value is None:
            return []
        if isinstance(value, int) and not isinstance(value, bool):
            if value > _MAX_STEPS:
                raise failure(self.source, node.at, f"takes more than {_MAX_STEPS} steps")
            return [(number, number) for number in range(value)]
        raise failure(self.source, node.pipe.at, f"range cannot go over {show(value)!r:.40}")

    def set(self, name: str, value: Any, declare: bool) -> None:
        if not declare:
            for scope in reversed(self.variables):
                if name in scope:
                    scope[name] = value
                    return
        self.variables[-1][name] = value

    def pipe(self, pipe: Pipe, dot: Any, assign: bool = True) -> Any:
        value = _NOTHING
        for command in pipe.commands:
            value = self.command(command, dot, value)
        if assign:
            for name in pipe.variables:
                self.set(name, value, pipe.declare)
        return value

    def command(self, command: Command, dot: Any, final: Any) -> Any:
        self.step(command.at)
        first, *rest = command.words
        if isinstance(first, Call):
            return self.call(first, rest, dot, final)
        if isinstance(first, Field):
            target = self.field(first, dot, called=True)
            if callable(target):
                return self.guard(first.at, target, *self.arguments(rest, dot, final))
        elif isinstance(first, Literal) and first.value is None:
            raise failure(self.source, first.at, "nil is no command")
        else:
            target = self.operand(first, dot)
        if rest or final is not _NOTHING:
            raise failure(self.source, first.at, "what is no function takes no argument")
        return target

    def arguments(self, words: list[Operand], dot: Any, final: Any) -> list[Any]:
        values = [self.operand(word, dot) for word in words]
        return values if final is _NOTHING else [*values, final]

    def call(self, call: Call, words: list[Operand], dot: Any, final: Any) -> Any:
        if call.name in LAZY:
            return self.decide(call, words, dot, final)
        return self.guard(call.at, FUNCTIONS[call.name], *self.arguments(words, dot, final))

    def decide(self, call: Call, words: list[Operand], dot: Any, final: Any) -> Any:
        """``and`` and ``or``: the first argument that decides, else the last one."""
        value = _NOTHING
        for word in words:
            value = self.operand(word, dot)
            if truth(value) == (call.name == "or"):
                return value
        value = value if final is _NOTHING else final
        if value is _NOTHING:
            raise failure(self.source, call.at, f"{call.name}: wants a value")
        return value

    def guard(self, at: int, function: Any, *arguments: Any) -> Any:
        """Call a function, and give what is wrong with its arguments a place."""
        try:
            return function(*arguments)
        except ValueProblem as problem:
            raise failure(self.source, at, str(problem)) from None
        except TypeError as error:
            # Raised by the call itself, not inside the function: the arguments do not fit its parameters.
            if error.__traceback__ is None or error.__traceback__.tb_next is not None:
                raise
            raise failure(self.source, at, f"wrong number of arguments: {len(arguments)}") from None

    def operand(self, operand: Operand, dot: Any) -> Any:
        self.step(operand.at)
        if isinstance(operand, Literal):
            return operand.value
        if isinstance(operand, Variable):
            return next(scope[operand.name] for scope in reversed(self.variables) if operand.name in scope)
        if isinstance(operand, Pipe):
            return self.pipe(operand, dot)
        if isinstance(operand, Call):
            return self.call(operand, [], dot, _NOTHING)
        return self.field(operand, dot)

    def field(self, field: Field, dot: Any, called: bool = False) -> Any:
        """The value of a field; a method at its end is called without arguments unless the caller does."""
        value = dot if field.base is None else self.operand(field.base, dot)
        for number, name in enumerate(field.names):
            value = self.guard(field.at, child, value, name)
            last = number == len(field.names) - 1
            if callable(value) and not (last and called):
                value = self.guard(field.at, value)
        return value
