"""Faults on purpose. What was done is counted and printed at the end, by ``make proof`` above all."""

import json
import os
import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

COUNTS: Counter[str] = Counter()


@pytest.fixture(scope="session")
def counts() -> Counter[str]:
    return COUNTS


def pytest_sessionfinish() -> None:
    """For ``make proof``, which runs several of us."""
    if where := os.environ.get("PROOF_COUNTS"):
        Path(where).write_text(json.dumps(COUNTS))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if COUNTS:
        terminalreporter.section("faults survived")
        for what, number in sorted(COUNTS.items()):
            terminalreporter.write_line(f"{number:8,}  {what}")
