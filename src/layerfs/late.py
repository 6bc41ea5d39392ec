"""Imports at the first use: of what one command needs and the next does not, which decides how fast a short one starts.

A package that gives names of its modules says which module has which (PEP 562), beside an ``if TYPE_CHECKING`` with
the imports themselves; ``tests/test_start.py`` compares the two.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

__all__ = ["LateModule", "late_names", "put_off"]


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
    """Stands for a module until one of its names is asked for."""

    __spec__ = None  # the import system looks at it

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(self._name), name)


@contextmanager
def put_off(*names: str) -> Iterator[None]:
    """Who imports one of these modules in here, and only that, gets one that is loaded at its first use."""
    modules: dict[str, Any] = sys.modules
    stand_ins = {name: LateModule(name) for name in names if name not in modules}
    modules.update(stand_ins)
    try:
        yield
    finally:
        for name, stand_in in stand_ins.items():
            if modules.get(name) is stand_in:
                del modules[name]
