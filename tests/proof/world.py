"""A small store with everything in it, the commands that change it, and what must hold whatever became of one.

``World`` keeps a finished store aside and puts a fresh copy in its place for each trial, always at the same path.
``Scenario`` is one command: its words, what it may change, and what it has promised once it said so.
"""

import io
import os
import shutil
import subprocess
import sys
import tarfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import tarbuild as tar
import tracer
from boxes import BUSYBOX
from fake_registry import FakeRegistry
from registrykit import make_image, serve
from support import import_all, unmount_below

from layerfs import Store
from layerfs.cli import main
from layerfs.containers import create_options
from layerfs.layers import LayerStore

__all__ = ["SCENARIOS", "Scenario", "World", "said"]

BOX = tar.archive(
    tar.directory("bin", mode=0o755),
    tar.directory("etc", mode=0o755),
    tar.file("bin/busybox", BUSYBOX.read_bytes() if BUSYBOX.exists() else b"", mode=0o755),
    tar.symlink("bin/sh", "busybox"),
    tar.symlink("bin/true", "busybox"),
    tar.file("etc/passwd", b"root:x:0:0:root:/:/bin/sh\n"),
)
SMALL = tar.archive(tar.directory("etc"), tar.file("etc/motd", b"hello\n"), tar.file("data", os.urandom(9000)))
NEW = tar.archive(tar.file("new", b"n" * 20_000), tar.hardlink("again", "new"), tar.whiteout("gone"))
Trial = Callable[[tracer.Call], tracer.Action]


