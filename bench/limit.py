"""How fast an image could be unpacked at best on this machine: what no engine that verifies it can do without.

With S plain bytes, N entries and C cores that is

    max(inflate of the largest layer, (inflate of all + sha256 of S + writing of S + N * 1 us) / C)

where the parts are measured one at a time, here and now, on the image's own bytes, in memory but for the writing, which
goes to the page cache. A pull also receives the compressed bytes over loopback, which someone has to send, verifies
them, and keeps them.
"""

import hashlib
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from isal import isal_zlib

from bench.layout import Layout

__all__ = ["pull_limit", "unpack_limit"]

_PIECE = 1 << 20
_INPUT = 1 << 16
_ENTRY = 1e-6


def _seconds(work: Callable[..., object], *arguments: object, clock: Callable[[], float] = time.perf_counter) -> float:
    """The better of two tries."""
    times = []
    for _ in range(2):
        start = clock()
        work(*arguments)
        times.append(clock() - start)
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


def _transfer(total: int) -> None:
    """Send and receive over loopback, as a registry and its client do."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        sender = threading.Thread(target=_send, args=(server, total))
        sender.start()
        with socket.create_connection(server.getsockname()) as connection:
            buffer = bytearray(_PIECE)
            while connection.recv_into(buffer):
                pass
        sender.join()


def _send(server: socket.socket, total: int) -> None:
    connection, _ = server.accept()
    with connection, tempfile.TemporaryFile() as file:
        file.truncate(total)
        connection.sendfile(file)


def unpack_limit(image: Layout, place: Path) -> float:
    """Seconds; ``place`` is a directory on the disk in question."""
    return _limit(image, place, 0.0)


def pull_limit(image: Layout, place: Path) -> float:
    """The same of a pull from a registry on this machine."""
    total = sum(path.stat().st_size for path in image.blobs)
    more = _seconds(_transfer, total, clock=time.process_time) + _seconds(_hash, total) + _seconds(_write, total, place)
    return _limit(image, place, more)


def _limit(image: Layout, place: Path, more: float) -> float:
    """``more``: seconds of a core beside those of unpacking."""
    inflates = [_seconds(_inflate, path.read_bytes()) for path in image.blobs]
    total = image.plain_bytes
    rest = _seconds(_hash, total) + _seconds(_write, total, place) + image.entries * _ENTRY + more
    return max(*inflates, (sum(inflates) + rest) / len(os.sched_getaffinity(0)))
