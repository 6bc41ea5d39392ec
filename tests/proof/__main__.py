"""All of the proof: ``make proof``. What was done to the store is counted; the exit code is 0 when nothing was lost.

    python tests/proof [--scale F] [--seed N] [SUITE ...]

Each suite has its seconds, and tries as much as it can in them (all of it, on two cores that have nothing else to do);
``--scale 0.1`` gives a tenth of the time. What there was no time for is counted, and another seed begins elsewhere.
Two lines of suites run side by side, because each waits for the disk as often as it works; what needs both cores comes
after them, alone. A suite that fails or hangs does not keep the others from running, nor their counts from being told.
"""

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_HERE = "tests/proof"
_PATIENCE = 90
"""Seconds that a suite may go on after its time, to end what it was at; then it is killed."""
_ALL = 29 * 60
"""Seconds that all of it may take; what has not begun by then is not begun, which is a failure."""
_FIRST = (
    "points at which a command was killed",
    "errors injected into system calls",
    "short writes",
    "states of a disk after a power cut",
    "flips of a bit in layers and blobs",
    "flips of a bit in the database",
    "flips found",
    "flips repaired",
    "operations of concurrent processes",
    "hostile archives",
    "hostile documents (indexes, manifests, configurations)",
    "known vulnerabilities (CVE)",
    "ways out of a container that were tried",
    "executions of fuzzed code (C)",
    "executions of fuzzed code (Python)",
)
"""The counts that are told first, in this order."""


@dataclass(frozen=True)
class Suite:
    """``seconds``: what it may take; ``words``: of pytest, or of a command in ``parts`` parts, one after another, whose
    ``SHARE`` is the seconds of each."""

    name: str
    seconds: int
    words: tuple[str, ...]
    parts: int = 0


_CVES = tuple(sorted(str(path.relative_to(_ROOT)) for path in (_ROOT / "tests").glob("test_cve_*.py")))
_SIDE_BY_SIDE = (
    (Suite("crash", 780, (f"{_HERE}/test_crash.py",)), Suite("power", 180, (f"{_HERE}/test_power.py",))),
    (Suite("errors", 780, (f"{_HERE}/test_errors.py",)), Suite("damage", 180, (f"{_HERE}/test_damage.py",))),
)
_ALONE = (
    Suite("concurrency", 130, (f"{_HERE}/test_concurrency.py",)),
    Suite("keeping", 60, (f"{_HERE}/test_keeping.py",)),
    Suite("container", 60, (f"{_HERE}/test_hostile_container.py",)),
    Suite("hostile", 180, ("tests/hostile",)),
    Suite("cve", 150, _CVES),
    Suite("fuzz-c", 120, ("make", "-s", "-C", "csrc", "fuzz", "SECONDS=SHARE"), parts=3),
    Suite("fuzz-python", 120, (sys.executable, "tests/fuzz", "--seconds", "SHARE"), parts=4),
)


