"""Sixteen processes do random work on one store; each knows what must be true of its own things at every moment."""

import contextlib
import io
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

import pytest
import tarbuild as tar
import tracer
from counting import TIME
from registrykit import make_image, serve
from support import unmount_below
from world import BOX, docker_archive

from layerfs import Store
from layerfs.cli import main
from layerfs.containers import create_options

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(bool(tracer.available()), reason=tracer.available() or "-"),
]


class Worker:
    """``names``: the images that must be there, with a file and its content; ``containers`` the same for those."""

    def __init__(self, place: Path, number: int, seed: int, host: str) -> None:
        self.place, self.number, self.host = place, number, host
        self.chance = random.Random(seed * 1000 + number)
        self.names: dict[str, bytes] = {}
        self.containers: set[str] = set()
        self.serial = 0
        self.done: Counter[str] = Counter()

    def command(self, *words: str, codes: tuple[int, ...] = (0,)) -> str:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(list(words))
        if code not in codes or "internal error" in err.getvalue():
            raise AssertionError(f"{words}: {code}: {out.getvalue()[-500:]}{err.getvalue()[-1500:]}")
        self.done[words[0]] += 1
        return out.getvalue()

    def run(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        verbs = [self.bring, self.bring, self.pull, self.load, self.tag, self.remove, self.look, self.look]
        verbs += [self.create, self.remove_container, self.execute, self.commit, self.prune, self.check]
        while time.monotonic() < end:
            self.chance.choice(verbs)()
        for name in list(self.names):
            self.look(name)

    def fresh(self) -> str:
        self.serial += 1
        return f"w{self.number}:{self.serial}"

    def bring(self) -> None:
        """A layer that others bring too, or one of its own."""
        content = b"%d" % self.chance.choice([self.chance.randrange(4), self.chance.randrange(10**9)])
        path = self.place / f"in-{self.number}.tar"
        path.write_bytes(tar.archive(tar.file("file", content * 400)))
        name = self.fresh()
        self.command("import", str(path), name)
        self.names[name] = content * 400

    def pull(self) -> None:
        """The same image as everybody; the name is everybody's, so it may go at once."""
        self.command("pull", "-q", f"{self.host}/shared:{self.chance.randrange(3)}")

    def load(self) -> None:
        path = self.place / f"load-{self.number}.tar"
        path.write_bytes(docker_archive((f"shared:{self.chance.randrange(3)}", self.chance.randrange(3))))
        self.command("load", "-i", str(path), codes=(0, 1))

    def tag(self) -> None:
        if self.names:
            old, new = self.chance.choice(list(self.names)), self.fresh()
            self.command("tag", old, new)
            self.names[new] = self.names[old]

    def remove(self) -> None:
        if self.names and self.chance.random() < 0.7:
            name = self.chance.choice(list(self.names))
            # A container of another process may have been made of the same image.
            out = self.command("rmi", name, codes=(0, 1))
            if f"Untagged: {name}" in out:
                del self.names[name]
        else:
            self.command("rmi", f"{self.host}/shared:{self.chance.randrange(3)}", codes=(0, 1))

    def look(self, name: str | None = None) -> None:
        if self.names:
            name = name or self.chance.choice(list(self.names))
            with Store.open() as store, store.view(name) as view:
                found = b"".join(view.read(b"/file"))
            assert found == self.names[name], f"{name} has another content"

    def create(self) -> None:
        if len(self.containers) < 5:
            name = f"c{self.number}-{self.chance.randrange(10**9)}"
            self.command("create", "--name", name, "box:1", "true")
            self.containers.add(name)

    def remove_container(self) -> None:
        if self.containers:
            name = self.containers.pop()
            self.command("rm", "-f", name)

    def execute(self) -> None:
        with Store.open() as store:
            null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            try:
                options = create_options("box:1", ["sh", "-c", "echo x > /etc/new"], {"rm": True})
                code = store.containers.run(options, (null, null, null))[1]
            finally:
                os.close(null)
            assert code == 0, code
        self.done["run"] += 1

    def commit(self) -> None:
        if self.containers:
            name = self.fresh()
            self.command("commit", self.chance.choice(sorted(self.containers)), name)
            self.command("tag", name, f"{name}-t")
            self.command("rmi", f"{name}-t")
            self.command("rmi", name)

    def prune(self) -> None:
        """Without -a, so that names stay; containers of others that do not run would go, so only images."""
        self.command("image", "prune", "-f")

    def check(self) -> None:
        with Store.open() as store:
            findings = [finding for finding in store.check(quick=True) if finding.kind in ("layer", "database")]
            for finding in findings:  # what was removed meanwhile is no finding a moment later
                again = [each for each in store.check(quick=True) if each.name == finding.name]
                assert not again, again
        self.done["check"] += 1


def _child(place: Path, number: int, seed: int, host: str, seconds: float) -> None:
    report = place / f"report-{number}"
    code = 1
    try:
        signal.alarm(int(seconds) + 90)
        worker = Worker(place, number, seed, host)
        worker.run(seconds)
        text = "\n".join(f"{verb} {count}" for verb, count in worker.done.items())
        report.write_text(text + f"\nnames {' '.join(worker.names)}\ncontainers {' '.join(worker.containers)}\n")
        code = 0
    except BaseException:
        report.write_text(traceback.format_exc())
    finally:
        os._exit(code)


def work_together(place: Path, seconds: float, processes: int, seed: int, counts: Counter[str]) -> None:
    from fake_registry import FakeRegistry

    os.environ["LAYERFS_ROOT"], os.environ["LAYERFS_RUN"] = str(place / "root"), str(place / "run")
    os.environ["REGISTRY_AUTH_FILE"] = str(place / "none.json")
    (place / "box.tar").write_bytes(BOX)
    with Store.open() as store:
        store.import_image(place / "box.tar", "box:1")
        store.containers.create(create_options("box:1", ["true"], {"name": "keeps-the-box"}))
    serving, ready = os.pipe()
    registry = os.fork()
    if registry == 0:
        with FakeRegistry() as server:
            for number in range(3):
                serve(server, "shared", str(number), make_image((60_000, 4_000), seed=number))
            os.write(ready, server.host.encode())
            signal.pause()
    host = os.read(serving, 100).decode()
    pids = {}
    sys.stdout.flush()
    for number in range(processes):
        pid = os.fork()
        if pid == 0:
            _child(place, number, seed, host, seconds)
        pids[pid] = number
    failures = []
    while pids:
        pid, status = os.wait()
        if pid in pids:
            number = pids.pop(pid)
            report = place / f"report-{number}"
            text = report.read_text() if report.exists() else "no report: a deadlock"
            if status:
                failures.append(f"process {number} ({status}): {text}")
                continue
            for line in text.splitlines():
                rest = line.partition(" ")[2]
                if rest.isdigit():
                    counts["operations of concurrent processes"] += int(rest)
    os.kill(registry, signal.SIGKILL)
    os.waitpid(registry, 0)
    assert not failures, "\n".join(failures)[:6000]
    _whole_at_the_end(place)


def _whole_at_the_end(place: Path) -> None:
    with Store.open() as store:
        assert list(store.check()) == []
        names = {name.removeprefix("docker.io/library/") for name, _ in store.database.names()}
        containers = {container.name for container in store.containers.list()}
        for report in place.glob("report-*"):
            lines = dict(line.partition(" ")[::2] for line in report.read_text().splitlines())
            assert set(lines["names"].split()) <= names, "a name was lost"
            assert set(lines["containers"].split()) <= containers, "a container was lost"
        root = place / "root"
        for directory in (root / "containers").iterdir():
            os.utime(directory, (0, 0))
        store.sweep()
        assert not [name for name in os.listdir(root / "ingest") if not name.startswith(("lock-", "blob-"))]
        assert set(store.layers.list()) == {row.diff_id for row in store.database.layers()}
        assert set(os.listdir(root / "containers")) == {row.id for row in store.database.containers()}
        store.snapshots.release_layers()
        assert not [row for row in store.database.mounted_snapshots() if row.mounted == ""], "a mount is left"
    assert unmount_below(place) == 0, "a mount is left"


@pytest.fixture
def place(tmp_path: Path):
    yield tmp_path
    unmount_below(tmp_path)
    subprocess.run(["rm", "-rf", tmp_path], check=True)


@pytest.mark.proof
@pytest.mark.timeout(400)
def test_sixteen_processes(place: Path, counts: Counter[str]) -> None:
    work_together(place, TIME.up_to(120), 16, 1, counts)


def test_a_sample(place: Path, counts: Counter[str]) -> None:
    work_together(place, 6, 6, 2, counts)
