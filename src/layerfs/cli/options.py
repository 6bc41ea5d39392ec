"""The options of the command line, with the grammar that users know from docker.

argparse has another grammar: it does not know ``--rm=false`` beside a bare ``--rm``, takes no value that starts
with a dash (``-e -x``), and goes on looking for options behind the image's name.  Here, as with docker:

- ``--flag value``, ``--flag=value``, ``-f value``, ``-fvalue``, ``-f=value``; ``-it`` is ``-i -t``;
- a switch is set by ``--rm`` and ``--rm=true``, and cleared by ``--rm=false``;
- options may stand between the arguments, but where a command takes a foreign command line (run, exec, create)
  they end at the first argument; ``--`` ends them everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from layerfs.errors import InvalidInputError

__all__ = ["Args", "Command", "Option", "flag", "helped", "many", "one"]

_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")


class Option:
    """One option: its names, the type of its value (None: a switch), whether it may be repeated.

    A ``hidden`` one is known, to be refused by its name, and not shown by ``--help``.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        help: str,
        *,
        type: Callable[[str], Any] | None,
        metavar: str,
        repeated: bool = False,
        default: Any = None,
        choices: tuple[str, ...] = (),
        hidden: bool = False,
    ) -> None:
        self.names = names
        self.help = help
        self.type = type
        self.metavar = metavar
        self.repeated = repeated
        self.default = default
        self.choices = choices
        self.hidden = hidden

    @property
    def key(self) -> str:
        """The name of its value in Args."""
        return self.names[-1].lstrip("-").replace("-", "_")

    def initial(self) -> Any:
        """The value when the option is not given."""
        return [] if self.repeated else False if self.type is None and self.default is None else self.default

    def read(self, name: str, text: str) -> Any:
        """Return the value of what the user wrote; raises InvalidInputError."""
        reason = "wanted is one of " + ", ".join(self.choices) if self.choices else ""
        try:
            if self.choices and text not in self.choices:
                raise ValueError(reason)
            return self.type(text) if self.type is not None else _boolean(text)
        except (ValueError, InvalidInputError) as error:
            detail = str(error) if self.choices or isinstance(error, InvalidInputError) else self._wanted()
            raise InvalidInputError(f"invalid argument {text!r} for {name}: {detail}") from None

    def _wanted(self) -> str:
        if self.type is None:
            return "not true or false"
        return "not a whole number" if self.type is int else "not a number" if self.type is float else "not valid"


def flag(*names: str, help: str, default: bool = False) -> Option:
    """A switch."""
    return Option(names, help, type=None, metavar="", default=default)


def one(
    *names: str,
    help: str,
    type: Callable[[str], Any] = str,
    metavar: str = "string",
    default: Any = None,
    choices: tuple[str, ...] = (),
) -> Option:
    """An option with a value; the last one counts."""
    return Option(names, help, type=type, metavar=metavar, default=default, choices=choices)


def many(
    *names: str, help: str, type: Callable[[str], Any] = str, metavar: str = "list", choices: tuple[str, ...] = ()
) -> Option:
    """An option that may be repeated; its value is a list."""
    return Option(names, help, type=type, metavar=metavar, repeated=True, choices=choices)


class Args:
    """What the user gave: ``rest`` holds the arguments, each option's value is an attribute (dashes: ``_``)."""

    def __init__(self, values: dict[str, Any], rest: list[str], given: frozenset[str]) -> None:
        self.rest = rest
        self.given = given
        self._values = values

    def __getattr__(self, name: str) -> Any:
        try:
            return self._values[name]
        except KeyError:
            raise AttributeError(name) from None


