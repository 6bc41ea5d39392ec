"""What happened to containers, for ``events``: a line of JSON each in ``RUN/events``, which a reboot empties."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

__all__ = ["Event", "EventLog"]

_LIMIT = 4 << 20
_POLL = 0.05


class Event(msgspec.Struct, frozen=True):
    """One thing that happened. ``time`` is in nanoseconds since 1970; ``type`` container or volume."""

    time: int
    type: str
    action: str
    id: str
    attributes: dict[str, str]


class EventLog:
    """Appends events, and reads them. Lines are short, and appended whole by one write."""

    def __init__(self, run: Path) -> None:
        self._path = run / "events"

    def add(self, type: str, action: str, id: str, attributes: Mapping[str, str]) -> None:
        """Record an event; one that cannot be recorded is no reason for what it tells of to fail."""
        event = Event(time.time_ns(), type, action, id, {name: str(value) for name, value in attributes.items()})
        line = msgspec.json.encode(event, enc_hook=str) + b"\n"
        with suppress(OSError):
            fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.write(fd, line)
                if os.fstat(fd).st_size > _LIMIT:
                    os.rename(self._path, self._path.with_name("events.1"))
            finally:
                os.close(fd)

    def read(
        self, *, since: float | None = None, until: float | None = None, follow: Callable[[], bool] | None = None
    ) -> Iterator[Event]:
        """Events of the past from ``since`` on (None: none of them), and while ``follow`` says so, those to come, up
        to ``until``; seconds since 1970."""
        start = time.time_ns() if since is None else int(since * 1e9)
        for event in self._lines(until, follow):
            if until is not None and event.time > until * 1e9:
                return
            if event.time >= start:
                yield event

    def _lines(self, until: float | None, follow: Callable[[], bool] | None) -> Iterator[Event]:
        with suppress(FileNotFoundError), open(self._path.with_name("events.1"), "rb") as old:
            yield from filter(None, map(_parse, old.read().splitlines()))
        rest, file, inode = b"", None, -1
        try:
            while True:
                if file is None:
                    with suppress(FileNotFoundError):
                        file = open(self._path, "rb", buffering=0)
                        inode, rest = os.fstat(file.fileno()).st_ino, b""
                piece = file.read(1 << 16) if file is not None else b""
                if piece:
                    *lines, rest = (rest + piece).split(b"\n")
                    yield from filter(None, map(_parse, lines))
                    continue
                if follow is None or not follow() or (until is not None and time.time() > until):
                    return
                time.sleep(_POLL)
                with suppress(OSError):
                    if file is not None and os.stat(self._path).st_ino != inode:
                        file.close()
                        file = None
        finally:
            if file is not None:
                file.close()


def _parse(line: bytes) -> Event | None:
    with suppress(msgspec.DecodeError):
        return msgspec.json.decode(line, type=Event)
    return None
