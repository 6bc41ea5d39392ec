"""A container in the foreground: its streams, the terminal, the signals that are handed on, the wait for its end.

Files and pipes are given to the container as they are.  A terminal of the host is not: it would let the container
read and write what belongs to others, so its bytes are moved through pipes, or through the container's own terminal.
"""

import errno
import fcntl
import os
import select
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from layerfs.errors import InvalidInputError
from layerfs.late import LateModule
from layerfs.runtime.keys import KeyFilter
from layerfs.runtime.spec import Started

if TYPE_CHECKING:
    import termios
    import tty
else:  # for terminals alone
    termios, tty = LateModule("termios"), LateModule("tty")

__all__ = ["Signals", "Stdio", "attend", "check_terminal", "raw_terminal"]

_PIECE = 1 << 16
_PROXIED = (
    signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM,
    signal.SIGCONT,
)  # fmt: skip


class Stdio:
    """The three descriptors for a container, and what has to be moved between them and ours. For a ``with``."""

    def __init__(
        self,
        stdio: tuple[int, int, int],
        *,
        interactive: bool,
        terminal: bool,
        tap: Callable[[str, bytes], None] | None = None,
        moved: bool = False,
    ) -> None:
        """``stdio``: ours; without ``interactive`` the container's input is empty. ``terminal``: it has one of its own.
        ``tap`` is given all output too, with ``stdout`` or ``stderr``. ``moved``: output comes through pipes, which are
        read once the process has started: what a runtime writes that could not start it is not shown.

        InvalidInputError when a terminal is asked for with ours as input, and ours is none.
        """
        self.ours = stdio
        self.interactive = interactive
        self.terminal = terminal
        self.tap = tap
        self.moved = moved
        self.given = stdio
        self.input: int | None = None  # where bytes of our terminal go
        self.outputs: dict[int, int] = {}  # from the container; 1 or 2
        self._theirs: list[int] = []
        if terminal and interactive:
            check_terminal(stdio[0])

    def __enter__(self) -> "Stdio":
        given = [self._input(), self.ours[1], self.ours[2]]
        for number in (1, 2):
            if not self.terminal and (self.tap is not None or self.moved or os.isatty(self.ours[number])):
                ours, given[number] = os.pipe2(os.O_CLOEXEC)
                self._theirs.append(given[number])
                self.outputs[ours] = number
        self.given = (given[0], given[1], given[2])
        return self

    def _input(self) -> int:
        if self.interactive and (self.terminal or not os.isatty(self.ours[0])):
            return self.ours[0]
        if self.interactive:
            fd, self.input = os.pipe2(os.O_CLOEXEC)
        else:
            fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._theirs.append(fd)
        return fd

    def started(self) -> None:
        """The container has its copies: close ours, so that the end of its output is seen."""
        while self._theirs:
            os.close(self._theirs.pop())

    def end_input(self) -> None:
        """Let the container see the end of its input; again is allowed."""
        if self.input is not None:
            os.close(self.input)
            self.input = None

    def __exit__(self, *_: object) -> None:
        self.started()
        self.end_input()
        for fd in self.outputs:
            os.close(fd)


def check_terminal(fd: int) -> None:
    """InvalidInputError when the input of a container with a terminal is none."""
    if not os.isatty(fd):
        raise InvalidInputError(
            "run with a terminal: the input is not one", hint="leave out -t, or -i, with a pipe or file"
        )


class Signals:
    """Hands signals of this process on to a container, from before its start on. For a ``with``.

    Only the main thread gets signals; in another one this does nothing.
    """

    def __init__(self, proxied: bool = True) -> None:
        self._proxied = proxied and threading.current_thread() is threading.main_thread()
        self._early: list[int] = []
        self._process: Started | None = None
        self._stack = ExitStack()

    def __enter__(self) -> "Signals":
        if self._proxied:
            self._stack.enter_context(_handlers(dict.fromkeys(_PROXIED, self._take)))
        return self

    def _take(self, number: int, _: Any) -> None:
        if self._process is None:
            self._early.append(number)
        else:
            self._process.signal(number)

    def to(self, process: Started) -> None:
        """From now on to this process, and what came so far too."""
        self._process = process
        while self._early:
            process.signal(self._early.pop(0))

    def __exit__(self, *_: object) -> None:
        self._stack.close()


