"""All of the proof: ``make proof``. What was done to the store is counted; the exit code is 0 when nothing was lost.

Two lines of tests run side by side, because each waits for the disk as often as it works; fuzzing and what measures
come after them, alone.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_HERE = "tests/proof"
_SIDE_BY_SIDE = (
    [f"{_HERE}/test_crash.py", f"{_HERE}/test_power.py"],
    [f"{_HERE}/test_errors.py", f"{_HERE}/test_damage.py"],
)
_VULNERABILITIES = sorted(str(path.relative_to(_ROOT)) for path in (_ROOT / "tests").glob("test_cve_*.py"))
_ALONE = (
    [f"{_HERE}/test_concurrency.py", f"{_HERE}/test_keeping.py"],
    ["tests/hostile"],
    _VULNERABILITIES,
)
_FUZZ_SECONDS = 60


def main() -> int:
    """Run everything, print the counts."""
    begin, counts, failed = time.monotonic(), Counter[str](), 0
    with tempfile.TemporaryDirectory() as place:
        running = [_start(paths, Path(place, f"side-{n}")) for n, paths in enumerate(_SIDE_BY_SIDE)]
        failed += sum(map(_finish, running))
        for number, paths in enumerate(_ALONE):
            failed += _finish(_start(paths, Path(place, f"alone-{number}")))
        for path in Path(place).glob("*.json"):
            counts.update(json.loads(path.read_text()))
        for path in Path(place).glob("*.xml"):
            counts.update(_tests(path))
    failed += _fuzz(counts)
    print("\nFaults survived" if not failed else "\nNOT all faults were survived; what was done:")
    for what, number in sorted(counts.items()):
        print(f"{number:12,}  {what}")
    print(f"{time.monotonic() - begin:12,.0f}  seconds")
    return 1 if failed else 0


def _start(paths: list[str], place: Path) -> subprocess.Popen[bytes]:
    words = [sys.executable, "-m", "pytest", "-q", "--no-header", f"--junitxml={place}.xml", *paths]
    return subprocess.Popen(words, cwd=_ROOT, env=os.environ | {"PROOF_COUNTS": f"{place}.json"})


def _finish(process: subprocess.Popen[bytes]) -> int:
    return int(process.wait() != 0)


def _tests(report: Path) -> Counter[str]:
    """How many hostile archives and known vulnerabilities there were, from a report of pytest."""
    text = report.read_text()
    return Counter(
        {
            "hostile inputs": len(re.findall(r'classname="tests\.hostile', text)),
            "tests of known vulnerabilities": len(re.findall(r'classname="tests\.test_cve_', text)),
        }
    )


def _fuzz(counts: Counter[str]) -> int:
    words = ["make", "-s", "-C", "csrc", "fuzz", f"SECONDS={_FUZZ_SECONDS}"]
    result = subprocess.run(words, cwd=_ROOT, stdout=subprocess.PIPE, text=True, check=False)
    counts["fuzz executions"] = sum(map(int, re.findall(r"number_of_executed_units: (\d+)", result.stdout)))
    return int(result.returncode != 0)


if __name__ == "__main__":
    sys.exit(main())
