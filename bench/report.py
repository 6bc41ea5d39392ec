"""What was found, as tables on a terminal and as JSON."""

import datetime
import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.growth import Curve
from bench.measure import Sample, median
from bench.subjects import SUBJECTS, Findings

__all__ = ["GOALS", "Goal", "as_json", "as_markdown", "machine", "show", "verdicts"]


@dataclass(frozen=True)
class Goal:
    """At most ``ratio`` of the best of ``peers``."""

    subject: str
    ratio: float
    peers: tuple[str, ...]


GOALS = [
    Goal("load", 0.25, ("podman", "umoci", "containerd")),
    Goal("load", 0.5, ("bsdtar",)),
    Goal("load-small", 0.15, ("bsdtar",)),
    Goal("commit", 0.15, ("podman", "docker")),
    Goal("diff", 0.05, ("podman", "docker")),
    Goal("save", 0.3, ("podman", "docker")),
    Goal("run", 0.4, ("podman",)),
    Goal("run", 0.25, ("docker",)),
    Goal("burst", 0.1, ("podman",)),
    Goal("ps", 0.3, ("podman",)),
    Goal("pull", 0.3, ("docker",)),
    Goal("pull", 0.15, ("podman", "containerd")),
    Goal("push", 0.3, ("podman", "docker")),
    Goal("build", 0.3, ("buildah", "docker")),
    Goal("build-copy", 0.3, ("buildah", "docker")),
    Goal("build-again", 0.3, ("buildah", "docker")),
]


@dataclass(frozen=True)
class Verdict:
    """A goal, and the ratios found: as the tools come, until all is on disk, and with none syncing (None where
    layerfs was not measured so)."""

    goal: Goal
    ratio: float
    synced: float
    unsynced: float | None = None

    @property
    def met(self) -> bool:
        """Judged as the tools come: layerfs syncs, the others do not."""
        return self.ratio <= self.goal.ratio


def verdicts(findings: Findings) -> list[Verdict]:
    """Of all goals for which there are figures."""
    out = []
    for goal in GOALS:
        middle = {name: median(found) for name, found in findings.samples.get(goal.subject, {}).items()}
        peers = [middle[name] for name in goal.peers if name in middle]
        if peers and "layerfs" in middle:
            ours, loose = middle["layerfs"], middle.get("layerfs-nosync")
            best = min(peer.seconds for peer in peers)
            unsynced = loose.seconds / best if loose else None
            out.append(Verdict(goal, ours.seconds / best, ours.synced / min(peer.synced for peer in peers), unsynced))
    return out


