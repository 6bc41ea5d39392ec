"""Stamps: whether a whole tree is as it was, told by what stat says of it, without a look at one file after the other.

A file that changes has another time of change (ctime), which nobody can set; so the same stamp means the same tree,
unless a file was changed so shortly before it was looked at that it may be changed again within the same tick.
"""

import hashlib
import time

from layerfs.native import Listing

__all__ = ["RACY_SECONDS", "Stamp"]

RACY_SECONDS = 2
"""What was changed so shortly before it was read may be changed again within the same tick of the clock."""


class Stamp:
    """What stat says of all that a walk comes by. Of directories only names, modes and attributes count: their times
    change with files that are left out, or made and removed."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._newest = 0
        self._begun = time.time()

    def add(self, listing: Listing, attributes: bytes) -> list[bytes]:
        """Add a directory of the tree with its own ``attributes``; the names of those in it, sorted."""
        directories = sorted((name, status.st_mode) for name, status in listing.directories())
        self._hash.update(b"%d %d %b\0" % (len(listing.files), len(directories), attributes))
        self._hash.update(listing.files)
        for name, mode in directories:
            self._hash.update(b"%o %b\0" % (mode, name))
        self._newest = max(self._newest, listing.newest)
        return [name for name, _ in directories]

    def finished(self) -> bytes | None:
        """The stamp; None: a file is too fresh to tell a later change from."""
        return self._hash.digest() if self._newest + RACY_SECONDS < int(self._begun) else None
