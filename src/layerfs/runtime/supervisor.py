"""The supervisor of a container that runs by itself: what it reports, and what it is asked for (docs/supervisor.md)."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

import msgspec

from layerfs.errors import LayerfsError, NotFoundError
from layerfs.runtime.process import Identity, is_alive

if TYPE_CHECKING:
    import socket

__all__ = ["Check", "Report", "SupervisorClient", "read_checks", "read_report"]

_MESSAGE = 16 << 10


class Report(msgspec.Struct, frozen=True):
    """``status.json``. Times are nanoseconds since 1970."""

    supervisor: int
    supervisor_start: int
    boot: str
    status: str
    pid: int
    pid_start: int
    started: int = 0
    finished: int = 0
    exit_code: int = 0
    restarts: int = 0
    error: str = ""
    health: str = "none"
    health_failures: int = 0
    oom_killed: bool = False

    @property
    def keeper(self) -> Identity:
        """The supervisor."""
        return Identity(self.supervisor, self.supervisor_start, self.boot)

    @property
    def process(self) -> Identity | None:
        """The container's first process, while it runs."""
        return Identity(self.pid, self.pid_start, self.boot) if self.status == "running" and self.pid else None

    @property
    def is_over(self) -> bool:
        """Whether the container has ended for good, or nobody keeps it any more."""
        return self.status == "exited" or not is_alive(self.keeper)


class Check(msgspec.Struct, frozen=True):
    """A health check that has ended. Times are nanoseconds since 1970."""

    start: int
    end: int
    exit_code: int
    output: str


def read_checks(directory: Path) -> list[Check]:
    """The last health checks of a container, the oldest first."""
    path = directory / "health.json"
    with suppress(OSError, msgspec.DecodeError), open(path, encoding="utf-8", errors="replace") as file:
        return msgspec.json.decode(file.read(), type=list[Check])
    return []


def read_report(directory: Path) -> Report | None:
    """What a container's supervisor last reported; None when there is none, or it cannot be read."""
    with suppress(OSError, msgspec.DecodeError), open(directory / "status.json", "rb") as file:
        return msgspec.json.decode(file.read(), type=Report)
    return None


class SupervisorClient:
    """A connection to a container's supervisor. For a ``with``; one thread sends and another one may receive."""

    def __init__(self, directory: Path, id: str) -> None:
        """``directory`` has the socket; NotFoundError when nobody listens there."""
        import socket  # a list of containers needs it not

        self._id = id
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:  # the path of a socket may have 107 bytes, whatever that of the directory has
                self._socket.connect(f"/proc/self/fd/{fd}/{id}.sock")
            finally:
                os.close(fd)
        except OSError as exc:
            self._socket.close()
            raise NotFoundError(f"container {id[:12]}: it has no supervisor: {exc.strerror}") from exc

    @classmethod
    def connected(cls, id: str) -> tuple[Self, "socket.socket"]:
        """A client for a supervisor that is to be started, and the socket that is for it."""
        import socket

        client = cls.__new__(cls)
        client._id = id
        client._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return client, theirs

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def fileno(self) -> int:
        """Readable when there is a message."""
        return self._socket.fileno()

    def send(self, letter: bytes, data: bytes = b"") -> None:
        """One request; NotFoundError when the supervisor has gone."""
        try:
            self._socket.send(letter + data)
        except OSError as exc:
            raise NotFoundError(f"container {self._id[:12]}: its supervisor has gone") from exc

    def receive(self) -> tuple[bytes, bytes] | None:
        """The next message, letter and data; None at the end. LayerfsError for a request that failed."""
        try:
            data = self._socket.recv(_MESSAGE + 1)
        except ConnectionError:
            return None
        if data[:1] == b"F":
            raise LayerfsError(f"container {self._id[:12]}: {data[1:].decode(errors='replace')}")
        return (data[:1], data[1:]) if data else None

    def messages(self) -> Iterator[tuple[bytes, bytes]]:
        """All messages to the end."""
        while (message := self.receive()) is not None:
            yield message

    def wait(self, timeout: float | None = None) -> int | None:
        """The exit code when the container has ended for good; None when the connection ends before.

        TimeoutError when that takes longer.
        """
        self._socket.settimeout(timeout)
        for letter, data in self.messages():
            if letter == b"X":
                return int(data)
        return None

    def signal(self, number: int) -> None:
        """Send a signal to the container's first process."""
        self.send(b"K", str(number).encode())

    def stop(self, number: int | None = None, milliseconds: int | None = None) -> None:
        """Ask for the end: a signal, and SIGKILL after the time."""
        self.send(b"S", b"" if number is None else f"{number}:{milliseconds}".encode())

    def set_restart(self, policy: str, maximum: int) -> None:
        """Change the restart policy."""
        self.send(b"P", f"{policy}:{maximum}".encode())

    def resize(self, rows: int, columns: int) -> None:
        """Set the size of the container's terminal."""
        self.send(b"W", f"{rows}:{columns}".encode())
