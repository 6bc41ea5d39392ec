"""A Debian with real servers in it, made once and kept in pytest's cache; an image of it in a store for the session."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli.conftest import Layerfs

PACKAGES = ("nginx-light", "postgresql")
SUITE = "bookworm"
CGROUPS = Path("/sys/fs/cgroup")


def _root_fs(cache: Path) -> Path:
    """The tar of the root file system; skips where it cannot be made."""
    done = cache / f"{SUITE}-{'-'.join(PACKAGES)}.tar"
    if done.exists():
        return done
    if shutil.which("mmdebstrap") is None:
        pytest.skip("needs the Debian package mmdebstrap")
    part = done.with_name(f".{os.getpid()}-{done.name}")
    words = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, part]
    try:
        made = subprocess.run(words, capture_output=True, text=True, timeout=500, check=False)
        if made.returncode != 0:
            pytest.skip(f"the Debian archive cannot be reached: {made.stderr[-300:]}")
        part.rename(done)
    finally:
        part.unlink(missing_ok=True)
    return done


@pytest.fixture(scope="session")
def servers(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Layerfs]:
    """The command, over a store that has the image ``servers``."""
    archive = _root_fs(Path(pytestconfig.cache.mkdir("services")))
    layerfs = Layerfs(tmp_path_factory.mktemp("services"))
    layerfs("import", archive, "servers")
    yield layerfs
    layerfs("unmount", "--all")


@pytest.fixture
def layerfs(servers: Layerfs) -> Iterator[Layerfs]:
    """The same; what a test leaves is removed, and nothing of it may stay on the host."""
    yield servers
    ids = servers("ps", "-aq", "--no-trunc").split()
    if ids:
        servers("rm", "-f", "-v", *ids)
    for volume in servers("volume", "ls", "-q").split():
        servers("volume", "rm", volume)
    root, run = servers.place / "root", servers.place / "run"
    for place in (root / "containers", root / "snapshots", run / "containers", run / "sockets"):
        assert not place.exists() or list(place.iterdir()) == [], place
    groups = [path for id in ids for where in ("layerfs", "*/layerfs") for path in CGROUPS.glob(f"{where}/{id}")]
    assert groups == []
