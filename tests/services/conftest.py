"""A Debian with real servers in it, made once and kept in pytest's cache; an image of it in a store for the session."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from cli.conftest import Layerfs
from debian import debian_tar

CGROUPS = Path("/sys/fs/cgroup")


@pytest.fixture(scope="session")
def servers(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Layerfs]:
    """The command, over a store that has the image ``servers``."""
    archive = debian_tar(pytestconfig, "nginx-light", "postgresql")
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
