"""The tree of a container, read while it runs or not: its upper over its layers, in a read-only mount of its own."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from layerfs import native
from layerfs.containers.parts import Parts, is_rootless
from layerfs.containers.record import Config
from layerfs.digest import Digest
from layerfs.errors import UnsupportedError, system_errors
from layerfs.native import Change, Differ

__all__ = ["changes_seen", "container_changes", "export_tree", "merged", "pieces_seen", "stack_changes", "view_of"]

_PIECE = 1 << 20
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def merged(parts: Parts, config: Config) -> Iterator[int]:
    """A descriptor of the container's tree, without what is mounted in it. Of a running one it is what is on disk
    now; what changes meanwhile may or may not be seen.

    UnsupportedError without privilege, but in a user namespace (``userns``) it can be had.
    """
    with ExitStack() as stack, system_errors(f"read container {config.id[:12]}"):
        upper = os.open(parts.snapshots.upper(config.id), _DIRECTORY)
        stack.callback(os.close, upper)
        if not config.diff_ids:
            yield upper
            return
        yield _mounted(parts, [*reversed(config.diff_ids)], stack, upper)


@contextmanager
def view_of(parts: Parts, diff_ids: Sequence[Digest]) -> Iterator[int]:
    """A descriptor of the tree of layers (base first) alone; as ``merged``."""
    with ExitStack() as stack, system_errors("mount layers"):
        if not is_rootless() and parts.layers.format == "erofs":
            fd = parts.snapshots.view(diff_ids)
            stack.callback(os.close, fd)
        else:
            fd = _mounted(parts, [*reversed(diff_ids)], stack)
        yield fd


def _mounted(parts: Parts, top_most_first: Sequence[Digest], stack: ExitStack, upper: int | None = None) -> int:
    if is_rootless():
        raise UnsupportedError("read a tree: it cannot be mounted without privilege")
    lowers = [upper] if upper is not None else []
    for diff_id in dict.fromkeys(top_most_first):  # overlayfs refuses the same one twice
        lowers.append(parts.layers.mount(diff_id))
        stack.callback(os.close, lowers[-1])
    root = native.overlay_mount(lowers, userxattr=parts.layers.userxattr, readonly=True)
    stack.callback(os.close, root)
    return root


def export_tree(parts: Parts, config: Config) -> Iterator[bytes]:
    """A flat tar of the container's tree, in pieces."""
    return pieces_seen(lambda: _export(parts, config))


def pieces_seen(work: Callable[[], Iterator[bytes]]) -> Iterator[bytes]:
    """What ``work`` yields, which mounts trees; without privilege that is done in a user namespace, and ``work`` must
    not ask the database for anything."""
    if is_rootless():
        from layerfs.userns import Stream  # only here is it needed

        with Stream(work) as stream:
            yield from stream
    else:
        yield from work()


def changes_seen(work: Callable[[], Iterator[Change]]) -> Iterator[Change]:
    """As ``pieces_seen``."""
    if is_rootless():
        from layerfs.userns import in_userns  # only here is it needed

        yield from in_userns(lambda: list(work()))
    else:
        yield from work()


def _export(parts: Parts, config: Config) -> Iterator[bytes]:
    with merged(parts, config) as root:
        fd = os.open(".", _DIRECTORY, dir_fd=root)
        try:
            with Differ(fd, tree=True) as differ:
                while piece := differ.read(_PIECE):
                    yield piece
        finally:
            os.close(fd)


def container_changes(parts: Parts, config: Config) -> Iterator[Change]:
    """What the container changed, sorted by path; only its upper is walked."""
    return changes_seen(lambda: _changes(parts, config))


def _changes(parts: Parts, config: Config) -> Iterator[Change]:
    with ExitStack() as stack, system_errors(f"compare container {config.id[:12]}"):
        upper = os.open(parts.snapshots.upper(config.id), _DIRECTORY)
        stack.callback(os.close, upper)
        differ = stack.enter_context(Differ(upper, userxattr=parts.layers.userxattr))
        for diff_id in reversed(config.stack):
            if parts.layers.format == "erofs":
                differ.add_lower(stack.enter_context(parts.layers.reader(diff_id)))
            else:
                lower = parts.layers.mount(diff_id)
                stack.callback(os.close, lower)
                differ.add_lower_dir(lower)
        yield from differ.changes()


def stack_changes(parts: Parts, base: Sequence[Digest], target: Sequence[Digest]) -> Iterator[Change]:
    """What makes one stack of layers (base first) into another, sorted by path."""
    if is_rootless():
        parts.layers.check_owners({*base, *target})
    return changes_seen(lambda: _stack_changes(parts, base, target))


def _stack_changes(parts: Parts, base: Sequence[Digest], target: Sequence[Digest]) -> Iterator[Change]:
    with ExitStack() as stack, system_errors("compare layers"):
        fds = []
        for diff_ids in (base, target):
            fd = parts.snapshots.view(diff_ids)
            stack.callback(os.close, fd)
            fds.append(fd)
        yield from stack.enter_context(Differ.trees(fds[0], fds[1])).changes()
