"""The one mount of each layer file on this host, shared by all who use it.

The page cache is shared only through one superblock, so a layer in use is mounted once, at ``RUN/layers/<hex>``. Beside
it lie ``<hex>.lock``, held while the mount is made or taken away, and ``<hex>.of``, which names the file that was
mounted by device and inode number: the mount keeps that inode from being used again, so the two tell a mount of the
present file from one of a file that was deleted and made anew. RUN may be empty at any time, as after a reboot.
"""

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from layerfs import native
from layerfs.errors import NativeError, UnsupportedError, system_errors
from layerfs.fsutil import Lock, write_atomic
from layerfs.late import LateModule
from layerfs.layers.formats import OpenLayer

if TYPE_CHECKING:
    import re
else:  # for one series of kernels
    re = LateModule("re")

__all__ = ["SharedMounts", "mount_layer_file"]

_HEX = "0123456789abcdef"


class SharedMounts:
    """The mounts below a run directory, named by the hexadecimal digits of diff IDs."""

    def __init__(self, run: Path) -> None:
        self._run = run
        self._base = os.fspath(run)

    def open(self, name: str, status: os.stat_result) -> int | None:
        """A descriptor of the mount of the file that has ``status``; None where that is not mounted."""
        place = f"{self._base}/{name}"
        try:
            with open(f"{place}.of", "rb", buffering=0) as file:
                if file.read() != _identity(status):
                    return None
            fd = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        if os.fstat(fd).st_dev == os.stat(self._base).st_dev:  # the empty directory: nothing is mounted on it
            os.close(fd)
            return None
        return fd

    def attach(self, name: str, layer: OpenLayer) -> int:
        """Mount a layer, unless another process just has; a descriptor of the mount."""
        status = os.fstat(layer.fd)
        with system_errors(f"mount layer {name}"):
            self._run.mkdir(mode=0o711, parents=True, exist_ok=True)
        with Lock(self._run / f"{name}.lock"):
            fd = self.open(name, status)
            if fd is not None:
                return fd
            target = self._run / name
            while target.is_mount():  # of a file that is gone; whoever still uses it keeps it
                native.detach(target, lazy=True)
            fd = mount_layer_file(layer.fd)
            try:
                with system_errors(f"mount layer {name}"):
                    target.mkdir(mode=0o700, exist_ok=True)
                native.attach(fd, target)
                write_atomic(self._run / f"{name}.of", _identity(status), durable=False)
            except BaseException:
                os.close(fd)
                raise
        # The kernel reads no metadata ahead by itself; reading them piece by piece takes three times as long.
        header = layer.header
        with suppress(NativeError):
            native.readahead(layer.fd, header.meta_offset, header.image_size - header.meta_offset)
        return fd

    def release(self, name: str) -> bool:
        """Unmount a layer; False when it is busy and stays."""
        target = self._run / name
        if not target.exists():
            return True
        with Lock(self._run / f"{name}.lock"):
            try:
                native.detach(target)
            except NativeError as exc:
                if exc.errno == errno.EBUSY:
                    return False
                if exc.errno not in (errno.EINVAL, errno.ENOENT):  # it was not mounted
                    raise
            (self._run / f"{name}.of").unlink(missing_ok=True)
            with suppress(FileNotFoundError):
                target.rmdir()
        return True

    def names(self) -> list[str]:
        """The layers that are mounted, sorted."""
        try:
            found = os.listdir(self._base)
        except FileNotFoundError:
            return []
        return sorted(name for name in found if _is_layer(name) and os.path.ismount(self._run / name))


def _is_layer(name: str) -> bool:
    return len(name) in (64, 128) and not name.strip(_HEX)


def _identity(status: os.stat_result) -> bytes:
    return b"%d:%d" % (status.st_dev, status.st_ino)


def mount_layer_file(fd: int) -> int:
    """Mount an EROFS layer file, detached: straight from the file, or through a loop device where that is needed.

    UnsupportedError where neither works.
    """
    if _direct_mounts_panic(os.uname().release):
        return native.erofs_mount(fd, loop=True)
    try:
        return native.erofs_mount(fd)
    except NativeError as exc:
        if exc.errno != errno.ENOTBLK:
            raise
        try:
            return native.erofs_mount(fd, loop=True)
        except NativeError as second:
            raise UnsupportedError(f"{exc}; with a loop device: {second}", hint="use the layer format dir") from second


def _direct_mounts_panic(release: str) -> bool:
    """Linux 6.12.0 and 6.12.1 crash when they read files with blocks smaller than a page (CVE-2024-56750)."""
    return release.startswith("6.12") and re.match(r"6\.12(\.[01])?(?![.0-9])", release) is not None
