"""Containers that a verb acts on: those that are named, or all, the newest, or those that filters accept."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from layerfs.cli.context import Context
from layerfs.cli.options import Args, Option, flag, many
from layerfs.errors import NotFoundError, system_errors

if TYPE_CHECKING:
    from layerfs.containers import Container

__all__ = ["INSTEAD", "choices", "chosen", "lives"]

INSTEAD = ("all", "latest", "filter", "cidfile")
"""The options that stand for the names of containers."""


def choices(which: str, *, short: str = "al") -> list[Option]:
    """Return these options; ``which`` says what --all are, ``short`` which letters are free in docker's verb."""
    return [
        flag(*(("-a",) if "a" in short else ()), "--all", help=f"All containers{which}"),
        flag(*(("-l",) if "l" in short else ()), "--latest", help="The container that was made last"),
        many("--filter", help="Those that match key=value, as for ps", metavar="filter"),
        many("--cidfile", help="Those whose IDs are in these files", metavar="FILE"),
    ]


def lives(container: Container) -> bool:
    """Whether a container runs, is paused, or waits for its next run."""
    return container.status in ("running", "paused", "restarting")


def chosen(args: Args, context: Context, among: Callable[[Container], bool] = lambda container: True) -> list[str]:
    """Return names as they were given, or IDs; ``among``: which of all containers are meant by --all and --filter.

    Raises NotFoundError for a cidfile that is not there, but not where --ignore is given.
    """
    names = list(args.rest)
    for path in args.cidfile:
        try:
            with system_errors(f"read cidfile {path}"), open(path) as file:
                names.append(file.read().strip())
        except NotFoundError:
            if "ignore" not in args.given:
                raise
    if args.latest:
        names += [container.id for container in context.store.containers.list()[:1]]
    if not args.filter:
        return names + ([each.id for each in context.store.containers.list() if among(each)] if args.all else [])
    from layerfs.cli.container_filters import filtered  # few ask for it

    found = filtered(context, context.store.containers.list(), args.filter)
    if not names:
        return [container.id for container in found if among(container)]
    accepted = {container.id for container in found}
    return [name for name in names if context.store.containers.get(name).id in accepted]
