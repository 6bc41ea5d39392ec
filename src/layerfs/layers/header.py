"""The header of a layer: its first 1024 bytes (format erofs), or the file ``header`` (format dir).

The kernel does not look at the first 1024 bytes of an EROFS image, so a layer can say there what it is. All
numbers are little-endian::

    offset  size
         0     8  magic "LFSLAYER"
         8     4  version, 1
        12     4  flags: 1 format dir, 2 marks are user.overlay.*, 4 owners were not set, or as the maps say
        16   136  the diff ID as text, padded with NUL
       152     8  size of the tar
       160     8  erofs: where the metadata begins; dir: 0
       168     8  erofs: size of the image, a multiple of 4096; dir: 0
       176     8  where rest.lz4 begins in its file
       184     8  length of rest.lz4
       192     8  entries
       200     8  inodes
       208     8  whiteouts
       216     8  opaque directories
       224     8  logical size of all regular files
       232     8  archive members left out
       240     8  extended attributes left out
       248     8  dir: bytes on disk; erofs: 0 (the file itself says it)
       256    16  erofs: XXH3-128 of the metadata: superblock (bytes 1024 to 4095), then metadata to image's end
       272    16  XXH3-128 of rest.lz4
       288   512  the maps of the user namespace in which owners were set, as text, padded with NUL: of users, ";", of
                  groups; each "INSIDE:OUTSIDE:COUNT", divided by ","
       800   208  zero
      1008    16  XXH3-128 of bytes 0 to 1007
"""

import struct
from typing import TYPE_CHECKING

import msgspec
import xxhash

from layerfs.digest import Digest
from layerfs.errors import IntegrityError, InvalidInputError, UnsupportedError

if TYPE_CHECKING:
    from layerfs.userns import Maps

__all__ = ["HEADER_SIZE", "Header"]

HEADER_SIZE = 1024
_MAGIC = b"LFSLAYER"
_VERSION = 1
_FIELDS = struct.Struct("<8sII136s13Q16s16s512s208x")
_DIR = 1
_USERXATTR = 2
_NO_CHOWN = 4
_MAPS_SIZE = 512


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """What a layer says of itself; sizes and offsets in bytes, hashes 16 bytes. ``chown`` says that owners are those of
    the tar, ``maps`` that they are those in such a user namespace."""

    diff_id: Digest
    format: str
    userxattr: bool
    chown: bool
    tar_size: int
    meta_offset: int
    image_size: int
    rest_offset: int
    rest_length: int
    entries: int
    inodes: int
    whiteouts: int
    opaques: int
    data_bytes: int
    skipped: int
    xattrs_dropped: int
    disk: int
    meta_hash: bytes
    rest_hash: bytes
    maps: "Maps | None" = None

    def encode(self) -> bytes:
        """The 1024 bytes."""
        flags = (_DIR if self.format == "dir" else 0) | (_USERXATTR if self.userxattr else 0)
        flags |= 0 if self.chown else _NO_CHOWN
        counts = (getattr(self, name) for name in _COUNTS)
        maps = _maps_text(self.maps) if self.maps is not None else b""
        body = _FIELDS.pack(
            _MAGIC, _VERSION, flags, self.diff_id.encode(), *counts, self.meta_hash, self.rest_hash, maps
        )
        return body + xxhash.xxh3_128_digest(body)

    @classmethod
    def decode(cls, data: bytes, what: str) -> "Header":
        """Read the bytes of the layer named ``what``; IntegrityError when they are no header."""
        body = data[:-16]
        if len(data) != HEADER_SIZE or data[:8] != _MAGIC:
            raise IntegrityError(f"{what}: not a layer")
        if xxhash.xxh3_128_digest(body) != data[-16:]:
            raise IntegrityError(f"{what}: the header is damaged")
        _, version, flags, name, *counts, meta_hash, rest_hash, maps = _FIELDS.unpack(body)
        if version != _VERSION:
            raise IntegrityError(f"{what}: version {version} of the layer format is not known")
        try:
            diff_id = Digest(name.rstrip(b"\0").decode("ascii", "replace"))
        except InvalidInputError:
            raise IntegrityError(f"{what}: the header has no diff ID") from None
        return cls(
            diff_id=diff_id,
            format="dir" if flags & _DIR else "erofs",
            userxattr=bool(flags & _USERXATTR),
            chown=not flags & _NO_CHOWN,
            meta_hash=meta_hash,
            rest_hash=rest_hash,
            maps=_maps(maps.rstrip(b"\0").decode("ascii", "replace"), what) if maps[0] else None,
            **dict(zip(_COUNTS, counts, strict=True)),
        )


_COUNTS = Header.__struct_fields__[4:17]


def _maps_text(maps: "Maps") -> bytes:
    text = ";".join(",".join("{}:{}:{}".format(*each) for each in ranges) for ranges in (maps.uids, maps.gids))
    if len(text) > _MAPS_SIZE:
        raise UnsupportedError("unpack layer: this user has too many ranges in /etc/subuid and /etc/subgid")
    return text.encode()


def _maps(text: str, what: str) -> "Maps":
    from layerfs.userns import Maps  # layers of root's have none

    try:
        uids, gids = (
            tuple((int(a), int(b), int(n)) for a, b, n in (each.split(":") for each in ranges.split(",")))
            for ranges in text.split(";")
        )
    except ValueError:
        raise IntegrityError(f"{what}: the header has broken maps") from None
    return Maps(uids, gids)
