"""What was done so far, kept in files as it happens, so that a suite that is cut off still says it (``make proof``).

``PROOF_COUNTS`` names a file for the counts of faults; the names of tests that passed go to one beside it. ``points``
gives things to try until the time of the suite (``PROOF_SECONDS``; none: without limit) is used up; where it begins
is chosen by ``PROOF_SEED``, so that what one run has no time for is tried by another.
"""

import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import pytest

__all__ = ["COUNTS", "LEFT_OUT", "TIME", "points"]

COUNTS: Counter[str] = Counter()
LEFT_OUT = "points left out, because the time was over"
_T = TypeVar("_T")


class _Time:
    """The seconds of a suite, shared out to its tests: what one does not use is there for the next ones."""

    def __init__(self) -> None:
        seconds = os.environ.get("PROOF_SECONDS")
        self._end = time.monotonic() + float(seconds) if seconds else None
        self.tests = 1
        self._deadline: float | None = None

    def begin(self) -> None:
        """The next test begins. It gets half as much again as an equal share, because most need less."""
        if self._end is not None:
            now = time.monotonic()
            self._deadline = now + max(0.0, self._end - now) * min(1.0, 1.5 / max(1, self.tests))

    def end(self) -> None:
        """A test has ended."""
        self.tests -= 1

    def up_to(self, seconds: float) -> float:
        """That many seconds, or what the test that runs has left."""
        return seconds if self._deadline is None else max(1.0, min(seconds, self._deadline - time.monotonic()))

    @property
    def is_over(self) -> bool:
        """Whether the test that runs has had its time."""
        return self._deadline is not None and time.monotonic() > self._deadline


TIME = _Time()


def points(things: Sequence[_T]) -> Iterator[_T]:
    """All of the things, in an order in which those that come first lie spread over all; fewer when time is over."""
    order = sorted(range(len(things)), key=lambda at: -((at + 1) & -(at + 1)))
    seed = int(os.environ.get("PROOF_SEED", "0"))
    for taken, at in enumerate(order):
        if TIME.is_over:
            COUNTS[LEFT_OUT] += len(things) - taken
            return
        yield things[(at + seed) % len(things)]


def _keep_counts() -> None:
    """Write the counts to their file."""
    if where := os.environ.get("PROOF_COUNTS"):
        partial = Path(f"{where}.new")
        partial.write_text(json.dumps(COUNTS))
        partial.rename(where)


def pytest_collection_finish(session: pytest.Session) -> None:
    TIME.tests = len(session.items)


def pytest_runtest_setup() -> None:
    TIME.begin()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "teardown":
        TIME.end()
        _keep_counts()
    if report.when == "call" and report.passed and (where := os.environ.get("PROOF_COUNTS")):
        with open(f"{where}.passed", "a") as file:
            file.write(f"{report.nodeid}\n")
