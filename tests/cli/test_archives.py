"""``import``, ``load`` and ``save``: root file systems and archives in and out, and what bad ones get."""

import gzip
import io
import json
import subprocess
import tarfile

import pytest

from layerfs.oci import Platform
from layerfs.reference import Reference

from .conftest import SMALL, tar_of


def test_import_of_a_file_a_directory_and_a_pipe_give_one_layer(layerfs, tmp_path):
    data = tar_of(SMALL)
    (tmp_path / "small.tar").write_bytes(data)
    (tmp_path / "tree").mkdir()
    subprocess.run(["tar", "-xf", tmp_path / "small.tar", "-C", tmp_path / "tree"], check=True)
    piped = layerfs("import", "-", "a:1", data=gzip.compress(data)).strip()
    layerfs("import", tmp_path / "small.tar", "b:1")
    layerfs("import", tmp_path / "tree", "c:1")
    layers = [layerfs("inspect", "-f", "{{index .RootFS.Layers 0}}", name) for name in (piped, "b:1")]
    assert layers[0] == layers[1]
    for name in ("a:1", "b:1", "c:1"):
        assert layerfs.lines("ls", "-R", name) == ["/", "/bin", "/bin/tool", "/etc", "/etc/motd", "/link"]
        assert layerfs("cat", name, "etc/motd", "link") == "hello\nhello\n"


def test_import_takes_changes_a_message_and_a_platform(layerfs):
    words = [
        "-c",
        "ENV A=1",
        "--change",
        'ENTRYPOINT ["/x"]',
        "-c",
        "EXPOSE 80",
        "-m",
        "by hand",
        "--platform",
        "linux/arm64",
    ]
    layerfs("import", *words, "-", "x", data=tar_of(SMALL))
    (document,) = layerfs.json("inspect", "x")
    assert document["Config"]["Env"] == ["A=1"]
    assert document["Config"]["ExposedPorts"] == {"80/tcp": {}}
    assert (document["Architecture"], document["Comment"]) == ("arm64", "by hand")


@pytest.mark.parametrize(
    ("words", "data", "code", "message"),
    [
        (["-", "x"], b"no tar" * 200, 3, ""),
        (["-", "x"], tar_of(SMALL)[:3500], 3, ""),
        (["-", "x"], gzip.compress(tar_of(SMALL))[:-20], 3, ""),
        (["/nothing", "x"], None, 1, "/nothing: No such file"),
        (["-", "UPPER"], tar_of(SMALL), 2, "lower case"),
        (["-c", "NONSENSE x", "-", "x"], tar_of(SMALL), 2, "unknown instruction"),
        (["--platform", "a/b/c/d", "-", "x"], tar_of(SMALL), 2, "not a platform"),
        (["--max-layer-bytes", "1k", "-", "x"], tar_of(SMALL), 3, "more than the 1024 bytes"),
        (["--max-layer-entries", "2", "-", "x"], tar_of(SMALL), 3, "more than 2"),
        (["--max-layer-metadata", "5", "-", "x"], tar_of(SMALL), 3, "more than 5 bytes of names"),
        (["http://example.com/x.tar"], None, 2, "URLs are not offered (curl"),
    ],
)
def test_what_cannot_be_imported_leaves_nothing(layerfs, words, data, code, message):
    error = layerfs.error("import", *words, data=data, code=code)
    assert error.startswith("layerfs import: ")
    assert message in error
    assert layerfs("images", "-q") == ""
    assert not [path for path in (layerfs.place / "root" / "layers").rglob("*") if path.is_file()]
    assert layerfs("system", "check") == "The store is whole.\n"


def test_save_and_load_keep_ids_and_names(layerfs, small, tmp_path):
    layerfs("tag", "small:1", "other")
    other = layerfs("import", "-", "second:2", data=tar_of({"x": b"2"})).strip()
    for format in ("docker-archive", "oci-archive", "oci-dir"):
        target = tmp_path / format
        layerfs("save", "--format", format, "-o", target, "small:1", "other", "second:2")
        layerfs("rmi", "-f", small, other)
        assert layerfs("images", "-q") == ""
        output = layerfs.lines("load", "-i", target)
        assert sorted(output) == [f"Loaded image: {name}" for name in ("other:latest", "second:2", "small:1")]
        assert layerfs.json("inspect", "small:1")[0]["Id"] == small
        assert layerfs.json("inspect", "second:2")[0]["Id"] == other
        assert layerfs("cat", "other", "link") == "hello\n"


