"""How fast an image could be unpacked at best on this machine: what no engine that verifies it can do without.

With S plain bytes, N entries and C cores that is

    max(inflate of the largest layer, (inflate of all + sha256 of S + writing of S + N * 1 us) / C)

where the parts are measured one at a time, here and now, on the image's own bytes, in memory but for the writing, which
goes to the page cache.
"""

import hashlib
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from isal import isal_zlib

from bench.layout import Layout

__all__ = ["unpack_limit"]

_PIECE = 1 << 20
_INPUT = 1 << 16
_ENTRY = 1e-6


def _seconds(work: Callable[..., object], *arguments: object) -> float:
    """The better of two tries."""
    times = []
    for _ in range(2):
        start = time.perf_counter()
        work(*arguments)
        times.append(time.perf_counter() - start)
    return min(times)


def _inflate(blob: bytes) -> int:
    inflater, view = isal_zlib.decompressobj(wbits=31), memoryview(blob)
    return sum(len(inflater.decompress(view[at : at + _INPUT])) for at in range(0, len(view), _INPUT))


def _hash(total: int) -> None:
    digest, piece = hashlib.sha256(), bytes(_PIECE)
    for _ in range(total // _PIECE):
        digest.update(piece)


def _write(total: int, place: Path) -> None:
    with tempfile.TemporaryFile(dir=place, buffering=0) as file:
        piece = os.urandom(_PIECE)
        for _ in range(total // _PIECE):
            file.write(piece)


def unpack_limit(image: Layout, place: Path) -> float:
    """Seconds; ``place`` is a directory on the disk in question."""
    inflates = [_seconds(_inflate, path.read_bytes()) for path in image.blobs]
    total = image.plain_bytes
    rest = _seconds(_hash, total) + _seconds(_write, total, place) + image.entries * _ENTRY
    return max(*inflates, (sum(inflates) + rest) / len(os.sched_getaffinity(0)))
