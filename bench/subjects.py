"""What is measured, as a story that each tool goes through on a fresh disk: first checked, then timed."""

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from bench.box import fresh_disk
from bench.engines import Engine, Layerfs
from bench.layout import Layout
from bench.limit import pull_limit, unpack_limit
from bench.measure import CommandFailed, Commands, Sample, Step, execute, peak_memory, timed
from bench.registry import Registry
from bench.trees import Marks, differences, scan

__all__ = ["BUILDS", "LIFE", "LISTS", "LOADS", "SUBJECTS", "Findings", "Measuring"]

LIFE = {
    "pull": "pull and unpack, from a registry on loopback",
    "pull-again": "pull what is there",
    "mount": "make a container and mount it",
    "run": "run --rm IMAGE true",
    "burst": "start, run and remove a container, in a burst",
    "diff": "list what a container changed",
    "commit": "commit it",
    "save": "save the image to an archive",
    "push": "push the one changed layer",
    "delete": "delete the images",
}
LOADS = {
    "load": ("python", "load: Debian and Python packages, 5 layers"),
    "load-node": ("node", "load: Debian and npm packages, 2 layers"),
    "load-small": ("small", "load: 100,000 files of 1 KiB"),
    "load-large": ("large", "load: one layer of 2 GiB"),
    "load-layers": ("layers", "load: 40 layers"),
}
BUILDS = {
    "build": "build: ten RUN steps over 500 MB",
    "build-copy": "build: COPY of 20,000 files",
    "build-again": "build 20 instructions again, nothing changed",
}
LISTS = {"ps": "list 1,000 containers"}
SUBJECTS = LIFE | LISTS | {name: title for name, (_, title) in LOADS.items()} | BUILDS

MOUNT_POINTS = {"etc/hostname", "etc/hosts", "etc/mtab", "etc/resolv.conf", "run", "run/.containerenv"}
"""What podman leaves in an image that it commits; it is set aside when trees are compared."""


@dataclass
class Findings:
    """All that was found: subject -> engine -> what."""

    samples: dict[str, dict[str, list[Sample]]] = field(default_factory=dict)
    peaks: dict[str, dict[str, int]] = field(default_factory=dict)
    disk: dict[str, dict[str, int]] = field(default_factory=dict)
    failures: dict[str, dict[str, str]] = field(default_factory=dict)
    trees: dict[str, dict[str, str]] = field(default_factory=dict)
    inside: dict[str, list[str]] = field(default_factory=dict)
    limits: dict[str, float] = field(default_factory=dict)

    @property
    def unequal(self) -> bool:
        """Whether a tool's result differs from the others'."""
        return any(text != "equal" for results in self.trees.values() for text in results.values())


