"""Which files of a damaged layer are hit: told by comparing it with the tar that it came from, where that is here.

The damaged layer still makes a tar. Where its bytes differ, the content of a file is hit. The metadata of an image are
compared name by name with those of an image made anew in a temporary file, for no tar is made of them.
"""

import os
import stat
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, suppress
from pathlib import Path

from layerfs.blobs import PIECE, BlobReader
from layerfs.digest import Digest, Verifier
from layerfs.errors import IntegrityError, LayerfsError, NativeError
from layerfs.layers import LayerStore, TarReader
from layerfs.native import Reader, Unpacker

__all__ = ["damaged_paths"]

_MOST = 1000
"""Paths that are looked for; who has lost more needs no list."""
_BLOCK = 512
Source = Callable[[], AbstractContextManager[BlobReader]]


def damaged_paths(layers: LayerStore, diff_id: Digest, good: Source, work: Path) -> list[str]:
    """The paths, without a slash in front, that are hit in the layer that was put away; ``good`` opens its plain tar.

    Empty where the tar is not that of the layer, the damaged layer cannot be read at all, or only bytes are hit that no
    file has (its header, the rest). Takes the time of reading all of it twice.
    """
    found: list[str] = []
    with suppress(LayerfsError, OSError, tarfile.TarError):
        blocks = _differing_blocks(layers, diff_id, good)
        if blocks:
            with good() as stream:
                found += _members(stream, blocks)
        if layers.format == "erofs":
            found += _differing_names(layers, diff_id, good, work)
    return list(dict.fromkeys(found))[:_MOST]


def _differing_blocks(layers: LayerStore, diff_id: Digest, good: Source) -> list[int]:
    """The blocks of the tar that the damaged layer makes otherwise, as far as it makes one."""
    blocks: list[int] = []
    verifier, at = Verifier(diff_id, None), 0
    with good() as stream, TarReader(layers.open_damaged(diff_id), f"read layer {diff_id}") as bad:
        ended = False
        while piece := stream.read(PIECE):
            verifier.update(piece)
            other = b""
            with suppress(IntegrityError, NativeError):
                while not ended and len(other) < len(piece):
                    more = bad.read(len(piece) - len(other))
                    ended = not more
                    other += more
            ended = ended or len(other) < len(piece)
            if other != piece[: len(other)] and len(blocks) < _MOST:
                blocks += _differing(piece[: len(other)], other, at)
            at += len(piece)
    verifier.finish()
    return blocks


def _differing(one: bytes, other: bytes, offset: int) -> list[int]:
    """Which blocks differ in pieces of one length that begin at ``offset``; that need not be where a block begins."""
    found = []
    start = -(offset % _BLOCK)
    for at in range(start, len(one), _BLOCK):
        low = max(0, at)
        if one[low : at + _BLOCK] != other[low : at + _BLOCK]:
            found.append((offset + at) // _BLOCK)
    return found


def _members(stream: BlobReader, blocks: list[int]) -> Iterator[str]:
    """The members of an archive that these blocks (in order, perhaps twice) belong to."""
    left = sorted(set(blocks), reverse=True)
    last = None
    with tarfile.open(fileobj=stream, mode="r|") as archive:  # type: ignore[call-overload]  # read is all it asks for
        for member in archive:
            while left and left[-1] * _BLOCK < member.offset:
                left.pop()
                if last:
                    yield last
            last = member.name.strip("/") or "."
            archive.members = []  # it would keep them all
        if left and last:
            yield last


def _differing_names(layers: LayerStore, diff_id: Digest, good: Source, work: Path) -> Iterator[str]:
    """Paths of which the image that is damaged says something else than it should."""
    with tempfile.TemporaryFile(dir=work) as file, layers.open_damaged(diff_id) as bad:
        with good() as stream, Unpacker(file.fileno(), userxattr=bad.header.userxattr) as unpacker:
            while piece := stream.read(PIECE):
                unpacker.write(piece)
                unpacker.rest()
            unpacker.finish(bytes(16))
        with closing(Reader(file.fileno())) as wanted, closing(Reader(bad.fd)) as found:
            for path in _walk(wanted, found):
                yield os.fsdecode(path) or "."


def _walk(wanted: Reader, found: Reader) -> Iterator[bytes]:
    pending: list[tuple[int, int, bytes]] = [(wanted.root, found.root, b"")]
    while pending:
        one, other, path = pending.pop()
        names = {name: nid for name, nid, _ in wanted.readdir(one)} if stat.S_ISDIR(wanted.stat(one).mode) else {}
        try:
            same = _facts(wanted, one) == _facts(found, other)
            others = {name: nid for name, nid, _ in found.readdir(other)} if names else {}
        except (IntegrityError, NativeError, ValueError):
            same, others = False, {}
        if not same or names.keys() != others.keys():
            yield path
        for name, nid in names.items():
            if name in others:
                pending.append((nid, others[name], path + b"/" + name if path else name))


def _facts(reader: Reader, nid: int) -> tuple[object, ...]:
    st = reader.stat(nid)
    link = reader.readlink(nid) if stat.S_ISLNK(st.mode) else b""
    place = []
    at = 0
    while stat.S_ISREG(st.mode) and at < st.size:
        where, length = reader.extent(nid, at)
        place.append(where)
        at += length
    return st.mode, st.uid, st.gid, st.size, st.mtime_ns, st.nlink, reader.xattrs(nid), link, place, st.rdev_major
