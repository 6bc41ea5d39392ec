"""A build that is interrupted at any moment leaves no mount, no process, no half image, and hinders no other."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli.conftest import box, layerfs, tar_of  # noqa: F401

pytestmark = [pytest.mark.root, pytest.mark.slow]

LONG = str(30_000_000 + os.getpid())
"""By which a process of this test is known from those of others that run at the same time."""

DOCKERFILE = f"""\
FROM box AS one
COPY many /many
RUN head -c 8000000 /dev/zero > /zeros; sleep 0.15; echo {LONG} > /number
ADD more.tar /more/
FROM box AS two
RUN --mount=type=cache,target=/c --mount=target=/m,source=many sleep 0.15; ls /m > /c/names
FROM one
COPY --from=two /etc /two
WORKDIR /w
RUN cat /number > n; sleep 0.1
LABEL a=b
"""
MOMENTS = 7


@pytest.fixture
def context(layerfs, box, tmp_path):  # noqa: F811
    place = tmp_path / "context"
    (place / "many").mkdir(parents=True)
    for number in range(2000):
        (place / f"many/{number}").write_text(f"{number}\n" * 100)
    (place / "more.tar").write_bytes(tar_of({str(number): b"x" * 1000 for number in range(500)}))
    (place / "Dockerfile").write_text(DOCKERFILE)
    return place


def mounts(place):
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f"{place}/" in line]


def processes(place):
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(place).encode() in path.read_bytes() or LONG.encode() in path.read_bytes():
                found.append(path)
        except OSError:
            continue
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["interrupted", "killed"])
def test_at_any_moment(layerfs, context, tmp_path, number):  # noqa: F811
    words = ["build", "-q", "-t", "whole", "-o", "type=image", "-o", f"type=oci,dest={tmp_path}/out.tar"]
    begin = time.monotonic()
    layerfs(*words, context)
    whole = time.monotonic() - begin
    layerfs("rmi", "-f", "whole")
    layerfs("unmount", "--all")
    (tmp_path / "out.tar").unlink()
    images = set(layerfs.lines("images", "-aq"))
    for moment in range(MOMENTS):
        command = [sys.executable, "-m", "layerfs", *words, "--no-cache", context]
        process = subprocess.Popen(
            command, env=layerfs.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(0.1 + whole * moment / MOMENTS)
        process.send_signal(number)
        code = process.wait(30)
        deadline = time.monotonic() + 10
        while processes(context) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert processes(context) == []
        if number == signal.SIGINT and code:
            # What is removed in order is all removed by the command itself.
            assert [line for line in mounts(tmp_path) if "/layers/" not in line.split()[4]] == []
            assert left(layerfs) == []
        # What is there is whole: the image with its name, while the archive of it was still written, or both.
        if set(layerfs.lines("images", "-aq")) != images:
            assert layerfs("run", "--rm", "whole", "cat", "n", "/number").split() == [LONG] * 2
            layerfs("rmi", "-f", "whole")
        if (tmp_path / "out.tar").exists():
            layerfs("load", "-i", tmp_path / "out.tar")
            layerfs("rmi", "-f", "whole")
            (tmp_path / "out.tar").unlink()
        assert set(layerfs.lines("images", "-aq")) == images
    layerfs("prune", "-f")
    assert left(layerfs) == []
    layerfs(*words, context)
    assert layerfs("run", "--rm", "whole", "cat", "n", "/number").split() == [LONG] * 2
    assert len(layerfs.lines("run", "--rm", "whole", "ls", "/many")) == 2000
    assert layerfs("system", "check")


def left(layerfs):  # noqa: F811
    """Snapshots, directories of builds, and files on their way in."""
    root, run = layerfs.place / "root", layerfs.place / "run"
    places = [root / "snapshots", run / "build", root / "ingest"]
    return [path for place in places if place.exists() for path in place.iterdir() if not path.name.startswith("lock-")]