@dataclass
class Measuring:
    """One measurement: with what, of what, and what was found so far."""

    work: Path
    kind: str
    only: Sequence[str]
    images: dict[str, Layout]
    registry: Registry | None
    noise: Path
    context: Path
    burst: int
    containers: int
    findings: Findings = field(default_factory=Findings)
    _wanted: dict[str, Marks] = field(default_factory=dict)

    def round(self, engine: type[Engine], number: int) -> None:
        """One tool once through all. Round 0 checks results and measures memory; the others are timed."""
        checking = number == 0
        if engine.only_builds:
            if any(name in BUILDS for name in self.only):
                self._guard(engine, "build", lambda at: self._build(at, checking))
            return
        if any(name in LIFE for name in self.only) and self.registry:
            with self.registry.serving():
                self._guard(engine, "pull", lambda at: self._life(at, checking))
        if "ps" in self.only and number == 1:  # making so many takes the others minutes
            self._guard(engine, "ps", self._list)
        for name, (image, _) in LOADS.items():
            if name in self.only:
                self._guard(engine, name, partial(self._load, name=name, image=image, checking=checking))
        if any(name in BUILDS for name in self.only):
            self._guard(engine, "build", lambda at: self._build(at, checking))

    def _guard(self, kind: type[Engine], subject: str, story: Callable[[Engine], None]) -> None:
        """Go through a story on a fresh disk, whatever becomes of it."""
        with fresh_disk(self.work, self.kind) as disk:
            engine = kind(disk, self.registry.address if self.registry else "")
            try:
                engine.start()
                story(engine)
            except CommandFailed as exc:
                self._failed(subject, engine, exc)
            finally:
                engine.stop()

    def _failed(self, subject: str, engine: Engine, exc: CommandFailed) -> None:
        print(f"{engine.name}: {subject}: {exc}", file=sys.stderr)
        self.findings.failures.setdefault(subject, {})[engine.name] = str(exc)

    # ---- stories ----

    def _life(self, engine: Engine, checking: bool) -> None:
        pull = engine.pull(self.images["life"])
        if pull is None:
            return
        self._do("pull", engine, pull, checking, essential=True)
        if checking:
            self._check("pull", engine)
        for name, ask in (("pull-again", engine.pull_again), ("mount", engine.mount), ("run", engine.run)):
            self._do(name, engine, self._ask(name, ask), checking)
        if not checking:
            self._do("burst", engine, self._ask("burst", lambda: engine.burst(self.burst)), checking)
        self._clear(engine)
        if any(name in self.only for name in ("diff", "commit", "save", "push")):
            self._changed(engine, engine.change(), checking)
        self._do("delete", engine, self._ask("delete", engine.delete), checking)

    def _changed(self, engine: Engine, change: Commands | None, checking: bool) -> None:
        if change is None:
            return
        execute(change, self.noise)
        self._do("diff", engine, self._ask("diff", engine.diff), checking)
        commit = engine.commit()
        if commit is not None and any(name in self.only for name in ("commit", "save", "push")):
            self._do("commit", engine, commit, checking, essential=True)
            if checking:
                self._check("commit", engine)
            self._do("save", engine, self._ask("save", engine.save), checking)
            self._do("push", engine, self._ask("push", engine.push), checking)
        self._clear(engine)

    def _clear(self, engine: Engine) -> None:
        for command in engine.remove_container():
            try:
                execute([command])
            except CommandFailed as exc:
                self._failed("clear", engine, exc)

    def _load(self, engine: Engine, name: str, image: str, checking: bool) -> None:
        layout = self.images[image]
        step = engine.load(layout)
        if step is None:
            return
        self._do(name, engine, step, checking, essential=True)
        if checking:
            self._identify(name, engine, layout)

    def _list(self, engine: Engine) -> None:
        load, ps = engine.load(self.images["life"]), engine.ps()
        if load is None or ps is None:
            return
        for commands in (load.before, load.timed, engine.many(self.containers)):
            execute(commands)
        for _ in range(5):
            self._do("ps", engine, ps, checking=False)

    def _build(self, engine: Engine, checking: bool) -> None:
        load = engine.load(self.images["life"])
        # Docker sends the whole context whatever the Dockerfile takes of it: ten RUN steps have one of their own.
        runs, copies = self.context / "runs", self.context / "copies"
        run, copy = engine.build(runs), engine.build(copies)
        if load is None or run is None or copy is None:
            return
        execute(load.before)
        execute(load.timed)
        (runs / "Dockerfile").write_text(_dockerfile(engine.image, _RUNS))
        self._do("build", engine, run, checking, essential=True)
        (copies / "Dockerfile").write_text(_dockerfile(engine.image, _COPY))
        self._do("build-copy", engine, copy, checking, essential=True)
        (copies / "Dockerfile").write_text(_dockerfile(engine.image, [*_RUNS, *_COPY, *_SETTINGS]))
        execute(copy.timed)
        self._do("build-again", engine, copy, checking)

    # ---- steps ----

    def _ask(self, name: str, ask: Callable[[], Step | None]) -> Step | None:
        return ask() if name in self.only else None

    def _do(self, name: str, engine: Engine, step: Step | None, checking: bool, *, essential: bool = False) -> None:
        """Do a step and note what it took. A failure of an essential one ends the story."""
        if step is None:
            return
        used = _used(engine.disk)
        try:
            if checking:
                served = self.registry.pids if self.registry else set()
                self.findings.peaks.setdefault(name, {})[engine.name] = peak_memory(step, served)
            else:
                sample = timed(step, engine.disk)
                self.findings.samples.setdefault(name, {}).setdefault(engine.name, []).append(sample)
        except CommandFailed as exc:
            if essential:
                raise
            self._failed(name, engine, exc)
        execute([["sync", "-f", str(engine.disk)]])
        self.findings.disk.setdefault(name, {})[engine.name] = _used(engine.disk) - used

    def _check(self, name: str, engine: Engine) -> None:
        """The image's identity, and its file tree beside that of the first tool."""
        if name == "pull":
            self._identify(name, engine, self.images["life"])
        with engine.tree(committed=name == "commit") as root:
            if root is None:
                return
            marks = scan(root, times=name != "commit")
        if name == "commit":
            marks = {path: mark for path, mark in marks.items() if path not in MOUNT_POINTS}
        found = differences(self._wanted.setdefault(name, marks), marks)
        self.findings.trees.setdefault(f"tree after {name}", {})[engine.name] = "; ".join(found) or "equal"

    def _identify(self, name: str, engine: Engine, layout: Layout) -> None:
        identity = engine.identity()
        if identity is not None:
            equal = identity == (layout.image_id, layout.diff_ids)
            self.findings.trees.setdefault(f"image after {name}", {})[engine.name] = "equal" if equal else str(identity)

    def alone(self, burst: int) -> None:
        """What layerfs does in one process: the exact tars, the mount of a stack, all of containers."""
        with fresh_disk(self.work, self.kind) as disk:
            engine = Layerfs(disk, "")
            for image, what in (
                ("life", ["tar"]),
                ("life", ["life", str(burst)]),
                ("life", ["burst", str(burst)]),
                ("life", ["teardown", str(min(burst, 10))]),
                ("life", ["crowd", str(burst)]),
                ("deep", ["mount", "10"]),
            ):
                step = engine.load(self.images[image])
                assert step is not None
                execute(step.timed)
                text = execute([engine.inside(what[0], engine.image, *what[1:])])
                self.findings.inside.setdefault(" ".join(what), []).append(text.strip())

    def limits(self) -> None:
        """What pull and loads could take at best here, see ``bench.limit``."""
        with fresh_disk(self.work, self.kind) as disk:
            if "pull" in self.only and self.registry:
                self.findings.limits["pull"] = pull_limit(self.images["life"], disk)
            for name, (image, _) in LOADS.items():
                if name in self.only and image in self.images:
                    self.findings.limits[name] = unpack_limit(self.images[image], disk)


def _used(disk: Path) -> int:
    found = os.statvfs(disk)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


_RUNS = [f"RUN echo {n} > /opt/step{n}" for n in range(10)]
_COPY = ["COPY files /opt/files"]
_SETTINGS = [*(f"ENV NUMBER{n}={n}" for n in range(8)), 'CMD ["true"]']


def _dockerfile(image: str, instructions: Sequence[str]) -> str:
    return "\n".join([f"FROM {image}", *instructions, ""])
