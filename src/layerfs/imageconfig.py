"""Edits of an image configuration: new history and layers, and the instructions of ``--change``.

Everything here works on the configuration document as a plain ``dict``, so that members which this program
does not know (of newer specifications, or of other engines) survive an edit.  Inputs are never changed in
place: a new document comes back.

The instructions are those that ``docker commit --change`` and ``podman commit --change`` accept, with the
semantics of docker: words are unquoted, variables are replaced from the image's environment (``variables``), and
an ENTRYPOINT without a CMD in the same edit drops the CMD of the base.  podman's spelling ``CMD=/bin/sh`` is taken too.
"""

from __future__ import annotations

import copy
import json
import posixpath
import re
import signal
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from os import environ
from typing import Any, TypeAlias

from layerfs.digest import Digest
from layerfs.errors import InvalidInputError
from layerfs.oci import Platform
from layerfs.variables import expand, split_words

__all__ = ["apply_changes", "check_instruction", "edit_section", "environment", "new_config", "timestamp"]

_INSTRUCTION = re.compile(r"\s*([A-Za-z]+)(?:\s*$|\s+|=)(.*)", re.DOTALL)
_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?", re.IGNORECASE)
_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_NANOSECONDS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_MAX_PORTS = 65536

_Document: TypeAlias = dict[str, Any]


