"""Sizes, ages and times as docker prints and reads them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from layerfs.errors import InvalidInputError
from layerfs.late import LateModule

if TYPE_CHECKING:
    import re
else:  # most commands print sizes and read none
    re = LateModule("re")

__all__ = ["ago", "binary_size", "duration", "moment", "parse_bytes", "parse_duration", "size", "stamp", "time_text"]

_DECIMAL = ("B", "kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB")
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB")
_BYTES = r"(\d+(?:\.\d*)?) ?([kmgtpe]?)(?:i?b)?"
_PART = r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)"
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def size(count: int, digits: int = 3) -> str:
    """Return a number of bytes in units of 1000, with so many digits: ``72.8MB``."""
    return _scaled(count, 1000, _DECIMAL, digits)


def binary_size(count: int, digits: int = 4) -> str:
    """Return a number of bytes in units of 1024: ``7.612MiB``."""
    return _scaled(count, 1024, _BINARY, digits)


def _scaled(count: int, base: int, units: tuple[str, ...], digits: int) -> str:
    value, unit = float(count), 0
    # What would round up to the next unit is shown in it: 1MB, not 1e+03kB.
    while unit < len(units) - 1 and float(f"{abs(value):.{digits}g}") >= base:
        value, unit = value / base, unit + 1
    text = f"{value:.{digits}g}"
    return (f"{value:.0f}" if "e" in text else text) + units[unit]


def duration(seconds: float) -> str:
    """Return a span of time in words: ``About an hour``, ``2 weeks``."""
    minutes, hours = int(seconds // _MINUTE), int(seconds / _HOUR + 0.5)
    if seconds < 1:
        return "Less than a second"
    if seconds < 2:
        return "1 second"
    if seconds < _MINUTE:
        return f"{int(seconds)} seconds"
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    if hours == 1:
        return "About an hour"
    return _longer(hours)


def _longer(hours: int) -> str:
    if hours < 48:
        return f"{hours} hours"
    if hours < 24 * 7 * 2:
        return f"{hours // 24} days"
    if hours < 24 * 30 * 2:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{hours // 24 // 365} years"


def ago(when: float | None, now: float | None = None) -> str:
    """Return how long ago a moment (seconds since 1970) was: ``2 hours ago``; ``N/A`` for none."""
    if not when:
        return "N/A"
    return duration((time.time() if now is None else now) - when) + " ago"


def stamp(when: float | None) -> str:
    """Return a moment in local time, as ``2026-01-02 15:04:05 +0100 CET``; ``N/A`` for none."""
    if not when:
        return "N/A"
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(when))


def time_text(when: float | None) -> str:
    """Return a moment in UTC as RFC 3339 has it, to the second; empty for none."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(when)) if when else ""


def moment(text: str | None) -> float | None:
    """Return the seconds since 1970 of a time in RFC 3339; None for none, for the zero time and for nonsense."""
    if not text or text.startswith("0001-01-01"):
        return None
    from datetime import UTC, datetime  # a listing without times does not need it

    try:
        parsed = datetime.fromisoformat(text)
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def parse_bytes(text: str) -> int:
    """Read ``512m``, ``1.5GiB`` or ``1000``, in units of 1024 as docker does; raises InvalidInputError."""
    match = re.fullmatch(_BYTES, text.strip(), re.IGNORECASE)
    if match is None:
        raise InvalidInputError(f"{text!r} is not a size", hint="wanted is a number with b, k, m, g or t")
    return int(float(match[1]) * 1024 ** " kmgtpe".index(match[2].lower() or " "))


def parse_duration(text: str) -> float:
    """Read ``1h30m``, ``10s`` or ``500ms``; returns seconds, raises InvalidInputError."""
    if text == "0":
        return 0.0
    if not re.fullmatch(f"(?:{_PART})+", text):
        raise InvalidInputError(f"{text!r} is not a duration", hint="wanted is a form like 1h30m or 10s")
    return sum(float(number) * _SECONDS[unit] for number, unit in re.findall(_PART, text))
