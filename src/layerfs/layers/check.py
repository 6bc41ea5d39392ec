"""What ``LayerStore.verify`` checks: that a layer is still what was written. All of it raises IntegrityError."""

import os
import stat
from pathlib import Path

import msgspec

from layerfs.digest import Digest, hasher
from layerfs.errors import IntegrityError
from layerfs.layers.formats import PIECE, Format, OpenLayer, hash_range
from layerfs.layers.tarout import TarReader
from layerfs.layers.tree import ErofsTree, LayerTree, Node
from layerfs.native import Reader, Unpacker

__all__ = ["check_content", "check_hashes", "check_tree"]


def check_hashes(layer_format: Format, layer: OpenLayer) -> None:
    """The rest and the metadata are those that the header names."""
    header = layer.header
    rest = hash_range(layer.rest_fd, (header.rest_offset, header.rest_offset + header.rest_length))
    if rest != header.rest_hash:
        raise IntegrityError("the rest is damaged")
    if layer_format.metadata_hash(layer.fd, header.meta_offset, header.image_size) != header.meta_hash:
        raise IntegrityError("the metadata are damaged")


def check_content(diff_id: Digest, reader: TarReader) -> None:
    """The exact tar, made again, has the diff ID."""
    state = hasher(diff_id.algorithm)
    while piece := reader.read(PIECE):
        state.update(piece)
    if Digest.from_hash(state) != diff_id:
        raise IntegrityError(f"the content has diff ID {Digest.from_hash(state)}")


def check_tree(layer: OpenLayer, reader: TarReader, tree: LayerTree, work: Path) -> None:
    """For the format dir, whose metadata no hash covers: the tree is the one that the tar describes.

    The tar is unpacked once more, as an image in a temporary file, for its metadata. Times are not compared, because
    not every file system holds all of them; attributes are, where it held all; owners and devices, where it may.
    """
    header = layer.header
    import tempfile  # it brings much that only a check needs

    with tempfile.TemporaryFile(dir=work if os.access(work, os.W_OK) else None) as file:
        with Unpacker(file.fileno(), userxattr=header.userxattr) as unpacker:
            while piece := reader.read(PIECE):
                unpacker.write(piece)
                unpacker.rest()
            dropped = unpacker.finish(bytes(16)).xattrs_dropped
        wanted = ErofsTree(Reader(file.fileno()))
        try:
            essence = _Essence(header.chown or header.maps is not None, header.chown, dropped == header.xattrs_dropped)
            _compare(wanted, tree, essence)
        finally:
            wanted.close()


def _compare(wanted: LayerTree, found: LayerTree, essence: "_Essence") -> None:
    pending: list[tuple[Node, Node, bytes]] = [(wanted.root, found.root, b"")]
    while pending:
        one, other, path = pending.pop()
        if essence.of(wanted, one) != essence.of(found, other):
            raise IntegrityError(f"{os.fsdecode(path) or '/'} is not as it was unpacked")
        if not stat.S_ISDIR(wanted.stat(one).mode):
            continue
        names = {name: node for name, node, _ in wanted.names(one)}
        others = {name: node for name, node, _ in found.names(other)}
        for name in names.keys() ^ others.keys():
            raise IntegrityError(f"{os.fsdecode(path + b'/' + name)} is missing, or was not in the layer")
        pending += [(node, others[name], path + b"/" + name) for name, node in names.items()]


class _Essence(msgspec.Struct, frozen=True):
    """What of a file must be equal in both formats."""

    owners: bool
    devices: bool
    xattrs: bool

    def of(self, tree: LayerTree, node: Node) -> tuple[object, ...]:
        st = tree.stat(node)
        kind, rdev = stat.S_IFMT(st.mode), st.rdev
        if not self.devices and kind in (stat.S_IFCHR, stat.S_IFBLK):
            kind, rdev = stat.S_IFREG, (0, 0)  # what a user may not make was made a file
        return (
            kind,
            rdev,
            stat.S_IMODE(st.mode),
            (st.uid, st.gid) if self.owners else None,
            st.size if kind == stat.S_IFREG else 0,
            0 if kind == stat.S_IFDIR else st.nlink,
            tree.readlink(node) if kind == stat.S_IFLNK else b"",
            tree.xattrs(node) if self.xattrs else None,
        )
