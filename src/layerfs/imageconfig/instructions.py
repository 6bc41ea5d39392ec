"""The instructions of a Dockerfile that change a configuration, and of ``--change``.

They are those that ``docker commit --change`` and ``podman commit --change`` accept, with the semantics of docker:
words are unquoted, variables are replaced from the image's environment (``variables``), and an ENTRYPOINT without a CMD
in the same edit drops the CMD of the base.  podman's spelling ``CMD=/bin/sh`` is taken too.
"""

from __future__ import annotations

import copy
import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from layerfs.errors import InvalidInputError
from layerfs.imageconfig.arguments import (
    SyntaxProblem,
    check_signal,
    healthcheck_options,
    json_words,
    port_key,
    ports_of,
    written_pairs,
)
from layerfs.variables import expand, split_words

__all__ = ["apply_changes", "check_instruction", "edit_section", "environment"]

_INSTRUCTION = re.compile(r"\s*([A-Za-z]+)(?:\s*$|\s+|=)(.*)", re.DOTALL)
_MAX_PORTS = 65536
_UNEXPANDED = ("CMD", "ENTRYPOINT", "HEALTHCHECK", "ONBUILD", "SHELL")

_Document: TypeAlias = dict[str, Any]


def apply_changes(config: Mapping[str, Any], changes: Sequence[str]) -> _Document:
    """Return ``config`` (a whole configuration document) with the instructions of ``changes`` applied.

    Each change holds one instruction, or several on lines of their own; a backslash at a line's end joins
    the next, ``#`` starts a comment line.  Raises InvalidInputError naming the instruction that is wrong.
    """
    document: _Document = copy.deepcopy(dict(config))
    section = document.get("config")
    document["config"] = section = section if isinstance(section, dict) else {}
    editor = _Editor(section)
    for change in changes:
        for line in _lines(change):
            editor.apply(line)
    return document


def edit_section(
    section: Mapping[str, Any],
    word: str,
    rest: str,
    *,
    variables: Mapping[str, str],
    escape: str = "\\",
    cmd_set: bool = False,
    missing: Callable[[str], None] | None = None,
) -> _Document:
    """Return the ``config`` member ``section`` with one instruction of a Dockerfile applied to it.

    ``variables`` are what ``$NAME`` means; ``cmd_set`` says that an ENTRYPOINT is to leave the CMD as it is. Raises
    InvalidInputError with the reason alone: the caller knows which instruction it was.
    """
    edited = dict(section)
    editor = _Editor(edited, variables=variables, escape=escape, cmd_set=cmd_set, missing=missing)
    _handle(editor, word, rest)
    return edited


def check_instruction(word: str, rest: str, *, escape: str = "\\") -> None:
    """Raise InvalidInputError for what is wrong with an instruction whatever its variables hold."""
    if "$" not in rest or word in _UNEXPANDED:
        _handle(_Editor({}, variables={}, escape=escape), word, rest)
    elif word in ("ENV", "LABEL"):
        try:
            written_pairs(rest, escape)
        except SyntaxProblem as problem:
            raise InvalidInputError(str(problem)) from None


def environment(section: Mapping[str, Any]) -> dict[str, str]:
    """The variables of a ``config`` member."""
    pairs = (entry.partition("=") for entry in section.get("Env") or [])
    return {name: value for name, _, value in pairs}


