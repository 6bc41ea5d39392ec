"""``--filter key=value``: values of one key are alternatives, and every key has to match."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from layerfs.cli.units import moment, parse_duration
from layerfs.errors import InvalidInputError

__all__ = ["Filters", "labels_match", "parse_boolean", "parse_until"]


class Filters:
    """The filters of one command; ``known`` are the keys that it understands."""

    def __init__(self, words: Iterable[str], known: Iterable[str]) -> None:
        self.values: dict[str, list[str]] = {}
        known = tuple(known)
        for word in words:
            key, equals, value = word.partition("=")
            negated = key.endswith("!") and key[:-1] == "label" and "label!" in known
            key = key.strip().lower()
            if not equals:
                raise InvalidInputError(f"filter {word!r}: not of the form key=value")
            if key not in known and not negated:
                raise InvalidInputError(f"filter {word!r}: unknown", hint=f"known are {', '.join(sorted(known))}")
            self.values.setdefault(key, []).append(value)

    def __getitem__(self, key: str) -> list[str]:
        """The values given for a key; empty when there are none."""
        return self.values.get(key, [])

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def accepts(self, key: str, value: str) -> bool:
        """Whether no value was given for the key, or this one was."""
        return key not in self.values or value in self.values[key]

    def flag(self, key: str) -> bool | None:
        """The value of a filter that is true or false; None when it was not given."""
        return parse_boolean(f"filter {key}", self.values[key][-1]) if key in self.values else None

    def labels(self, labels: Mapping[str, str]) -> bool:
        """Whether ``label`` and ``label!`` accept the labels: here every value has to match."""
        wanted = all(labels_match(labels, text) for text in self["label"])
        return wanted and not any(labels_match(labels, text) for text in self["label!"])

    def until(self) -> float | None:
        """The moment (seconds since 1970) that ``until`` gives; None when it was not given."""
        return parse_until(self.values["until"][-1]) if "until" in self.values else None


def labels_match(labels: Mapping[str, str], text: str) -> bool:
    """Whether there is the label ``key``, or the label with the value ``key=value``."""
    key, equals, value = text.partition("=")
    return key in labels and (not equals or labels[key] == value)


def parse_boolean(what: str, text: str) -> bool:
    """Read ``true``, ``false``, ``1`` or ``0``."""
    if text.lower() in ("true", "1", "t"):
        return True
    if text.lower() in ("false", "0", "f"):
        return False
    raise InvalidInputError(f"{what}={text}: not true or false")


def parse_until(text: str, now: float | None = None) -> float:
    """Read a moment: seconds since 1970, a date, or a duration before now; returns seconds since 1970."""
    try:
        return float(text) if text.replace(".", "", 1).isdecimal() else _span_or_date(text, now)
    except InvalidInputError:
        raise InvalidInputError(
            f"{text!r} is not a time", hint="wanted is a form like 24h, 2026-01-31T12:00:00 or 1767225600"
        ) from None


def _span_or_date(text: str, now: float | None) -> float:
    date = moment(text)
    return date if date is not None else (time.time() if now is None else now) - parse_duration(text)
