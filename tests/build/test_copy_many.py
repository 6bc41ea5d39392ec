"""COPY of many files and of many sources: memory does not grow with the files, and sources are merged."""

import os
import random
import subprocess
import sys

import pytest

from layerfs.build.pieces import Piece, Pieces, Source
from layerfs.errors import InvalidInputError

pytestmark = pytest.mark.root

NAMES = ["a", "a.b", "a-", "b", "é", "z"]


PEAK = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
"""The most memory that a command took, in KiB; in a process of its own, whose own most would count too."""


def peak(context, kit):
    """The most memory, in KiB, that a build takes."""
    store = ["--root", kit.place / "root", "--run", kit.place / "run"]
    command = [sys.executable, "-m", "layerfs", *store, "build", "-q", "--no-cache", "-t", "many", context]
    done = subprocess.run([sys.executable, "-c", PEAK, *map(str, command)], check=True, stdout=subprocess.PIPE)
    return int(done.stdout)


def test_memory_does_not_grow_with_the_files(kit):
    """What is left of a file when it is in the layer is its inode there: some 200 bytes."""
    peaks = []
    for count in (8_000, 24_000):
        context = kit.place / str(count)
        for number in range(count):
            if number % 250 == 0:
                directory = context / f"d/{number:06}"
                directory.mkdir(parents=True)
            (directory / f"a-file-of-a-package-{number}.js").write_bytes(b"%d\n" % number)
        old = context.stat().st_mtime - 100
        os.utime(context / "d", (old, old))
        (context / "Dockerfile").write_text("FROM scratch\nCOPY d /d\n")
        peaks.append(peak(context, kit))
    assert (peaks[1] - peaks[0]) * 1024 < 16_000 * 700


def test_what_nobody_reads_need_not_be_written(tmp_path):
    """As where all is in the cache, and the disk is full."""
    full = os.open("/dev/full", os.O_RDWR)
    with Pieces(tmp_path) as pieces:
        pieces.begin(Source((b"a",), text=b""))
        pieces.add(Piece((), None, b"digest"))
        os.dup2(full, pieces._file.fileno())
    os.close(full)


@pytest.mark.parametrize("seed", range(12))
def test_sources_are_merged_as_one_after_the_other_is_copied(kit, seed):
    chosen = random.Random(seed)
    wanted = {}
    kit.write({"s": None, "t": None, "u": None})
    for source in "stu":
        for _ in range(chosen.randint(1, 9)):
            path = "/".join(chosen.choice(NAMES) for _ in range(chosen.randint(1, 3)))
            above = [path[:at] for at, char in enumerate(path) if char == "/"]
            below = [known for known in wanted if known.startswith(f"{path}/")]
            if not below and not any(each in wanted for each in above):
                wanted[path] = f"{source} {path}"
                kit.write({f"{source}/{path}": wanted[path]})
    whole = kit.build("FROM scratch\nCOPY s t u /d/").image
    for path, text in wanted.items():
        assert kit.read(f"/d/{path}") == text
    assert sum(not entry.is_dir for entry in kit.entries().values()) == len(wanted)
    kit.build("FROM scratch\nCOPY s /d/\nCOPY t /d/\nCOPY u /d/", tags=("steps",))
    assert kit.entries("steps").keys() == kit.entries().keys()
    kit.build("FROM scratch\nCOPY s t u /d/", no_cache=True)
    assert kit.result.image.diff_ids == whole.diff_ids


@pytest.mark.parametrize(
    ("files", "what"),
    [
        ({"s/x/f": "1", "t/x": "2"}, "/d/x: copied as a file and as a directory"),
        ({"s/x": "1", "t/x/f": "2"}, "/d/x: copied as a file and as a directory"),
    ],
)
def test_a_file_and_a_directory_in_one_place(kit, files, what):
    with pytest.raises(InvalidInputError, match=what):
        kit.build("FROM scratch\nCOPY s t /d/", files)


def test_a_text_in_the_place_of_a_directory(kit):
    with pytest.raises(InvalidInputError, match="/d/a: copied as a file and as a directory"):
        kit.build("FROM scratch\nCOPY --parents a/b <<a /d/\nhi\na\n", {"a/b": "1"})


def test_hard_links_of_several_files(kit):
    kit.write({"s/a": "1", "s/c": "2"})
    for name, other in (("a", "b"), ("c", "d")):
        os.link(kit.context / f"s/{name}", kit.context / f"s/{other}")
    kit.build("FROM scratch\nCOPY s /s\n")
    assert [kit.read(f"/s/{name}") for name in "abcd"] == ["1", "1", "2", "2"]
    assert {entry.nlink for path, entry in kit.entries().items() if not entry.is_dir} == {2}


def test_attributes_of_a_large_file(kit):
    """Its content is not kept between the two looks at it."""
    kit.write({"a": bytes(3 << 20)})
    os.setxattr(kit.context / "a", "user.x", b"y")
    kit.build("FROM scratch\nCOPY a /a\n")
    assert kit.xattrs("/a")[b"user.x"] == b"y"
