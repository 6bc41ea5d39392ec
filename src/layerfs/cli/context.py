"""What a verb gets beside its arguments: the global options, the store, the two output streams."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, BinaryIO

from layerfs.errors import InvalidInputError, LayerfsError

if TYPE_CHECKING:
    from layerfs.blobs import Progress
    from layerfs.cli.progress import Display
    from layerfs.store import Store

__all__ = ["Context"]

_CONTROL = {code: f"\\x{code:02x}" for code in (*range(0x20), 0x7F)} | {ord("\n"): " "}


def _end_in_order() -> None:
    """Let SIGTERM and SIGHUP end the command as Ctrl-C does: what is half-made is removed on the way out."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup ignores SIGHUP, and it stays so
            signal.signal(number, _end)


def _end(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


class Context:
    """One call of the command.

    ``title`` is the verb as typed (``image ls``), ``kind`` what a module that serves several verbs is asked for;
    ``alone`` says that this process is for the call and nothing else.
    """

    def __init__(
        self,
        *,
        title: str = "",
        kind: str = "",
        root: str | None = None,
        run: str | None = None,
        layer_format: str = "auto",
        sync: bool | None = None,
        debug: bool = False,
        alone: bool = False,
    ) -> None:
        self.title = title
        self.kind = kind
        self.root = root
        self.run = run
        self.layer_format = layer_format
        self.sync = sync
        self.debug = debug
        self.alone = alone
        self._store: Store | None = None
        self._display: Display | None = None

    @property
    def store(self) -> Store:
        """The store, opened at first use and closed when the command ends."""
        if self._store is None:
            if threading.current_thread() is threading.main_thread():
                _end_in_order()
            from layerfs.store import Store  # verbs without a store start faster

            self._store = Store.open(self.root, self.run, layer_format=self.layer_format, sync=self.sync)
        return self._store

    def close(self) -> None:
        """End the display of progress and close the store, if they were opened."""
        self.close_progress()
        store, self._store = self._store, None
        if store is not None:
            store.close()

    def close_progress(self) -> None:
        """End the display of progress, as before a container gets the terminal."""
        if self._display is not None:
            self._display.close()

    @staticmethod
    def out(text: str) -> None:
        """Write to the standard output."""
        sys.stdout.write(text)

    @staticmethod
    def err(text: str) -> None:
        """Write to the standard error stream."""
        sys.stdout.flush()
        sys.stderr.write(text)
        sys.stderr.flush()

    def report(self, message: str, hint: str | None = None) -> None:
        """Write what failed, on one line that says nothing to the terminal."""
        # The message names the operation, which as a rule is the verb: once is enough.
        verb = self.title.split(" ")[-1]
        message = message.removeprefix(f"{verb} ").removeprefix(f"{verb}: ")
        line = f"layerfs {self.title}".rstrip() + f": {message}" + (f" ({hint})" if hint else "")
        self.err(line.translate(_CONTROL) + "\n")

    def each(
        self, names: Iterable[str], work: Callable[[str], None], *, ignored: type[LayerfsError] | None = None
    ) -> int:
        """Do something for each name, and go on behind one that fails; returns the exit code of the first failure that
        is not one of ``ignored``, which are only told."""
        code = 0
        for name in names:
            try:
                work(name)
            except LayerfsError as error:
                self.report(str(error), error.hint)
                if ignored is None or not isinstance(error, ignored):
                    code = code or error.exit_code
        return code

    @staticmethod
    def binary_out(what: str) -> BinaryIO:
        """The standard output for bytes.  Raises InvalidInputError when it is a terminal."""
        if sys.stdout.isatty():
            raise InvalidInputError(f"refusing to write {what} to a terminal", hint="give -o FILE, or redirect")
        sys.stdout.flush()
        return sys.stdout.buffer

    @staticmethod
    def binary_in(what: str) -> BinaryIO:
        """The standard input for bytes.  Raises InvalidInputError when it is a terminal."""
        if sys.stdin is None or sys.stdin.isatty():
            raise InvalidInputError(f"{what} is expected on the standard input", hint="give a file, or redirect")
        return sys.stdin.buffer

    def progress(self, quiet: bool = False, plain: bool = False) -> Progress:
        """Who is told how far long work is: bars on a terminal, with ``plain`` lines elsewhere, else nobody."""
        from layerfs.cli.progress import choose

        self._display = choose(quiet=quiet, plain=plain)
        return self._display
