"""``system check`` names the files of a damaged layer that are hit, where there is a good copy to tell it by."""

import gzip
import os
import struct
from pathlib import Path

import pytest
import tarbuild as tar

from layerfs import Store
from layerfs.cli import main
from layerfs.digest import Digest

pytestmark = pytest.mark.root
FILES = {f"d/f{number}": os.urandom(6000) for number in range(8)}
PLAIN = tar.archive(
    tar.directory("d"), *(tar.file(name, data) for name, data in FILES.items()), tar.hardlink("h", "d/f1")
)


def spoil(path: Path, at: int) -> None:
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(at, os.SEEK_END if at < 0 else os.SEEK_SET)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 4]))


def make(store: Store, place: Path, *, blob: bool) -> Digest:
    """An image of one layer, with the compressed blob as a pull leaves it."""
    (place / "in.tar").write_bytes(PLAIN)
    store.import_image(place / "in.tar", "a:1")
    diff_id = store.images.get("a:1").diff_ids[0]
    if blob:
        data = gzip.compress(PLAIN)
        store.database.add_layer_blob(
            store.content.write(data), diff_id, len(data), "application/vnd.oci.image.layer.v1.tar+gzip"
        )
    return diff_id


def content(path: Path, names: list[str]) -> None:
    for name in names:
        if path.is_dir():
            spoil(path / "fs" / name, 3000)
        else:
            spoil(path, path.read_bytes().index(FILES[name]) + 3000)


def inode(store: Store, diff_id: Digest, name: bytes) -> None:
    """The mode of a file."""
    path = store.layers.path(diff_id)
    if path.is_dir():
        (path / "fs" / os.fsdecode(name)).chmod(0o611)
        return
    with store.layers.reader(diff_id) as reader:
        nid = reader.root
        for part in name.split(b"/"):
            nid = reader.lookup(nid, part) or 0
    (block,) = struct.unpack_from("<I", path.read_bytes(), 1024 + 40)  # meta_blkaddr
    spoil(path, block * 512 + nid * 32 + 4)


@pytest.mark.parametrize("layer_format", ["erofs", "dir"])
@pytest.mark.parametrize("repair", [False, True])
@pytest.mark.parametrize("hit", [["d/f1"], ["d/f0", "d/f7"], list(FILES)], ids=["one", "two", "all"])
def test_content(tmp_path: Path, layer_format: str, repair: bool, hit: list[str]) -> None:
    with Store.open(tmp_path / "root", tmp_path / "run", layer_format=layer_format) as store:
        diff_id = make(store, tmp_path, blob=True)
        content(store.layers.path(diff_id), hit)
        (finding,) = store.check(repair=repair)
        assert finding.paths == tuple(hit)
        assert f"hit: {', '.join(hit[:5])}" in finding.reason
        assert ("and 3 more" in finding.reason) == (len(hit) == 8)
        assert finding.repaired is repair


@pytest.mark.parametrize("layer_format", ["erofs", "dir"])
@pytest.mark.parametrize("name", [b"d/f3", b"d"])
def test_metadata(tmp_path: Path, layer_format: str, name: bytes) -> None:
    with Store.open(tmp_path / "root", tmp_path / "run", layer_format=layer_format) as store:
        diff_id = make(store, tmp_path, blob=True)
        inode(store, diff_id, name)
        (finding,) = store.check()
        assert finding.paths == ((os.fsdecode(name),) if layer_format == "erofs" else ())
        assert layer_format == "erofs" or f"{os.fsdecode(name)} is not as it was unpacked" in finding.reason


@pytest.mark.parametrize("layer_format", ["erofs", "dir"])
def test_what_no_file_has(tmp_path: Path, layer_format: str) -> None:
    """Of the rest and of the header: the layer is named, and no file wrongly."""
    for number, (name, at) in enumerate((("rest.lz4", -9), ("header", 300))):
        with Store.open(tmp_path / f"{number}", tmp_path / "run", layer_format=layer_format) as store:
            diff_id = make(store, tmp_path, blob=True)
            path = store.layers.path(diff_id)
            spoil(path / name if layer_format == "dir" else path, at)
            (finding,) = store.check(repair=True)
            assert (finding.paths, finding.repaired) == ((), True)


def test_without_a_good_copy_none_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No blob at all; then one that is damaged as well."""
    with Store.open(tmp_path / "root", tmp_path / "run") as store:
        diff_id = make(store, tmp_path, blob=False)
        content(store.layers.path(diff_id), ["d/f1"])
        (finding,) = store.check()
        assert finding.paths == ()
        store.import_image(tmp_path / "in.tar", "a:1")
        make(store, tmp_path, blob=True)
        content(store.layers.path(diff_id), ["d/f1"])
        spoil(store.content.path(store.database.blobs_of_layer(diff_id)[0].digest), 3000)
        assert [finding.paths for finding in store.check(quick=False)] == [(), ()]


def test_the_command_says_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Store.open(tmp_path / "root", tmp_path / "run", layer_format="dir") as store:
        content(store.layers.path(make(store, tmp_path, blob=True)), ["d/f2"])
    assert main(["--root", str(tmp_path / "root"), "--run", str(tmp_path / "run"), "system", "check"]) == 3
    assert "hit: d/f2 (images: " in capsys.readouterr().out
