"""Time and memory of commands."""

import statistics
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["CommandFailed", "Commands", "Sample", "Step", "execute", "median", "peak_memory", "timed"]

Commands = Sequence[Sequence[str]]
INTERVAL = 0.02
"""Seconds between two looks at the memory in use."""


class CommandFailed(Exception):
    """A command ended with another code than 0; the text says which, and the end of its output."""


@dataclass(frozen=True)
class Step:
    """What is timed, what has to be done before, and what the former reads as its standard input."""

    timed: Commands
    before: Commands = ()
    stdin: Path | None = None
    count: int = 1
    """How often ``timed`` does the thing, where that is more than once: the figure is per thing."""


@dataclass(frozen=True)
class Sample:
    """One round: seconds until the commands ended, and until all they wrote was on disk."""

    seconds: float
    synced: float


@dataclass
class _Peak:
    bytes: int = 0
    stop: threading.Event = field(default_factory=threading.Event)


def execute(commands: Commands, stdin: Path | None = None) -> str:
    """Run commands one after another; what the last one printed."""
    text = ""
    for command in commands:
        with (stdin or Path("/dev/null")).open("rb") as source:
            done = subprocess.run(command, stdin=source, capture_output=True, text=True, check=False)
        if done.returncode:
            tail = " | ".join((done.stderr or done.stdout).strip().splitlines()[-3:])
            raise CommandFailed(f"{' '.join(command)}: exit code {done.returncode}: {tail[-600:]}")
        text = done.stdout
    return text


def timed(step: Step, disk: Path) -> Sample:
    """Do a step and time it; the disk has nothing left to write when it begins."""
    execute(step.before)
    execute([["sync", "-f", str(disk)]])
    start = time.perf_counter()
    execute(step.timed, step.stdin)
    end = time.perf_counter()
    execute([["sync", "-f", str(disk)]])
    synced = time.perf_counter()
    return Sample((end - start) / step.count, (synced - start) / step.count)


def peak_memory(step: Step, without: set[int]) -> int:
    """Do a step; the most memory (bytes, proportional set size) that all processes of the box had together meanwhile,
    daemons included, ``without`` those named."""
    execute(step.before)
    peak = _Peak()
    watcher = threading.Thread(target=_watch, args=(peak, without | {1}))
    watcher.start()
    try:
        execute(step.timed, step.stdin)
    finally:
        peak.stop.set()
        watcher.join()
    return peak.bytes


def _watch(peak: _Peak, without: set[int]) -> None:
    while not peak.stop.wait(INTERVAL):
        pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
        peak.bytes = max(peak.bytes, sum(_pss(pid) for pid in pids if pid not in without))


def _pss(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:  # it has gone, or is a kernel thread
        return 0
    return next((int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith("Pss:")), 0)


def median(samples: Sequence[Sample]) -> Sample:
    """The median of each figure."""
    return Sample(statistics.median(s.seconds for s in samples), statistics.median(s.synced for s in samples))
