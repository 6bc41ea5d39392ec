"""A terminal or streams joined to a container that runs under its supervisor."""

import errno
import os
import select
import signal
import struct
import termios
import threading
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from fcntl import ioctl
from typing import Any

from layerfs.errors import LayerfsError, NotFoundError
from layerfs.runtime import KeyFilter, SupervisorClient, raw_terminal

__all__ = ["STREAMS", "announce", "attach", "proxied"]

STREAMS = ("stdin", "stdout", "stderr")
"""In the order of their bits in an ``A`` of docs/supervisor.md."""

_PIECE = 8 << 10
_PROXIED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


def announce(client: SupervisorClient, streams: Collection[str]) -> None:
    """Ask for streams, of ``STREAMS``, from now on."""
    client.send(b"A", bytes([sum(1 << number for number, name in enumerate(STREAMS) if name in streams)]))


def attach(
    client: SupervisorClient,
    stdio: tuple[int, int, int],
    *,
    streams: Collection[str] = STREAMS,
    tty: bool,
    sig_proxy: bool = True,
    detach_keys: bytes = b"",
    one_run: bool = False,
) -> int | None:
    """Move bytes between the descriptors and the container until it ends; its exit code, None when it was left.

    ``streams``: those announced. With none but stdin, this ends with ours. ``tty``: it has a terminal; ours, where it
    is one, becomes raw, and the detach keys end this while the container goes on. ``one_run``: until it ends for the
    first time, though it is started again. NotFoundError when the supervisor is killed.
    """
    stdin = "stdin" in streams
    with ExitStack() as stack:
        if tty and threading.current_thread() is threading.main_thread():
            stack.enter_context(_sizes(client, stdio))
        if stdin and tty and os.isatty(stdio[0]):
            stack.enter_context(raw_terminal(stdio[0]))
        stack.enter_context(proxied(client, sig_proxy and not tty))
        session = _Session(client, stdio, streams, KeyFilter(detach_keys if tty else b""))
        return session.run("RX" if one_run else "X")


class _Session:
    def __init__(
        self, client: SupervisorClient, stdio: tuple[int, int, int], streams: Collection[str], keys: KeyFilter
    ) -> None:
        self._client = client
        self._stdio = stdio
        self._input = "stdin" in streams
        self._outputs = {letter for letter, name in ((b"O", "stdout"), (b"E", "stderr")) if name in streams}
        self._keys = keys

    def run(self, last: str) -> int | None:
        """Until a message with one of these letters."""
        while self._input or self._outputs:
            poll = select.poll()
            poll.register(self._client.fileno(), select.POLLIN)
            if self._input:
                poll.register(self._stdio[0], select.POLLIN)
            for fd, _ in poll.poll():
                if fd == self._client.fileno():
                    letter, data = self._receive()
                    if letter.decode() in last:
                        return int(data)
                    if letter in self._outputs:
                        self._show(letter, data)
                elif not self._type():
                    return None
        return None

    def _receive(self) -> tuple[bytes, bytes]:
        try:
            message = self._client.receive()
        except LayerfsError:  # what was typed or told while the container is between two runs
            return b"F", b""
        if message is None:
            raise NotFoundError("attach to container: its supervisor was killed")
        return message

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
            self._input = False
            self._client.send(b"I")
            return True
        data, left = self._keys.pass_on(data)
        if data:
            self._client.send(b"I", data)
        return not left


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
def proxied(client: SupervisorClient, wanted: bool) -> Iterator[None]:
    """Hand signals of this process on, when this is its main thread."""
    if not wanted or threading.current_thread() is not threading.main_thread():
        yield
        return

    def pass_on(number: int, _: Any) -> None:
        client.signal(number)

    before = {number: signal.signal(number, pass_on) for number in _PROXIED}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
