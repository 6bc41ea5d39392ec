"""A blob of a registry as a reader that hides broken connections, and fetches a large one in parallel ranges.

A small blob is one answer, read as it comes; when it breaks, the rest is asked for with a Range. For a large one
the first request asks for one range. A server that sends the whole blob (200) is read as it comes. Of one that
answers with the range (206), the rest is asked for at once when the range came faster than any line that several
connections would help; else in ranges in parallel, of which a bounded number is under way or waiting to be read.

Bytes are not verified here but for their number. A size other than the descriptor's is an IntegrityError.
"""

import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from layerfs.blobs import PIECE
from layerfs.errors import IntegrityError, RegistryError
from layerfs.oci import Descriptor
from layerfs.registry.challenge import parse_content_range
from layerfs.registry.client import Client
from layerfs.registry.transport import Response, origin_of

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

__all__ = ["BlobStream", "Ranges"]

_MOST_BREAKS = 1000


class Ranges(msgspec.Struct, frozen=True):
    """Blobs of ``least`` bytes and more are fetched in ranges of ``size``, at most ``ahead`` at a time.

    But not from where the first one comes with ``fast`` bytes a second of waiting: hand-overs would cost more.
    """

    least: int = 32 << 20
    size: int = 4 << 20
    ahead: int = 4
    fast: float = 200e6


class BlobStream:
    """Reads one blob from the first of ``clients`` that gives it. ``seek`` goes anywhere; one thread reads.

    Reading raises AbsentError, UnauthorizedError or RegistryError of the last client, and IntegrityError.
    """

    def __init__(
        self, clients: Sequence[Client], descriptor: Descriptor, pool: "ThreadPoolExecutor", ranges: Ranges
    ) -> None:
        self._places = _Places(clients, descriptor)
        self._size = descriptor.size
        self._pool = pool
        self._ranges = ranges
        self._position = 0
        self._current: _Part | None = None
        self._next = 0
        self._waited = 0.0
        self._waiting: deque[tuple[_Part, Future[list[bytes]]]] = deque()
        self._pieces: deque[bytes] = deque()
        self._closed = threading.Event()

    @property
    def served(self) -> set[Client]:
        """Those that gave bytes of it."""
        return self._places.served

    def seek(self, offset: int, /) -> None:
        """Go on reading at ``offset``."""
        self._stop()
        self._closed = threading.Event()
        self._position = offset
        self._next = 0
        self._waited = 0.0

    def read(self, size: int = PIECE, /) -> bytes:
        """Some bytes, at most ``size``; empty at the end."""
        while not self._pieces and self._position < self._size:
            self._fill()
        if not self._pieces:
            return b""
        piece = self._pieces.popleft()
        if len(piece) > size:
            self._pieces.appendleft(piece[size:])
            piece = piece[:size]
        self._position += len(piece)
        if self._position == self._size and self._current is not None:
            self._current.end()
        return piece

    def close(self) -> None:
        """End what is under way."""
        self._stop()

    def _fill(self) -> None:
        """Get more pieces; none when a range is at its end and the next is yet to be looked at."""
        if self._current is None and not self._waiting:
            self._begin()
        elif self._current is not None:
            started = time.monotonic()
            if piece := self._current.read():
                self._waited += time.monotonic() - started
                self._pieces.append(piece)
            else:
                self._current = None
        else:
            self._pieces.extend(self._waiting.popleft()[1].result())
            self._look_ahead()

    def _begin(self) -> None:
        """Ask for the whole, or for the first range; after that, for the rest or for the next ranges."""
        start, size = self._position, self._ranges.size
        first = self._next == 0
        if self._size < self._ranges.least or self._size - start <= size or (not first and self._is_fast()):
            self._current = _Part(self._places, start, self._size, self._closed)
        elif first:
            self._current = _Part(self._places, start, start + size, self._closed, whole=True)
            self._next = start + size
        else:
            self._look_ahead()

    def _is_fast(self) -> bool:
        """Whether the first range came quickly; time spent on what it is read for does not count."""
        return self._ranges.size > self._ranges.fast * self._waited

    def _look_ahead(self) -> None:
        while self._next < self._size and len(self._waiting) < self._ranges.ahead:
            stop = min(self._size, self._next + self._ranges.size)
            part = _Part(self._places, self._next, stop, self._closed)
            self._waiting.append((part, self._pool.submit(part.read_all)))
            self._next = stop

    def _stop(self) -> None:
        self._closed.set()
        for part, future in self._waiting:
            future.cancel()
            part.interrupt()
        self._waiting.clear()
        self._pieces.clear()
        if self._current is not None:
            # Another thread may be reading it, and hold what closing it needs.
            self._current.interrupt()
            self._current.close()
            self._current = None


