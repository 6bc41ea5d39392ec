"""Room for the database on a disk that is full."""

import os
from contextlib import suppress
from pathlib import Path

__all__ = ["Reserve"]

_SIZE = 1 << 20
_FULL = 1 << 20  # bytes that are free on a full disk, at most
_ROOMY = 8 << 20  # bytes that are free where a new reserve harms nobody


class Reserve:
    """A file of 1 MiB that holds nothing, to be removed when nothing else has room.

    SQLite wants some pages even for reading, and so does a removal. Without it a disk that containers have filled
    could not be emptied by the command.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def keep(self) -> None:
        """Make it where it is missing and there is room; no error when that does not succeed."""
        if self._path.exists():
            return
        with suppress(OSError):
            if _free(self._path.parent) < _ROOMY:
                return
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(fd, 0, _SIZE)
            finally:
                os.close(fd)

    def give_up(self) -> bool:
        """Remove it where the disk is full; whether that made room."""
        try:
            if _free(self._path.parent) > _FULL:
                return False
            self._path.unlink()
        except OSError:
            return False
        return True


def _free(directory: Path) -> int:
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize
