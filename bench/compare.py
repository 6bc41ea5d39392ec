"""``python -m bench.compare``: layerfs beside the tools that are installed. See ``docs/benchmarks.md``."""

import argparse
import os
import random
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.box import in_box, is_inside, prepare_inside, work_directory
from bench.engines import Engine
from bench.growth import CURVES, Curve, measure_growth
from bench.inputs import Images, default_cache
from bench.layout import Layout
from bench.measure import CommandFailed
from bench.peers import ENGINES
from bench.registry import Registry
from bench.report import as_json, as_markdown, machine, show
from bench.subjects import BUILDS, LOADS, SUBJECTS, Measuring

__all__ = ["main"]

RESULTS = Path(__file__).parent / "results"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.compare", description=__doc__)
    names = lambda text: [name for name in text.split(",") if name]  # noqa: E731
    parser.add_argument("--only", type=names, default=list(SUBJECTS), help=f"subjects, of {','.join(SUBJECTS)}")
    parser.add_argument("--peers", type=names, default=list(ENGINES), help=f"tools, of {','.join(ENGINES)}")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is timed (default 5)")
    parser.add_argument("--burst", type=int, default=200, help="containers in a burst (default 200)")
    parser.add_argument("--containers", type=int, default=1000, help="containers to list (default 1000)")
    parser.add_argument("--file-system", choices=("ext4", "xfs"), default="ext4", help="to measure on")
    parser.add_argument("--no-check", action="store_true", help="do not compare results first, nor measure memory")
    parser.add_argument("--growth", type=names, default=[], help=f"curves, of {','.join(CURVES)}, or all")
    parser.add_argument("--full", action="store_true", help="the curves to their far ends")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="where the images are kept")
    parser.add_argument("--work", type=Path, help="where to measure; on a disk, with 20 GB free (default: the cache)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the JSON file goes")
    parser.add_argument("--plots", action="store_true", help="plots beside it (needs matplotlib)")
    parser.add_argument("--tiny", action="store_true", help="a tiny image once, to see that the measuring works")
    return parser


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = _parser()
    options = parser.parse_args(argv)
    if options.tiny:
        options.rounds, options.burst, options.containers = 1, 4, 4
        options.only = [name for name in options.only if name not in LOADS or name == "load"]
    if options.growth == ["all"]:
        options.growth = list(CURVES)
    if "build" in options.only:
        options.only = list(dict.fromkeys([*options.only, *BUILDS]))
    for given, known in ((options.only, SUBJECTS), (options.peers, ENGINES), (options.growth, CURVES)):
        if unknown := set(given) - set(known):
            parser.error(f"unknown: {', '.join(sorted(unknown))}")
    return options


def main(argv: Sequence[str]) -> int:
    """Measure; 0, or 1 when something failed or came out unequal."""
    options = _options(argv)
    if is_inside():
        return _measure(options)
    if os.geteuid():
        raise SystemExit("bench: needs root, to make and mount file systems")
    _images(options)  # here, because it takes the network and the machine as they are
    with work_directory(options.work or options.cache) as work:
        return in_box([*argv, "--cache", str(options.cache), "--work", str(work)])


def _images(options: argparse.Namespace) -> dict[str, Layout]:
    """The images that the chosen subjects need. ``life``: that of the stories; ``deep``: of many layers."""
    images = Images(options.cache)
    if options.tiny:
        tiny = images.get("tiny")
        return {name: tiny for name in ("life", "deep", "python", "tiny")}
    found = {image: images.get(image) for name, (image, _) in LOADS.items() if name in options.only}
    return found | {"life": images.get("python"), "deep": images.get("layers"), "tiny": images.get("tiny")}


def _measure(options: argparse.Namespace) -> int:
    prepare_inside()
    images = _images(options)
    missing = Registry.missing()
    if missing:
        print(f"no registry: {', '.join(missing)} not installed; nothing is pulled or pushed", file=sys.stderr)
    registry = None if missing else Registry(options.work)
    if registry:
        registry.fill([images["life"]])
    engines = _engines(options.peers)
    measuring = Measuring(
        options.work,
        options.file_system,
        options.only,
        images,
        registry,
        _noise(options),
        _context(options),
        options.burst,
        options.containers,
    )
    growth: list[Curve] = []
    try:
        _rounds(measuring, engines, options)
        if any(engine.name == "layerfs" for engine in engines):
            measuring.alone(options.burst)
            measuring.limits()
        if registry and options.growth:
            place = (options.work, options.file_system, images["tiny"], registry)
            growth.extend(measure_growth(*place, options.growth, options.full))
    except KeyboardInterrupt:
        print("interrupted: what there is so far", file=sys.stderr)
    except CommandFailed as exc:
        print(f"bench: {exc}", file=sys.stderr)
        measuring.findings.failures.setdefault("alone", {})["layerfs"] = str(exc)
    _publish(measuring, engines, growth, options)
    return 1 if measuring.findings.unequal or measuring.findings.failures else 0


def _engines(names: Sequence[str]) -> list[type[Engine]]:
    found = []
    for name in names:
        if missing := ENGINES[name].missing():
            print(f"{name}: not measured: {', '.join(missing)} not installed", file=sys.stderr)
        else:
            found.append(ENGINES[name])
    return found


def _rounds(measuring: Measuring, engines: Sequence[type[Engine]], options: argparse.Namespace) -> None:
    for number in range(1 if options.no_check else 0, options.rounds + 1):
        # Each round begins with another tool, so that none is always measured when the machine is fresh.
        turn = number % len(engines)
        for engine in [*engines[turn:], *engines[:turn]]:
            print(f"{'check' if number == 0 else f'round {number}'}: {engine.name}", file=sys.stderr)
            measuring.round(engine, number)


def _noise(options: argparse.Namespace) -> Path:
    path = options.work / "noise"
    path.write_bytes(random.Random(5).randbytes(1 << 20) * (1 if options.tiny else 100))
    return Path(path)


def _context(options: argparse.Namespace) -> Path:
    """The contexts of builds: one without files, one of 20,000 small files."""
    context = Path(options.work / "context")
    if any(name in BUILDS for name in options.only):
        (context / "runs").mkdir(parents=True)
        for n in range(20 if options.tiny else 20_000):
            above = context / "copies" / "files" / f"d{n // 100}"
            above.mkdir(parents=True, exist_ok=True)
            (above / f"f{n}").write_bytes(random.Random(n).randbytes(500))
    return context


def _publish(
    measuring: Measuring, engines: Sequence[type[Engine]], growth: Sequence[Curve], options: argparse.Namespace
) -> None:
    facts = machine(options.file_system) | {"rounds": str(options.rounds)}
    versions = {engine.name: engine.versions() for engine in engines}
    show(measuring.findings, facts, versions, [engine.name for engine in engines], growth)
    path = as_json(measuring.findings, facts, versions, growth, options.results)
    table = as_markdown(measuring.findings, [engine.name for engine in engines], path.with_suffix(".md"))
    print(f"written: {path}\nwritten: {table}")
    if options.plots:
        from bench.plots import draw  # it needs matplotlib

        for plot in draw(path):
            print(f"written: {plot}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
