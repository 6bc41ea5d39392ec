"""The tree of a container, read while it runs or not: its upper over its layers, in a read-only mount of its own."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from layerfs import native
from layerfs.containers.parts import Parts
from layerfs.containers.record import Config
from layerfs.containers.roots import is_rootless
from layerfs.digest import Digest
from layerfs.errors import UnsupportedError, system_errors
from layerfs.native import Change, Differ

__all__ = ["container_changes", "export_tree", "merged", "stack_changes"]

_PIECE = 1 << 20
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextmanager
def merged(parts: Parts, config: Config) -> Iterator[int]:
    """A descriptor of the container's tree, without what is mounted in it. Of a running one it is what is on disk
    now; what changes meanwhile may or may not be seen."""
    with ExitStack() as stack, system_errors(f"read container {config.id[:12]}"):
        upper = os.open(parts.snapshots.upper(config.id), _DIRECTORY)
        stack.callback(os.close, upper)
        lowers = [upper]
        for diff_id in dict.fromkeys(reversed(config.diff_ids)):  # overlayfs refuses the same one twice
            lowers.append(parts.layers.mount(diff_id))
            stack.callback(os.close, lowers[-1])
        if len(lowers) == 1:
            yield upper
            return
        if is_rootless():
            raise UnsupportedError(f"read container {config.id[:12]}: its tree cannot be mounted without privilege")
        root = native.overlay_mount(lowers, userxattr=parts.layers.userxattr, readonly=True)
        stack.callback(os.close, root)
        yield root


def export_tree(parts: Parts, config: Config) -> Iterator[bytes]:
    """A flat tar of the container's tree, in pieces."""
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
    with ExitStack() as stack, system_errors("compare layers"):
        fds = []
        for diff_ids in (base, target):
            fd = parts.snapshots.view(diff_ids)
            stack.callback(os.close, fd)
            fds.append(fd)
        yield from stack.enter_context(Differ.trees(fds[0], fds[1])).changes()
