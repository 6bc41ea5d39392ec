"""Names, link targets and attributes are held in memory: the limit on their bytes is what bounds it."""

import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

CHILD = """
import os, resource, sys
import tarbuild
from layerfs.errors import LayerfsError
from layerfs.native import Unpacker

with open("/proc/self/statm") as file:
    pages = int(file.read().split()[0])
room = pages * resource.getpagesize() + (100 << 20)
resource.setrlimit(resource.RLIMIT_AS, (room, room))
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT | os.O_EXCL)
links = b"".join(tarbuild.symlink(f"l{n:03}", "x" * 4000) for n in range(100))
with Unpacker(fd, max_metadata=int(sys.argv[2])) as unpacker:
    try:
        for n in range(600):
            unpacker.write(links)  # what is replaced stays in memory too
            unpacker.rest()
    except LayerfsError as exc:
        print(n, type(exc).__name__, exc)
"""


@pytest.mark.parametrize(
    ("limit", "told"),
    [(16 << 20, "InvalidInputError unpack"), (0, "NativeError unpack: Cannot allocate memory")],
)
def test_links_of_240_megabytes_with_100_to_spare(tmp_path: Path, limit: int, told: str) -> None:
    """Without the limit they end the process's memory; with it, the archive is refused, and says why."""
    command = [sys.executable, "-c", CHILD, str(tmp_path / "layer"), str(limit)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=60, env={"PYTHONPATH": f"{TESTS}"}
    )
    assert told in done.stdout, done
    number = int(done.stdout.split()[0])
    assert number == 41 if limit else number > 41
    assert ("more than 16777216 bytes of names, link targets and attributes" in done.stdout) == bool(limit)
