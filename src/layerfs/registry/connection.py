"""Connections on which nothing waits for ever: not for silence, not for drops, and not when another thread says so.

urllib3 bounds each single wait for bytes; who sends one byte a minute gets past that. Here the whole answer up to
the end of its headers has a deadline, and what comes and goes on a connection must not be slower than ``LEAST``
over a stretch of waiting: also the frames of a chunked body, which no reader of it sees. Time in which nobody
asked for bytes does not count.
"""

import http.client
import io
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from typing import Any, cast

import msgspec
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection

from layerfs.errors import RegistryError

__all__ = ["CURRENT", "LEAST", "Call", "Calls", "Timeouts", "TooSlow", "pool_classes"]

LEAST = 1 << 10
"""Bytes a second."""
_SENT = 64 << 10


class Timeouts(msgspec.Struct, frozen=True):
    """Seconds: to connect; for each wait for bytes; for an answer, from the request to the end of its headers; and
    the stretch of waiting over which a body must bring ``LEAST`` bytes a second.
    """

    connect: float = 15.0
    read: float = 60.0
    answer: float = 120.0
    stretch: float = 60.0


class TooSlow(TimeoutError):
    """Bytes come or go, but too few."""


class Calls:
    """The calls of one session that are under way, so that another thread can end them for good."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._sockets: dict[Call, Any] = {}

    def interrupt(self) -> None:
        """End all that waits, and all that would begin later: with a RegistryError in the thread that calls."""
        with self._lock:
            self._stopped.set()
            sockets = list(self._sockets.values())
        for each in sockets:
            _shut_down(each)

    def pause(self, seconds: float) -> bool:
        """Wait; whether that was interrupted."""
        return self._stopped.wait(seconds)

    def begin(self, call: "Call", on: Any) -> None:
        """``call`` uses a socket from here on."""
        with self._lock:
            if self._stopped.is_set():
                raise RegistryError("given up")
            self._sockets[call] = on

    def end(self, call: "Call") -> None:
        """``call`` has done with its socket."""
        with self._lock:
            self._sockets.pop(call, None)


class Call:
    """One request with its answer; ``calls``: those it can be ended with."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def use(self, on: Any) -> None:
        """It is about to wait on this socket. RegistryError when it was ended."""
        self._calls.begin(self, on)

    def end(self) -> None:
        """The answer is read, or there is none."""
        self._calls.end(self)


CURRENT: ContextVar[Call] = ContextVar("CURRENT")
"""The call for which urllib3 is asked for something just now: no argument of its own reaches the connection."""


def _shut_down(on: Any) -> None:
    """Let the system end a connection. Past what TLS makes of that, which is not for a second thread."""
    plain = on if isinstance(on, socket.socket) else getattr(on, "socket", None)
    with suppress(OSError, TypeError):
        socket.socket.shutdown(plain, socket.SHUT_RDWR)  # type: ignore[arg-type]


class _Timed(io.RawIOBase):
    """What a socket receives, as long as it comes fast enough."""

    def __init__(self, raw: io.RawIOBase, sock: Any, timeouts: Timeouts) -> None:
        self._raw = raw
        self._sock = sock
        self._timeouts = timeouts
        self._until: float | None = time.monotonic() + timeouts.answer
        self._waited = 0.0
        self._count = 0

    def headers_end(self) -> None:
        """The deadline was kept."""
        self._until = None
        self._sock.settimeout(self._timeouts.read)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        started = time.monotonic()
        if self._until is not None:
            # Zero would mean not to wait at all.
            self._sock.settimeout(min(self._timeouts.read, max(self._until - started, 0.001)))
        try:
            count = self._raw.readinto(buffer)
        except TimeoutError:
            self._check_deadline()
            raise
        self._check_deadline()
        self._check_rate(count or 0, time.monotonic() - started)
        return cast("int | None", count)

    def _check_deadline(self) -> None:
        if self._until is not None and time.monotonic() >= self._until:
            raise TooSlow(f"no whole answer came in {self._timeouts.answer:.0f} s")

    def _check_rate(self, count: int, waited: float) -> None:
        self._count += count
        self._waited += waited
        if self._waited >= self._timeouts.stretch:
            if count and self._count < LEAST * self._waited:
                raise TooSlow(f"less than {LEAST} bytes a second came for {self._waited:.0f} s")
            self._count, self._waited = 0, 0.0

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Answer(http.client.HTTPResponse):
    """An answer that is read through ``_Timed``; also that of a proxy which is asked for a tunnel."""

    def __init__(self, sock: Any, *arguments: Any, timeouts: Timeouts, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        self._timed = _Timed(self.fp.detach(), sock, timeouts)
        self.fp = io.BufferedReader(self._timed)

    def begin(self, **options: Any) -> None:
        super().begin(**options)
        if not self._timed.closed:
            self._timed.headers_end()


class _Sending:
    """What both kinds of connection send, in pieces that each have ``read`` seconds."""

    timeouts: Timeouts
    sock: Any

    def send(self, data: Any) -> None:
        if self.sock is None:
            self.connect()  # type: ignore[attr-defined]
        CURRENT.get().use(self.sock)
        self.sock.settimeout(self.timeouts.read)
        send: Callable[[Any], None] = super().send  # type: ignore[misc]
        try:
            if not isinstance(data, bytes | memoryview) or len(data) <= _SENT:
                return send(data)
            view = memoryview(data)
            for start in range(0, len(view), _SENT):
                send(view[start : start + _SENT])
        except TimeoutError as exc:
            raise TooSlow(f"less than {LEAST} bytes a second were taken for {self.timeouts.read:.0f} s") from exc


class _Http(_Sending, HTTPConnection):
    def __init__(self, *arguments: Any, timeouts: Timeouts, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.timeouts = timeouts
        self.response_class = partial(_Answer, timeouts=timeouts)  # type: ignore[assignment]


class _Https(_Sending, HTTPSConnection):
    def __init__(self, *arguments: Any, timeouts: Timeouts, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.timeouts = timeouts
        self.response_class = partial(_Answer, timeouts=timeouts)  # type: ignore[assignment]


def pool_classes(timeouts: Timeouts) -> dict[str, Any]:
    """What a PoolManager is to make its pools of, by scheme."""
    # Static: since Python 3.14 a partial in a class is a method, and would get the pool as its first argument.
    plain, secure = (staticmethod(partial(kind, timeouts=timeouts)) for kind in (_Http, _Https))
    return {
        "http": type("Pool", (HTTPConnectionPool,), {"ConnectionCls": plain}),
        "https": type("SecurePool", (HTTPSConnectionPool,), {"ConnectionCls": secure}),
    }
