"""What the tests of known vulnerabilities share: a host with something to lose, and the real command over a store."""

import contextlib
import io
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import fstree
import pytest

from layerfs import Store
from layerfs.cli import main

__all__ = ["Host", "Said", "host", "unmount"]


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


class Host:
    """``outside`` must stay as it is, whatever is done in the store beside it."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.outside = place / "outside"
        (self.outside / "etc").mkdir(parents=True)
        (self.outside / "victim").write_bytes(b"precious")
        (self.outside / "victim").chmod(0o600)
        (self.outside / "etc" / "shadow").write_bytes(b"secret")
        self.before = fstree.capture(self.outside)
        self.root, self.run = place / "root", place / "run"

    def store(self, layer_format: str = "auto") -> Store:
        return Store.open(self.root, self.run, layer_format=layer_format)

    def __call__(self, *words: object, data: bytes | None = None) -> Said:
        """The command, in this process, with ``data`` in the file that stands for ``@``."""
        out, err = io.StringIO(), io.StringIO()
        if data is not None:
            (self.place / "data").write_bytes(data)
        line = [str(self.place / "data") if word == "@" else str(word) for word in words]
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(["--root", str(self.root), "--run", str(self.run), *line])
        assert "Traceback" not in err.getvalue()
        assert "internal error" not in err.getvalue()
        return Said(code, out.getvalue(), err.getvalue())

    def unharmed(self) -> None:
        fstree.assert_same(self.before, self.outside, ignore=())


def unmount(place: Path) -> None:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    for mount in reversed([line.split()[4] for line in lines if line.split()[4].startswith(f"{place}/")]):
        subprocess.run(["/bin/umount", "-l", mount], check=True)


def _remove(place: Path) -> None:
    """The store; what a container that was ended leaves to do may still be at it for a moment."""
    end = time.monotonic() + 20
    while True:
        unmount(place)
        if subprocess.run(["/bin/rm", "-rf", place / "root", place / "run"], check=False).returncode == 0:
            return
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "none.json"))
    host = Host(tmp_path)
    yield host
    host.unharmed()
    _remove(tmp_path)
    assert os.path.exists(host.outside)
