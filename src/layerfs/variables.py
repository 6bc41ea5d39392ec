"""Variables in the words of a Dockerfile: quotes removed and ``$NAME`` replaced, as BuildKit's lexer does.

    $NAME ${NAME}  ${NAME:-word} ${NAME-word}  ${NAME:+word} ${NAME+word}  ${NAME:?word} ${NAME?word}
    ${NAME#pattern} ${NAME##pattern} ${NAME%pattern} ${NAME%%pattern}  ${NAME/pattern/word} ${NAME//pattern/word}

A word stays one word whatever its variables hold. ``InvalidInputError`` says what is wrong; whoever calls adds where.
"""

import re
from collections.abc import Callable, Mapping
from itertools import pairwise

from layerfs.errors import InvalidInputError

__all__ = ["expand", "split_words"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9]+|[@*#?$!-]")
_WORDS = {
    escape: re.compile(r"""(?:[^\s"'E]|E.|"(?:[^"E]|E.)*"?|'[^']*'?|E$)+""".replace("E", re.escape(escape)), re.DOTALL)
    for escape in "\\`"
}
_DEPTH = 50


def split_words(text: str, escape: str = "\\") -> list[str]:
    """Words separated by blanks outside quotes; quotes and escapes stay in them."""
    return _WORDS[escape].findall(text)


def expand(
    word: str,
    variables: Mapping[str, str],
    *,
    escape: str = "\\",
    missing: Callable[[str], None] | None = None,
    quotes: bool = True,
) -> str:
    """The word without its quotes and escapes, variables replaced; ``missing`` is told of those that are not set.
    Without ``quotes`` they are characters like others, as in the text of a heredoc."""
    if not any(char in word for char in ("$", "'", '"', escape)):
        return word
    return _Expander(word, variables, escape, missing, quotes=quotes).run()


class _Expander:
    def __init__(
        self,
        word: str,
        variables: Mapping[str, str],
        escape: str,
        missing: Callable[[str], None] | None,
        *,
        quotes: bool,
    ) -> None:
        self.word = word
        self.variables = variables
        self.escape = escape
        self.missing = missing
        self.quotes = quotes
        self.at = 0
        self.depth = 0

    def run(self, end: str = "") -> str:
        """Up to one of the characters ``end``, which is not taken, or to the end of the word."""
        self.depth += 1
        if self.depth > _DEPTH:
            raise InvalidInputError("substitutions are nested too deeply")
        out: list[str] = []
        while self.at < len(self.word):
            char = self.word[self.at]
            if char in end and end:
                break
            self.at += 1
            if char == "'" and self.quotes:
                out.append(self._single_quoted())
            elif char == '"' and self.quotes:
                out.append(self._double_quoted())
            elif char == self.escape:
                out.append(self._take())
            else:
                out.append(self._variable() if char == "$" else char)
        self.depth -= 1
        return "".join(out)

    def _take(self) -> str:
        char = self.word[self.at : self.at + 1]
        self.at += 1
        return char

    def _peek(self) -> str:
        return self.word[self.at : self.at + 1]

    def _single_quoted(self) -> str:
        close = self.word.find("'", self.at)
        if close < 0:
            raise InvalidInputError("a single quote is not closed")
        text = self.word[self.at : close]
        self.at = close + 1
        return text

    def _double_quoted(self) -> str:
        out: list[str] = []
        while self.at < len(self.word):
            char = self._take()
            if char == '"':
                return "".join(out)
            if char == self.escape and self._peek() in ('"', "$", self.escape):
                out.append(self._take())
            else:
                out.append(self._variable() if char == "$" else char)
        raise InvalidInputError("a double quote is not closed")

    def _variable(self) -> str:
        braces = self._peek() == "{"
        match = _NAME.match(self.word, self.at + braces)
        if match is None:
            if braces:
                raise InvalidInputError("a variable's name is wrong")
            return "$"
        self.at = match.end()
        value = self.variables.get(match[0])
        if not braces:
            return self._known(match[0], value)
        return self._modified(match[0], value)

    def _known(self, name: str, value: str | None) -> str:
        if value is None and self.missing is not None:
            self.missing(name)
        return value or ""

    def _modified(self, name: str, value: str | None) -> str:
        mark = self._take()
        if mark == "}":
            return self._known(name, value)
        if mark == ":":
            mark = self._take()
            if mark not in ("-", "+", "?"):
                raise InvalidInputError(f"${{{name}:{mark}...}}: not a substitution")
            value = value or None  # an empty one counts as none
        if mark in ("-", "+", "?"):
            result = self._default(mark, name, value)
        elif mark in ("#", "%"):
            result = self._trimmed(mark, self._known(name, value))
        elif mark == "/":
            result = self._replaced(self._known(name, value))
        else:
            raise InvalidInputError(f"${{{name}{mark}...}}: not a substitution" if mark else "a brace is not closed")
        if self._take() != "}":
            raise InvalidInputError(f"${{{name}...}}: the brace is not closed")
        return result

    def _default(self, mark: str, name: str, value: str | None) -> str:
        # Both sides are read, and only the one that counts may complain.
        missing, self.missing = self.missing, None
        word = self.run("}")
        self.missing = missing
        if mark == "?" and value is None:
            raise InvalidInputError(f"{name}: {word or 'not allowed to be unset or empty'}")
        if mark == "+":
            return word if value is not None else ""
        return value if value is not None else word

    def _trimmed(self, mark: str, value: str) -> str:
        longest = self._peek() == mark
        self.at += longest
        pattern = _pattern(self._pattern_text("}"), self.escape, greedy=longest)
        if mark == "#":
            match = re.match(pattern, value, re.DOTALL)
            return value[match.end() :] if match else value
        # From the end: the latest start is the shortest suffix.
        starts = range(len(value) + 1) if longest else range(len(value), -1, -1)
        for start in starts:
            if re.fullmatch(pattern, value[start:], re.DOTALL):
                return value[:start]
        return value

    def _replaced(self, value: str) -> str:
        everywhere = self._peek() == "/"
        self.at += everywhere
        pattern = _pattern(self._pattern_text("/}"), self.escape, greedy=True)
        word = ""
        if self._peek() == "/":
            self.at += 1
            word = self.run("}")
        if not pattern:
            return value
        return re.sub(pattern, lambda _: word, value, count=0 if everywhere else 1, flags=re.DOTALL)

    def _pattern_text(self, end: str) -> str:
        """A pattern as it is written, its escapes kept, variables replaced."""
        out: list[str] = []
        while self.at < len(self.word) and self._peek() not in end:
            char = self._take()
            if char == self.escape:
                out.append(char + self._take())
            elif char == "$":
                out.append(self._variable())
            else:
                out.append(char)
        return "".join(out)


def _pattern(text: str, escape: str, *, greedy: bool) -> str:
    """A regular expression for a shell's pattern of ``*``, ``?`` and escaped characters.

    What a star stands for ends where what follows it is found first: another star takes up all that is between, so
    there is no need to go back, which would take ages with many stars. Only the last one may.
    """
    out: list[str] = []
    stars: list[int] = []
    at = 0
    while at < len(text):
        char = text[at]
        at += 1
        if char == "*":
            stars.append(len(out))
            out.append(".*" if greedy else ".*?")
        elif char == "?":
            out.append(".")
        elif char == escape and at < len(text):
            out.append(re.escape(text[at]))
            at += 1
        else:
            out.append(re.escape(char))
    for star, following in pairwise(stars):
        out[star] = "(?>.*?"
        out[following - 1] += ")"
    return "".join(out)
