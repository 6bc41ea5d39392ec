"""``manifest create``, ``add``, ``annotate``, ``remove``, ``push`` and ``rm``: lists for several platforms."""

import json
import subprocess
import sys

import pytest
from fake_registry import FakeRegistry

from .conftest import tar_of


@pytest.fixture
def images(layerfs):
    """IDs of images for amd64 and arm64/v8, amd:1 and arm:1."""
    return tuple(
        layerfs("import", "-", f"{name}:1", "--platform", platform, data=tar_of({"file": name.encode()})).strip()
        for name, platform in (("amd", "linux/amd64"), ("arm", "linux/arm64/v8"))
    )


def manifest(layerfs, name):
    return layerfs("inspect", "-f", "{{.Digest}}", name).strip()


def platforms(layerfs, name="multi:1"):
    document = layerfs.json("manifest", "inspect", name)
    assert document["mediaType"] == "application/vnd.oci.image.index.v1+json"
    return [(each["platform"]["architecture"], each["digest"]) for each in document["manifests"]]


def test_a_list_is_made_added_to_and_taken_from(layerfs, images):
    amd, arm = manifest(layerfs, "amd:1"), manifest(layerfs, "arm:1")
    digest = layerfs("manifest", "create", "multi:1", "amd:1").strip()
    assert platforms(layerfs) == [("amd64", amd)]
    raw = layerfs.process("manifest", "inspect", "--raw", "multi:1").stdout
    assert layerfs("inspect", "-f", "{{.Descriptor.digest}}", "multi:1").strip() == digest
    assert json.loads(raw)["schemaVersion"] == 2
    assert layerfs("manifest", "add", "multi:1", "arm:1").strip() != digest
    assert platforms(layerfs) == [("amd64", amd), ("arm64", arm)]
    layerfs("manifest", "add", "multi:1", "arm:1")  # it is there once
    assert len(platforms(layerfs)) == 2
    assert layerfs("manifest", "remove", "multi:1", arm).strip() == digest
    assert "is not in it" in layerfs.error("manifest", "remove", "multi:1", "arm:1", code=1)
    assert sorted(layerfs.lines("images", "--format", "{{.Repository}}:{{.Tag}}")) == ["amd:1", "arm:1", "multi:1"]
    assert layerfs.lines("manifest", "rm", "multi:1")[0] == "Untagged: multi:1"
    assert sorted(layerfs.lines("images", "--format", "{{.Repository}}:{{.Tag}}")) == ["amd:1", "arm:1"]
    assert manifest(layerfs, "amd:1") == amd  # with all its blobs
    layerfs("system", "check")


def test_a_list_may_be_empty_at_first(layerfs, images):
    layerfs("manifest", "create", "multi:1")
    assert layerfs.json("manifest", "inspect", "multi:1")["manifests"] == []
    layerfs("images")
    layerfs("manifest", "add", "multi:1", "amd:1", "arm:1")
    assert [name for name, _ in platforms(layerfs)] == ["amd64", "arm64"]
    layerfs("rmi", "amd:1", "arm:1")
    assert layerfs.json("inspect", "multi:1")[0]["Id"] == images[0]
    layerfs("rmi", "multi:1")
    assert layerfs("images", "-q") == ""
    assert not list((layerfs.place / "root/blobs").rglob("*/*"))


def test_what_is_said_of_an_image_in_a_list(layerfs, images):
    layerfs("manifest", "create", "multi:1", "amd:1")
    words = ["--arch", "arm", "--variant", "v7", "--os", "linux", "--annotation", "a=b=c", "--annotation", "d="]
    layerfs("manifest", "add", *words, "multi:1", "arm:1")
    first, second = layerfs.json("manifest", "inspect", "multi:1")["manifests"]
    assert second["platform"] == {"os": "linux", "architecture": "arm", "variant": "v7"}
    assert second["annotations"] == {"a": "b=c", "d": ""}
    layerfs("manifest", "annotate", "--os-version", "10.0", "--annotation", "a=1", "multi:1", first["digest"])
    layerfs("manifest", "annotate", "--annotation", "a=2", "multi:1", "arm:1")
    first, second = layerfs.json("manifest", "inspect", "multi:1")["manifests"]
    assert first["platform"] == {"os": "linux", "architecture": "amd64", "os.version": "10.0"}
    assert (first["annotations"], second["annotations"]) == ({"a": "1"}, {"a": "2", "d": ""})
    assert "key=value" in layerfs.error("manifest", "annotate", "--annotation", "x", "multi:1", "amd:1", code=2)


def test_what_cannot_be_is_said_and_changes_nothing(layerfs, images):
    digest = layerfs("manifest", "create", "multi:1", "amd:1")
    assert "--amend" in layerfs.error("manifest", "create", "multi:1", "arm:1", code=1)
    assert "not in the store" in layerfs.error("manifest", "create", "other:1", "nope", code=1)
    assert "not in the store" in layerfs.error("manifest", "add", "nope:1", "amd:1", code=1)
    assert "not a list" in layerfs.error("manifest", "add", "amd:1", "arm:1", code=2)
    layerfs.error("manifest", "create", "UPPER", code=2)
    assert layerfs("inspect", "-f", "{{.Descriptor.digest}}", "multi:1") == digest
    layerfs("manifest", "create", "--amend", "multi:1", "arm:1")
    assert len(platforms(layerfs)) == 2
    layerfs("manifest", "create", "all:1", "--all", "multi:1")
    assert platforms(layerfs, "all:1") == platforms(layerfs)
    layerfs("manifest", "create", "one:1", "multi:1")
    assert [name for name, _ in platforms(layerfs, "one:1")] == ["amd64"]


def test_a_list_goes_to_a_registry_with_all_that_it_names(layerfs, images):
    with FakeRegistry() as registry:
        name = f"{registry.host}/team/multi:1"
        layerfs("manifest", "create", name, "amd:1", "arm:1")
        layerfs("manifest", "push", "-q", name)
        layerfs("rmi", "-a", "-f")
        assert layerfs("images", "-q") == ""
        assert [architecture for architecture, _ in platforms(layerfs, name)] == ["amd64", "arm64"]
        for platform, id in zip(("linux/amd64", "linux/arm64"), images, strict=True):
            layerfs("pull", "-q", "--platform", platform, name)
            assert layerfs("cat", name, "/file") == {images[0]: "amd", images[1]: "arm"}[id]
            layerfs("rmi", "-f", name)


def test_of_commands_at_once_none_is_lost(layerfs):
    names = [f"part:{number}" for number in range(6)]
    for name in names:
        layerfs("import", "-", name, data=tar_of({"file": name.encode()}))
    layerfs("manifest", "create", "multi:1")
    words = [sys.executable, "-m", "layerfs", "manifest", "add", "multi:1"]
    running = [subprocess.Popen([*words, name], env=layerfs.environment, stdout=subprocess.PIPE) for name in names]
    for process in running:
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert {digest for _, digest in platforms(layerfs)} == {manifest(layerfs, name) for name in names}
