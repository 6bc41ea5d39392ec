"""How costs grow: with entries, bytes, layers, images and concurrent pulls. Each curve with its fitted exponent."""

import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.box import fresh_disk
from bench.engines import Layerfs
from bench.layout import Layout
from bench.measure import Step, execute, timed
from bench.peers import Bsdtar
from bench.recipes import small_files
from bench.registry import Registry

__all__ = ["CURVES", "Curve", "exponent", "measure_growth"]


@dataclass(frozen=True)
class Curve:
    """Seconds over a count: what is counted, what is timed, and the points."""

    counted: str
    title: str
    points: tuple[tuple[int, float], ...]

    @property
    def exponent(self) -> float:
        """The slope in the double logarithm: 1 is linear, 0 is no growth. Of the points but the smallest ones, which
        show the start of a process."""
        return exponent(self.points)


def exponent(points: Sequence[tuple[float, float]]) -> float:
    """The least-squares slope of log(y) over log(x), over the upper half of the points (three at least)."""
    used = [(math.log(x), math.log(y)) for x, y in points][-max(3, (len(points) + 1) // 2) :]
    if len(used) < 2:
        return math.nan
    mean_x, mean_y = (sum(values) / len(used) for values in zip(*used, strict=True))
    over = sum((x - mean_x) * (y - mean_y) for x, y in used)
    return float(over / sum((x - mean_x) ** 2 for x, _ in used))


class _Place:
    """Where curves are measured."""

    def __init__(self, work: Path, kind: str, tiny: Layout, registry: Registry, full: bool) -> None:
        self.work, self.kind, self.tiny, self.registry, self.full = work, kind, tiny, registry, full

    def ours(self, disk: Path) -> Layerfs:
        """layerfs on a disk."""
        return Layerfs(disk, self.registry.address)


def _inputs(place: _Place, sizes: Sequence[int], make: Callable[[Path, int], None]) -> list[Curve]:
    """layerfs import and bsdtar, of plain tars that ``make`` writes."""
    ours, theirs = [], []
    for size in sizes:
        tar = place.work / "growth.tar"
        make(tar, size)
        with fresh_disk(place.work, place.kind) as disk:
            command = place.ours(disk).command("import", str(tar), "localhost/bench/growth:1")
            ours.append((size, timed(Step([command]), disk).synced))
        if not Bsdtar.missing():
            with fresh_disk(place.work, place.kind) as disk:
                theirs.append((size, timed(Step([["bsdtar", "-C", str(disk), "-xpf", str(tar)]]), disk).synced))
        tar.unlink()
    return [Curve("", "layerfs import", tuple(ours)), Curve("", "bsdtar -x", tuple(theirs))]


def entries(place: _Place) -> list[Curve]:
    """Files of 1 KiB in one layer."""
    sizes = [1000, 3000, 10_000, 30_000, 100_000] + ([300_000, 1_000_000] if place.full else [])
    curves = _inputs(place, sizes, lambda tar, n: (small_files(tar, n), None)[1])
    return [Curve("files of 1 KiB in a layer", c.title, c.points) for c in curves if c.points]


def size(place: _Place) -> list[Curve]:
    """Bytes of one file in a layer."""

    def make(tar: Path, megabytes: int) -> None:
        (place.work / "large").mkdir(exist_ok=True)
        with (place.work / "large" / "file").open("wb") as file, open("/dev/urandom", "rb") as noise:
            for _ in range(megabytes):
                file.write(noise.read(1 << 20))
        execute([["tar", "-C", str(place.work / "large"), "-cf", str(tar), "file"]])
        (place.work / "large" / "file").unlink()

    curves = _inputs(place, [1, 8, 64, 512] + ([2048, 8192] if place.full else []), make)
    return [Curve("MiB in a layer", c.title, c.points) for c in curves if c.points]


def _inside(place: _Place, counted: str, what: str, sizes: Sequence[int], *, anew: bool) -> list[Curve]:
    """What ``bench.inside`` says at each size, on a disk of its own or on one that grows."""
    found: dict[str, list[tuple[int, float]]] = {}

    def point(disk: Path, size: int) -> None:
        for title, seconds in json.loads(execute([place.ours(disk).inside(what, str(size))])).items():
            found.setdefault(title, []).append((size, seconds))

    if anew:
        for size in sizes:
            with fresh_disk(place.work, place.kind) as disk:
                point(disk, size)
    else:
        with fresh_disk(place.work, place.kind) as disk:
            for size in sizes:
                point(disk, size)
    return [Curve(counted, title, tuple(points)) for title, points in found.items()]


def layers(place: _Place) -> list[Curve]:
    """Layers in a stack, all with the same directory."""
    return _inside(place, "layers in a stack", "stack", [1, 3, 10, 30, 100, 250, 500], anew=True)


def images(place: _Place) -> list[Curve]:
    """Images in a store."""
    sizes = [10, 30, 100, 300, 1000] + ([3000, 10_000] if place.full else [])
    return _inside(place, "images in a store", "images", sizes, anew=False)


def pulls(place: _Place) -> list[Curve]:
    """Pulls at once, each of another image."""
    points = []
    for count in [1, 2, 4, 8, 16] + ([32, 64] if place.full else []):
        with fresh_disk(place.work, place.kind) as disk, place.registry.serving(fresh=True):
            names = [f"{place.registry.address}/bench/pull{n}:1" for n in range(count)]
            for name in names:
                place.registry.push(place.tiny, name)
            ours = place.ours(disk)
            execute([ours.command("info")])
            start = time.perf_counter()
            running = [subprocess.Popen(ours.command("pull", "-q", n), stdout=subprocess.DEVNULL) for n in names]
            if any([process.wait() for process in running]):
                raise SystemExit("a pull failed")
            points.append((count, time.perf_counter() - start))
    return [Curve("concurrent pulls", "layerfs pull", tuple(points))]


CURVES: dict[str, Callable[[_Place], list[Curve]]] = {
    "entries": entries, "size": size, "layers": layers, "images": images, "pulls": pulls
}  # fmt: skip


def measure_growth(
    work: Path, kind: str, tiny: Layout, registry: Registry, names: Sequence[str], full: bool
) -> Iterator[Curve]:
    """The curves ``names``, one after another; ``full`` to their far ends, which takes long. CommandFailed."""
    place = _Place(work, kind, tiny, registry, full)
    for name in names:
        print(f"growth: {name}", file=sys.stderr)
        yield from CURVES[name](place)