class _Places:
    """Where a blob is asked for: the client that served last, and where that one redirects to."""

    def __init__(self, clients: Sequence[Client], descriptor: Descriptor) -> None:
        self._clients = clients
        self._which = 0
        self._direct: str | None = None
        self.served: set[Client] = set()
        self.digest = descriptor.digest
        self.size = descriptor.size

    @property
    def client(self) -> Client:
        return self._clients[self._which]

    @property
    def what(self) -> str:
        return f"fetch blob {self.client}@{self.digest}"

    def give_up(self, client: Client, failure: RegistryError) -> None:
        """``client`` has failed for good: raise that if it was the last."""
        self._direct = None
        if client is self.client:
            if self._which + 1 == len(self._clients):
                raise failure
            self._which += 1

    def open(self, start: int, stop: int | None) -> Response:
        """The answer to a request for bytes ``start`` to ``stop`` (None: no Range; the whole)."""
        headers = {} if stop is None else {"Range": f"bytes={start}-{stop - 1}"}
        while True:
            client = self.client
            if self._direct is not None:
                with suppress(RegistryError):
                    return client.session.request(
                        "GET", self._direct, self.what, ok=(200, 206), headers=headers, retry=False
                    )
                # The place that a redirect names is good for a while only.
                self._direct = None
            path = client.blob_path(self.digest)
            wanted = (200, 206, 416) if headers else (200,)
            try:
                response = client.session.request("GET", path, self.what, ok=wanted, headers=headers)
            except RegistryError as exc:
                self.give_up(client, exc)
                continue
            if response.status == 416:
                response.close()
                headers = {}
                continue
            if origin_of(response.url) != origin_of(client.session.absolute(path)):
                self._direct = response.url
            self.served.add(client)
            return response


class _Part:
    """Bytes ``start`` to ``stop`` of a blob, over as many answers as it takes.

    ``whole``: when the server knows no ranges, the part grows to the end of the blob.
    """

    def __init__(self, places: _Places, start: int, stop: int, closed: threading.Event, *, whole: bool = False) -> None:
        self._places = places
        self._position = start
        self._whole = whole
        self._closed = closed
        self._response: Response | None = None
        self._bounded = True
        self._skip = 0
        self._breaks = 0
        self._tries = 0
        self._last_break = -1
        self.stop = stop

    def read(self) -> bytes:
        """Some bytes; empty at ``stop``."""
        while self._position < self.stop:
            if self._closed.is_set():
                raise RegistryError(f"{self._places.what}: given up")
            if self._response is None:
                self._response = self._connect()
                self._whole = False
            try:
                piece = self._receive(self._response)
            except RegistryError as exc:
                exc.args = (f"{self._places.what}: {exc}",)
                self._broken(exc)
                continue
            if len(piece) > self.stop - self._position:
                if self.stop == self._places.size:
                    raise self._wrong_size("more")
                piece = piece[: self.stop - self._position]
            self._position += len(piece)
            if self._position == self.stop and self.stop < self._places.size:
                self.close()
            return piece
        return b""

    def _receive(self, response: Response) -> bytes:
        """The next bytes, never none. What comes before our position is thrown away."""
        while True:
            piece = response.read_some()
            if not piece:
                raise RegistryError(
                    f"the connection ended after {self._position} of {self._places.size} bytes", temporary=True
                )
            skipped = min(self._skip, len(piece))
            self._skip -= skipped
            if skipped < len(piece):
                return piece[skipped:] if skipped else piece

    def read_all(self) -> list[bytes]:
        """All of it; runs in a thread of the pool."""
        try:
            return list(iter(self.read, b""))
        finally:
            self.close()

    def end(self) -> None:
        """The blob is read: IntegrityError when the server goes on sending."""
        if self._response is not None and not self._bounded and self._position == self._places.size:
            with suppress(RegistryError):
                if self._response.read_some(1):
                    raise self._wrong_size("more")
        self.close()

    def close(self) -> None:
        if self._response is not None:
            self._response.close()
            self._response = None

    def interrupt(self) -> None:
        """Wake the thread that waits for bytes of it."""
        if (response := self._response) is not None:
            response.interrupt()

    def _connect(self) -> Response:
        """An answer from which our position can be reached."""
        whole_blob = self._position == 0 and self.stop == self._places.size
        response = self._places.open(self._position, None if whole_blob else self.stop)
        try:
            if response.status == 206 and not self._is_range(response):
                # Who does not know ranges well knows whole blobs.
                response.close()
                response = self._places.open(0, None)
            if response.status != 206:
                self._check_whole(response)
        except BaseException:
            response.close()
            raise
        return response

    def _is_range(self, response: Response) -> bool:
        """Whether it begins at our position; IntegrityError when it is one of a blob of another size."""
        found = parse_content_range(response.headers.get("Content-Range"))
        if found is not None and found[2] not in (None, self._places.size):
            raise self._wrong_size(f"{found[2]} bytes")
        if found is None or found[0] != self._position:
            return False
        self._bounded = True
        self._skip = 0
        return True

    def _check_whole(self, response: Response) -> None:
        """The server sends all from the beginning."""
        if response.length is not None and response.length != self._places.size:
            raise self._wrong_size(f"{response.length} bytes")
        self._bounded = response.length is not None
        if self._whole:
            self.stop = self._places.size
        self._skip = self._position

    def _broken(self, failure: RegistryError) -> None:
        """Wait for another try, if there is to be one; tries without any new byte count."""
        self.close()
        self._tries = 1 if self._position > self._last_break else self._tries + 1
        self._last_break = self._position
        self._breaks += 1
        client = self._places.client
        try:
            if self._breaks > _MOST_BREAKS:
                raise failure
            client.session.pause(failure, self._tries)
        except RegistryError:
            self._places.give_up(client, failure)
            self._tries = 0

    def _wrong_size(self, found: str) -> IntegrityError:
        return IntegrityError(f"{self._places.what}: the registry sends {found}, not the {self._places.size} announced")
