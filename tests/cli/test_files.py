"""``ls`` and ``cat``: files of an image without a mount, and of a container."""

import os
import time
from pathlib import Path

import pytest

from .conftest import tar_of


@pytest.fixture
def names(layerfs):
    layerfs(
        "import", "-", "names", data=tar_of({"d": None, "d/a b": b"1", "d/\udcff": b"2", "up": "../d/a b", "abs": "/d"})
    )
    return "names"


def test_ls(layerfs, names):
    assert layerfs.lines("ls", names) == ["abs", "d", "up"]
    assert layerfs.lines("ls", names, "d") == ["a b", "\udcff"]
    assert layerfs.lines("ls", names, "/abs/") == ["a b", "\udcff"]
    assert layerfs.lines("ls", names, "up") == ["a b"]
    assert layerfs.lines("ls", "-d", names, "up", "d") == ["up:", "/up", "d:", "/d"]
    assert layerfs.lines("ls", "-R", names, "d") == ["/d", "/d/a b", "/d/\udcff"]


def test_ls_long(layerfs, names):
    lines = layerfs.lines("ls", "-l", names)
    assert lines[1].split() == ["drwxr-xr-x", "2", "0", "0", "0", "2023-11-14", "22:13:20", "d"]
    assert lines[2].endswith(" up -> ../d/a b")
    assert layerfs.lines("ls", "-lh", names, "d/a b")[0].split()[4] == "1B"


def test_cat(layerfs, names):
    assert layerfs("cat", names, "d/a b", "/up") == "11"
    assert layerfs.process("cat", names, b"d/\xff".decode("utf-8", "surrogateescape")).stdout == b"2"


def test_a_layer_is_read_by_its_diff_id(layerfs, names):
    layer = layerfs("inspect", "-f", "{{index .RootFS.Layers 0}}", names).strip()
    assert layerfs("cat", layer, "up") == "1"
    assert layerfs.lines("ls", layer) == ["abs", "d", "up"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["ls", "nope"], 1, "nope: no such container, image or layer"),
        (["ls", "sha256:" + "0" * 64], 1, "no such container, image or layer"),
        (["ls", "names", "nope"], 1, "open nope: not there"),
        (["cat", "names", "d"], 2, "read /d: it is a directory"),
        (["cat", "names", "d/nope"], 1, "not there"),
        (["cat", "names"], 2, "an argument is missing"),
        (["ls", "names", "up/x"], 2, "not a directory"),
    ],
)
def test_what_is_not_there(layerfs, names, words, code, message):
    assert message in layerfs.error(*words, code=code)


@pytest.mark.root
@pytest.mark.parametrize("state", ["created", "running", "exited"])
def test_a_container_has_what_it_made(layerfs, box, tmp_path, state):
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume/v").write_bytes(b"of a volume")
    script = "mkdir /new; echo made > /new/f; ln -s ../new/f /new/link; rm /old; chown 5:6 /new/f; mkfifo /new/p"
    words = ("--name", "work", "-v", f"{tmp_path}/volume:/vol", "box", "sh", "-c")
    if state == "created":
        layerfs("create", *words, "true")
        (tmp_path / "new").mkdir()
        (tmp_path / "new/f").write_bytes(b"made\n")
        os.chown(tmp_path / "new/f", 5, 6)
        (tmp_path / "new/link").symlink_to("../new/f")
        os.mkfifo(tmp_path / "new/p")
        layerfs("cp", "-a", tmp_path / "new", "work:/new")
    elif state == "running":
        layerfs("run", "-d", *words, f"{script}; touch /ready; exec sleep 100")
        while "/ready\n" not in layerfs("ls", "-d", "work", "/ready", code=None):
            time.sleep(0.05)
        assert "/proc/1/comm" in layerfs.lines("ls", "-d", "work", "proc/1/comm")  # of what it sees itself
        assert layerfs("cat", "work", "/proc/1/comm") == "sleep\n"
    else:
        layerfs("run", *words, script)
    mounts = lambda: [row for row in Path("/proc/self/mountinfo").read_text().splitlines() if str(tmp_path) in row]  # noqa: E731
    before = mounts()
    assert layerfs.lines("ls", "work", "/new") == ["f", "link", "p"]
    assert layerfs.lines("ls", "-R", "work", "new") == ["/new", "/new/f", "/new/link", "/new/p"]
    assert layerfs.lines("ls", "-l", "work", "new/f")[0].split()[:5] == ["-rw-r--r--", "1", "5", "6", "5"]
    assert layerfs.lines("ls", "-ld", "work", "/new/link")[0].endswith(" /new/link -> ../new/f")
    assert layerfs("cat", "work", "/new/link", "new/../../../new/f") == "made\nmade\n"
    assert layerfs.lines("ls", "work", "/vol") == ["v"]
    assert layerfs.lines("ls", "-d", "work", "/vol/v") == ["/vol/v"]
    assert layerfs("cat", "work", "/vol/v") == "of a volume"
    assert set(layerfs.lines("ls", "work")) >= {"bin", "etc", "new"}
    assert ("old" in layerfs.lines("ls", "work")) == (state == "created")
    assert "it is no regular file" in layerfs.error("cat", "work", "/new/p", code=2)
    assert "no such file in the container" in layerfs.error("cat", "work", "/nope/x", code=1)
    assert "is not a directory" in layerfs.error("ls", "work", "/new/f/x", code=2)
    assert state != "running" or mounts() == before


@pytest.mark.root
def test_a_container_comes_before_an_image_of_its_name(layerfs, box):
    layerfs("run", "--name", "box", "box", "sh", "-c", "echo > /of-the-container")
    assert "of-the-container" in layerfs.lines("ls", "box")
    assert "of-the-container" not in layerfs.lines("ls", "box:latest")