def _lines(change: str) -> list[str]:
    joined = re.sub(r"\\[ \t]*\r?\n", "", change)
    lines = [line.strip() for line in joined.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def _handle(editor: _Editor, word: str, rest: str) -> None:
    try:
        _HANDLERS[word](editor, rest)
    except SyntaxProblem as problem:
        raise InvalidInputError(str(problem)) from None


def _wrong(line: str, reason: str, hint: str | None = None) -> InvalidInputError:
    shown = line if len(line) <= 80 else line[:77] + "..."
    return InvalidInputError(f"change {shown!r}: {reason}", hint=hint)


class _Editor:
    """Applies instructions to the ``config`` member of one document."""

    def __init__(
        self,
        section: _Document,
        *,
        variables: Mapping[str, str] | None = None,
        escape: str = "\\",
        cmd_set: bool = False,
        missing: Callable[[str], None] | None = None,
    ) -> None:
        self.section = section
        self._variables = variables
        self._escape = escape
        self._cmd_set = cmd_set
        self._missing = missing

    def apply(self, line: str) -> None:
        match = _INSTRUCTION.fullmatch(line)
        name = match[1].upper() if match else ""
        handler = _HANDLERS.get(name)
        if match is None or handler is None:
            raise _wrong(line, "unknown instruction", hint=f"known are {', '.join(sorted(_HANDLERS))}")
        rest = match[2].strip()
        if not rest:
            raise _wrong(line, f"{name} needs an argument")
        try:
            handler(self, rest)
        except (SyntaxProblem, InvalidInputError) as problem:
            raise _wrong(line, str(problem)) from None

    def cmd(self, rest: str) -> None:
        self._set("Cmd", self._command(rest))
        self._cmd_set = True

    def entrypoint(self, rest: str) -> None:
        self._set("Entrypoint", self._command(rest))
        if not self._cmd_set:
            self.section.pop("Cmd", None)

    def env(self, rest: str) -> None:
        entries = list(self.section.get("Env") or [])
        for name, value in self._pairs(rest):
            if not name:
                raise SyntaxProblem("a variable needs a name")
            entry, prefix = f"{name}={value}", f"{name}="
            for position, old in enumerate(entries):
                if old.startswith(prefix) or old == name:
                    entries[position] = entry
                    break
            else:
                entries.append(entry)
        self.section["Env"] = entries

    def label(self, rest: str) -> None:
        labels = dict(self.section.get("Labels") or {})
        for name, value in self._pairs(rest):
            if not name:
                raise SyntaxProblem("a label needs a name")
            labels[name] = value
        self.section["Labels"] = labels

    def expose(self, rest: str) -> None:
        ports = dict(self.section.get("ExposedPorts") or {})
        # A variable may hold several ports, as in no other instruction.
        words = (port for word in self._split(rest) for port in self._expand(word).split())
        for word in words:
            ports.update({key: {} for key in ports_of(word)})
            if len(ports) > _MAX_PORTS:
                raise SyntaxProblem("too many ports")
        self.section["ExposedPorts"] = dict(sorted(ports.items(), key=port_key))

    def volume(self, rest: str) -> None:
        words = json_words(rest)
        paths = [self._expand(word) for word in (self._split(rest) if words is None else words)]
        if not paths or not all(path.strip() for path in paths):
            raise SyntaxProblem("a volume must not be empty")
        self.section["Volumes"] = dict(self.section.get("Volumes") or {}) | {path: {} for path in paths}

    def workdir(self, rest: str) -> None:
        path = posixpath.join("/", self.section.get("WorkingDir") or "", self._expand(rest))
        # normpath keeps two leading slashes, which mean nothing on Linux.
        self.section["WorkingDir"] = "/" + posixpath.normpath(path).lstrip("/")

    def user(self, rest: str) -> None:
        self.section["User"] = self._single(rest)

    def stopsignal(self, rest: str) -> None:
        name = self._single(rest)
        check_signal(name)
        self.section["StopSignal"] = name

    def onbuild(self, rest: str) -> None:
        trigger = rest.split(None, 1)[0].upper()
        if trigger in ("ONBUILD", "FROM", "MAINTAINER"):
            raise SyntaxProblem(f"{trigger} is not allowed as a trigger")
        self.section["OnBuild"] = [*(self.section.get("OnBuild") or []), rest]

    def shell(self, rest: str) -> None:
        words = json_words(rest)
        if not words:
            raise SyntaxProblem('SHELL wants a JSON list such as ["/bin/sh", "-c"]')
        self.section["Shell"] = words

    def healthcheck(self, rest: str) -> None:
        options, rest = healthcheck_options(rest)
        word, _, command = rest.partition(" ")
        command = command.strip()
        if word.upper() == "NONE" and not command and not options:
            self.section["Healthcheck"] = {"Test": ["NONE"]}
            return
        if word.upper() != "CMD" or not command:
            raise SyntaxProblem("HEALTHCHECK wants NONE, or [OPTIONS] CMD command")
        words = json_words(command)
        test = ["CMD-SHELL", command] if words is None else ["CMD", *words]
        self.section["Healthcheck"] = {"Test": test, **options}

    def _command(self, rest: str) -> list[str]:
        words = json_words(rest) if rest else []  # nothing at all takes back what there was
        if words is None:
            return [*(self.section.get("Shell") or ["/bin/sh", "-c"]), rest]
        return words

    def _set(self, key: str, words: list[str]) -> None:
        if words:
            self.section[key] = words
        else:
            self.section.pop(key, None)

    def _single(self, rest: str) -> str:
        if len(self._split(rest)) != 1:
            raise SyntaxProblem("exactly one argument is wanted")
        return self._expand(rest)

    def _pairs(self, rest: str) -> list[tuple[str, str]]:
        return [(self._expand(name), self._expand(value)) for name, value in written_pairs(rest, self._escape)]

    def _expand(self, word: str) -> str:
        variables = self._variables if self._variables is not None else environment(self.section)
        return expand(word, variables, escape=self._escape, missing=self._missing)

    def _split(self, text: str) -> list[str]:
        return split_words(text, self._escape)


_HANDLERS: dict[str, Callable[[_Editor, str], None]] = {
    "CMD": _Editor.cmd,
    "ENTRYPOINT": _Editor.entrypoint,
    "ENV": _Editor.env,
    "EXPOSE": _Editor.expose,
    "HEALTHCHECK": _Editor.healthcheck,
    "LABEL": _Editor.label,
    "ONBUILD": _Editor.onbuild,
    "SHELL": _Editor.shell,
    "STOPSIGNAL": _Editor.stopsignal,
    "USER": _Editor.user,
    "VOLUME": _Editor.volume,
    "WORKDIR": _Editor.workdir,
}
