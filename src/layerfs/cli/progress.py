"""Progress of long work: bars on a terminal, plain lines or nothing where the output goes to a file."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

from layerfs.cli.units import size

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

__all__ = ["Display", "choose"]


def choose(*, quiet: bool, plain: bool) -> Display:
    """Return who is told: nobody when ``quiet``, bars on a terminal, lines elsewhere if ``plain``."""
    if quiet:
        return Display()
    if sys.stderr.isatty():
        return _Bars()
    return _Lines() if plain else Display()


class Display:
    """A ``blobs.Progress`` that shows nothing but the notes, each of them once."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.noted: set[str] = set()

    def start(self, key: str, label: str, total: int | None) -> None:
        """Ignored."""

    def advance(self, key: str, count: int) -> None:
        """Ignored."""

    def finish(self, key: str, note: str = "") -> None:
        """Ignored."""

    def note(self, text: str) -> None:
        """Write the line to the standard error stream."""
        with self.lock:
            if text in self.noted:
                return
            self.noted.add(text)
        self.line(f"{text}\n")

    def close(self) -> None:
        """Take away what stands on the terminal."""

    def line(self, text: str) -> None:
        """Write a line that stays."""
        sys.stderr.write(text)
        sys.stderr.flush()


class _Lines(Display):
    """One line where something begins and one where it ends."""

    def __init__(self) -> None:
        super().__init__()
        self.labels: dict[str, tuple[str, int | None]] = {}

    def start(self, key: str, label: str, total: int | None) -> None:
        """Remember the label; the line comes with the end, so that lines of parallel work stay whole."""
        with self.lock:
            self.labels[key] = (label, total)

    def finish(self, key: str, note: str = "") -> None:
        """Write what is done, and how."""
        with self.lock:
            label, total = self.labels.pop(key, (key, None))
        done = note or ("done" if total is None else f"done, {size(total)}")
        self.line(f"{label}: {done}\n")


class _Bars(Display):
    """A bar for everything under way, and a line for what is done."""

    def __init__(self) -> None:
        super().__init__()
        self.bars: Bars | None = None
        self.tasks: dict[str, tuple[TaskID, str, int | None]] = {}

    def start(self, key: str, label: str, total: int | None) -> None:
        """Show a bar."""
        with self.lock:
            bars = self.begin()
            self.tasks[key] = (bars.add_task(label, total=total), label, total)

    def advance(self, key: str, count: int) -> None:
        """Move the bar."""
        with self.lock:
            if self.bars is not None and key in self.tasks:
                self.bars.advance(self.tasks[key][0], count)

    def finish(self, key: str, note: str = "") -> None:
        """Replace the bar by a line; the display ends with its last bar."""
        with self.lock:
            if self.bars is None or key not in self.tasks:
                return
            task, label, total = self.tasks.pop(key)
            self.bars.remove_task(task)
            done = note or ("done" if total is None else size(total))
            self.bars.console.print(f"{label}: {done}", markup=False, highlight=False)
        if not self.tasks:
            self.close()

    def close(self) -> None:
        """Stop the display, also of what has not ended."""
        with self.lock:
            bars, self.bars = self.bars, None
            self.tasks.clear()
            if bars is not None:
                bars.stop()

    def line(self, text: str) -> None:
        """Write a line above the bars."""
        with self.lock:
            if self.bars is not None:
                self.bars.console.print(text.rstrip("\n"), markup=False, highlight=False)
                return
        super().line(text)

    def begin(self) -> Bars:
        if self.bars is None:
            # Imported here because it takes 100 ms, which only a terminal user with long work pays.
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

            self.bars = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                DownloadColumn(),
                TransferSpeedColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self.bars.start()
        return self.bars