def attend(process: Started, stdio: Stdio, detach_keys: bytes = b"") -> int | None:
    """Move bytes until the process ends; its exit code. None when the keys were typed at its terminal."""
    stdio.started()
    with ExitStack() as stack:
        mover = _Mover(process, stdio, KeyFilter(detach_keys if process.terminal is not None else b""))
        if process.terminal is not None:
            stack.enter_context(_own_terminal(process.terminal, stdio))
        return process.wait() if mover.run() else None


@contextmanager
def _own_terminal(master: int, stdio: Stdio) -> Iterator[None]:
    """Our terminal raw, the container's as large as ours."""
    with ExitStack() as stack:
        ours = next((fd for fd in stdio.ours if os.isatty(fd)), None)
        if ours is not None:
            _copy_size(ours, master)
            if threading.current_thread() is threading.main_thread():
                stack.enter_context(_handlers({signal.SIGWINCH: lambda *_: _copy_size(ours, master)}))
        if stdio.interactive:
            stack.enter_context(raw_terminal(stdio.ours[0]))
        yield


@contextmanager
def raw_terminal(fd: int) -> Iterator[None]:
    """A terminal that passes every key on, as it was again at the end."""
    before = termios.tcgetattr(fd)
    tty.setraw(fd)
    try:
        yield
    finally:
        with suppress(termios.error):  # it may be gone
            termios.tcsetattr(fd, termios.TCSADRAIN, before)


def _copy_size(source: int, target: int) -> None:
    with suppress(OSError):
        fcntl.ioctl(target, termios.TIOCSWINSZ, fcntl.ioctl(source, termios.TIOCGWINSZ, bytes(8)))


@contextmanager
def _handlers(handlers: dict[signal.Signals, Callable[[int, Any], None]]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


class _Mover:
    """Moves bytes until the process is over and its output is at its end.

    Input is written without waiting: a container that does not read must not keep its own output from being taken.
    """

    def __init__(self, process: Started, stdio: Stdio, keys: KeyFilter) -> None:
        self._process = process
        self._stdio = stdio
        self._keys = keys
        self._left = False
        self._outputs = dict(stdio.outputs)
        self._pending = b""
        self._target = stdio.input
        if process.terminal is not None:
            self._outputs[process.terminal] = 1
            self._target = process.terminal if stdio.interactive else None
        if self._target is not None:
            os.set_blocking(self._target, False)

    def run(self) -> bool:
        """False when the user has left before the end."""
        running, done = True, self._process.fileno()
        while running or self._outputs:
            if self._left and not self._pending:
                return False
            poll = select.poll()
            for fd in self._outputs:
                poll.register(fd, select.POLLIN)
            if running:
                poll.register(done, select.POLLIN)
            if self._pending and self._target is not None:
                poll.register(self._target, select.POLLOUT | (select.POLLIN if self._target in self._outputs else 0))
            elif self._target is not None and running and not self._left:
                poll.register(self._stdio.ours[0], select.POLLIN)
            for fd, events in poll.poll():
                if fd == done:
                    running = False
                elif fd in self._outputs and events & ~select.POLLOUT:
                    self._take(fd)
                elif fd == self._target:
                    self._give()
                elif fd == self._stdio.ours[0]:
                    self._read_input()
        return True

    def _take(self, source: int) -> None:
        try:
            data = os.read(source, _PIECE)
        except BlockingIOError:
            return
        except OSError as exc:
            if exc.errno != errno.EIO:  # a terminal whose other end nobody has open
                raise
            data = b""
        if not data:
            del self._outputs[source]
            return
        number = self._outputs[source]
        if self._stdio.tap is not None:
            self._stdio.tap("stderr" if number == 2 else "stdout", data)
        view = memoryview(data)
        with suppress(BrokenPipeError):  # what nobody takes is dropped
            while view:
                view = view[os.write(self._stdio.ours[number], view) :]

    def _read_input(self) -> None:
        data = os.read(self._stdio.ours[0], _PIECE)
        if not data:
            self._end()
            return
        self._pending, self._left = self._keys.pass_on(data)
        if self._pending:
            self._give()

    def _give(self) -> None:
        assert self._target is not None
        try:
            self._pending = self._pending[os.write(self._target, self._pending) :]
        except BlockingIOError:
            pass
        except OSError:  # nobody reads any more
            self._end()

    def _end(self) -> None:
        self._pending = b""
        self._target = None
        self._stdio.end_input()
