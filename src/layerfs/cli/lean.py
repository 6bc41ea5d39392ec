"""A shorter way to what many verbs need of other packages.

Those import more than they use, for functions that no verb calls. What stands in for it here is gone at the end; what
was imported meanwhile loads the module itself should it be needed after all.
"""

from __future__ import annotations

import sys
import typing
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib import import_module

from layerfs.late import put_off

__all__ = ["import_http", "import_values"]

_OF_PATHLIB = ("fnmatch", "ntpath", "re", "urllib.parse:quote_from_bytes")  # the last up to Python 3.12
_OF_MSGSPEC = (
    "re:compile", "textwrap", "msgspec._json_schema:schema:schema_components", "msgspec.inspect", "msgspec.msgpack",
    "msgspec.toml", "msgspec.yaml",
)  # fmt: skip
_OF_URLLIB3 = ("calendar", "hmac", "importlib.metadata:version", "json", "mimetypes", "random", "traceback")


class _Linux:
    """Stands for the module ``platform``, of which uuid (up to Python 3.11) asks no more than this."""

    __spec__ = None

    @staticmethod
    def system() -> str:
        return "Linux"


class _Unknown:
    """Stands for the modules ``decimal`` and ``uuid``, of which msgspec keeps these to know values of theirs by."""

    __spec__ = None
    Decimal = type("Decimal", (), {})
    UUID = type("UUID", (), {})
    SafeUUID = type("SafeUUID", (), {"unknown": None})


class _NoLog:
    """Stands for the module ``logging``: what urllib3 logs, nobody reads."""

    __spec__ = None
    DEBUG = 10
    NullHandler = object

    def __getattr__(self, name: str) -> typing.Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **options: self


class _Pattern:
    """A regular expression that is compiled when it is used: most of those of urllib3 and the mail parser never are."""

    def __init__(self, compile: Callable[..., object], *args: typing.Any, **options: typing.Any) -> None:
        self._compile = compile
        self._args = args
        self._options = options

    def __getattr__(self, name: str) -> typing.Any:
        found = getattr(self._compile(*self._args, **self._options), name)
        setattr(self, name, found)
        return found


def import_values(*, alone: bool = False) -> None:
    """Import pathlib, sqlite3 and msgspec; the rest of what they bring with them is a fifth of a short command.

    ``alone``: nobody else uses msgspec in this process, and it need not know decimal numbers and UUIDs, which no
    document of ours has.
    """
    if "msgspec" in sys.modules:
        return
    with put_off(*_OF_PATHLIB):
        import pathlib  # noqa: F401
    # Up to Python 3.11 datetime makes its classes in Python, and then takes those of this module.
    with _instead("datetime", import_module("_datetime")):
        import sqlite3  # noqa: F401

        with _or_plainly(), ExitStack() as stack:
            for name in ("decimal", "uuid") if alone else ():
                stack.enter_context(_instead(name, _Unknown()))
            _import_msgspec()


def _import_msgspec() -> None:
    # Without ``typing_extensions``, which is taken where there is one, for what ``typing`` has as well.
    with put_off(*_OF_MSGSPEC), _instead("typing_extensions", None), _instead("platform", _Linux()), _no_trial():
        import msgspec  # noqa: F401


def import_http() -> None:
    """Import urllib3; the rest of what it brings with it is a third of its time."""
    # It takes zstd for encoded answers, which nobody asks for.
    log = _instead("logging", _NoLog())
    with _or_plainly(), put_off(*_OF_URLLIB3), _instead("backports.zstd", None), log, _late_patterns():
        import urllib3  # noqa: F401


@contextmanager
def _or_plainly() -> Iterator[None]:
    """Undo an import that fails, as another version of the package may need what is left out here: whoever needs it
    then imports all of it."""
    before = set(sys.modules)
    try:
        yield
    except Exception:  # whatever it stumbles over
        for name in set(sys.modules) - before:
            del sys.modules[name]


@contextmanager
def _instead(name: str, module: object) -> Iterator[None]:
    modules: dict[str, typing.Any] = sys.modules
    if name in modules:
        yield
        return
    modules[name] = module
    try:
        yield
    finally:
        del modules[name]


@contextmanager
def _late_patterns() -> Iterator[None]:
    import re  # this module is loaded by commands that use no expression

    before = re.compile
    re.compile = partial(_Pattern, before)  # type: ignore[assignment]
    try:
        yield
    finally:
        re.compile = before


@contextmanager
def _no_trial() -> Iterator[None]:
    """msgspec tries once whether ``ForwardRef`` takes an argument, which it does since Python 3.11; the trial calls the
    compiler, and that the first time costs 2 ms."""
    reference = typing.ForwardRef
    typing.ForwardRef = lambda *args, **options: None  # type: ignore[assignment,misc]
    try:
        yield
    finally:
        typing.ForwardRef = reference  # type: ignore[misc]
