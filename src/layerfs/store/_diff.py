"""Trees compared and written out: ``diff`` and ``export`` of whatever a user names."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO

from layerfs.digest import Digest
from layerfs.errors import NotFoundError, system_errors
from layerfs.native import Change, Differ
from layerfs.store._parts import Parts

if TYPE_CHECKING:
    from layerfs.containers import Container, ContainerStore

__all__ = ["diff", "export"]

_PIECE = 1 << 20
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def diff(parts: Parts, containers: ContainerStore, a: str, b: str | None) -> Iterator[Change]:
    """See ``Store.diff``."""
    if b is None:
        container = _container(containers, a)
        if container is not None:
            return container.changes()
        stack = _stack(parts, a)
        return containers.differences(stack[:-1], stack)
    return _between(parts, containers, a, b)


def _between(parts: Parts, containers: ContainerStore, a: str, b: str) -> Iterator[Change]:
    first, second = _container(containers, a), _container(containers, b)
    if first is None and second is None:
        yield from containers.differences(_stack(parts, a), _stack(parts, b))
        return
    with ExitStack() as stack:
        before = stack.enter_context(_tree(parts, a, first))
        after = stack.enter_context(_tree(parts, b, second))
        with Differ.trees(before, after) as differ:
            yield from differ.changes()


def export(parts: Parts, containers: ContainerStore, text: str, sink: BinaryIO) -> None:
    """See ``Store.export``."""
    container = _container(containers, text)
    if container is not None:
        container.export(sink)
        return
    with _tree(parts, text, None) as fd, Differ(fd, tree=True) as differ:
        while piece := differ.read(_PIECE):
            sink.write(piece)


@contextmanager
def _tree(parts: Parts, text: str, container: Container | None) -> Iterator[int]:
    """A readable descriptor of a tree's root."""
    with ExitStack() as stack, system_errors(f"read {text}"):
        if container is not None:
            root = stack.enter_context(container.tree())
        else:
            root = parts.snapshots.view(_stack(parts, text))
            stack.callback(os.close, root)
        fd = os.open(".", _DIRECTORY, dir_fd=root)
        stack.callback(os.close, fd)
        yield fd


def _container(containers: ContainerStore, text: str) -> Container | None:
    with suppress(NotFoundError):
        return containers.get(text)
    return None


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
