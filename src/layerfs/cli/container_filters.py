"""The filters of ``ps``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, get_args

from layerfs.cli.context import Context
from layerfs.cli.filters import Filters
from layerfs.errors import InvalidInputError, NotFoundError
from layerfs.late import LateModule

if TYPE_CHECKING:
    import re

    from layerfs.containers import Container
else:  # few calls filter by one
    re = LateModule("re")

__all__ = ["filtered"]

_KNOWN = (
    "id",
    "name",
    "label",
    "label!",
    "exited",
    "status",
    "health",
    "ancestor",
    "before",
    "since",
    "volume",
    "network",
)


def filtered(context: Context, containers: Iterable[Container], words: list[str]) -> list[Container]:
    """Return the containers that all filters accept; InvalidInputError for a filter that is none."""
    filters = Filters(words, _KNOWN)
    _check(filters)
    stacks = [stack for text in filters["ancestor"] for stack in _stack(context, text)]
    before = [context.store.containers.get(text).created for text in filters["before"]]
    since = [context.store.containers.get(text).created for text in filters["since"]]

    def accepts(container: Container) -> bool:
        return (
            _simple(filters, container)
            and all(container.created < when for when in before)
            and all(container.created > when for when in since)
            and (
                not filters["ancestor"] or any(list(container.config.layers)[: len(stack)] == stack for stack in stacks)
            )
        )

    return [container for container in containers if accepts(container)]


def _stack(context: Context, text: str) -> list[list[str]]:
    """The layers of an image; nothing descends from one that is not there."""
    try:
        return [[str(diff_id) for diff_id in context.store.images.get(text).diff_ids]]
    except NotFoundError:
        return []


def _check(filters: Filters) -> None:
    from layerfs.containers.record import Status

    known = get_args(Status)
    for status in filters["status"]:
        if status not in known:
            raise InvalidInputError(f"filter status={status}: unknown", hint=f"known are {', '.join(known)}")
    for code in filters["exited"]:
        if not code.isdecimal():
            raise InvalidInputError(f"filter exited={code}: not an exit code")
    for pattern in (*filters["name"], *filters["id"]):
        try:
            re.compile(pattern)
        except re.error as error:
            raise InvalidInputError(f"filter {pattern!r}: {error}") from None


def _simple(filters: Filters, container: Container) -> bool:
    exited = filters["exited"]
    volumes = {part for use in container.mounts for part in (use.volume, use.source, use.option.target)}
    return (
        (not filters["id"] or any(re.search(f"^(?:{pattern})", container.id) for pattern in filters["id"]))
        and (not filters["name"] or any(_named(pattern, container) for pattern in filters["name"]))
        and filters.accepts("status", container.status)
        and (not exited or (container.status == "exited" and str(container.exit_code) in exited))
        and filters.labels(container.labels)
        and (not filters["volume"] or bool(volumes & set(filters["volume"])))
        and filters.accepts("health", container.health)
        and filters.accepts("network", container.config.options.network)
    )


def _named(pattern: str, container: Container) -> bool:
    """Names are shown without their slash, and have one in docker's interface: users anchor either."""
    return any(re.search(pattern, name) for name in (container.name, f"/{container.name}"))