def timestamp(now: float | None = None) -> str:
    """Return the time (seconds since 1970; default: $SOURCE_DATE_EPOCH, else the clock) as RFC 3339 text in UTC.

    Raises InvalidInputError when $SOURCE_DATE_EPOCH is not a whole number.
    """
    epoch = environ.get("SOURCE_DATE_EPOCH")
    try:
        if now is None and epoch:
            return datetime.fromtimestamp(int(epoch), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        raise InvalidInputError(f"SOURCE_DATE_EPOCH {epoch!r}: not a time in seconds") from None
    when = datetime.now(UTC) if now is None else datetime.fromtimestamp(now, UTC)
    # Go's tools write no zeros at the end of a fraction; with them, a config that skopeo converts gets another digest.
    return when.strftime("%Y-%m-%dT%H:%M:%S.%f").rstrip("0").rstrip(".") + "Z"


def new_config(
    base: Mapping[str, Any] | None,
    *,
    created: str,
    platform: Platform | None = None,
    author: str = "",
    comment: str = "",
    created_by: str = "",
    diff_id: Digest | None = None,
) -> _Document:
    """Return the configuration that follows ``base`` (None: from scratch) by one history entry.

    With ``diff_id`` the entry adds that layer, without it the entry is an ``empty_layer``.  ``platform``
    replaces that of the base, and must be given when there is none.
    """
    document: _Document = copy.deepcopy(dict(base)) if base is not None else {}
    document["created"] = created
    if author:
        document["author"] = author
    if platform is not None:
        _set_platform(document, platform)
    elif not document.get("os") or not document.get("architecture"):
        raise InvalidInputError("new image: a platform is needed when the base states none")
    document.setdefault("config", {})
    diff_ids = _diff_ids(document)
    document["history"] = [*_whole_history(document, len(diff_ids))]
    entry: _Document = {"created": created}
    for key, value in (("created_by", created_by), ("author", author), ("comment", comment)):
        if value:
            entry[key] = value
    if diff_id is None:
        entry["empty_layer"] = True
    else:
        diff_ids.append(str(diff_id))
    document["history"].append(entry)
    return document


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


def _set_platform(document: _Document, platform: Platform) -> None:
    document["architecture"] = platform.architecture
    document["os"] = platform.os
    if platform.variant:
        document["variant"] = platform.variant
    else:
        document.pop("variant", None)


def _diff_ids(document: _Document) -> list[str]:
    rootfs = document.setdefault("rootfs", {"type": "layers", "diff_ids": []})
    if rootfs.get("diff_ids") is None:
        rootfs["diff_ids"] = []
    diff_ids: list[str] = rootfs["diff_ids"]
    return diff_ids


def _whole_history(document: _Document, layers: int) -> list[_Document]:
    """The history of the base, filled up so that every layer has its entry, as the specification wants."""
    history = list(document.get("history") or [])
    described = sum(1 for entry in history if not entry.get("empty_layer"))
    return history + [{"comment": "no history recorded"} for _ in range(layers - described)]


def _lines(change: str) -> list[str]:
    joined = re.sub(r"\\[ \t]*\r?\n", "", change)
    lines = [line.strip() for line in joined.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


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
        except (_SyntaxProblem, InvalidInputError) as problem:
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
                raise _SyntaxProblem("a variable needs a name")
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
                raise _SyntaxProblem("a label needs a name")
            labels[name] = value
        self.section["Labels"] = labels

    def expose(self, rest: str) -> None:
        ports = dict(self.section.get("ExposedPorts") or {})
        for word in self._split(rest):
            ports.update({key: {} for key in _ports(self._expand(word))})
            if len(ports) > _MAX_PORTS:
                raise _SyntaxProblem("too many ports")
        self.section["ExposedPorts"] = dict(sorted(ports.items(), key=_port_key))

    def volume(self, rest: str) -> None:
        words = _json_words(rest)
        paths = [self._expand(word) for word in (self._split(rest) if words is None else words)]
        if not paths or not all(path.strip() for path in paths):
            raise _SyntaxProblem("a volume must not be empty")
        self.section["Volumes"] = dict(self.section.get("Volumes") or {}) | {path: {} for path in paths}

    def workdir(self, rest: str) -> None:
        path = posixpath.join("/", self.section.get("WorkingDir") or "", self._expand(rest))
        # normpath keeps two leading slashes, which mean nothing on Linux.
        self.section["WorkingDir"] = "/" + posixpath.normpath(path).lstrip("/")

    def user(self, rest: str) -> None:
        self.section["User"] = self._single(rest)

    def stopsignal(self, rest: str) -> None:
        name = self._single(rest)
        _check_signal(name)
        self.section["StopSignal"] = name

    def onbuild(self, rest: str) -> None:
        trigger = rest.split(None, 1)[0].upper()
        if trigger in ("ONBUILD", "FROM", "MAINTAINER"):
            raise _SyntaxProblem(f"{trigger} is not allowed as a trigger")
        self.section["OnBuild"] = [*(self.section.get("OnBuild") or []), rest]

    def shell(self, rest: str) -> None:
        words = _json_words(rest)
        if not words:
            raise _SyntaxProblem('SHELL wants a JSON list such as ["/bin/sh", "-c"]')
        self.section["Shell"] = words

    def healthcheck(self, rest: str) -> None:
        options, rest = _healthcheck_options(rest)
        word, _, command = rest.partition(" ")
        command = command.strip()
        if word.upper() == "NONE" and not command and not options:
            self.section["Healthcheck"] = {"Test": ["NONE"]}
            return
        if word.upper() != "CMD" or not command:
            raise _SyntaxProblem("HEALTHCHECK wants NONE, or [OPTIONS] CMD command")
        words = _json_words(command)
        test = ["CMD-SHELL", command] if words is None else ["CMD", *words]
        self.section["Healthcheck"] = {"Test": test, **options}

    def _command(self, rest: str) -> list[str]:
        words = _json_words(rest)
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
            raise _SyntaxProblem("exactly one argument is wanted")
        return self._expand(rest)

    def _pairs(self, rest: str) -> list[tuple[str, str]]:
        return [(self._expand(name), self._expand(value)) for name, value in _written_pairs(rest, self._escape)]

    def _expand(self, word: str) -> str:
        variables = self._variables if self._variables is not None else environment(self.section)
        return expand(word, variables, escape=self._escape, missing=self._missing)

    def _split(self, text: str) -> list[str]:
        return split_words(text, self._escape)


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
            _written_pairs(rest, escape)
        except _SyntaxProblem as problem:
            raise InvalidInputError(str(problem)) from None


def _handle(editor: _Editor, word: str, rest: str) -> None:
    try:
        _HANDLERS[word](editor, rest)
    except _SyntaxProblem as problem:
        raise InvalidInputError(str(problem)) from None


def environment(section: Mapping[str, Any]) -> dict[str, str]:
    """The variables of a ``config`` member."""
    pairs = (entry.partition("=") for entry in section.get("Env") or [])
    return {name: value for name, _, value in pairs}


def _written_pairs(rest: str, escape: str) -> list[tuple[str, str]]:
    """``name=value …``, or the old form ``name value``; not expanded."""
    words = split_words(rest, escape)
    if not words or "=" not in words[0]:
        name, *value = rest.split(None, 1)
        if not value:
            raise _SyntaxProblem(f"{name!r} has no value; write name=value")
        return [(name, value[0])]
    pairs = []
    for word in words:
        name, sign, text = word.partition("=")
        if not sign:
            raise _SyntaxProblem(f"{word!r} is not of the form name=value")
        if not name:
            raise _SyntaxProblem(f"{word!r} has no name")
        pairs.append((name, text))
    return pairs


class _SyntaxProblem(Exception):
    """What is wrong with an instruction; the caller adds which one it was."""


def _wrong(line: str, reason: str, hint: str | None = None) -> InvalidInputError:
    shown = line if len(line) <= 80 else line[:77] + "..."
    return InvalidInputError(f"change {shown!r}: {reason}", hint=hint)


def _json_words(text: str) -> list[str] | None:
    """The strings of a JSON list, or None when ``text`` is not one (then it is the shell form)."""
    if not text.startswith("["):
        return None
    try:
        words = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return words if isinstance(words, list) and all(isinstance(word, str) for word in words) else None


def _ports(word: str) -> list[str]:
    match = _PORT.fullmatch(word)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if match is None or not 0 < first <= last < 65536:
        raise _SyntaxProblem(f"{word!r} is not a port, as 80, 80/udp or 8000-8010/tcp")
    protocol = (match[3] or "tcp").lower()
    return [f"{port}/{protocol}" for port in range(first, last + 1)]


def _port_key(item: tuple[str, Any]) -> tuple[int, str]:
    number, _, protocol = item[0].partition("/")
    return (int(number) if number.isdecimal() else 0, protocol)


def _check_signal(name: str) -> None:
    if name.isdecimal():
        known = 0 < int(name) <= 64
    else:
        bare = name.upper().removeprefix("SIG")
        match = re.fullmatch(r"RTM(?:IN(?:\+(\d{1,2}))?|AX(?:-(\d{1,2}))?)", bare)
        known = match is not None or f"SIG{bare}" in signal.Signals.__members__
    if not known:
        raise _SyntaxProblem(f"{name!r} is not a signal")


def _healthcheck_options(rest: str) -> tuple[_Document, str]:
    """Split the leading ``--name=value`` options off; durations come back in nanoseconds."""
    names = {
        "interval": "Interval",
        "timeout": "Timeout",
        "start-period": "StartPeriod",
        "start-interval": "StartInterval",
        "retries": "Retries",
    }
    options: _Document = {}
    while rest.startswith("--"):
        word, _, rest = rest.partition(" ")
        name, sign, value = word[2:].partition("=")
        if name not in names or not sign:
            raise _SyntaxProblem(f"unknown option {word!r}")
        if name == "retries":
            if not value.isdecimal() or int(value) > 2**31 - 1:
                raise _SyntaxProblem(f"--retries={value}: not a number")
            options["Retries"] = int(value)
        else:
            options[names[name]] = _duration(name, value)
        rest = rest.lstrip()
    return options, rest


def _duration(name: str, text: str) -> int:
    if text != "0" and not re.fullmatch(f"(?:{_DURATION.pattern})+", text):
        raise _SyntaxProblem(f"--{name}={text}: not a duration, as 1m30s")
    total = sum(round(float(number) * _NANOSECONDS[unit]) for number, unit in _DURATION.findall(text))
    if 0 < total < 10**6:
        raise _SyntaxProblem(f"--{name}={text}: less than 1ms")
    return total


_UNEXPANDED = ("CMD", "ENTRYPOINT", "HEALTHCHECK", "ONBUILD", "SHELL")

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
