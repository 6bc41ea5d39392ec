"""What verbs do that act on containers one after another."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from layerfs.cli.context import Context
from layerfs.errors import InvalidInputError

if TYPE_CHECKING:
    from layerfs.containers import Container

__all__ = ["each_container", "signal_type"]


def signal_type(text: str) -> int:
    """Read a signal by name or number; raises InvalidInputError."""
    from layerfs.runtime import signal_number

    try:
        return signal_number(text)
    except ValueError:
        raise InvalidInputError("not a signal") from None


def each_container(context: Context, names: Iterable[str], work: Callable[[Container], object]) -> int:
    """Do something with each container and print its name as it was given; returns the exit code."""

    def act(name: str) -> None:
        work(context.store.containers.get(name))
        context.out(f"{name}\n")

    return context.each(names, act)
