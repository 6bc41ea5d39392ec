"""Files as the stores need them: atomic writes, locks, the ingest area, removal of trees that resist."""

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Self

from layerfs.digest import Digest
from layerfs.errors import InUseError, InvalidInputError, LayerfsError, native_error

__all__ = [
    "Ingest",
    "Lock",
    "boot_id",
    "digests_below",
    "disk_usage",
    "file_sizes",
    "remove_tree",
    "sync_dir",
    "write_atomic",
]

_PATIENCE = 100
"""How often a directory that is removed may have got something new in it."""


def sync_dir(path: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def digests_below(root: Path) -> tuple[list[Digest], list[Path]]:
    """What lies at ``root/<algorithm>/<hex>``, sorted, and whatever else lies there, whose names are no digests."""
    found: list[Digest] = []
    strays: list[Path] = []
    for algorithm in ("sha256", "sha512"):
        with suppress(FileNotFoundError):
            names = sorted(os.listdir(root / algorithm))
            digests = Digest.all_of(algorithm, names)
            if digests is not None:
                found += digests
                continue
            for name in names:
                try:
                    found.append(Digest(f"{algorithm}:{name}"))
                except InvalidInputError:
                    strays.append(root / algorithm / name)
    return found, strays


def write_atomic(path: Path, data: bytes, mode: int = 0o644, *, durable: bool = True) -> None:
    """Replace a file whole: readers see the old content or the new, also after a crash when ``durable``."""
    temporary = path.with_name(f".{path.name}.{os.urandom(6).hex()}")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            if durable:
                os.fdatasync(fd)
        finally:
            os.close(fd)
        os.rename(temporary, path)
        if durable:
            sync_dir(path.parent)
    except OSError as exc:
        with suppress(OSError):
            os.unlink(temporary)
        raise native_error(exc, f"write {path}") from exc


class Lock:
    """An advisory lock (flock) on a file of its own, which is made where it is missing and never removed.

    A process that dies lets go of it. One object serves one thread.
    """

    def __init__(self, path: Path, *, shared: bool = False, blocking: bool = True) -> None:
        self._path = path
        self._operation = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if blocking else fcntl.LOCK_NB)
        self._fd = -1

    def acquire(self) -> Self:
        """Take it; InUseError when it is held and the lock was made not ``blocking``."""
        try:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise native_error(exc, f"lock {self._path}") from exc
        try:
            fcntl.flock(fd, self._operation)
        except OSError as exc:
            os.close(fd)
            if exc.errno == errno.EWOULDBLOCK:
                raise InUseError(f"lock {self._path}: held by another process") from None
            raise native_error(exc, f"lock {self._path}") from exc
        self._fd = fd
        return self

    def release(self) -> None:
        """Let go of it; again is allowed."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class Ingest:
    """The area of what is being written and not yet visible.

    A working directory is locked while its maker lives, so what nobody holds is litter of a crash. Names that
    begin with ``blob-`` (partial downloads, which the next try continues) and ``lock-`` are kept.
    """

    def __init__(self, root: Path, remove: Callable[[Path], None] | None = None) -> None:
        """``remove`` takes a tree away, where ``remove_tree`` cannot always."""
        self.root = root
        self._remove = remove or remove_tree

    @contextmanager
    def directory(self, prefix: str) -> Iterator[Path]:
        """A fresh directory, gone at the end of the ``with`` with all that is left in it."""
        path, fd = self._locked_directory(prefix)
        try:
            yield path
        finally:
            try:
                with suppress(FileNotFoundError):
                    self._remove(path)
            finally:
                os.close(fd)

    def _locked_directory(self, prefix: str) -> tuple[Path, int]:
        """A new directory and its lock. Between making and locking it, a sweep may take it for litter: then another."""
        while True:
            path = self.root / f"{prefix}-{os.urandom(8).hex()}"
            try:
                os.mkdir(path, 0o700)
            except OSError as exc:
                raise native_error(exc, f"create {path}") from exc
            try:
                fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            fcntl.flock(fd, fcntl.LOCK_EX)
            if os.path.exists(path):
                return path, fd
            os.close(fd)

    def lock(self, name: str, *, shared: bool = False, blocking: bool = True) -> Lock:
        """The lock of something that is named, as a diff ID."""
        return Lock(self.root / f"lock-{name}", shared=shared, blocking=blocking)

    def sweep(self) -> int:
        """Remove what crashed processes left; how many. What a live process works on stays. What cannot be removed
        keeps nothing else from it, and is an error at the end."""
        removed = 0
        failed: LayerfsError | None = None
        for entry in list(os.scandir(self.root)):
            if entry.name.startswith(("blob-", "lock-")):
                continue
            try:
                removed += self._sweep_one(entry)
            except FileNotFoundError:
                continue
            except LayerfsError as exc:
                failed = exc
        if failed is not None:
            raise failed
        return removed

    def _sweep_one(self, entry: "os.DirEntry[str]") -> int:
        fd = os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return 0
        else:
            if entry.is_dir(follow_symlinks=False):
                self._remove(Path(entry.path))
            else:
                os.unlink(entry.path)
            return 1
        finally:
            os.close(fd)


def remove_tree(path: Path) -> None:
    """Remove a directory and all in it, never following a link, whatever modes and depths it has.

    FileNotFoundError when it is not there. What vanishes meanwhile is no error.
    """
    parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _remove_at(parent, os.fsencode(path.name))
    finally:
        os.close(parent)


def _open_dir(parent: int, name: bytes) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(name, flags, dir_fd=parent)
    except PermissionError:
        os.chmod(name, 0o700, dir_fd=parent)
        return os.open(name, flags, dir_fd=parent)


def _remove_at(parent: int, name: bytes) -> None:
    """Depth first with one open directory and ``..`` to go back, so that no depth is too deep.

    The way back is checked against the inode that was left, for whoever moves directories about meanwhile.
    """
    again = 0
    fd = _open_dir(parent, name)
    stack = [(name, _identity(parent), _remove_files(fd))]
    try:
        while stack:
            current, above, children = stack[-1]
            if children:
                child = children.pop()
                try:
                    inside = _open_dir(fd, child)
                except FileNotFoundError:
                    continue
                here = _identity(fd)
                os.close(fd)
                fd = inside
                stack.append((child, here, _remove_files(fd)))
                continue
            stack.pop()
            back = os.open("..", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
            os.close(fd)
            fd = back
            if _identity(fd) != above:
                raise OSError(errno.EBUSY, f"a directory moved while it was removed: {os.fsdecode(current)}")
            try:
                os.rmdir(current, dir_fd=fd)
            except FileNotFoundError:
                continue
            except OSError as exc:
                again += 1
                if exc.errno != errno.ENOTEMPTY or again > _PATIENCE:
                    raise
                # Somebody put something into it meanwhile, as a lock that is looked for.
                inside = _open_dir(fd, current)
                here = _identity(fd)
                os.close(fd)
                fd = inside
                stack.append((current, here, _remove_files(fd)))
    finally:
        os.close(fd)


def _identity(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def _remove_files(fd: int) -> list[bytes]:
    """Unlink all in a directory but its directories, and name those."""
    if os.fstat(fd).st_mode & stat.S_IRWXU != stat.S_IRWXU:  # without x, no name in it can be reached
        os.fchmod(fd, 0o700)
    with os.scandir(fd) as entries:
        found = [(os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_dir in found:
        if not is_dir:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=fd)
    return [name for name, is_dir in found if is_dir]


def disk_usage(path: Path) -> int:
    """Bytes that a file or a tree takes on disk, hard links counted once, as ``du`` counts."""
    return sum(status.st_blocks * 512 for status in _inodes(path))


def file_sizes(path: Path) -> int:
    """Bytes in the files and links of a tree, hard links counted once, whatever they take on disk."""
    return sum(status.st_size for status in _inodes(path) if not stat.S_ISDIR(status.st_mode))


def _inodes(path: Path) -> Iterator[os.stat_result]:
    """Each inode of a tree once; what vanishes meanwhile is left out."""
    seen: set[tuple[int, int]] = set()
    pending = [path]
    while pending:
        current = pending.pop()
        try:
            status = os.lstat(current)
            if stat.S_ISDIR(status.st_mode):
                with os.scandir(current) as entries:
                    pending.extend(Path(entry.path) for entry in entries)
        except FileNotFoundError:
            continue
        key = (status.st_dev, status.st_ino)
        if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
            if key in seen:
                continue
            seen.add(key)
        yield status


@cache
def boot_id() -> str:
    """What tells this boot of the machine from another."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
