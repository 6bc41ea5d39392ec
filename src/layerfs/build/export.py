"""The files of a build written out: into a directory of the host, or as one tar."""

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from layerfs.errors import InvalidInputError, system_errors
from layerfs.late import LateModule
from layerfs.native import Differ

if TYPE_CHECKING:
    import shutil
else:  # few builds write files out
    shutil = LateModule("shutil")

__all__ = ["write_tar", "write_tree"]

_PIECE = 1 << 20
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def write_tar(root: int, sink: str | BinaryIO, clamp: int | None) -> None:
    """The tree of a descriptor as one tar, into a file that appears when it is whole, or into a stream."""
    with Differ(root, tree=True, clamp_mtime=clamp) as differ, system_errors(f"write {sink}"):
        if not isinstance(sink, str):
            while piece := differ.read(_PIECE):
                sink.write(piece)
            sink.flush()
            return
        temporary = f"{sink}.partial-{os.getpid()}"
        try:
            with open(temporary, "xb") as file:
                while piece := differ.read(_PIECE):
                    file.write(piece)
            os.rename(temporary, sink)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(temporary)


def write_tree(root: int, target: Path, clamp: int | None, *, owners: bool = False) -> None:
    """The tree of a descriptor into a directory, which may have files already. No link in it is followed; devices
    are left out, and without ``owners`` owners too, as the files are the user's."""
    with system_errors(f"write {target}"):
        target.mkdir(parents=True, exist_ok=True)
        fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _copy(root, fd, clamp, owners)
            if owners:
                _own(fd, os.fstat(root))
        finally:
            os.close(fd)


def _copy(source: int, target: int, clamp: int | None, owners: bool) -> None:
    with os.scandir(source) as entries:
        found = sorted((entry.name, entry.stat(follow_symlinks=False)) for entry in entries)
    for name, status in found:
        times = _times(status, clamp)
        if stat.S_ISDIR(status.st_mode):
            with suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=target)
            inner = os.open(name, _DIRECTORY, dir_fd=source)
            try:
                outer = os.open(name, _DIRECTORY, dir_fd=target)
                try:
                    _copy(inner, outer, clamp, owners)
                    if owners:
                        _own(outer, status)
                    os.fchmod(outer, status.st_mode & 0o7777)
                    os.utime(outer, ns=times)
                finally:
                    os.close(outer)
            finally:
                os.close(inner)
        elif stat.S_ISLNK(status.st_mode):
            _clear(target, name)
            os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
            if owners:
                os.chown(name, status.st_uid, status.st_gid, dir_fd=target, follow_symlinks=False)
            os.utime(name, ns=times, dir_fd=target, follow_symlinks=False)
        elif stat.S_ISREG(status.st_mode):
            _clear(target, name)
            _copy_file(source, target, name, status, times, owners)


def _own(fd: int, status: os.stat_result) -> None:
    os.fchown(fd, status.st_uid, status.st_gid)
    os.fchmod(fd, status.st_mode & 0o7777)


def _clear(target: int, name: str) -> None:
    try:
        os.unlink(name, dir_fd=target)
    except FileNotFoundError:
        pass
    except IsADirectoryError:
        raise InvalidInputError(f"write {name}: there is a directory in its place") from None


def _copy_file(
    source: int, target: int, name: str, status: os.stat_result, times: tuple[int, int], owners: bool
) -> None:
    read = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
    with open(read, "rb") as file:
        write = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=target)
        with open(write, "wb") as out:
            shutil.copyfileobj(file, out, _PIECE)
            out.flush()
            if owners:
                _own(out.fileno(), status)
            os.fchmod(out.fileno(), status.st_mode & 0o7777)
            os.utime(out.fileno(), ns=times)


def _times(status: os.stat_result, clamp: int | None) -> tuple[int, int]:
    ns = status.st_mtime_ns if clamp is None else min(status.st_mtime_ns, clamp * 10**9)
    return ns, ns
