"""A store with a small image, and a short way to build in it."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))

from boxes import BUSYBOX, add_box

from layerfs import Store
from layerfs.build import BuildOptions


class Recorder:
    """Remembers what it is told."""

    def __init__(self):
        self.titles = {}
        self.lines = []
        self.ran = []
        self.cached = []
        self.failures = []
        self.notes = []

    def begin(self, step, title):
        self.titles[step] = title

    def output(self, step, line):
        self.lines.append(line)

    def end(self, step, seconds, *, cached):
        (self.cached if cached else self.ran).append(self.titles[step].partition("] ")[2])

    def failed(self, step, reason, tail):
        self.failures.append((self.titles[step], reason, tail))

    def note(self, text):
        self.notes.append(text)


class Kit:
    """Builds Dockerfiles given as text over files given as a dict."""

    def __init__(self, store, place):
        self.store = store
        self.place = place
        self.context = place / "context"
        self.context.mkdir()
        self.progress = Recorder()

    def write(self, files):
        for name, content in files.items():
            path = self.context / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if content is None:
                path.mkdir()
            elif isinstance(content, str) and content.startswith("->"):
                path.symlink_to(content[2:])
            else:
                path.write_bytes(content if isinstance(content, bytes) else content.encode())

    def build(self, text, files=None, **options):
        self.write(files or {})
        (self.place / "Dockerfile").write_text(text)
        self.progress = Recorder()
        options.setdefault("context", str(self.context))
        options.setdefault("file", str(self.place / "Dockerfile"))
        options.setdefault("tags", ("made",))
        self.result = self.store.build(BuildOptions(progress=self.progress, **options))
        return self.result

    def config(self, text="made"):
        return json.loads(self.store.images.get(text).config_bytes)

    def section(self, text="made"):
        return self.config(text)["config"]

    def entries(self, text="made", below="/"):
        with self.store.view(text) as view:
            return {entry.path.decode(): entry for entry in view.walk(below.encode())}

    def stat(self, path, text="made"):
        with self.store.view(text) as view:
            return view.stat(path.encode())

    def xattrs(self, path, text="made"):
        with self.store.view(text) as view:
            return view.stat(path.encode()).xattrs

    def read(self, path, text="made"):
        with self.store.view(text) as view:
            return b"".join(view.read(path.encode())).decode()

    def paths(self, below, text="made"):
        return sorted(path[len(below) :].lstrip("/") for path in self.entries(text, below) if path != below)

    def layer_paths(self, number=-1, text="made"):
        """What the n-th layer has in it."""
        with self.store.layers.view([self.store.images.get(text).diff_ids[number]]) as view:
            return sorted(entry.path.decode() for entry in view.walk())

    def steps(self):
        return self.result.ran, self.result.cached


@pytest.fixture
def kit(tmp_path):
    if not BUSYBOX.exists():
        pytest.skip("needs the Debian package busybox-static")
    with Store.open(tmp_path / "root", tmp_path / "run") as store:
        add_box(store, tmp_path)
        yield Kit(store, tmp_path)
        assert not [row.key for row in store.snapshots.list() if row.key.startswith("build-")]
        build = tmp_path / "run" / "build"
        assert not build.exists() or not list(build.iterdir())
        store.snapshots.release_layers()
        litter = [path.name for path in (tmp_path / "root" / "ingest").iterdir() if not path.name.startswith("lock-")]
        assert not litter
    mounts = Path("/proc/self/mountinfo").read_text()
    assert str(tmp_path) not in mounts
