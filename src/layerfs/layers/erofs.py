"""Layer format erofs: one file, ``header | EROFS image | rest.lz4``, mode 0444, never changed once published."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from layerfs.digest import Digest
from layerfs.errors import IntegrityError
from layerfs.fsutil import sync_dir
from layerfs.layers.formats import PIECE, REST, OpenLayer, check_identity, hash_range, opening, write_all
from layerfs.layers.header import HEADER_SIZE, Header
from layerfs.layers.tree import ErofsTree, LayerTree
from layerfs.native import Reader

if TYPE_CHECKING:
    from layerfs.native import Unpacker

__all__ = ["ErofsFormat"]

_SUPERBLOCK = (HEADER_SIZE, 4096)


class ErofsFormat:
    """A layer is a file that the kernel mounts."""

    name = "erofs"
    is_file = True
    chown = True

    def __init__(self, *, userxattr: bool = False, sync: bool = True) -> None:
        self.userxattr = userxattr
        self._sync = sync

    def start(self, work: Path) -> int:
        """An empty file."""
        return os.open(work / "layer", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def unpacker(self, fd: int, *, max_bytes: int, max_entries: int, max_metadata: int) -> "Unpacker":
        """Writes the image behind the first 1024 bytes."""
        from layerfs.native import Unpacker  # who reads layers does not need it

        return Unpacker(
            fd,
            userxattr=self.userxattr,
            max_bytes=max_bytes,
            max_entries=max_entries,
            max_metadata=max_metadata,
        )

    def seal(self, work: Path, fd: int, header: Header) -> None:
        """Append the rest; the header comes last, so that a file with a header is whole."""
        offset = header.rest_offset
        with open(work / REST, "rb", buffering=0) as rest:
            while piece := rest.read(PIECE):
                write_all(fd, piece, offset)
                offset += len(piece)
        write_all(fd, header.encode(), 0)
        os.fchmod(fd, 0o444)
        if self._sync:
            os.fdatasync(fd)

    def publish(self, work: Path, target: Path) -> None:
        """A second link rather than a rename: that never replaces what is there."""
        os.link(work / "layer", target)
        if self._sync:
            sync_dir(target.parent)

    def open(self, target: Path, diff_id: Digest) -> OpenLayer:
        """The file must be as long as its header says."""
        with opening(diff_id) as what:
            fd = os.open(target, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                header = Header.decode(os.pread(fd, HEADER_SIZE, 0), what)
                check_identity(header, diff_id, self.name, what)
                size, expected = os.fstat(fd).st_size, header.rest_offset + header.rest_length
                if size != expected:
                    raise IntegrityError(f"{what}: the file has {size} bytes, not {expected}")
            except BaseException:
                os.close(fd)
                raise
        return OpenLayer(fd, fd, header)

    def disk(self, layer: OpenLayer) -> int:
        """Of the file; zeros take no space."""
        return os.fstat(layer.fd).st_blocks * 512

    def metadata_hash(self, fd: int, meta_offset: int, image_size: int) -> bytes:
        """Of the superblock and of all metadata."""
        return hash_range(fd, _SUPERBLOCK, (meta_offset, image_size))

    def tree(self, layer: OpenLayer) -> LayerTree:
        """Through the core's reader, with no mount."""
        return ErofsTree(Reader(layer.fd))
