"""A shorter way to what every verb needs."""

from __future__ import annotations

import sys
import typing
from collections.abc import Iterator
from contextlib import contextmanager

from layerfs.late import put_off

__all__ = ["import_values"]

_NOT_USED = ("textwrap", "msgspec.inspect", "msgspec.msgpack", "msgspec.toml", "msgspec.yaml")
"""What msgspec imports for functions that no verb calls."""


class _Linux:
    """Stands for the module ``platform``, of which uuid (up to Python 3.11) asks no more than this."""

    __spec__ = None

    @staticmethod
    def system() -> str:
        return "Linux"


class _Quoting:
    """Stands for the module ``urllib.parse``, of which pathlib (up to Python 3.12) takes no more than this."""

    __spec__ = None

    @staticmethod
    def quote_from_bytes(*words: typing.Any) -> str:
        from urllib.parse import quote_from_bytes

        return quote_from_bytes(*words)


def import_values() -> None:
    """Import pathlib and msgspec without half of what they bring with them, which is a fifth of a short command."""
    if "msgspec" in sys.modules:
        return
    with put_off(*_NOT_USED):
        with _instead("urllib.parse", _Quoting()):
            import pathlib  # noqa: F401
        # Without ``typing_extensions``, which is taken where there is one, for what ``typing`` has as well.
        with _instead("typing_extensions", None), _instead("platform", _Linux()), _no_trial():
            import msgspec  # noqa: F401


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
def _no_trial() -> Iterator[None]:
    """msgspec tries once whether ``ForwardRef`` takes an argument, which it does since Python 3.11; the trial calls the
    compiler, and that the first time costs 2 ms."""
    reference = typing.ForwardRef
    typing.ForwardRef = lambda *args, **options: None  # type: ignore[assignment,misc]
    try:
        yield
    finally:
        typing.ForwardRef = reference  # type: ignore[misc]
