"""What the tests share: a store in a temporary place, what this machine can do, and the check that nothing stays."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from boxes import RUNTIMES, missing
from launchkit import busybox_root, descriptors

from layerfs import native
from layerfs.errors import NativeError

ROOT = os.geteuid() == 0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "root" in item.keywords and not ROOT:
            item.add_marker(pytest.mark.skip(reason="needs root"))


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> str:
    """Each runtime that this machine can run containers with."""
    if reason := missing(request.param):
        pytest.skip(reason)
    return str(request.param)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A root to launch in."""
    return busybox_root(tmp_path / "root")


@pytest.fixture
def no_descriptor_leaks() -> Iterator[None]:
    """What a test opens is closed. A first launch opens what stays open."""
    with pytest.raises(NativeError, match="no command"):
        native.launch(native.LaunchSpec(args=[]))
    before = descriptors()
    yield
    assert descriptors() == before


def _mounts() -> set[str]:
    return {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}


def _loops() -> set[str]:
    found = set()
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        found.add(f"{path.parent.parent.name} {path.read_text().strip()}")
    return found


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No mount and no loop device of the tests outlives them. Other programs' are theirs, and so are those of
    another run of the tests: only what lies in this run's own directory counts."""
    ours = f"{tmp_path_factory.getbasetemp()}/"
    yield
    mounts = sorted(mount for mount in _mounts() if mount.startswith(ours))
    loops = sorted(loop for loop in _loops() if loop.split(" ", 1)[1].startswith(ours))
    for mount in reversed(mounts):
        subprocess.run(["umount", "-l", mount], check=False)
    assert not mounts + loops, f"left behind by the tests: {mounts + loops}"


@pytest.fixture(autouse=True)
def the_process_as_it_was() -> Iterator[None]:
    """Tests share a process: variables and the working directory that one sets are none of the next one's."""
    variables, directory = dict(os.environ), os.getcwd()
    yield
    if os.environ != variables:
        os.environ.clear()
        os.environ.update(variables)
    os.chdir(directory)
