"""Layer format dir: a directory ``header  fs/  dead/  rest.lz4``, for hosts that cannot mount EROFS files.

``fs/`` is the tree as overlayfs takes it for a lower layer; ``dead/`` has content that the tar has twice.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from layerfs.digest import Digest
from layerfs.errors import IntegrityError, system_errors
from layerfs.fsutil import disk_usage, sync_dir
from layerfs.late import LateModule
from layerfs.layers.formats import REST, OpenLayer, check_identity, opening, write_all
from layerfs.layers.header import HEADER_SIZE, Header
from layerfs.layers.tree import DirTree, LayerTree

if TYPE_CHECKING:
    from layerfs import userns
    from layerfs.layers import owntree
    from layerfs.native import Unpacker
else:  # root's layers need none
    userns, owntree = LateModule("layerfs.userns"), LateModule("layerfs.layers.owntree")

__all__ = ["TREE", "DirFormat"]

TREE = "fs"
"""The name of the tree in a layer directory."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PLACE = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class DirFormat:
    """A layer is a directory that overlayfs stacks."""

    name = "dir"
    is_file = False

    def __init__(self, *, userxattr: bool = False, chown: bool = True, sync: bool = True) -> None:
        self.userxattr = userxattr
        self.chown = chown
        self._sync = sync

    def start(self, work: Path) -> int:
        """An empty directory; without privilege its group and that of all in it is this user's own, wherever it is."""
        os.mkdir(work / "layer", 0o700)
        if not self.chown:
            os.chown(work / "layer", -1, os.getegid())
            os.chmod(work / "layer", 0o700)
        return os.open(work / "layer", _DIRECTORY)

    def unpacker(self, fd: int, *, max_bytes: int, max_entries: int, max_metadata: int) -> "Unpacker":
        """Makes ``fs/`` and ``dead/``."""
        from layerfs.native import Unpacker  # who reads layers does not need it

        return Unpacker(
            fd,
            directory=True,
            userxattr=self.userxattr,
            chown=self.chown,
            max_bytes=max_bytes,
            max_entries=max_entries,
            max_metadata=max_metadata,
        )

    def seal(self, work: Path, fd: int, header: Header) -> None:
        """One syncfs for all files; what they take on disk is known only then. The header comes last."""
        layer = work / "layer"
        os.rename(work / REST, layer / REST)
        os.chmod(layer / REST, 0o444)
        if self._sync:
            _syncfs(fd)
        usage = disk_usage if self.chown else userns.usage_owned
        header = msgspec.structs.replace(header, disk=usage(layer))
        out = os.open("header", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444, dir_fd=fd)
        try:
            write_all(out, header.encode(), 0)
            if self._sync:
                os.fdatasync(out)
        finally:
            os.close(out)
        if self._sync:
            os.fsync(fd)

    def publish(self, work: Path, target: Path) -> None:
        """A rename; that of a directory never replaces one with something in it."""
        try:
            os.rename(work / "layer", target)
        except OSError as exc:
            if target.exists():
                raise FileExistsError(exc.errno, "exists", str(target)) from exc
            raise
        if self._sync:
            sync_dir(target.parent)

    def open(self, target: Path, diff_id: Digest) -> OpenLayer:
        """All parts must be there, the rest as long as the header says."""
        with opening(diff_id) as what:
            fd = os.open(target, _DIRECTORY)
            try:
                header = Header.decode(_read_header(fd, what), what)
                check_identity(header, diff_id, self.name, what)
                rest_fd = _open_parts(fd, header, what)
            except BaseException:
                os.close(fd)
                raise
        return OpenLayer(fd, rest_fd, header)

    def disk(self, layer: OpenLayer) -> int:
        """As it was when the layer was written."""
        return layer.header.disk

    def metadata_hash(self, fd: int, meta_offset: int, image_size: int) -> bytes:
        """The metadata are the file system's own; there is nothing to hash."""
        return bytes(16)

    def tree(self, layer: OpenLayer) -> LayerTree:
        """Reads ``fs/``."""
        with system_errors("open the tree of a layer"):
            fd = os.open(TREE, _PLACE, dir_fd=layer.fd)
            if layer.header.chown or userns.is_within():
                return DirTree(fd)
            # Where owners were not set, all are those of the layer itself.
            status = os.fstat(layer.fd)
            alone = userns.Maps(((0, status.st_uid, 1),), ((0, status.st_gid, 1),))
            return owntree.OwnTree(fd, layer.header.maps or alone)


def _read_header(fd: int, what: str) -> bytes:
    try:
        file = os.open("header", _FILE, dir_fd=fd)
    except FileNotFoundError:
        raise IntegrityError(f"{what}: the header is missing") from None
    try:
        return os.pread(file, HEADER_SIZE, 0)
    finally:
        os.close(file)


def _open_parts(fd: int, header: Header, what: str) -> int:
    try:
        os.close(os.open(TREE, _PLACE, dir_fd=fd))
        rest = os.open(REST, _FILE, dir_fd=fd)
    except (FileNotFoundError, NotADirectoryError):
        raise IntegrityError(f"{what}: a part of it is missing") from None
    size = os.fstat(rest).st_size
    if size != header.rest_length:
        os.close(rest)
        raise IntegrityError(f"{what}: the rest has {size} bytes, not {header.rest_length}")
    return rest


def _syncfs(fd: int) -> None:
    """syncfs(2): all of the file system that ``fd`` is on."""
    import ctypes  # late: only writing this format needs it, and it takes longer to load than most commands run

    if ctypes.CDLL(None, use_errno=True).syncfs(fd) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
