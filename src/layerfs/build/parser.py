"""From lines to instructions. Every mistake of syntax is an InvalidInputError with file, line and the line's text.

``parse(data, file)`` gives a ``Dockerfile``; ``parse_instruction`` one instruction, as ONBUILD keeps them.
"""

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeVar

from layerfs.build.instructions import Arg, Copy, Dockerfile, From, Instruction, Meta, Mount, Run, StageText
from layerfs.build.lines import Heredoc, Line, read_lines, syntax_error
from layerfs.errors import InvalidInputError
from layerfs.imageconfig import check_instruction
from layerfs.imageconfig.arguments import json_words
from layerfs.late import LateModule
from layerfs.variables import split_words

if TYPE_CHECKING:
    import difflib
else:  # on the way to an error
    difflib = LateModule("difflib")

__all__ = ["INSTRUCTIONS", "json_form", "parse", "parse_instruction", "parse_mount"]

_META = (
    "CMD", "ENTRYPOINT", "ENV", "EXPOSE", "HEALTHCHECK", "LABEL", "MAINTAINER", "ONBUILD", "SHELL", "STOPSIGNAL",
    "USER", "VOLUME", "WORKDIR",
)  # fmt: skip
INSTRUCTIONS = (*_META, "ADD", "ARG", "COPY", "FROM", "RUN")
_STAGE = re.compile(r"[a-z][a-z0-9._-]*")
_ARG = re.compile(r"[^\s=\"']+")
_MOUNTS = {
    "bind": {"target", "source", "from", "rw"},
    "cache": {"target", "source", "from", "id", "ro", "sharing", "mode", "uid", "gid"},
    "tmpfs": {"target", "size"},
    "secret": {"target", "id", "env", "required", "mode", "uid", "gid"},
    "ssh": {"target", "id", "required", "mode", "uid", "gid"},
}
_ALIASES = {"dst": "target", "destination": "target", "src": "source", "readwrite": "rw", "readonly": "ro"}
_SWITCHES = ("rw", "ro", "required")


class _Problem(Exception):
    """What is wrong; the caller knows where."""

    def __init__(self, reason: str, hint: str | None = None) -> None:
        super().__init__(reason)
        self.hint = hint


def parse(data: bytes, file: str = "Dockerfile") -> Dockerfile:
    """Parse a whole Dockerfile."""
    directives, lines = read_lines(data, file)
    arguments: list[Arg] = []
    stages: list[tuple[From, list[Instruction]]] = []
    for line in lines:
        if line.word == "FROM":
            stages.append((_located(file, line, _from), []))
            continue
        instruction = parse_instruction(line, file, directives.escape)
        if stages:
            stages[-1][1].append(instruction)
        elif isinstance(instruction, Arg):
            arguments.append(instruction)
        else:
            raise syntax_error(
                file, line.number, line.text, "there is no FROM before it", "only ARG may stand before the first FROM"
            )
    if not stages:
        raise InvalidInputError(f"{file}: no build stage", hint="it needs a FROM instruction", file=file)
    return Dockerfile(file, directives, tuple(arguments), tuple(StageText(s, tuple(i)) for s, i in stages))


def parse_instruction(line: Line, file: str, escape: str = "\\") -> Instruction:
    """One instruction but FROM."""
    return _located(file, line, lambda line: _instruction(line, escape))


_T = TypeVar("_T")


def parse_mount(text: str) -> Mount:
    """What ``RUN --mount=`` says; InvalidInputError with the reason alone."""
    try:
        return _mount(text)
    except _Problem as exc:
        raise InvalidInputError(str(exc), hint=exc.hint) from None


def _located(file: str, line: Line, make: Callable[[Line], _T]) -> _T:
    try:
        return make(line)
    except _Problem as exc:
        raise syntax_error(file, line.number, line.text.split("\n")[0], str(exc), exc.hint) from None


def _instruction(line: Line, escape: str) -> Instruction:
    if line.word not in INSTRUCTIONS:
        close = difflib.get_close_matches(line.word, INSTRUCTIONS, 1)
        hint = f"did you mean {close[0]}?" if close else "known are " + ", ".join(sorted(INSTRUCTIONS))
        raise _Problem(f"unknown instruction {line.word}", hint)
    if not line.rest and line.word not in ("CMD", "ENTRYPOINT"):
        raise _Problem(f"{line.word} needs an argument")
    if line.word == "ARG":
        return Arg(line, tuple(_arg(word) for word in split_words(line.rest, escape)))
    if line.word == "RUN":
        return _run(line)
    if line.word in ("COPY", "ADD"):
        return _copy(line)
    if line.word == "FROM":
        raise _Problem("FROM is not allowed here")
    if line.word != "ONBUILD":
        _check_meta(line, escape)
        return Meta(line, line.word, line.rest)
    trigger, _, rest = line.rest.partition(" ")
    if trigger.upper() in ("ONBUILD", "FROM", "MAINTAINER"):
        raise _Problem(f"{trigger.upper()} is not allowed as a trigger of ONBUILD")
    _instruction(Line(trigger.upper(), rest.strip(), line.number, line.end, line.rest, line.heredocs), escape)
    return Meta(line, "ONBUILD", line.rest)


