"""Imports at the first use: of what one command needs and the next does not, which decides how fast a short one starts.

A package that gives names of its modules says which module has which (PEP 562), beside an ``if TYPE_CHECKING`` with
the imports themselves; ``tests/test_start.py`` compares the two.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module

# As in ``typing``, which is not imported here: see ``import_typing``.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["LateModule", "import_typing", "late_names", "put_off"]


def late_names(package: str, **modules: str) -> Callable[[str], Any]:
    """The ``__getattr__`` of a package. ``modules``: the names, separated by blanks, that each module of it gives."""
    homes = {name: module for module, names in modules.items() for name in names.split()}

    def look_up(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = import_module(package)
        found = getattr(import_module(f"{package}.{homes[name]}"), name)
        setattr(module, name, found)
        return found

    return look_up


class LateModule:
    """Stands for a module until one of its names is asked for; ``functions`` of it only until they are called."""

    def __init__(self, name: str, *functions: str) -> None:
        self._name = name
        for function in functions:
            setattr(self, function, _late_function(name, function))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import system looks at some
            raise AttributeError(name)
        modules: dict[str, Any] = sys.modules
        if modules.get(self._name) is self:
            del modules[self._name]
        return getattr(import_module(self._name), name)


def _late_function(module: str, name: str) -> Callable[..., Any]:
    return lambda *args, **options: getattr(import_module(module), name)(*args, **options)


def import_typing() -> None:
    """Import ``typing`` without ``re``, of which it needs no more than two classes. What reads regular expressions is
    written in Python and as long as all of ``typing``; few commands use one."""
    if "re" in sys.modules:
        return
    with put_off("re:compile"):
        compiled = import_module("_sre").compile("", 0, [1], 0, {}, (None,))  # what re makes of "", flags aside
        expressions: Any = sys.modules["re"]
        expressions.Pattern, expressions.Match = type(compiled), type(compiled.match(""))
        import_module("typing")


@contextmanager
def put_off(*names: str) -> Iterator[None]:
    """Who imports one of these modules in here, and nothing of it, gets one that is loaded at its first use.

    ``module:function`` is for one that is imported by that function alone.
    """
    modules: dict[str, Any] = sys.modules
    parts = [name.split(":") for name in names]
    stand_ins = {name: LateModule(name, *functions) for name, *functions in parts if name not in modules}
    modules.update(stand_ins)
    try:
        yield
    finally:
        for name, stand_in in stand_ins.items():
            if modules.get(name) is stand_in:
                del modules[name]
