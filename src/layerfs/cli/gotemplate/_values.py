"""How Go prints, tests and compares values, over those of Python."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

__all__ = [
    "MAX_TEXT",
    "NIL_LIST",
    "NIL_MAP",
    "Fields",
    "ValueProblem",
    "child",
    "equal",
    "is_nil",
    "less",
    "show",
    "text_of",
    "truth",
]

MAX_TEXT = 16 << 20


class ValueProblem(Exception):
    """What is wrong with a value; the executor adds where in the template."""


class _NilList(list[Any]):
    pass


class _NilMap(dict[str, Any]):
    pass


NIL_LIST, NIL_MAP = _NilList(), _NilMap()
"""What Go has where a list or map is not set: it has a length, can be gone over and indexed, and is null in JSON."""


def is_nil(value: Any) -> bool:
    """Whether it is nothing, be its type known or not."""
    return value is None or isinstance(value, (_NilList, _NilMap))


class Fields(dict[str, Any]):
    """An object with fixed members, as a struct of Go: an unknown one is an error, in a plain dict it is nil.

    ``absent`` are members that it may have: those that it has not appear in no JSON, and have these values here.
    ``methods`` are the members that take arguments, which JSON has not either.  ``nils`` are the members that are lists
    or maps: what a template has where they are None.
    """

    absent: Mapping[str, Any] = MappingProxyType({})
    methods: tuple[str, ...] = ()
    nils: Mapping[str, Any] = MappingProxyType({})

    def plain(self) -> dict[str, Any]:
        """The members that are values, with those made that are only made when they are asked for."""
        return {name: value() if callable(value) else value for name, value in self.items() if name not in self.methods}


def child(value: Any, name: str) -> Any:
    """Return the member ``name`` of a value."""
    if not isinstance(value, dict):
        raise ValueProblem(f"no field {name!r} in {_kind(value)}")
    if not isinstance(value, Fields):
        return value.get(name)
    found = _member(value, name)
    return value.nils.get(name) if found is None else found


def _member(value: Fields, name: str) -> Any:
    if name in value:
        return value[name]
    # docker knows both .Id and .ID, .Os and .OS: the name in JSON and the name in Go.
    alike = [key for key in value if key.lower() == name.lower()]
    if not alike and name in value.absent:
        return value.absent[name]
    if len(alike) != 1:
        known = ", ".join(sorted(value)[:60])
        raise ValueProblem(f"no field {name!r}; there are {known or 'none'}")
    return value[alike[0]]


def truth(value: Any) -> bool:
    """Whether Go takes the value as true: not zero, nil or empty."""
    return bool(value)


def show(value: Any, top: bool = True) -> str:
    """Return the text of a value as Go's fmt.Print and the template print it."""
    parts: list[str] = []
    _show(value, top, parts, [0], 0)
    return "".join(parts)


def text_of(value: Any) -> str:
    """Return a value that a string function wants, which has to be a string."""
    if not isinstance(value, str):
        raise ValueProblem(f"wants a string, not {_kind(value)}")
    return value


def _show(value: Any, top: bool, parts: list[str], size: list[int], depth: int) -> None:
    if isinstance(value, (dict, list, tuple)):
        if depth > 100:
            raise ValueProblem("a value is nested too deep to be printed")
        is_map = isinstance(value, dict)
        names = sorted(value, key=str) if isinstance(value, dict) and not isinstance(value, Fields) else value
        struct = isinstance(value, Fields)
        parts.append("{" if struct else "map[" if is_map else "[")
        for number, item in enumerate(names):
            parts.append(" " if number else "")
            if isinstance(value, dict) and not struct:
                parts.append(f"{item}:")
            _show(value[item] if isinstance(value, dict) else item, False, parts, size, depth + 1)
        parts.append("}" if struct else "]")
        return
    text = _scalar(value, top)
    size[0] += len(text) + 1
    if size[0] > MAX_TEXT:
        raise ValueProblem("the output is too long")
    parts.append(text)


def _scalar(value: Any, top: bool) -> str:
    if value is None:
        return "<no value>" if top else "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _float(value)
    return "<method>" if callable(value) else str(value)


def _float(value: float) -> str:
    """Go's %v of a float64: the shortest digits, an exponent below 1e-4 and from 1e21 on."""
    if value != value or value in (float("inf"), float("-inf")):
        return "NaN" if value != value else "+Inf" if value > 0 else "-Inf"
    if value and not 1e-4 <= abs(value) < 1e21:
        mantissa, _, exponent = f"{value!r}".partition("e")
        if not exponent:
            mantissa, _, exponent = f"{value:e}".partition("e")
            mantissa = mantissa.rstrip("0").rstrip(".")
        return f"{mantissa.removesuffix('.0')}e{int(exponent):+03d}"
    text = repr(value)
    return f"{value:.0f}" if "e" in text or text.endswith(".0") else text


def _kind(value: Any) -> str:
    names = {bool: "bool", int: "int", float: "float64", str: "string", type(None): "nil"}
    other = "map" if isinstance(value, dict) else "list" if isinstance(value, (list, tuple)) else "method"
    return names.get(type(value), other)


def _comparable(left: Any, right: Any) -> None:
    for value in (left, right):
        if isinstance(value, (dict, list, tuple)) or callable(value):
            raise ValueProblem(f"a {_kind(value)} cannot be compared")
    if left is None or right is None:
        return
    numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in (left, right))
    if type(left) is not type(right) and not numbers:
        raise ValueProblem(f"incompatible types for comparison: {_kind(left)} and {_kind(right)}")


def equal(left: Any, right: Any) -> bool:
    """Whether two simple values of one kind are equal."""
    _comparable(left, right)
    return bool(left == right)


def less(left: Any, right: Any) -> bool:
    """Whether a number or string comes before another."""
    _comparable(left, right)
    if left is None or right is None or isinstance(left, bool):
        raise ValueProblem("only numbers and strings have an order")
    return bool(left < right)
