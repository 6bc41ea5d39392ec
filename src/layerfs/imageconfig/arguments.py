"""What stands behind the name of an instruction, each kind by itself: pairs, lists, ports, signals, durations."""

from __future__ import annotations

import json
import re
import signal
from typing import Any

from layerfs.variables import split_words

__all__ = [
    "SyntaxProblem",
    "check_signal",
    "healthcheck_options",
    "json_words",
    "port_key",
    "ports_of",
    "written_pairs",
]

_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?", re.IGNORECASE)
_HOST = re.compile(r"[0-9a-fA-F.:\[\]]*(?:\d-\d+)?")
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


class SyntaxProblem(Exception):
    """What is wrong with an instruction; the caller adds which one it was."""


def written_pairs(rest: str, escape: str) -> list[tuple[str, str]]:
    """``name=value …``, or the old form ``name value``; not expanded."""
    words = split_words(rest, escape)
    if not words or "=" not in words[0]:
        name, *value = rest.split(None, 1)
        if not value:
            raise SyntaxProblem(f"{name!r} has no value; write name=value")
        return [(name, value[0])]
    pairs = []
    for word in words:
        name, sign, text = word.partition("=")
        if not sign:
            raise SyntaxProblem(f"{word!r} is not of the form name=value")
        if not name:
            raise SyntaxProblem(f"{word!r} has no name")
        pairs.append((name, text))
    return pairs


def json_words(text: str) -> list[str] | None:
    """The strings of a JSON list, or None when ``text`` is not one (then it is the shell form)."""
    if not text.startswith("["):
        return None
    try:
        words = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return words if isinstance(words, list) and all(isinstance(word, str) for word in words) else None


def ports_of(word: str) -> list[str]:
    """The ports that a word means, as ``80/tcp``. What is before a colon is of the host, and means nothing here."""
    host, _, port = word.rpartition(":")
    match = _PORT.fullmatch(port) if _HOST.fullmatch(host) else None
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if match is None or not 0 < first <= last < 65536:
        raise SyntaxProblem(f"{word!r} is not a port, as 80, 80/udp or 8000-8010/tcp")
    protocol = (match[3] or "tcp").lower()
    return [f"{port}/{protocol}" for port in range(first, last + 1)]


def port_key(item: tuple[str, Any]) -> tuple[int, str]:
    """What ports are sorted by."""
    number, _, protocol = item[0].partition("/")
    return (int(number) if number.isdecimal() else 0, protocol)


def check_signal(name: str) -> None:
    """SyntaxProblem for what is no signal."""
    if name.isdecimal():
        known = 0 < int(name) <= 64
    else:
        bare = name.upper().removeprefix("SIG")
        match = re.fullmatch(r"RTM(?:IN(?:\+(\d{1,2}))?|AX(?:-(\d{1,2}))?)", bare)
        known = match is not None or f"SIG{bare}" in signal.Signals.__members__
    if not known:
        raise SyntaxProblem(f"{name!r} is not a signal")


def healthcheck_options(rest: str) -> tuple[dict[str, Any], str]:
    """Split the leading ``--name=value`` options off; durations come back in nanoseconds."""
    names = {
        "interval": "Interval",
        "timeout": "Timeout",
        "start-period": "StartPeriod",
        "start-interval": "StartInterval",
        "retries": "Retries",
    }
    options: dict[str, Any] = {}
    while rest.startswith("--"):
        word, _, rest = rest.partition(" ")
        name, sign, value = word[2:].partition("=")
        if name not in names or not sign:
            raise SyntaxProblem(f"unknown option {word!r}")
        if name == "retries":
            if not value.isdecimal() or int(value) > 2**31 - 1:
                raise SyntaxProblem(f"--retries={value}: not a number")
            options["Retries"] = int(value)
        else:
            options[names[name]] = _duration(name, value)
        rest = rest.lstrip()
    return options, rest


def _duration(name: str, text: str) -> int:
    if text != "0" and not re.fullmatch(f"(?:{_DURATION.pattern})+", text):
        raise SyntaxProblem(f"--{name}={text}: not a duration, as 1m30s")
    total = sum(round(float(number) * _NANOSECONDS[unit]) for number, unit in _DURATION.findall(text))
    if 0 < total < 10**6:
        raise SyntaxProblem(f"--{name}={text}: less than 1ms")
    return total
