"""What verbs do with what they are given by name: containers one after another; a container or else an image."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from layerfs.cli.context import Context
from layerfs.cli.options import Option, one
from layerfs.errors import InvalidInputError, NotFoundError

if TYPE_CHECKING:
    from layerfs.containers import Container
    from layerfs.layers import View

__all__ = ["STOPPING", "container_or_view", "each_container", "signal_type"]


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


STOPPING: list[Option] = [
    one("-s", "--signal", help="The signal that asks it to end, by name or number", type=signal_type, metavar="signal"),
    one("-t", "--time", "--timeout", help="Seconds until it is killed, -1: never", type=int, metavar="seconds"),
]
"""The options of ``stop`` and ``restart``."""


@contextmanager
def container_or_view(context: Context, text: str) -> Iterator[Container | View]:
    """A container, or the files of an image or layer where no container has the name; NotFoundError."""
    store = context.store
    try:
        store.database.container(text.removeprefix("/"))
    except NotFoundError:
        try:
            view = store.view(text)
        except NotFoundError:
            raise NotFoundError(
                f"{text}: no such container, image or layer", hint="layerfs ps -a and layerfs images list what there is"
            ) from None
        with view:
            yield view
    else:
        yield store.containers.get(text)
