"""Paths inside a directory that somebody else fills, resolved as a process with that root would see them.

Every component is opened by itself and without following links; a link's text is resolved here, beneath the root,
``..`` stops at the root.  So whatever is swapped meanwhile, nothing outside is ever reached, and a link of ``/proc``
is only the text that it shows.  Directories are given as descriptors; paths are bytes.
"""

import errno
import os
import stat
from typing import Self

__all__ = ["Place", "open_beneath", "read_beneath"]

_LINKS = 40  # as the kernel allows
_PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class Place:
    """Where a path leads: the directory ``parent``, the ``name`` in it, and ``fd`` (O_PATH) of what is there or None.

    A context manager that closes both. For the root itself ``name`` is ``.``.
    """

    def __init__(self, root: int, path: bytes, *, follow: bool = True) -> None:
        """Raises OSError: ENOENT or ENOTDIR when a directory on the way is missing, ELOOP for too many links.

        ``follow``: whether a link in the last component is followed.
        """
        self._root = root
        self.parent = os.dup(root)
        self.names: list[bytes] = []
        self.name = b"."
        self.fd: int | None = None
        try:
            self._walk(path, follow)
        except BaseException:
            self.close()
            raise

    @property
    def path(self) -> bytes:
        """The path without links or dots, beneath the root, beginning with a slash."""
        return b"/" + b"/".join(self.names)

    def _walk(self, path: bytes, follow: bool) -> None:
        if b"\0" in path:
            raise OSError(errno.EINVAL, "a NUL byte in a path")
        links = 0
        pending = _components(path)
        while pending:
            name = pending.pop()
            if name == b"..":
                self._restart(self.names[:-1])
                continue
            self._descend()
            self.names.append(name)
            self.name = name
            self.fd = self._look(name)
            if self.fd is None or not stat.S_ISLNK(os.fstat(self.fd).st_mode) or not (follow or pending):
                continue
            links += 1
            if links > _LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            target = os.readlink(b"", dir_fd=self.fd)
            self._restart([] if target.startswith(b"/") else self.names[:-1])
            pending.extend(_components(target))
        if not self.names:
            self.fd = os.dup(self.parent)

    def _look(self, name: bytes) -> int | None:
        try:
            return os.open(name, _PATH, dir_fd=self.parent)
        except FileNotFoundError:
            return None

    def _descend(self) -> None:
        """Make what the last component named the parent."""
        if not self.names:
            return
        if self.fd is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), self.path)
        if not stat.S_ISDIR(os.fstat(self.fd).st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), self.path)
        os.close(self.parent)
        self.parent, self.fd = self.fd, None

    def _restart(self, names: list[bytes]) -> None:
        """Go down to ``names`` from the root again, by directories alone: they had no links when they were noted."""
        self.close()
        self.parent, self.fd, self.names, self.name = os.dup(self._root), None, [], b"."
        for name in names:
            self._descend()
            self.names.append(name)
            self.name, self.fd = name, self._look(name)

    def close(self) -> None:
        """Close both descriptors; again is allowed."""
        for fd in (self.parent, self.fd):
            if fd is not None and fd >= 0:
                os.close(fd)
        self.parent, self.fd = -1, None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _components(path: bytes) -> list[bytes]:
    """The components, the first one last, without empty ones and dots."""
    return [name for name in reversed(path.split(b"/")) if name not in (b"", b".")]


def open_beneath(root: int, path: bytes, *, follow: bool = True) -> int:
    """An O_PATH descriptor of what ``path`` names inside ``root``; OSError."""
    with Place(root, path, follow=follow) as place:
        if place.fd is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        fd, place.fd = place.fd, None
        return fd


def read_beneath(root: int, path: bytes, limit: int) -> bytes | None:
    """The content of a regular file inside ``root``; None when it is not there or not regular.

    Raises OSError EFBIG for more than ``limit`` bytes.
    """
    try:
        found = open_beneath(root, path)
    except OSError:
        return None
    try:
        # Only what is known to be a regular file is opened: opening a device or a pipe has effects.
        if not stat.S_ISREG(os.fstat(found).st_mode):
            return None
        with open(f"/proc/self/fd/{found}", "rb") as file:
            data = file.read(limit + 1)
    finally:
        os.close(found)
    if len(data) > limit:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
    return data
