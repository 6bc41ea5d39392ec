"""Trash: what is removed vanishes at once, by a rename; its files go in the background.

A container that wrote much takes long to delete: the kernel has to let go of each page that was not written yet, and
some file systems tell the disk of each block. Nobody who removes it needs to wait for that. A thread deletes what was
taken, and the process does not end before that thread has. After a crash the next process that takes something here
deletes what is left; a lock on each directory keeps two from deleting the same.
"""

import _thread
import atexit
import fcntl
import os
import threading
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from layerfs.errors import LayerfsError, system_errors
from layerfs.fsutil import remove_tree
from layerfs.late import LateModule

if TYPE_CHECKING:
    from layerfs import userns
else:  # root needs none
    userns = LateModule("layerfs.userns")

__all__ = ["PREFIX", "Trash"]

PREFIX = ".removed-"
"""How the names begin of what is on its way out."""


class Trash:
    """Directories that are being deleted, below ``root``. Any number of threads and processes may use it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._pending: deque[Path | int] = deque()
        self._guard = threading.Lock()
        self._busy = False
        self._done = _thread.allocate_lock()  # held by the thread that deletes
        self._process = os.getpid()
        self._looked = False

    def take(self, path: Path) -> None:
        """Let a directory of this file system vanish from its place; it is deleted once ``empty`` was called.

        OSError, FileNotFoundError when it is not there.
        """
        target = self._root / f"{PREFIX}{os.urandom(8).hex()}"
        os.rename(path, target)
        self._pending.append(target)

    def let_go(self, fd: int) -> None:
        """Close a descriptor of a mount before what is taken from now on is deleted: where that is the last one, the
        kernel takes the whole file system apart."""
        self._pending.append(fd)

    def empty(self) -> None:
        """Begin to delete what was taken, and the first time also what a crash left; no error when that cannot be."""
        with self._guard:
            if self._process != os.getpid():  # a fork took no thread along
                self._busy, self._done, self._process = False, _thread.allocate_lock(), os.getpid()
            if self._busy:
                return
            self._busy = True
            self._done.acquire()
            atexit.register(self.wait)
            try:
                # A threading.Thread would be waited for until it runs, by whoever removes something.
                _thread.start_new_thread(self._work, ())
                return
            except RuntimeError:  # the process ends, or may not have one more
                pass
        self._work()

    def wait(self) -> None:
        """Wait until all that was taken is deleted."""
        if self._process == os.getpid():
            if self._pending:
                self.empty()
            with self._done:
                pass

    def sweep(self) -> None:
        """Delete all that is there, now; NativeError for what cannot be deleted."""
        self.empty()
        self.wait()
        for path in self._root.glob(f"{PREFIX}*"):
            with system_errors(f"remove {path}"):
                _delete(path)

    def _work(self) -> None:
        try:
            self._delete_all()
        except BaseException:
            self._busy = False
            raise
        finally:
            atexit.unregister(self.wait)
            self._done.release()

    def _delete_all(self) -> None:
        if not self._looked:
            self._looked = True
            with suppress(OSError):
                names = os.listdir(self._root)
                self._pending.extend(self._root / name for name in names if name.startswith(PREFIX))
        while True:
            with self._guard:  # so that ``empty`` either sees it in the list, or a thread that looks once more
                if not self._pending:
                    self._busy = False
                    return
                item = self._pending.popleft()
            with suppress(OSError, LayerfsError):  # ``sweep`` says what is wrong with it
                if isinstance(item, int):
                    os.close(item)
                else:
                    _delete(item)


def _delete(path: Path) -> None:
    """Delete a directory, unless somebody else is at it."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove(path)
    except (BlockingIOError, FileNotFoundError):
        pass
    finally:
        os.close(fd)


def _remove(path: Path) -> None:
    if os.geteuid() == 0:
        remove_tree(path)
    else:
        userns.remove_owned(path)
