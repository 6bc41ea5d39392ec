"""``tapped``: who reads a blob goes on while its bytes are hashed and stored, in a thread of their own."""

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from layerfs.blobs import PIECE, BlobReader

__all__ = ["tapped"]

_WAITING = 8
"""Pieces that wait, of at most 1 MiB each."""


@contextmanager
def tapped(reader: BlobReader, take: Callable[[bytes], None], count: Callable[[int], None]) -> Iterator[BlobReader]:
    """``reader``, while ``take`` gets its pieces too, in their order, and ``count`` their lengths at once.

    At the end of the ``with`` all of them were taken. What ``take`` raises is raised in a later ``read``, or there;
    and what ``reader`` raised, which is not asked again.
    """
    tap = _Tap(reader, take, count)
    try:
        yield tap
    finally:
        tap.stop()
    tap.check()


class _Tap:
    """The first piece is taken in passing: for a blob of one piece a thread would cost more than it gives."""

    def __init__(self, reader: BlobReader, take: Callable[[bytes], None], count: Callable[[int], None]) -> None:
        self._reader = reader
        self._take = take
        self._count = count
        self._pieces: queue.Queue[bytes] = queue.Queue(_WAITING)
        self._thread: threading.Thread | None = None
        self._begun = False
        self._failure: BaseException | None = None

    def read(self, size: int = PIECE, /) -> bytes:
        self.check()
        try:
            piece = self._reader.read(size)
        except BaseException as exc:
            self._failure = exc
            raise
        if not piece:
            return piece
        self._count(len(piece))
        if self._begun:
            self._hand_over(piece)
        else:
            self._begun = True
            self._take(piece)
        return piece

    def _hand_over(self, piece: bytes) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="layerfs-tap", daemon=True)
            self._thread.start()
        self._pieces.put(piece)

    def _run(self) -> None:
        while piece := self._pieces.get():
            try:
                if self._failure is None:
                    self._take(piece)
            except BaseException as exc:
                self._failure = exc

    def stop(self) -> None:
        """Let the thread take what waits, and end."""
        if self._thread is not None:
            self._pieces.put(b"")
            self._thread.join()

    def check(self) -> None:
        """Raise what ``take`` or the reader has raised."""
        if self._failure is not None:
            raise self._failure
