"""Faults on purpose. What was done is counted and printed at the end, by ``make proof`` above all."""

import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent))

from counting import COUNTS


@pytest.fixture(scope="session")
def counts() -> Counter[str]:
    return COUNTS


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if COUNTS:
        terminalreporter.section("faults survived")
        for what, number in sorted(COUNTS.items()):
            terminalreporter.write_line(f"{number:8,}  {what}")