def docker_archive(*images: tuple[str, int]) -> bytes:
    """An OCI archive of images made by hand, each with two compressed layers: (name, seed)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        blobs: dict[str, bytes] = {}
        manifests = []
        for name, seed in images:
            image = make_image((40_000, 2_000), seed=seed)
            for data in (*image.layers, image.config, image.manifest):
                blobs[_hex(data)] = data
            manifests.append(
                f'{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:{_hex(image.manifest)}",'
                f'"size":{len(image.manifest)},"annotations":{{"org.opencontainers.image.ref.name":"{name}"}}}}'
            )
        files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
        files["index.json"] = ('{"schemaVersion":2,"manifests":[' + ",".join(manifests) + "]}").encode()
        files |= {f"blobs/sha256/{name}": data for name, data in blobs.items()}
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def _hex(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


def said(exc: Exception) -> str:
    """An exception in one line, with the place where it was raised."""
    line = traceback.extract_tb(exc.__traceback__)[-1]
    return f"{line.name}:{line.lineno}: {type(exc).__name__}: {exc}"


def _fixed(template: Path) -> Path:
    return template.with_name(f"{template.name}-fixed")


@dataclass(frozen=True)
class Scenario:
    """``changes``: names of images and containers that may be old or new afterwards; ``promised``: what standard output
    says is done, by name; ``again``: codes of the same command done once more."""

    name: str
    words: tuple[str, ...]
    changes: frozenset[str] = frozenset()
    promised: Callable[[Store, str, Path], None] = lambda store, out, place: None
    prepare: Callable[[Store, Path], None] | None = None
    again: tuple[int, ...] = (0,)
    fresh: bool = False
    damaged: bool = False


def _has_image(store: Store, out: str, place: Path) -> None:
    """import, commit: the ID."""
    if out.endswith("\n"):
        assert store.images.get(out.split()[-1])


def _has_loaded(store: Store, out: str, place: Path) -> None:
    for line in out.split("\n")[:-1]:
        store.images.get(line.removeprefix("Loaded image: "))


def _is_gone(store: Store, out: str, place: Path) -> None:
    known = {name for name, _ in store.database.names()}
    for line in out.split("\n")[:-1]:
        if line.startswith("Untagged: "):
            assert f"docker.io/library/{line.removeprefix('Untagged: ')}" not in known


def _container_gone(store: Store, out: str, place: Path) -> None:
    names = {container.name for container in store.containers.list()}
    assert not names & set(out.split("\n")[:-1])


def _has_container(store: Store, out: str, place: Path) -> None:
    if out.endswith("\n"):
        store.containers.get(out.split()[-1])


def _has_volume(store: Store, out: str, place: Path) -> None:
    if out.endswith("\n"):
        store.containers.volumes.get(out.strip())


def _damage(store: Store, place: Path) -> None:
    """One layer that has its blob, and one blob that has its layer."""
    image = store.images.get("two:1")
    _flip(store.layers.path(image.diff_ids[0]), 5000)
    _flip(store.content.path(image.manifest.layers[1].digest), 700)


def _flip(path: Path, at: int) -> None:
    mode = path.stat().st_mode
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))
    path.chmod(mode)


def _dangling(store: Store, place: Path) -> None:
    """An image without a name, and a layer that nothing needs."""
    store.import_image(place / "new.tar", "old:1")
    store.remove_image("old:1", prune=False)
    image = store.import_image(place / "other.tar", "loose:1")
    store.images.tag("small:1", "loose:1")
    assert store.images.get(image.id).names == ()


def _litter(store: Store, place: Path) -> None:
    (store.root / "ingest" / "layer-0123456789abcdef").mkdir()
    (store.root / "ingest" / "layer-0123456789abcdef" / "layer").write_bytes(b"x" * 5000)


def _scenarios() -> list[Scenario]:
    place = "{place}"
    image, container = frozenset(("new:1",)), frozenset(("made",))
    return [
        Scenario("create-store", ("images",), fresh=True),
        Scenario("import", ("import", f"{place}/new.tar", "new:1"), image, _has_image),
        Scenario("import-again", ("import", f"{place}/small.tar", "small:1"), frozenset(("small:1",)), _has_image),
        Scenario("load", ("load", "-i", f"{place}/load.tar"), frozenset(("l:1", "l:2")), _has_loaded),
        Scenario("pull", ("pull", "-q", "{host}/pulled:1"), frozenset(("{host}/pulled:1",)), prepare=_litter),
        Scenario("tag", ("tag", "small:1", "new:1"), image),
        Scenario("save", ("save", "-o", f"{place}/out/saved.tar", "two:1", "small:1")),
        Scenario("save-dir", ("save", "--format", "oci-dir", "-o", f"{place}/out/dir", "two:1")),
        Scenario("rmi", ("rmi", "two:1", "small:1"), frozenset(("two:1", "small:1")), _is_gone, again=(0, 1)),
        Scenario("prune", ("prune", "-f"), frozenset(("done",)), prepare=_dangling),
        Scenario(
            "prune-all",
            ("prune", "-f", "-a", "--blobs"),
            frozenset(("two:1", "small:1", "loose:1", "box:1", "done")),
            prepare=_dangling,
        ),
        Scenario("create", ("create", "--name", "made", "box:1", "true"), container, _has_container, again=(0, 125)),
        Scenario("run", ("run", "--name", "made", "box:1", "sh", "-c", "echo a > /etc/x"), container, again=(0, 125)),
        Scenario("run-rm", ("run", "--rm", "box:1", "sh", "-c", "echo a > /etc/x"), again=(0,)),
        Scenario("run-detached", ("run", "-d", "--name", "made", "box:1", "true"), container, again=(0, 125)),
        Scenario("start", ("start", "-a", "done"), again=(0,)),
        Scenario("start-detached", ("start", "done"), again=(0,)),
        Scenario("commit", ("commit", "done", "new:1"), image, _has_image),
        Scenario("rm", ("rm", "done"), frozenset(("done",)), _container_gone, again=(0, 1)),
        Scenario("build", ("build", "-q", "-t", "new:1", f"{place}/context"), image, _has_image),
        Scenario("cp", ("cp", f"{place}/new.tar", "done:/copied")),
        Scenario("mount", ("mount", "two:1")),
        Scenario("migrate", ("system", "migrate", "dir")),
        Scenario("volume", ("volume", "create", "vol"), promised=_has_volume, again=(0, 1)),
        Scenario("check", ("system", "check", "--repair"), prepare=_damage, damaged=True, again=(0,)),
    ]


SCENARIOS = {scenario.name: scenario for scenario in _scenarios()}


@dataclass
class World:
    """The store at ``place``; ``format`` of its layers. ``baseline`` is what was acknowledged before the command."""

    base: Path
    format: str = "erofs"
    names: dict[str, str] = field(default_factory=dict)
    containers: set[str] = field(default_factory=set)
    tree: dict[str, dict[str, object]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.place = self.base / "place"
        self.template = self.base / "template"
        self.scratch = self.base / "scratch"
        self.scratch.mkdir(parents=True)
        self.place.mkdir()
        self.host = ""
        os.environ["LAYERFS_ROOT"] = str(self.place / "root")
        os.environ["LAYERFS_RUN"] = str(self.place / "run")
        os.environ["REGISTRY_AUTH_FILE"] = str(self.base / "none.json")
        sys.dont_write_bytecode = True
        import_all()
        self._registry()
        self._fill()

    def open(self) -> Store:
        return Store.open(self.place / "root", self.place / "run")

    def _registry(self) -> None:
        """In a process that is no child of ours, because the tracer waits for all children; it ends with us."""
        answer, ours, theirs = os.pipe(), *os.pipe()
        middle = os.fork()
        if middle == 0:
            if os.fork():
                os._exit(0)
            os.close(theirs)
            with FakeRegistry() as registry:
                serve(registry, "pulled", "1", make_image((60_000, 4_000), seed=7))
                os.write(answer[1], registry.host.encode())
                while os.read(ours, 1):
                    pass
            os._exit(0)
        os.waitpid(middle, 0)
        os.close(ours)
        self._alive = theirs
        self.host = os.read(answer[0], 100).decode()
        os.close(answer[0])
        os.close(answer[1])

    def close(self) -> None:
        os.close(self._alive)
        unmount_below(self.base)
        shutil.rmtree(self.base, ignore_errors=True)

    def _fill(self) -> None:
        files = {"box.tar": BOX, "small.tar": SMALL, "new.tar": NEW, "two.tar": docker_archive(("two:1", 3))}
        files |= {"load.tar": docker_archive(("l:1", 5), ("l:2", 6))}
        files |= {"other.tar": tar.archive(tar.file("other", b"o" * 3000))}
        for name, data in files.items():
            (self.place / name).write_bytes(data)
        (self.place / "out").mkdir()
        (self.place / "context").mkdir()
        (self.place / "context" / "Dockerfile").write_text("FROM box:1\nCOPY file /file\nRUN echo made > /made\n")
        (self.place / "context" / "file").write_bytes(b"f" * 5000)
        with self.open() as store:
            assert store.layer_format == self.format
            store.import_image(self.place / "box.tar", "box:1")
            store.import_image(self.place / "small.tar", "small:1")
            store.load(self.place / "two.tar")
            null = os.open(os.devnull, os.O_RDWR)
            options = create_options(
                "box:1", ["sh", "-c", "echo changed > /etc/passwd; rm -f /bin/true"], {"name": "done"}
            )
            code = store.containers.run(options, (null, null, null))[1]
            os.close(null)
            assert code == 0
        self.keep()

    def keep(self) -> None:
        """What is in place now is where every trial begins."""
        self._put_aside(self.template)
        self.remember()

    def remember(self) -> None:
        """What is there now is what a command must not lose."""
        with self.open() as store:
            self.names = {name: str(target) for name, target in store.database.names()}
            self.containers = {container.name for container in store.containers.list()}

    def prepare(self, scenario: Scenario) -> Path:
        """The template of a scenario, in place too."""
        template = self.base / f"template-{scenario.name}"
        self.reset(self.template, link=False)  # what is prepared may be written into
        if scenario.fresh:
            shutil.rmtree(self.place / "root")
            shutil.rmtree(self.place / "run")
            self.names, self.containers = {}, set()
        else:
            if scenario.prepare is not None:
                with self.open() as store:
                    scenario.prepare(store, self.place)
            self.remember()
        self._put_aside(template)
        return template

    def reset(self, template: Path, *, link: bool = True) -> None:
        """A fresh copy. What is never written again is a ``link``: the disk then has no bytes of it to write."""
        unmount_below(self.place)
        script = 'rm -rf "$4" && cp -a "$1" "$4" && cp "$3" "$2/." "$4"'
        words = [template, _fixed(template), "-al" if link else "-a", self.place]
        subprocess.run(["sh", "-c", script, "sh", *words], check=True)

    def _put_aside(self, template: Path) -> None:
        """What is in place now into ``template``; layers, blobs and archives, which nobody writes again, beside it."""
        unmount_below(self.place)
        fixed = _fixed(template)
        subprocess.run(["rm", "-rf", template, fixed], check=True)
        subprocess.run(["cp", "-a", self.place, template], check=True)
        (fixed / "root").mkdir(parents=True)
        found = [*template.glob("root/layers"), *template.glob("root/blobs"), *template.glob("*.tar")]
        for path in found:
            path.rename(fixed / path.relative_to(template))
        for path in (".", "root"):
            (fixed / path).chmod((self.place / path).stat().st_mode if (self.place / path).exists() else 0o700)

    def words(self, scenario: Scenario) -> list[str]:
        return [word.format(place=self.place, host=self.host) for word in scenario.words]

    def command(self, scenario: Scenario, handler: Trial = lambda call: None, *, only_first: bool = False):
        words = self.words(scenario)
        return tracer.run(lambda: main(words), handler, self.place, scratch=self.scratch, only_first=only_first)

    def again(self, scenario: Scenario) -> tracer.Result:
        """The same command, left alone."""
        words = self.words(scenario)
        return tracer.plain(lambda: main(words), scratch=self.scratch)

    # ---- what must hold ----

    def check(self, scenario: Scenario, result: tracer.Result) -> None:
        """The store opens, is whole, has all that was acknowledged; the next command leaves no litter."""
        with self.open() as store:
            findings = [] if scenario.damaged else [f"{f.kind} {f.name}: {f.reason}" for f in store.check()]
            assert not findings, findings
            self._check_acknowledged(scenario, store)
            scenario.promised(store, result.out, self.place)
        self.tidy(scenario.damaged)

    def _check_acknowledged(self, scenario: Scenario, store: Store) -> None:
        changes = {word.format(host=self.host) for word in scenario.changes}
        known = {name: str(target) for name, target in store.database.names()}
        short = {name: name.removeprefix("docker.io/library/") for name in known | self.names}
        for name in known | self.names:
            if short[name] not in changes:
                assert known.get(name) == self.names.get(name), f"{name}: {known.get(name)}, not {self.names.get(name)}"
        for image in [] if scenario.damaged else store.images.list():
            assert all(store.layers.has(diff_id) for diff_id in image.diff_ids), image.names
        found = store.containers.list()
        assert {each.name for each in found} >= self.containers - changes
        assert all(each.config.layers for each in found)
        if not scenario.changes and scenario.name != "run-rm":
            assert {each.name for each in found} == self.containers

    def no_partial_archive(self) -> None:
        """The same save, done again, leaves nothing but what it saved."""
        litter = [path.name for path in (self.place / "out").rglob(".*") if path.name != ".layerfs-lock"]
        assert not litter, f"litter beside a saved archive: {litter}"

    def tidy(self, damaged: bool = False) -> None:
        """What the next command that cleans leaves: nothing that has no owner."""
        with self.open() as store:
            root = self.place / "root"
            for place in (root / "containers").iterdir():  # a minute later: before, it may be one that is being made
                os.utime(place, (0, 0))
            store.sweep()
            ingest = [name for name in os.listdir(root / "ingest") if not name.startswith(("lock-", "blob-"))]
            assert not ingest, f"litter in ingest: {ingest}"
            snapshots = {row.key for row in store.database.snapshots() if row.kind != "view"}
            assert set(os.listdir(root / "snapshots")) == snapshots
            assert set(os.listdir(root / "containers")) == {row.id for row in store.database.containers()}
            recorded = {row.diff_id for row in store.database.layers() if row.bad is None}
            assert damaged or set(store.layers.list()) == recorded
            assert not store.database.leases()
            assert isinstance(store.layers, LayerStore)
