"""The lines of a Dockerfile: directives, comments, continuations and heredocs. What an instruction means comes later.

``read_lines`` gives one ``Line`` an instruction, with its number in the file, so that all errors can name it.
"""

import re
from collections.abc import Iterator, Sequence

import msgspec

from layerfs.errors import InvalidInputError
from layerfs.variables import split_words

__all__ = ["Directives", "Heredoc", "Line", "read_lines", "syntax_error"]

_LIMIT = 16 << 20
_DIRECTIVE = re.compile(r"#\s*([A-Za-z][A-Za-z0-9]*)\s*=\s*(.+?)\s*")
_KNOWN = ("syntax", "escape", "check")
_HEREDOC = re.compile(r"(\d*)<<(-?)([^<]*)", re.DOTALL)
_TAKES_HEREDOCS = ("ADD", "COPY", "RUN")


class Heredoc(msgspec.Struct, frozen=True):
    """A text that follows an instruction. ``expand``: variables in it are replaced (its name was not quoted)."""

    name: str
    text: str
    expand: bool
    chomp: bool
    descriptor: str = ""


class Line(msgspec.Struct, frozen=True):
    """An instruction with its continuations joined. ``word`` is upper case; numbers count from 1."""

    word: str
    rest: str
    number: int
    end: int
    text: str
    heredocs: tuple[Heredoc, ...] = ()
    blanks: tuple[int, ...] = ()
    """Empty lines inside it, which docker deprecates."""
    written: str = ""
    """The instruction's name as it was written."""


class Directives(msgspec.Struct):
    """What the comments at the top of a file say."""

    syntax: str = ""
    escape: str = "\\"
    check: str = ""


def syntax_error(file: str, number: int, text: str, reason: str, hint: str | None = None) -> InvalidInputError:
    """An error as a compiler gives it."""
    shown = " ".join(text.split())
    shown = shown if len(shown) <= 100 else shown[:97] + "..."
    message = f"{file}:{number}: {shown}: {reason}" if shown else f"{file}:{number}: {reason}"
    return InvalidInputError(message, hint=hint, file=file, line=number)


def read_lines(data: bytes, file: str) -> tuple[Directives, list[Line]]:
    """The directives and instructions of a Dockerfile; InvalidInputError with file and line."""
    if len(data) > _LIMIT:
        raise InvalidInputError(f"{file}: more than {_LIMIT} bytes", file=file)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        number = data[: exc.start].count(b"\n") + 1
        raise syntax_error(file, number, "", "not UTF-8") from None
    if "\0" in text:
        raise syntax_error(file, text[: text.index("\0")].count("\n") + 1, "", "a NUL byte")
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    directives, first = _directives(lines, file)
    return directives, list(_instructions(lines, first, directives.escape, file))


def _directives(lines: Sequence[str], file: str) -> tuple[Directives, int]:
    """Only at the top, each once; the first line that is none ends them."""
    found = Directives()
    seen: set[str] = set()
    for number, line in enumerate(lines):
        if number == 0 and line.startswith("#!"):
            continue
        match = _DIRECTIVE.fullmatch(line.strip())
        key = match[1].lower() if match else ""
        if match is None or key not in _KNOWN:
            return found, number
        if key in seen:
            raise syntax_error(file, number + 1, line, f"the directive {key} is given twice")
        seen.add(key)
        if key == "escape" and match[2] not in ("\\", "`"):
            raise syntax_error(file, number + 1, line, "the escape character is \\ or `")
        setattr(found, key, match[2])
    return found, len(lines)


def _instructions(lines: Sequence[str], at: int, escape: str, file: str) -> Iterator[Line]:
    mark = re.escape(escape)
    continued = re.compile(rf"(?:(.*[^{mark}])|()){mark}[ \t]*", re.DOTALL)
    while at < len(lines):
        start = at
        line = lines[at]
        at += 1
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        pieces, blanks = [], []
        piece = line.lstrip()
        while (match := continued.fullmatch(piece)) is not None:
            pieces.append(match[1] or "")
            while at < len(lines) and (not lines[at].strip() or lines[at].lstrip().startswith("#")):
                if not lines[at].strip() and at < len(lines) - 1:
                    blanks.append(at + 1)
                at += 1
            if at == len(lines):
                piece = ""
                break
            piece = lines[at]
            at += 1
        pieces.append(piece)
        whole = "".join(pieces).strip()
        if not whole:
            continue
        whole, heredocs, at = _heredocs(whole, lines, at, escape, file, start + 1)
        written, _, rest = whole.partition(" ") if " " in whole.split("\t", 1)[0] else whole.partition("\t")
        text = whole + "".join(f"\n{each.text}{each.name}" for each in heredocs)
        yield Line(written.upper(), rest.strip(), start + 1, at, text, tuple(heredocs), tuple(blanks), written)


def _heredocs(
    whole: str, lines: Sequence[str], at: int, escape: str, file: str, number: int
) -> tuple[str, list[Heredoc], int]:
    """The texts that an instruction announces, which follow it in the same order, and the instruction with their names
    behind ``<<`` without a blank. With one it may as well be a shift: what it is then, the line that ends it tells."""
    words = whole.split(None, 2)
    if words and words[0].upper() == "ONBUILD":
        words = words[1:]
    if not words or words[0].upper() not in _TAKES_HEREDOCS or "<<" not in whole:
        return whole, [], at
    found = []
    parts = split_words(whole, escape)
    for word, following in zip(parts, [*parts[1:], ""], strict=True):
        match = _HEREDOC.fullmatch(word)
        if match is None:
            continue
        name = match[3] or following
        bare = re.sub(r"""\\(.)|["']""", lambda each: each[1] or "", name)
        if not match[3]:
            ends = (line.lstrip("\t") if match[2] else line for line in lines[at:])
            if name.startswith("-") or "<" in name or bare not in ends:
                continue
            gap = re.search(rf"(?<={re.escape(word)})\s+(?={re.escape(name)})", whole)
            whole = whole[: gap.start()] + whole[gap.end() :] if gap else whole
        if not bare:
            continue
        body: list[str] = []
        chomp = match[2] == "-"
        while True:
            if at == len(lines):
                hint = f"a line with {bare} ends it"
                raise syntax_error(file, number, whole, f"the heredoc {bare} does not end", hint)
            line = lines[at]
            at += 1
            if (line.lstrip("\t") if chomp else line) == bare:
                break
            body.append(line.lstrip("\t") if chomp else line)
        text = "".join(f"{line}\n" for line in body)
        expand = re.search(r"""["']""", re.sub(r"\\.", "", name)) is None
        found.append(Heredoc(bare, text, expand, chomp, match[1]))
    return whole, found, at