def _check_meta(line: Line, escape: str) -> None:
    if line.word == "MAINTAINER":
        return
    try:
        check_instruction(line.word, line.rest, escape=escape)
    except InvalidInputError as exc:
        raise _Problem(str(exc), exc.hint) from None


def _from(line: Line) -> From:
    flags, rest = _flags(line.rest, {"platform"})
    words = rest.split()
    if len(words) not in (1, 3) or (len(words) == 3 and words[1].upper() != "AS"):
        raise _Problem("FROM wants one image, or: image AS name")
    name = words[2].lower() if len(words) == 3 else None
    if name is not None and not _STAGE.fullmatch(name):
        raise _Problem(f"{words[2]!r} is not a name for a stage", "letters first, then letters, digits, '-', '_', '.'")
    if name == "scratch":
        raise _Problem("the name scratch is reserved")
    return From(line, words[0], _last(flags, "platform"), name)


def _arg(word: str) -> tuple[str, str | None]:
    name, sign, value = word.partition("=")
    if not _ARG.fullmatch(name):
        raise _Problem(f"{word!r} is not of the form name or name=value")
    return name, value if sign else None


def _run(line: Line) -> Run:
    flags, rest = _flags(line.rest, {"mount", "network", "security"})
    network, security = _last(flags, "network") or "default", _last(flags, "security") or "sandbox"
    if network not in ("default", "none", "host"):
        raise _Problem(f"--network={network}: wanted is default, none or host")
    if security not in ("sandbox", "insecure"):
        raise _Problem(f"--security={security}: wanted is sandbox or insecure")
    if not rest:
        raise _Problem("RUN needs a command")
    words = json_form(rest)
    if words == []:
        raise _Problem("RUN needs a command")
    if words is not None and line.heredocs:
        raise _Problem("a heredoc cannot follow the JSON form")
    mounts = tuple(_mount(value or "") for name, value in flags if name == "mount")
    targets = [mount.options.get("target") for mount in mounts if "target" in mount.options]
    for target in targets:
        if targets.count(target) > 1:
            raise _Problem(f"--mount: two mounts at {target}")
    return Run(line, tuple(words) if words is not None else (rest,), words is None, mounts, network, security)


def _mount(text: str) -> Mount:
    kind, options = "bind", {}
    for part in text.split(","):
        name, sign, value = part.strip().partition("=")
        name = _ALIASES.get(name.lower(), name.lower())
        if name == "type":
            kind = value
        elif not sign and name not in _SWITCHES:
            raise _Problem(f"--mount={text}: {part.strip()!r} is not of the form name=value")
        else:
            options[name] = value if sign else "true"
    if "$" in options.get("from", ""):
        raise _Problem(f"--mount={text}: from takes no variables", "name a stage: FROM $NAME AS name")
    if "$" in kind:
        return Mount(kind, options)  # the rest when it is known
    if kind not in _MOUNTS:
        raise _Problem(f"--mount={text}: unknown type {kind!r}", _meant(kind, _MOUNTS))
    # ``ro`` of a bind and ``rw`` of a cache say what is so anyway.
    for plain, opposite in (("ro", "rw"), ("rw", "ro")):
        if plain in options and plain not in _MOUNTS[kind] and opposite in _MOUNTS[kind]:
            options[opposite] = "false" if options.pop(plain).lower() in ("true", "1") else "true"
    for name, value in options.items():
        _check_mount_option(text, kind, name, value)
    if kind in ("bind", "cache", "tmpfs") and not options.get("target"):
        raise _Problem(f"--mount={text}: a target is missing")
    if kind == "secret" and not (options.get("id") or options.get("target") or options.get("env")):
        raise _Problem(f"--mount={text}: an id, a target or a variable is missing")
    return Mount(kind, options)


def _meant(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, known := list(known), 1)
    return f"did you mean {close[0]}?" if close else "known are " + ", ".join(known)