class Proof:
    """One run: ``place`` is its own, ``scale`` of the seconds; ``seed`` says with which points it begins."""

    def __init__(self, place: Path, scale: float, seed: int = 0) -> None:
        self.place, self.scale, self.seed = place, scale, seed
        self.begin = time.monotonic()
        self.counts: Counter[str] = Counter()
        self.outcome: dict[str, str] = {}
        self._running: set[subprocess.Popen[str]] = set()

    def run(self, wanted: Sequence[str]) -> None:
        """All suites of these names, each line beside the other, then one after another."""
        chosen = [[suite for suite in line if suite.name in wanted] for line in (*_SIDE_BY_SIDE, _ALONE)]
        with ThreadPoolExecutor(len(_SIDE_BY_SIDE)) as pool:
            for done in [pool.submit(self._line, line) for line in chosen[:-1]]:
                done.result()
        self._line(chosen[-1])

    def _line(self, suites: Sequence[Suite]) -> None:
        for suite in suites:
            try:
                self.outcome[suite.name] = self._suite(suite)
            except OSError as exc:
                self.outcome[suite.name] = f"could not be run: {exc}"
            self._say(suite, self.outcome[suite.name])

    def _suite(self, suite: Suite) -> str:
        seconds = suite.seconds * self.scale
        left = _ALL * max(1.0, self.scale) - (time.monotonic() - self.begin)
        if left <= 0:
            return "not begun, because the time was over"
        self._say(suite, f"begins, {seconds:.0f} seconds")
        begin, late = time.monotonic(), []
        process = subprocess.Popen(
            self._words(suite, seconds), cwd=_ROOT, env=self._environment(suite, seconds), start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        )  # fmt: skip
        self._running.add(process)
        with process, ThreadPoolExecutor(1) as watching:
            watching.submit(self._watch, process, min(seconds + _PATIENCE, left), late)
            assert process.stdout is not None
            for line in process.stdout:
                self._say(suite, line.rstrip())
                if found := re.search(r"number_of_executed_units: (\d+)", line):
                    self.counts[f"executions of fuzzed code ({'C' if suite.name == 'fuzz-c' else 'Python'})"] += int(
                        found[1]
                    )
            code = process.wait()
        self._running.discard(process)
        took = f"{time.monotonic() - begin:.0f} seconds"
        return f"took too long, and was killed after {took}" if late else f"FAILED ({code})" if code else f"ok, {took}"

    def _watch(self, process: "subprocess.Popen[str]", seconds: float, late: list[bool]) -> None:
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            late.append(True)
            _end(process)

    def _words(self, suite: Suite, seconds: float) -> list[str]:
        if suite.parts:
            share = str(max(1, int(seconds / suite.parts)))
            return [word.replace("SHARE", share) for word in suite.words]
        chosen = ["-v", "-k", "not sample"] if suite.words[0].startswith(_HERE) else ["-q"]
        base = f"--basetemp={self.place}/{suite.name}"
        options = ["--no-header", "-p", "counting", "-p", "no:cacheprovider", base]
        return [sys.executable, "-m", "pytest", *options, *chosen, *suite.words]

    def _environment(self, suite: Suite, seconds: float) -> dict[str, str]:
        ours = {"PROOF_COUNTS": str(self.place / f"{suite.name}.json"), "PROOF_SECONDS": str(seconds)}
        ours["PROOF_SEED"] = str(self.seed)
        return os.environ | ours | {"PYTHONPATH": str(_ROOT / _HERE), "COLUMNS": "120"}

    def _say(self, suite: Suite, text: str) -> None:
        print(f"{time.monotonic() - self.begin:5.0f} s  {suite.name + ':':13} {text}", flush=True)

    def stop(self) -> None:
        """End what runs still."""
        for process in list(self._running):
            _end(process)

    def report(self) -> int:
        """Print what was done; the exit code."""
        for path in self.place.glob("*.json"):
            self.counts.update(json.loads(path.read_text()))
        passed = {path.name.split(".")[0]: path.read_text().splitlines() for path in self.place.glob("*.passed")}
        for what, file in (
            ("hostile archives", "test_hostile.py"),
            ("hostile documents (indexes, manifests, configurations)", "test_hostile_documents.py"),
        ):
            self.counts[what] = len(_inputs(name for name in passed.get("hostile", ()) if file in name))
        known = re.findall(r"cve[-_](\d{4})[-_](\d+)", "\n".join(passed.get("cve", ())).lower())
        self.counts["known vulnerabilities (CVE)"] = len(set(known))
        self.counts["tests of known vulnerabilities"] = len(passed.get("cve", ()))
        failed = [name for name, said in self.outcome.items() if not said.startswith("ok")]
        print()
        for name, said in self.outcome.items():
            print(f"{name:>12}  {said}")
        print("\nFaults survived" if not failed else f"\nNOT all faults were survived ({', '.join(failed)}); done was:")
        for what in (*_FIRST, *sorted(set(self.counts) - set(_FIRST))):
            print(f"{self.counts[what]:12,}  {what}")
        print(f"{time.monotonic() - self.begin:12,.0f}  seconds, seed {self.seed}", flush=True)
        return 1 if failed else 0


def _inputs(names: Iterable[str]) -> set[str]:
    """What was tried, once for all its tests: each has several formats, ways in or runtimes."""
    found = (re.search(r"\[(.*)\]$", name) for name in names)
    return {re.sub(r"-(erofs|dir|builtin|runc)$", "", match[1]) for match in found if match}


def _end(process: "subprocess.Popen[str]") -> None:
    """A suite and all that it started, which is a session of its own."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _unmount_below(place: Path) -> None:
    """What a suite that was killed has left mounted."""
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        if line.split()[4].startswith(f"{place}/"):
            subprocess.run(["umount", "-l", line.split()[4]], check=False)


def main(words: Sequence[str]) -> int:
    """Run everything, print the counts."""
    names = [suite.name for line in (*_SIDE_BY_SIDE, _ALONE) for suite in line]
    parser = argparse.ArgumentParser(prog="tests/proof", description="Faults on purpose.")
    parser.add_argument("--scale", type=float, default=1.0, help="of the time that each suite has (default 1)")
    parser.add_argument("--seed", type=int, default=random.randrange(10_000), help="where the points begin (random)")
    parser.add_argument("suites", nargs="*", help=f"of {', '.join(names)}; all of them by default")
    options = parser.parse_args(words)
    if unknown := set(options.suites) - set(names):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    place = Path(tempfile.mkdtemp(prefix="layerfs-proof-"))
    proof = Proof(place, options.scale, options.seed)
    try:
        proof.run(options.suites or names)
    except (KeyboardInterrupt, SystemExit):
        proof.outcome["all"] = "was interrupted"
        proof.stop()
    finally:
        code = proof.report()
        _unmount_below(place)
        subprocess.run(["rm", "-rf", place], check=True)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
