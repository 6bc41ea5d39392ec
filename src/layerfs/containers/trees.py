"""The trees that ``cp`` reads and writes: of a running container what it sees, else its snapshot, or a volume.

Without privilege, and to write into a container that runs in a user namespace, the work is done as root of such a
namespace: what is made then belongs to whom it has to, and what belongs to others can be read.
"""

import os
import posixpath
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TypeVar

from layerfs import native
from layerfs.containers.actions import current, root_directory
from layerfs.containers.merged import merged
from layerfs.containers.parts import Parts, is_rootless
from layerfs.containers.record import Config, MountUse
from layerfs.errors import InvalidInputError, system_errors
from layerfs.snapshots import Stack
from layerfs.userns import Stream, in_userns, own_maps

__all__ = ["Tree", "opened"]

T = TypeVar("T")

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


class Tree:
    """A tree for one path; ``root`` opens it, within ``run`` or ``stream``."""

    def __init__(self, parts: Parts, config: Config, path: str, *, write: bool) -> None:
        self._parts = parts
        self._config = config
        self._path = os.fsencode(path)
        self._write = write
        self._live = self._pidfd = -1
        self._claimed: Stack | None = None
        self._use = self._mounted()

    def open(self, stack: ExitStack) -> None:
        """Take what only this process can have; ``stack`` gives it back."""
        parts, id = self._parts, self._config.id
        process = current(parts, id).process
        if process is not None:
            self._live = root_directory(process)
            stack.callback(os.close, self._live)
            self._pidfd = os.pidfd_open(process.pid)
            stack.callback(os.close, self._pidfd)
        elif self._use is not None:
            if self._write and self._use.option.readonly:
                raise InvalidInputError(f"copy to {os.fsdecode(self._path)}: it is mounted read-only")
        elif self._write:
            stack.enter_context(parts.lock(id))
            if parts.snapshots.row(id).mounted == "":  # by a command that was killed: we have the lock now
                parts.snapshots.release(id)
            if is_rootless():
                self._claimed = parts.snapshots.claim(id)
                stack.callback(parts.snapshots.release, id)

    def _mounted(self) -> MountUse | None:
        """The mount that the path is in, where its source is a path of the host."""
        clean = posixpath.normpath(b"/" + self._path.lstrip(b"/"))
        for use in sorted(self._config.mounts, key=lambda use: -len(use.option.target)):
            target = os.fsencode(use.option.target)
            if use.source and (clean == target or clean.startswith(target + b"/")):
                return use
        return None

    # ---- where the work is done ----

    @property
    def is_elsewhere(self) -> bool:
        """Whether the work is done in a user namespace."""
        return is_rootless() or self._joins

    @property
    def _joins(self) -> bool:
        return not is_rootless() and self._write and self._config.id_map is not None and self._live >= 0

    @property
    def has_others(self) -> bool:
        """Whether what is made may belong to others than root."""
        return not is_rootless() or not own_maps().alone

    def run(self, work: Callable[..., T], feed: Iterable[bytes] | None = None) -> T:
        """What ``work`` returns, done where it can be; ``feed`` becomes a file that it is given."""
        if self.is_elsewhere:
            return in_userns(work, process=self._pidfd if self._joins else None, feed=feed)
        return work()

    def stream(self, work: Callable[[], Iterator[bytes]]) -> Iterator[bytes]:
        """What ``work`` yields, done where it can be."""
        if not self.is_elsewhere:
            yield from work()
            return
        with Stream(work) as stream:
            yield from stream

    # ---- within ----

    @contextmanager
    def root(self) -> Iterator[tuple[int, bytes]]:
        """A descriptor of a root, and the path in it."""
        with ExitStack() as stack:
            if self._live >= 0:
                yield self._live, self._path
            elif self._use is not None:
                yield self._in_mount(self._use, stack)
            elif not self._write:
                yield stack.enter_context(merged(self._parts, self._config)), self._path
            else:
                yield self._writable(stack), self._path

    def shown(self, path: bytes) -> bytes:
        """The path in the container of one beneath the root that ``root`` gave."""
        if self._live >= 0 or self._use is None:
            return path
        target = os.fsencode(self._use.option.target)
        return target + path.rstrip(b"/") if self._use.is_dir else target

    def _in_mount(self, use: MountUse, stack: ExitStack) -> tuple[int, bytes]:
        if use.option.subpath:
            return self._in_subpath(use, stack)
        source = os.open(use.source if use.is_dir else os.path.dirname(use.source), _DIRECTORY)
        stack.callback(os.close, source)
        clean = posixpath.normpath(b"/" + self._path.lstrip(b"/"))
        inside = (
            clean[len(os.fsencode(use.option.target)) :] if use.is_dir else os.fsencode(os.path.basename(use.source))
        )
        # What stood behind the last name, as /., says how it is meant.
        return source, inside + self._path[len(self._path.rstrip(b"/.")) :] if inside else b"/."

    def _in_subpath(self, use: MountUse, stack: ExitStack) -> tuple[int, bytes]:
        from layerfs.containers.subpaths import opened_subpath  # few mounts have one

        volume = os.open(use.source, _DIRECTORY)
        stack.callback(os.close, volume)
        if not use.is_dir:
            return volume, b"/" + os.fsencode(use.option.subpath or "")
        root = opened_subpath(volume, use)
        stack.callback(os.close, root)
        clean = posixpath.normpath(b"/" + self._path.lstrip(b"/"))
        inside = clean[len(os.fsencode(use.option.target)) :]
        return root, inside + self._path[len(self._path.rstrip(b"/.")) :] if inside else b"/."

    def _writable(self, stack: ExitStack) -> int:
        snapshots, id = self._parts.snapshots, self._config.id
        if self._claimed is None:
            root = snapshots.mount(id)
            stack.callback(snapshots.release, id)
            stack.callback(os.close, root)
            return root
        with system_errors(f"mount container {id[:12]}"), ExitStack() as places:
            fds = []
            for path in (*self._claimed.lowers, self._claimed.upper, self._claimed.work):
                fds.append(os.open(path, _DIRECTORY))
                places.callback(os.close, fds[-1])
            *lowers, upper, work = fds
            root = native.overlay_mount(lowers, upper, work, userxattr=True) if lowers else os.dup(upper)
        stack.callback(os.close, root)
        return root


@contextmanager
def opened(parts: Parts, config: Config, path: str, *, write: bool = False) -> Iterator[Tree]:
    """The tree that has a path of the container. InUseError when somebody else changes the container."""
    with ExitStack() as stack:
        tree = Tree(parts, config, path, write=write)
        tree.open(stack)
        yield tree