def _check_mount_option(text: str, kind: str, name: str, value: str) -> None:
    if name not in _MOUNTS[kind]:
        raise _Problem(f"--mount={text}: unknown option {name!r}", _meant(name, sorted({*_MOUNTS[kind], "type"})))
    if name in _SWITCHES and value.lower() not in ("true", "false", "1", "0"):
        raise _Problem(f"--mount={text}: {name} is true or false")
    if "$" in value:
        return
    if name == "mode" and not re.fullmatch(r"0?[0-7]{1,4}", value):
        raise _Problem(f"--mount={text}: mode {value!r} is not octal")
    if name in ("uid", "gid") and not re.fullmatch(r"[0-9]{1,9}", value):
        raise _Problem(f"--mount={text}: {name} {value!r} is not a number")
    if name == "sharing" and value not in ("shared", "private", "locked"):
        raise _Problem(f"--mount={text}: sharing is shared, private or locked")
    if name == "size" and not re.fullmatch(r"[0-9]+[kmgtKMGT]?[bB]?", value):
        raise _Problem(f"--mount={text}: size {value!r} is not a number of bytes")


_COPY_FLAGS = {"from", "chown", "chmod", "link", "parents", "exclude"}
_ADD_FLAGS = {"chown", "chmod", "link", "exclude", "checksum", "keep-git-dir", "unpack"}


def _copy(line: Line) -> Copy:
    flags, rest = _flags(line.rest, _COPY_FLAGS if line.word == "COPY" else _ADD_FLAGS)
    words = json_form(rest)
    if words is None:
        words = rest.split()
    if len(words) < 2 or not words[-1]:
        raise _Problem(f"{line.word} needs at least one source and a destination")
    heredocs: list[Heredoc] = list(line.heredocs)
    if words[-1].startswith("<<"):
        raise _Problem("a heredoc cannot be the destination")
    if line.word == "COPY" and _last(flags, "from") == "":
        raise _Problem("--from is empty")
    if "$" in (_last(flags, "from") or ""):
        raise _Problem("--from takes no variables", "name a stage: FROM $NAME AS name")
    unpack = [_switch(name, value) for name, value in flags if name == "unpack"]
    return Copy(
        line,
        tuple(words[:-1]),
        words[-1],
        tuple(heredocs),
        from_=_last(flags, "from"),
        chown=_last(flags, "chown"),
        chmod=_last(flags, "chmod"),
        link=_is_on(flags, "link"),
        parents=_is_on(flags, "parents"),
        exclude=tuple(value or "" for name, value in flags if name == "exclude"),
        checksum=_last(flags, "checksum"),
        keep_git_dir=_is_on(flags, "keep-git-dir"),
        unpack=unpack[-1] if unpack else None,
    )


_Flags = list[tuple[str, str | None]]
_REPEATED = ("mount", "exclude")
_BARE = ("link", "parents", "keep-git-dir", "unpack")


def _flags(rest: str, known: set[str]) -> tuple[_Flags, str]:
    """The leading ``--name[=value]`` words, and what follows them. Quotes in a value are removed."""
    found: _Flags = []
    while (match := _FLAG.match(rest)) is not None:
        rest = rest[match.end() :]
        if match[0].strip() == "--":
            break
        name, sign, value = match[1].partition("=")
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            raise _Problem(
                f"unknown flag --{name}", f"did you mean --{close[0]}?" if close else "known are " + _dashed(known)
            )
        if any(name == other for other, _ in found) and name not in _REPEATED:
            raise _Problem(f"--{name} is given twice")
        if not sign and name not in _BARE:
            raise _Problem(f"--{name} needs a value")
        found.append((name, re.sub(r"""(["'])(.*?)\1""", r"\2", value) if sign else None))
    return found, rest


_FLAG = re.compile(r"""--((?:[^\s"']|"[^"]*"|'[^']*')*)(?:\s+|$)""")


def _dashed(names: set[str]) -> str:
    return ", ".join(f"--{name}" for name in sorted(names))


def _last(flags: _Flags, name: str) -> str | None:
    return next((value or "" for key, value in reversed(flags) if key == name), None)


def _switch(name: str, value: str | None) -> bool:
    if (value or "true").lower() not in ("true", "false", "1", "0"):
        raise _Problem(f"--{name} is true or false")
    return (value or "true").lower() in ("true", "1")


def _is_on(flags: _Flags, name: str) -> bool:
    found = [_switch(name, value) for key, value in flags if key == name]
    return bool(found and found[-1])


def json_form(text: str) -> list[str] | None:
    """The strings of a JSON list; None when the text is none, and then it is the shell form."""
    words = json_words(text)
    if words is not None and any("\0" in word for word in words):
        raise _Problem("a NUL character")
    return words
