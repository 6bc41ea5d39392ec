"""A tree, by a descriptor, as a tar stream: what ``cp`` reads. Nothing is opened by a path, and no link is followed."""

import os
import stat
import tarfile
from collections.abc import Collection, Iterator
from contextlib import suppress

__all__ = ["tar_out"]

_PIECE = 1 << 20
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DEPTH = 2048


def tar_out(parent: int, name: bytes, shown: bytes, first_id: int = 0, hollow: Collection[int] = ()) -> Iterator[bytes]:
    """``name`` in the directory ``parent``, and all below it, as entries that begin with ``shown``. OSError.

    ``first_id`` is the number by which the host sees the tree's root user. Of directories below ``name`` on the devices
    ``hollow`` there is nothing of what they have.
    """
    writer = _Writer(first_id, hollow)
    yield from writer.entry(parent, name, shown, 0)
    yield bytes(2 * tarfile.BLOCKSIZE)


class _Writer:
    def __init__(self, first_id: int, hollow: Collection[int]) -> None:
        self._first_id = first_id
        self._hollow = hollow
        self._links: dict[tuple[int, int], bytes] = {}

    def entry(self, parent: int, name: bytes, shown: bytes, depth: int) -> Iterator[bytes]:
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFSOCK:
            return
        info = _info(status, shown, self._first_id)
        if kind == stat.S_IFLNK:
            info.type, info.linkname = tarfile.SYMTYPE, _text(os.readlink(name, dir_fd=parent))
            yield _header(info)
        elif kind == stat.S_IFDIR:
            yield from self._directory(parent, name, shown, info, depth)
        elif kind == stat.S_IFREG:
            yield from self._file(parent, name, shown, info, status)
        else:
            info.type = {stat.S_IFCHR: tarfile.CHRTYPE, stat.S_IFBLK: tarfile.BLKTYPE}.get(kind, tarfile.FIFOTYPE)
            info.devmajor, info.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
            yield _header(info)

    def _directory(self, parent: int, name: bytes, shown: bytes, info: tarfile.TarInfo, depth: int) -> Iterator[bytes]:
        if depth > _DEPTH:
            raise OSError(40, "directories too deep", os.fsdecode(shown))
        fd = os.open(name, _OPEN | os.O_DIRECTORY, dir_fd=parent)
        try:
            info.type = tarfile.DIRTYPE
            _add_xattrs(info, fd)
            yield _header(info)
            if depth and os.fstat(fd).st_dev in self._hollow:
                return
            for child in sorted(map(os.fsencode, os.listdir(fd))):
                with suppress(FileNotFoundError):  # it went meanwhile
                    yield from self.entry(fd, child, shown + b"/" + child, depth + 1)
        finally:
            os.close(fd)

    def _file(
        self, parent: int, name: bytes, shown: bytes, info: tarfile.TarInfo, status: os.stat_result
    ) -> Iterator[bytes]:
        key = (status.st_dev, status.st_ino)
        if status.st_nlink > 1 and key in self._links:
            info.type, info.linkname, info.size = tarfile.LNKTYPE, _text(self._links[key]), 0
            yield _header(info)
            return
        self._links[key] = shown
        fd = os.open(name, _OPEN, dir_fd=parent)
        try:
            now = os.fstat(fd)
            if not stat.S_ISREG(now.st_mode):  # it was replaced since
                return
            info.size = now.st_size
            _add_xattrs(info, fd)
            yield _header(info)
            yield from _content(fd, now.st_size)
        finally:
            os.close(fd)


def _content(fd: int, size: int) -> Iterator[bytes]:
    """Exactly ``size`` bytes, whatever happens to the file."""
    left = size
    while left:
        piece = os.read(fd, min(_PIECE, left))
        if not piece:
            piece = bytes(min(_PIECE, left))
        left -= len(piece)
        yield piece
    yield bytes(-size % tarfile.BLOCKSIZE)


def _info(status: os.stat_result, shown: bytes, first_id: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(_text(shown))
    info.mode = stat.S_IMODE(status.st_mode)
    info.uid, info.gid = (max(0, number - first_id) for number in (status.st_uid, status.st_gid))
    seconds, nanoseconds = divmod(status.st_mtime_ns, 10**9)
    info.mtime = seconds
    if nanoseconds:
        info.pax_headers = {"mtime": f"{seconds}.{nanoseconds:09}"}
    return info


def _add_xattrs(info: tarfile.TarInfo, fd: int) -> None:
    found = dict(info.pax_headers)
    with suppress(OSError):
        for name in os.listxattr(fd):
            if name.startswith("user.") or name == "security.capability":
                found[f"SCHILY.xattr.{name}"] = _text(os.getxattr(fd, name))
    info.pax_headers = found


def _header(info: tarfile.TarInfo) -> bytes:
    if info.isdir():
        info.name += "/"
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