def test_save_by_id_has_no_name(layerfs, small):
    archive = layerfs.process("save", small).stdout
    layerfs("rmi", "-f", small)
    assert layerfs("load", data=archive) == f"Loaded image ID: {small}\n"
    assert layerfs("images", "--format", "{{.Repository}}") == "<none>\n"


def test_save_writes_to_a_pipe_and_load_reads_one(layerfs, small):
    archive = layerfs.process("save", "small:1").stdout
    names = tarfile.open(fileobj=io.BytesIO(archive)).getnames()
    assert {"manifest.json", "index.json", "oci-layout"} <= set(names)
    manifest = json.load(tarfile.open(fileobj=io.BytesIO(archive)).extractfile("manifest.json"))
    assert [Reference.parse(name).familiar for name in manifest[0]["RepoTags"]] == ["small:1"]
    layerfs("rmi", "small:1")
    assert layerfs("load", data=gzip.compress(archive)) == "Loaded image: small:1\n"


def test_nothing_is_shown_when_piped(layerfs, small, tmp_path):
    for words in (("save", "-o", tmp_path / "a.tar", "small:1"), ("load", "-i", tmp_path / "a.tar")):
        assert layerfs.process(*words).stderr == b""


@pytest.mark.parametrize(
    ("words", "data", "code", "message"),
    [
        (["load", "-i", "/nothing"], None, 1, "No such file"),
        (["load"], b"", 3, ""),
        (["load"], b"nonsense" * 300, 3, ""),
        (["load"], tar_of({"x": b"y"}), 3, "taken by: layerfs import"),
        (["load", "extra"], None, 2, "too many arguments: extra"),
        (["save"], None, 2, "an argument is missing (usage: "),
        (["save", "nope"], None, 1, "image nope: not in the store"),
        (["save", "--format", "zip", "x"], None, 2, "wanted is one of docker-archive"),
        (["save", "--format", "oci-dir", "x"], None, 2, "needs a place (give -o DIRECTORY)"),
        (["save", "-o", "/nothing/x", "small:1"], None, 1, "No such file"),
    ],
)
def test_bad_archives_and_places_are_one_line(layerfs, small, words, data, code, message):
    assert message in layerfs.error(*words, data=data, code=code)


def test_a_cut_archive_leaves_nothing(layerfs, small):
    archive = layerfs.process("save", "small:1").stdout
    layerfs("rmi", "small:1")
    for end in (len(archive) // 4, len(archive) // 2):
        text = layerfs.process("load", data=archive[:end], code=3).stderr
        assert text.count(b"\n") == 1
        assert layerfs("images", "-q") == ""
    assert layerfs("system", "check") == "The store is whole.\n"


def test_load_of_a_platform_that_is_not_there_says_which_are(layerfs, small, tmp_path):
    for format in ("docker-archive", "oci-archive", "oci-dir"):
        target = tmp_path / format
        layerfs("save", "--format", format, "-o", target, "small:1")
        layerfs("rmi", "-f", small)
        error = layerfs.error("load", "--platform", "linux/riscv64", "-i", target, code=1)
        assert "platform linux/riscv64: no image for it (there are: linux/" in error
        assert layerfs("images", "-q") == ""
        layerfs("load", "--platform", Platform.host().architecture, "-i", target)


def test_load_takes_of_several_images_those_for_a_platform(layerfs, tmp_path):
    for name in ("riscv64", "s390x"):
        layerfs("import", "--platform", f"linux/{name}", "-", f"{name}:1", data=tar_of({"x": name.encode()}))
    layerfs("save", "-o", tmp_path / "two", "riscv64:1", "s390x:1")
    layerfs("rmi", "riscv64:1", "s390x:1")
    assert layerfs("load", "--platform", "linux/s390x", "-i", tmp_path / "two") == "Loaded image: s390x:1\n"
    error = layerfs.error("load", "--platform", "linux/arm", "-i", tmp_path / "two", code=1)
    assert "there are: linux/riscv64, linux/s390x" in error


def test_import_takes_architectures_that_there_are(layerfs):
    error = layerfs.error("import", "--platform", "foo", "-", "x", data=tar_of(SMALL), code=2)
    assert "platform 'foo': not a platform" in error
    layerfs("import", "--platform", "s390x", "-", "x", data=tar_of(SMALL))
    assert layerfs.json("inspect", "x")[0]["Architecture"] == "s390x"
