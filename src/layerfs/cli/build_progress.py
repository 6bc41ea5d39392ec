"""How a build goes, as the user sees it: steps as lines, or on a terminal the running ones with their last lines."""

from __future__ import annotations

import sys
import threading
import time
from typing import TYPE_CHECKING

from layerfs.build import NO_BUILD_PROGRESS, BuildProgress
from layerfs.cli.format import clean

if TYPE_CHECKING:
    from rich.live import Live
    from rich.text import Text

__all__ = ["PlainSteps", "TerminalSteps", "choose_steps"]

_SHOWN_LINES = 6
_SECONDS = 0.1


def choose_steps(kind: str) -> BuildProgress:
    """Return the display for ``auto``, ``plain``, ``tty`` or ``quiet``."""
    if kind == "quiet":
        return NO_BUILD_PROGRESS
    if kind == "tty" or (kind == "auto" and sys.stderr.isatty()):
        return TerminalSteps()
    return PlainSteps()


class PlainSteps:
    """Lines for the standard error stream, each with the number of its step."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.started: dict[int, float] = {}

    def begin(self, step: int, title: str) -> None:
        """Write the step's title."""
        self.started[step] = time.monotonic()
        self.write(f"#{step} {clean(title)}")

    def output(self, step: int, line: str) -> None:
        """Write a line of the step's command."""
        seconds = time.monotonic() - self.started.get(step, time.monotonic())
        self.write(f"#{step} {seconds:.3f} {clean(line)}")

    def end(self, step: int, seconds: float, *, cached: bool) -> None:
        """Write how the step ended."""
        self.write(f"#{step} CACHED" if cached else f"#{step} DONE {seconds:.1f}s")

    def failed(self, step: int, reason: str, tail: list[str]) -> None:
        """Write that it failed; the reason is the error of the whole build, and told at its end."""
        self.write(f"#{step} ERROR")

    def note(self, text: str) -> None:
        """Write a warning."""
        self.write(clean(text))

    def write(self, line: str) -> None:
        """Write one line whole."""
        with self.lock:
            sys.stderr.write(line + "\n")
            sys.stderr.flush()


class TerminalSteps(PlainSteps):
    """Steps under way with the last lines of their commands; a line stays of each that is done."""

    def __init__(self) -> None:
        super().__init__()
        self.live: Live | None = None
        self.running: dict[int, tuple[str, list[str]]] = {}
        self.changed = 0.0

    def begin(self, step: int, title: str) -> None:
        """Show the step."""
        with self.lock:
            self.started[step] = time.monotonic()
            self.running[step] = (clean(title), [])
            self.refresh()

    def output(self, step: int, line: str) -> None:
        """Show the line under its step."""
        with self.lock:
            lines = self.running.get(step, ("", []))[1]
            lines.append(clean(line))
            del lines[:-_SHOWN_LINES]
            if time.monotonic() - self.changed > _SECONDS:
                self.refresh()

    def end(self, step: int, seconds: float, *, cached: bool) -> None:
        """Leave a line of it."""
        self.leave(step, "CACHED" if cached else f"{seconds:.1f}s")

    def failed(self, step: int, reason: str, tail: list[str]) -> None:
        """Leave a line of it, and the last lines of its command."""
        self.leave(step, "ERROR", tail)

    def note(self, text: str) -> None:
        """Leave the warning."""
        with self.lock:
            self.show(clean(text))

    def leave(self, step: int, how: str, tail: list[str] | None = None) -> None:
        """Take the step out of the display; the display ends with the last one, so that others can write."""
        with self.lock:
            title, _ = self.running.pop(step, ("", []))
            self.show(f"=> {title}  {how}")
            for line in tail or ():
                self.show(f"   {clean(line)}")
            if self.running:
                self.refresh()
            elif self.live is not None:
                self.live.stop()
                self.live = None

    def show(self, line: str) -> None:
        """Write a line above the display."""
        if self.live is not None:
            self.live.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            sys.stderr.write(line + "\n")

    def refresh(self) -> None:
        """Draw the steps that run."""
        if self.live is None:
            from rich.console import Console  # only at a terminal, because it takes its time
            from rich.live import Live

            self.live = Live(console=Console(stderr=True), transient=True, auto_refresh=False)
            self.live.start()
        self.live.update(self.drawn(), refresh=True)
        self.changed = time.monotonic()

    def drawn(self) -> Text:
        """The text of the display."""
        from rich.text import Text

        now, lines = time.monotonic(), []
        for step, (title, output) in sorted(self.running.items()):
            lines.append(f"=> {title}  {now - self.started[step]:.1f}s")
            lines += [f"   {line}" for line in output]
        return Text("\n".join(lines), no_wrap=True, overflow="ellipsis")
