"""``ls`` and ``cat``: files of an image without a mount."""

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
        (["ls", "nope"], 1, "image nope: not in the store"),
        (["ls", "sha256:" + "0" * 64], 1, "not in the store"),
        (["ls", "names", "nope"], 1, "open nope: not there"),
        (["cat", "names", "d"], 2, "read /d: it is a directory"),
        (["cat", "names", "d/nope"], 1, "not there"),
        (["cat", "names"], 2, "an argument is missing"),
        (["ls", "names", "up/x"], 2, "not a directory"),
    ],
)
def test_what_is_not_there(layerfs, names, words, code, message):
    assert message in layerfs.error(*words, code=code)