class Command:
    """The form of a verb: usage line, options, how many arguments, and whether options may follow them."""

    def __init__(
        self,
        usage: str,
        options: Sequence[Option] = (),
        *,
        least: int = 0,
        most: int | None = None,
        interspersed: bool = True,
        notes: str = "",
        instead: tuple[str, ...] = (),
    ) -> None:
        """``instead``: keys of options that stand for the arguments, which need not be there then."""
        self.instead = frozenset(instead)
        self.usage = usage
        self.options = tuple(options)
        self.least = least
        self.most = most
        self.interspersed = interspersed
        self.notes = notes
        self._names = {name: option for option in self.options for name in option.names}

    def parse(self, words: Sequence[str], title: str = "layerfs") -> Args | None:
        """Read the words behind the verb ``title``; None when help is asked for.  Raises InvalidInputError."""
        values = {option.key: option.initial() for option in self.options}
        given: set[str] = set()
        rest: list[str] = []
        queue = list(reversed(words))
        while queue:
            word = queue.pop()
            if word == "--":
                break
            if not word.startswith("-") or word == "-":
                rest.append(word)
                if not self.interspersed:
                    break
            elif word == "--help" or (word == "-h" and "-h" not in self._names):
                return None
            elif word.startswith("--"):
                self._long(word, queue, values, given)
            else:
                self._short(word, queue, values, given)
        rest.extend(reversed(queue))
        self._count(rest, title, given)
        return Args(values, rest, frozenset(given))

    def _long(self, word: str, queue: list[str], values: dict[str, Any], given: set[str]) -> None:
        name, equals, text = word.partition("=")
        option = self._names.get(name)
        if option is None:
            raise InvalidInputError(f"unknown flag: {name}", hint=self._alike(name))
        if not equals:
            text = self._value(option, name, queue)
        self._set(option, name, text, values, given)

    def _short(self, word: str, queue: list[str], values: dict[str, Any], given: set[str]) -> None:
        letters = word[1:]
        while letters:
            name, letters = f"-{letters[0]}", letters[1:]
            option = self._names.get(name)
            if option is None:
                inside = f" in {word}" if len(word) > 2 else ""
                raise InvalidInputError(f"unknown shorthand flag: {name}{inside}")
            if letters.startswith("="):
                text, letters = letters[1:], ""
            elif option.type is not None and letters:
                text, letters = letters, ""
            else:
                text = self._value(option, name, queue)
            self._set(option, name, text, values, given)

    @staticmethod
    def _value(option: Option, name: str, queue: list[str]) -> str:
        if option.type is None:
            return "true"
        if not queue:
            raise InvalidInputError(f"flag needs an argument: {name}")
        return queue.pop()

    @staticmethod
    def _set(option: Option, name: str, text: str, values: dict[str, Any], given: set[str]) -> None:
        value = option.read(name, text)
        given.add(option.key)
        if option.repeated:
            values[option.key].append(value)
        else:
            values[option.key] = value

    def _alike(self, name: str) -> str | None:
        import difflib  # only on the way to an error

        found = difflib.get_close_matches(
            name, [known for known, option in self._names.items() if len(known) > 2 and not option.hidden], 1
        )
        return f"did you mean {found[0]}?" if found else None

    def _count(self, rest: list[str], title: str, given: set[str]) -> None:
        if self.most is not None and len(rest) > self.most:
            raise InvalidInputError(f"too many arguments: {' '.join(rest[self.most :])}", hint=self._wanted(title))
        if rest and "all" in given & self.instead:
            raise InvalidInputError("--all goes without names")
        if len(rest) < self.least and not given & self.instead:
            raise InvalidInputError("an argument is missing", hint=self._wanted(title))

    def _wanted(self, title: str) -> str:
        return f"usage: {title} {self.usage}" if self.usage else "it takes no arguments"


def _boolean(text: str) -> bool:
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError


def helped(title: str, summary: str, command: Command) -> str:
    """Return the help of a verb, laid out as docker lays it out."""
    usage = command.usage if not command.options or "[OPTIONS]" in command.usage else f"[OPTIONS] {command.usage}"
    lines = [f"Usage:  {title} {usage}".rstrip(), "", summary]
    if command.notes:
        lines += ["", command.notes.strip()]
    rows = []
    shown = [option for option in command.options if not option.hidden]
    for option in sorted(shown, key=lambda option: option.names[-1].lstrip("-")):
        shorts = [name for name in option.names if not name.startswith("--")]
        longs = ", ".join(name for name in option.names if name.startswith("--"))
        left = f"  {shorts[0] if shorts else '  '}{',' if shorts and longs else ' '} {longs} {option.metavar}"
        rows.append((left.rstrip(), _explained(option)))
    if rows:
        width = max(len(left) for left, _ in rows) + 3
        lines += ["", "Options:", *(f"{left:{width}}{text}".rstrip() for left, text in rows)]
    return "\n".join(lines) + "\n"


def _explained(option: Option) -> str:
    text = option.help
    if option.choices:
        text += f" ({'|'.join(option.choices)})"
    if option.default not in (None, False, ""):
        text += f" (default {option.default})"
    return text
