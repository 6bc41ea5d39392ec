"""A disk that is full: what is there can be seen and removed, and nothing is lost."""

import os
import shutil
import subprocess
from contextlib import suppress

import pytest

from .conftest import tar_of

pytestmark = [pytest.mark.root, pytest.mark.skipif(shutil.which("mkfs.ext4") is None, reason="needs mkfs.ext4")]


@pytest.fixture
def disk(layerfs, tmp_path):
    """The store on a file system of its own of 100 MiB."""
    image, place = tmp_path / "disk.img", tmp_path / "disk"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(100 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, place], check=True)
    layerfs.environment["LAYERFS_ROOT"] = str(place / "root")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def fill(path):
    with open(path, "wb") as file, suppress(OSError):
        for size in (1 << 20, 4096, 512):
            with suppress(OSError):
                while True:
                    os.write(file.fileno(), bytes(size))


def test_a_full_disk_can_be_emptied_by_the_command(layerfs, disk):
    layerfs("import", "-", "one", data=tar_of({"file": b"1" * 5_000_000}))
    layerfs("import", "-", "two", data=tar_of({"file": b"2" * 5_000_000}))
    fill(disk / "filler")
    assert os.statvfs(disk).f_bavail == 0
    assert layerfs("images", "--format", "{{.Repository}}", "--filter", "reference=one") == "one\n"
    assert "Untagged: two" in layerfs("rmi", "two")
    (disk / "filler").unlink()
    assert layerfs("images", "--format", "{{.Repository}}") == "one\n"
    assert layerfs("system", "check") == "The store is whole.\n"


def test_the_reserve_is_made_anew(layerfs, disk):
    layerfs("images")
    reserve = disk / "root" / "reserve"
    assert reserve.stat().st_blocks * 512 >= 1 << 20
    fill(disk / "filler")
    layerfs("images")
    assert not reserve.exists()
    (disk / "filler").unlink()
    layerfs("images")
    assert reserve.stat().st_size == 1 << 20
