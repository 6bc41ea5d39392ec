"""What a container wrote: ``log`` in its directory, lines as Kubernetes' runtimes write them (docs/supervisor.md)."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

__all__ = ["LogEntry", "LogWriter", "read_log"]

_PIECE = 1 << 16
_LINE = 16 << 10


class LogEntry(msgspec.Struct, frozen=True):
    """A line, or a piece of one where ``complete`` is off. ``stream`` is stdout or stderr, ``time`` RFC 3339."""

    time: str
    stream: str
    data: bytes
    complete: bool = True

    @property
    def seconds(self) -> float:
        """The time in seconds since 1970."""
        from datetime import datetime  # who writes a log does not ask

        with suppress(ValueError):
            return datetime.fromisoformat(self.time[:26] + "+00:00").timestamp()
        return 0.0

    @property
    def text(self) -> bytes:
        """The bytes as they were written, with the end of the line where it was."""
        return self.data + b"\n" if self.complete else self.data


def read_log(
    directory: Path,
    *,
    tail: int | None = None,
    since: float | None = None,
    until: float | None = None,
    follow: Callable[[], bool] | None = None,
) -> Iterator[LogEntry]:
    """The entries, the oldest first. ``tail``: the last ones only; ``since``, ``until``: seconds since 1970.

    ``follow`` says whether more is to be expected: then the entries go on until it does not.
    """
    entries = _entries(directory, follow)
    if tail is not None:
        for _ in range(_entries_before(list(_entries(directory, None)), tail)):
            next(entries, None)
    for entry in entries:
        if since is not None and entry.seconds < since:
            continue
        if until is not None and entry.seconds > until:
            return
        yield entry


def _entries_before(entries: Sequence[LogEntry], tail: int) -> int:
    """How many entries stand before the last ``tail`` lines."""
    at, lines = len(entries), 0
    while at and tail >= 0:
        if entries[at - 1].complete or at == len(entries):
            lines += 1
            if lines > tail:
                break
        at -= 1
    return at if tail >= 0 else 0


def _files(directory: Path) -> list[Path]:
    """The files of a log, the oldest first."""
    old = [path for path in directory.glob("log.*") if path.suffix[1:].isdecimal()]
    return [*sorted(old, key=lambda path: -int(path.suffix[1:])), directory / "log"]


def _entries(directory: Path, follow: Callable[[], bool] | None) -> Iterator[LogEntry]:
    for path in _files(directory):
        last = path.name == "log"
        for line in _lines(path, follow if last else None):
            entry = _parse(line)
            if entry is not None:
                yield entry


def _lines(path: Path, follow: Callable[[], bool] | None) -> Iterator[bytes]:
    """Whole lines of a file; with ``follow`` also of the one that takes its place when it is rotated."""
    rest, file = b"", None
    try:
        while True:
            if file is None:
                with suppress(FileNotFoundError):
                    file = open(path, "rb", buffering=0)
            expected = follow is not None and follow()  # asked first: what is written before the end is read after it
            piece = file.read(_PIECE) if file is not None else b""
            if piece:
                *whole, rest = (rest + piece).split(b"\n")
                yield from whole
                continue
            if follow is None or (not expected and not _rotated(path, file)):
                return
            if file is not None and _rotated(path, file):
                file.close()
                file, rest = None, b""
                continue
            time.sleep(0.02)
    finally:
        if file is not None:
            file.close()


def _rotated(path: Path, file: object) -> bool:
    if file is None:
        return False
    with suppress(OSError):
        return os.stat(path).st_ino != os.fstat(file.fileno()).st_ino  # type: ignore[attr-defined]
    return False


def _parse(line: bytes) -> LogEntry | None:
    words = line.split(b" ", 3)
    if len(words) != 4 or words[1] not in (b"stdout", b"stderr"):
        return None
    return LogEntry(words[0].decode("ascii", "replace"), words[1].decode(), words[3], words[2] != b"P")


class LogWriter:
    """Writes the log of a container in the foreground. For a ``with``."""

    def __init__(self, directory: Path, max_size: int = 0, max_files: int = 0) -> None:
        self._path = directory / "log"
        self._max_size = max_size
        self._max_files = max_files
        self._open: dict[str, bytes] = {"stdout": b"", "stderr": b""}
        self._file = open(self._path, "ab", buffering=0)

    def __enter__(self) -> "LogWriter":
        return self

    def write(self, stream: str, data: bytes) -> None:
        """Take bytes of ``stdout`` or ``stderr``; a line is written when it is whole, or long."""
        *lines, rest = (self._open[stream] + data).split(b"\n")
        out = b"".join(self._line(stream, line, b"F") for line in lines)
        while len(rest) >= _LINE:
            out += self._line(stream, rest[:_LINE], b"P")
            rest = rest[_LINE:]
        self._open[stream] = rest
        if out:
            self._put(out)

    def _line(self, stream: str, line: bytes, tag: bytes) -> bytes:
        now = time.time_ns()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9))
        return f"{stamp}.{now % 10**9:09}Z {stream} ".encode() + tag + b" " + line + b"\n"

    def _put(self, data: bytes) -> None:
        if self._max_size and self._file.tell() and self._file.tell() + len(data) > self._max_size:
            self._rotate()
        self._file.write(data)

    def _rotate(self) -> None:
        self._file.close()
        for number in range(max(1, self._max_files) - 1, 0, -1):
            with suppress(FileNotFoundError):
                older = self._path.with_name("log" if number == 1 else f"log.{number - 1}")
                os.rename(older, self._path.with_name(f"log.{number}"))
        self._file = open(self._path, "wb", buffering=0)

    def __exit__(self, *_: object) -> None:
        for stream, rest in self._open.items():
            if rest:
                self._put(self._line(stream, rest, b"P"))
        self._file.close()
