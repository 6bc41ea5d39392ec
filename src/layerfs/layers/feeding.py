"""``feed``: a tar into a layer by three threads: one makes its bytes, one hashes them, one places them.

Hashing takes about as long as the other two together, and all three work without the GIL. The buffers go round, so
that nothing is copied between them.
"""

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeAlias

from layerfs.layers.writer import LayerWriter
from layerfs.native import Buffer

__all__ = ["feed"]

_SIZE = 512 << 10
_BUFFERS = 8

Read: TypeAlias = Callable[[memoryview], Buffer]
_Item: TypeAlias = tuple[memoryview, Buffer] | BaseException


def feed(writer: LayerWriter, read: Read) -> None:
    """All that ``read`` gives into ``writer``: it returns the next bytes, in the buffer that it is given or of its own,
    and empty ones at the end. What it raises is raised here."""
    buffer = memoryview(bytearray(_SIZE))
    piece = read(buffer)
    if len(piece) >= _SIZE:
        writer.write(piece)
        _Feed(writer, read).run()
        return
    while piece:  # little: threads would cost more than they give
        writer.write(piece)
        piece = read(buffer)


class _Feed:
    """Queues in a ring; an item without bytes, or an exception, is the last of each."""

    def __init__(self, writer: LayerWriter, read: Read) -> None:
        self._writer = writer
        self._read = read
        self._free: SimpleQueue[memoryview] = SimpleQueue()
        self._made: SimpleQueue[_Item] = SimpleQueue()
        self._hashed: SimpleQueue[_Item] = SimpleQueue()
        self._stopped = False
        for _ in range(_BUFFERS):
            self._free.put(memoryview(bytearray(_SIZE)))

    def run(self) -> None:
        """Until all is placed, or something has failed; no thread is left."""
        threads = [threading.Thread(target=work, daemon=True) for work in (self._make, self._hash)]
        for thread in threads:
            thread.start()
        try:
            self._place()
        finally:
            self._stopped = True
            self._free.put(memoryview(b""))  # it may wait for one
            for thread in threads:
                thread.join()

    def _make(self) -> None:
        try:
            while True:
                buffer = self._free.get()
                piece = b"" if self._stopped else self._read(buffer)
                self._made.put((buffer, piece))
                if not piece:
                    return
        except BaseException as exc:
            self._made.put(exc)

    def _hash(self) -> None:
        try:
            while True:
                item = self._made.get()
                if isinstance(item, BaseException):
                    raise item
                self._writer.hash(item[1])
                self._hashed.put(item)
                if not item[1]:
                    return
        except BaseException as exc:
            self._hashed.put(exc)

    def _place(self) -> None:
        while True:
            item = self._hashed.get()
            if isinstance(item, BaseException):
                raise item
            buffer, piece = item
            if not piece:
                return
            self._writer.place(piece)
            self._free.put(buffer)
