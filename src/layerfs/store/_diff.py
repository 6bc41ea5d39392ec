"""Trees compared and written out: ``diff`` and ``export`` of whatever a user names."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO

from layerfs.containers.merged import changes_seen, pieces_seen
from layerfs.containers.parts import is_rootless
from layerfs.digest import Digest
from layerfs.errors import NotFoundError, system_errors
from layerfs.native import Change, Differ
from layerfs.store._parts import Parts

if TYPE_CHECKING:
    from layerfs.containers import Container, ContainerStore

    _Named = Container | Sequence[Digest]

__all__ = ["diff", "export"]

_PIECE = 1 << 20
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def diff(parts: Parts, containers: ContainerStore, a: str, b: str | None) -> Iterator[Change]:
    """See ``Store.diff``."""
    first = _named(parts, containers, a)
    if b is None:
        return containers.differences(first[:-1], first) if isinstance(first, Sequence) else first.changes()
    second = _named(parts, containers, b)
    if isinstance(first, Sequence) and isinstance(second, Sequence):
        return containers.differences(first, second)
    _check_owners(parts, first, second)
    return changes_seen(lambda: _between(parts, (a, first), (b, second)))


def _between(parts: Parts, a: tuple[str, _Named], b: tuple[str, _Named]) -> Iterator[Change]:
    with ExitStack() as stack:
        before = stack.enter_context(_tree(parts, *a))
        after = stack.enter_context(_tree(parts, *b))
        with Differ.trees(before, after) as differ:
            yield from differ.changes()


def export(parts: Parts, containers: ContainerStore, text: str, sink: BinaryIO) -> None:
    """See ``Store.export``."""
    found = _named(parts, containers, text)
    if not isinstance(found, Sequence):
        found.export(sink)
        return
    _check_owners(parts, found)
    for piece in pieces_seen(lambda: _pieces(parts, text, found)):
        sink.write(piece)


def _pieces(parts: Parts, text: str, diff_ids: Sequence[Digest]) -> Iterator[bytes]:
    with _tree(parts, text, diff_ids) as fd, Differ(fd, tree=True) as differ:
        while piece := differ.read(_PIECE):
            yield piece


def _check_owners(parts: Parts, *named: _Named) -> None:
    if is_rootless():
        for each in named:
            parts.layers.check_owners(each if isinstance(each, Sequence) else each.config.diff_ids)


@contextmanager
def _tree(parts: Parts, text: str, named: _Named) -> Iterator[int]:
    """A readable descriptor of a tree's root."""
    with ExitStack() as stack, system_errors(f"read {text}"):
        if isinstance(named, Sequence):
            root = parts.snapshots.view(named)
            stack.callback(os.close, root)
        else:
            root = stack.enter_context(named.tree())
        fd = os.open(".", _DIRECTORY, dir_fd=root)
        stack.callback(os.close, fd)
        yield fd


def _named(parts: Parts, containers: ContainerStore, text: str) -> _Named:
    """The container of that name, or the layers of what else has it."""
    with suppress(NotFoundError):
        return containers.get(text)
    return _stack(parts, text)


def _stack(parts: Parts, text: str) -> Sequence[Digest]:
    """The layers of an image, or the one layer that a diff ID names."""
    if text.startswith("sha256:") and len(text) == 71 and parts.layers.has(Digest(text)):
        return [Digest(text)]
    try:
        return parts.images.get(text).diff_ids
    except NotFoundError:
        raise NotFoundError(
            f"{text}: no such container, image or layer", hint="layerfs ps -a and layerfs images list what there is"
        ) from None