def machine(kind: str) -> dict[str, str]:
    """Where it was measured."""
    cpu = next((line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "?")
    memory = next((int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "processor": f"{os.cpu_count()} x {cpu}",
        "memory": f"{memory / 2**20:.0f} GiB",
        "kernel": platform.release(),
        "file system": f"{kind} on a loop device, made anew for each tool and round",
        "load average": " ".join(f"{value:.1f}" for value in os.getloadavg()),
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines()


def _seconds(value: float) -> str:
    return f"{value * 1000:.3g} ms" if value < 1 else f"{value:.3g} s"


def _cell(samples: Sequence[Sample]) -> str:
    middle = median(samples)
    low, high = min(s.seconds for s in samples), max(s.seconds for s in samples)
    spread = f" ({_seconds(low)} to {_seconds(high)})" if len(samples) > 1 else ""
    return f"{_seconds(middle.seconds)}{spread}\n{_seconds(middle.synced)} on disk"


def show(
    findings: Findings,
    facts: dict[str, str],
    versions: dict[str, list[str]],
    engines: Sequence[str],
    growth: Sequence[Curve],
) -> None:
    """Print it all."""
    console = Console(width=None if os.isatty(1) else 200)
    for key, value in facts.items():
        console.print(f"{key:14} {value}", highlight=False)
    for name, found in versions.items():
        console.print(f"{name:14} {'; '.join(found)}", highlight=False)
    table = Table(title="Median of the rounds (least to most), and until all was on disk", show_lines=True)
    for column in ("", *engines):
        table.add_column(column)
    for subject in (name for name in SUBJECTS if name in findings.samples):
        results = findings.samples[subject]
        failed = findings.failures.get(subject, {})
        cells = [_cell(results[e]) if e in results else ("failed" if e in failed else "–") for e in engines]
        table.add_row(SUBJECTS[subject], *cells)
    console.print(table)
    _show_sizes(console, "Most memory in use, daemons included", findings.peaks, engines)
    _show_sizes(console, "Disk space that it took", findings.disk, engines)
    _show_goals(console, findings)
    _show_limits(console, findings)
    for what, texts in findings.inside.items():
        console.print(f"layerfs in one process: {what}: {texts[-1]}", highlight=False)
    for curve in growth:
        points = ", ".join(f"{x}: {_seconds(y)}" for x, y in curve.points)
        console.print(f"{curve.counted}, {curve.title}: {points}; exponent {curve.exponent:.2f}", highlight=False)
    for what, said in findings.trees.items():
        console.print(f"{what}: " + ", ".join(f"{name} {text}" for name, text in said.items()), highlight=False)
    for subject, failed in findings.failures.items():
        for name, text in failed.items():
            console.print(f"failed: {name}: {subject}: {text}", highlight=False)


def _show_sizes(console: Console, title: str, sizes: dict[str, dict[str, int]], engines: Sequence[str]) -> None:
    if not sizes:
        return
    table = Table(title=f"{title} (MB)")
    for column in ("", *engines):
        table.add_column(column, justify="right" if column else "left")
    for subject in (name for name in SUBJECTS if name in sizes):
        found = sizes[subject]
        table.add_row(SUBJECTS[subject], *(f"{found[e] / 1e6:.1f}" if e in found else "–" for e in engines))
    console.print(table)


def _show_goals(console: Console, findings: Findings) -> None:
    table = Table(title="Goals: layerfs's time over that of the best of these peers")
    for column in ("", "goal", "as they come", "until on disk", "none syncs", ""):
        table.add_column(column)
    for found in verdicts(findings):
        goal = f"at most {found.goal.ratio} of {', '.join(found.goal.peers)}"
        met = "met" if found.met else "missed"
        unsynced = "–" if found.unsynced is None else f"{found.unsynced:.3f}"
        ratios = (f"{found.ratio:.3f}", f"{found.synced:.3f}", unsynced)
        table.add_row(SUBJECTS[found.goal.subject], goal, *ratios, met)
    if table.row_count:
        console.print(table)


def _show_limits(console: Console, findings: Findings) -> None:
    for subject, limit in findings.limits.items():
        shares = ", ".join(
            f"{name} {limit / median(samples).seconds:.0%}"
            for name, samples in findings.samples.get(subject, {}).items()
            if name.startswith("layerfs")
        )
        console.print(f"{SUBJECTS[subject]}: {_seconds(limit)} at best (bench/limit.py); of that speed: {shares}")


def as_json(
    findings: Findings, facts: dict[str, str], versions: dict[str, list[str]], growth: Sequence[Curve], into: Path
) -> Path:
    """Write it all to a new file below ``into``; its path."""
    into.mkdir(parents=True, exist_ok=True)
    path = into / f"compare-{facts['date'].replace(':', '')[:17]}.json"
    document: dict[str, Any] = {
        "machine": facts,
        "versions": versions,
        **asdict(findings),
        "medians": {
            subject: {name: statistics.median(s.seconds for s in found) for name, found in results.items()}
            for subject, results in findings.samples.items()
        },
        "goals": [asdict(v) | {"met": v.met} for v in verdicts(findings)],
        "growth": [asdict(curve) | {"exponent": curve.exponent} for curve in growth],
    }
    path.write_text(json.dumps(document, indent=1))
    return path


def as_markdown(findings: Findings, engines: Sequence[str], path: Path) -> Path:
    """Write the medians as a table of a document to ``path``: as the tools come / until all was on disk."""
    shown = [e for e in engines if any(e in results for results in findings.samples.values())]
    lines = ["| | " + " | ".join(shown) + " |", "|---" * (len(shown) + 1) + "|"]
    for subject in (name for name in SUBJECTS if name in findings.samples):
        results = findings.samples[subject]
        cells = [_short(results[engine]) if engine in results else "" for engine in shown]
        lines.append(f"| {SUBJECTS[subject]} | " + " | ".join(cells) + " |")
    path.write_text("\n".join(lines) + "\n")
    return path


def _short(samples: Sequence[Sample]) -> str:
    middle = median(samples)
    return f"{_seconds(middle.seconds)} / {_seconds(middle.synced)}"
