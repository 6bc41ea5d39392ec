"""A terminal or streams joined to a container that runs under its supervisor."""

import errno
import os
import select
import signal
import struct
import termios
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from fcntl import ioctl
from typing import Any

from layerfs.errors import InvalidInputError
from layerfs.runtime import SupervisorClient, raw_terminal

__all__ = ["attach", "parse_keys"]

_PIECE = 8 << 10
_PROXIED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def parse_keys(text: str) -> bytes:
    """The bytes of docker's ``--detach-keys``: letters, or ctrl-LETTER, with commas between; InvalidInputError."""
    keys = b""
    for word in filter(None, text.split(",")):
        name = word.lower().removeprefix("ctrl-")
        if len(word) == 1:
            keys += word.encode("latin-1", "replace")
        elif word.lower().startswith("ctrl-") and len(name) == 1 and "@" <= name.upper() <= "_":
            keys += bytes([ord(name.upper()) & 0x1F])
        else:
            raise InvalidInputError(f"detach keys {text!r}: {word!r} is not a key, as ctrl-p or q")
    return keys


def attach(
    client: SupervisorClient,
    stdio: tuple[int, int, int],
    *,
    stdin: bool,
    tty: bool,
    sig_proxy: bool = True,
    detach_keys: bytes = b"\x10\x11",
) -> int | None:
    """Move bytes between the descriptors and the container until it ends; its exit code, None when detached.

    ``stdin``: ours goes to it. ``tty``: it has a terminal; ours, where it is one, becomes raw, and the detach keys
    end this while the container goes on.
    """
    client.send(b"A", bytes([(1 if stdin else 0) | 2 | 4]))
    with ExitStack() as stack:
        main = threading.current_thread() is threading.main_thread()
        if tty and main:
            stack.enter_context(_sizes(client, stdio))
        if stdin and tty and os.isatty(stdio[0]):
            stack.enter_context(raw_terminal(stdio[0]))
        if sig_proxy and main and not tty:
            stack.enter_context(_signals(client))
        return _Session(client, stdio, stdin, detach_keys if tty else b"").run()


class _Session:
    def __init__(self, client: SupervisorClient, stdio: tuple[int, int, int], stdin: bool, keys: bytes) -> None:
        self._client = client
        self._stdio = stdio
        self._stdin = stdin
        self._keys = keys
        self._held = b""  # the beginning of the detach keys

    def run(self) -> int | None:
        while True:
            poll = select.poll()
            poll.register(self._client.fileno(), select.POLLIN)
            if self._stdin:
                poll.register(self._stdio[0], select.POLLIN)
            for fd, _ in poll.poll():
                if fd == self._client.fileno():
                    message = self._client.receive()
                    if message is None:
                        return None
                    if message[0] == b"X":
                        return int(message[1])
                    self._show(*message)
                elif not self._type():
                    return None

    def _show(self, letter: bytes, data: bytes) -> None:
        view = memoryview(data)
        with suppress(BrokenPipeError):
            while view:
                view = view[os.write(self._stdio[2 if letter == b"E" else 1], view) :]

    def _type(self) -> bool:
        """Pass input on; False when the detach keys were among it."""
        try:
            data = os.read(self._stdio[0], _PIECE)
        except OSError as exc:
            if exc.errno != errno.EIO:
                raise
            data = b""
        if not data:
            self._stdin = False
            self._client.send(b"I")
            return True
        data, leave = self._without_keys(data)
        if data:
            self._client.send(b"I", data)
        return not leave

    def _without_keys(self, data: bytes) -> tuple[bytes, bool]:
        if not self._keys:
            return data, False
        data, self._held = self._held + data, b""
        at = data.find(self._keys)
        if at >= 0:
            return data[:at], True
        for length in range(min(len(self._keys) - 1, len(data)), 0, -1):
            if data.endswith(self._keys[:length]):
                self._held = data[-length:]
                return data[:-length], False
        return data, False


@contextmanager
def _sizes(client: SupervisorClient, stdio: tuple[int, int, int]) -> Iterator[None]:
    ours = next((fd for fd in stdio if os.isatty(fd)), None)

    def tell(*_: Any) -> None:
        with suppress(OSError):
            if ours is not None:
                rows, columns = struct.unpack("HHHH", ioctl(ours, termios.TIOCGWINSZ, bytes(8)))[:2]
                if rows and columns:
                    client.resize(rows, columns)

    tell()
    before = signal.signal(signal.SIGWINCH, tell)
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before if before is not None else signal.SIG_DFL)


@contextmanager
def _signals(client: SupervisorClient) -> Iterator[None]:
    def pass_on(number: int, _: Any) -> None:
        client.signal(number)

    before = {number: signal.signal(number, pass_on) for number in _PROXIED}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
