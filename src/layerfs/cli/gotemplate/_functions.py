"""The functions of a template: those of Go, and those that docker and podman add."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from layerfs.cli.gotemplate._values import MAX_TEXT, Fields, ValueProblem, equal, is_nil, less, show, text_of, truth

__all__ = ["FUNCTIONS", "LAZY"]

# These stop at the argument that decides, so the executor evaluates their arguments one by one.
LAZY = frozenset({"and", "or"})

_VERB = re.compile(r"%([-+# 0]*)(\*|\d+)?(?:\.(\*|\d+)?)?(.)?", re.DOTALL)
_TITLE = re.compile(r"(^|[^\w'])([^\W\d_])")


def _bounded(text: str) -> str:
    if len(text) > MAX_TEXT:
        raise ValueProblem("the result is too long")
    return text


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueProblem(f"wants a whole number, not {show(value)!r:.40}")
    return value


def _length(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogateescape"))
    if isinstance(value, (dict, list, tuple)):
        return len(value)
    raise ValueProblem(f"{show(value)!r:.40} has no length")


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, dict):
            value = _entry(value, key)
        elif isinstance(value, (list, tuple, str)):
            items = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
            number = _count(key)
            if not 0 <= number < len(items):
                raise ValueProblem(f"index {number} is out of range, there are {len(items)}")
            value = items[number]
        else:
            raise ValueProblem(f"{show(value)!r:.40} cannot be indexed")
    return value


def _entry(value: dict[str, Any], key: Any) -> Any:
    if not isinstance(key, str):
        raise ValueProblem("the key of a map is a string")
    if key in value:
        return value[key]
    # Go gives the zero value of the map's type: the empty string where the values are strings.
    return "" if all(isinstance(item, str) for item in value.values()) else None


def _slice(value: Any, *bounds: Any) -> Any:
    if not isinstance(value, (str, list, tuple)):
        raise ValueProblem(f"{show(value)!r:.40} cannot be sliced")
    if len(bounds) > 2:
        raise ValueProblem("takes two bounds at most")
    items = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
    first, last, *_ = [*(_count(bound) for bound in bounds), *(0, len(items))[len(bounds) :]]
    if not 0 <= first <= last <= len(items):
        raise ValueProblem(f"{first}:{last} is out of range, there are {len(items)}")
    part = items[first:last]
    return part.decode("utf-8", "surrogateescape") if isinstance(part, bytes) else part


def _print(*values: Any) -> str:
    """As fmt.Sprint: a blank stands between two values of which neither is a string."""
    out = ""
    for number, value in enumerate(values):
        if number and not isinstance(value, str) and not isinstance(values[number - 1], str):
            out += " "
        out = _bounded(out + show(value, top=False))
    return out


def _println(*values: Any) -> str:
    return _bounded(" ".join(show(value, top=False) for value in values) + "\n")


def _printf(layout: Any, *values: Any) -> str:
    rest = list(values)
    out: list[str] = []
    at = size = 0
    layout = text_of(layout)
    while at < len(layout):
        match = _VERB.match(layout, at)
        if match is None:
            end = layout.find("%", at)
            piece = layout[at : end if end >= 0 else len(layout)]
            at += len(piece)
        else:
            piece = _verb(match, rest)
            at = match.end()
        out.append(piece)
        size += len(piece)
        if size > MAX_TEXT:
            raise ValueProblem("the result is too long")
    if rest:
        extra = ", ".join(f"{_type(value)}={show(value, top=False)}" for value in rest)
        out.append(f"%!(EXTRA {extra})")
    return _bounded("".join(out))


def _verb(match: re.Match[str], rest: list[Any]) -> str:
    flags, verb = match[1], match[4]
    if verb == "%":
        return "%"
    width, precision = (_measure(match[number], rest) for number in (2, 3))
    if match[0].count(".") and precision is None:
        precision = 0
    if verb is None:
        return "%!(NOVERB)"
    if not rest:
        return f"%!{verb}(MISSING)"
    text = _formatted(rest.pop(0), verb, flags, precision)
    if width is None or len(text) >= width:
        return text
    if "-" in flags:
        return text.ljust(width)
    if "0" in flags and verb in "dfeEgGxXob" and text[:1] in "+-":
        return text[0] + text[1:].rjust(width - 1, "0")
    return text.rjust(width, "0" if "0" in flags else " ")


def _measure(text: str | None, rest: list[Any]) -> int | None:
    if text is None:
        return None
    value = int(text) if text.isdecimal() and len(text) < 8 else None
    if text == "*" and rest:
        value = _count(rest.pop(0))
    if value is None or not 0 <= value <= 1000:
        raise ValueProblem("a width or precision has to be from 0 to 1000")
    return value


def _formatted(value: Any, verb: str, flags: str, precision: int | None) -> str:
    if verb == "v" or (verb == "s" and not isinstance(value, (bool, int, float))):
        text = json.dumps(value) if "#" in flags and isinstance(value, str) else show(value, top=False)
        return text[:precision] if isinstance(value, str) else text
    if verb == "q" and isinstance(value, str):
        return json.dumps(value[:precision], ensure_ascii=False)
    if verb == "t" and isinstance(value, bool):
        return show(value)
    if verb == "T":
        return _type(value)
    if verb in "xX" and isinstance(value, str):
        text = value.encode("utf-8", "surrogateescape").hex()
        return text.upper() if verb == "X" else text
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _number(value, verb, flags, precision)
    return f"%!{verb}({_type(value)}={show(value, top=False)})"


def _number(value: int | float, verb: str, flags: str, precision: int | None) -> str:
    sign = "+" if "+" in flags else ""
    if isinstance(value, int) and verb in "dxXobc":
        if verb == "c":
            known = 0 <= value < 0xD800 or 0xE000 <= value <= 0x10FFFF
            return chr(value) if known else "\N{REPLACEMENT CHARACTER}"
        return format(value, f"{sign}{verb}")
    if isinstance(value, float) and verb in "feEgG":
        return format(value, f"{sign}.{6 if precision is None and verb != 'g' else precision or 17}{verb}")
    return f"%!{verb}({_type(value)}={show(value)})"


def _type(value: Any) -> str:
    names = {bool: "bool", int: "int", float: "float64", str: "string", type(None): "<nil>"}
    return names.get(type(value), "map[string]interface {}" if isinstance(value, dict) else "[]interface {}")


def _equal(first: Any, *others: Any) -> bool:
    if not others:
        raise ValueProblem("wants two values")
    return any([equal(first, other) for other in others])


def _json(value: Any) -> str:
    try:
        value = None if is_nil(value) else value.plain() if isinstance(value, Fields) else value
        return _bounded(json.dumps(value, ensure_ascii=False, separators=(",", ":")))
    except (TypeError, ValueError, RecursionError):
        raise ValueProblem("the value has no form in JSON") from None


def _join(values: Any, separator: Any) -> str:
    if not isinstance(values, (list, tuple, type(None))):
        raise ValueProblem("wants a list")
    parts = [text_of(value) for value in values or ()]
    if sum(map(len, parts)) + len(parts) * len(text_of(separator)) > MAX_TEXT:
        raise ValueProblem("the result is too long")
    return text_of(separator).join(parts)


def _split(text: Any, separator: Any) -> list[str]:
    text, separator = text_of(text), text_of(separator)
    return text.split(separator) if separator else list(text)


def _pad(text: Any, before: Any, after: Any) -> str:
    source, before, after = text_of(text), _count(before), _count(after)
    if not 0 <= before <= MAX_TEXT or not 0 <= after <= MAX_TEXT:
        raise ValueProblem("the widths have to be positive and not too large")
    return _bounded(" " * before + source + " " * after) if source else source


def _truncate(text: Any, length: Any) -> str:
    if _count(length) < 0:
        raise ValueProblem("the length is negative")
    return text_of(text)[:length]


def _title(text: Any) -> str:
    return _TITLE.sub(lambda match: match[1] + match[2].title(), text_of(text))


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "and": lambda *values: values[-1],
    "eq": _equal,
    "ge": lambda left, right: not less(left, right),
    "gt": lambda left, right: less(right, left),
    "index": _index,
    "join": _join,
    "json": _json,
    "le": lambda left, right: not less(right, left),
    "len": _length,
    "lower": lambda text: text_of(text).lower(),
    "lt": less,
    "ne": lambda left, right: not equal(left, right),
    "not": lambda value: not truth(value),
    "or": lambda *values: values[-1],
    "pad": _pad,
    "print": _print,
    "printf": _printf,
    "println": _println,
    "slice": _slice,
    "split": _split,
    "title": _title,
    "truncate": _truncate,
    "upper": lambda text: text_of(text).upper(),
}
