"""Archives against other tools, both ways: skopeo, umoci, podman, docker. Equal image IDs and diff IDs."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from peerkit import Run, docker, need, podman, run
from suites.blob_suite import layer_tar

from layerfs.images import Image
from layerfs.store import Store

pytestmark = pytest.mark.root


def busybox(path: Path) -> Path:
    """A root file system that runs: busybox alone."""
    need("busybox")
    root = path / "rootfs"
    (root / "bin").mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "", root / "bin" / "busybox")
    (root / "bin" / "sh").symlink_to("busybox")
    return root


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store", tmp_path / "run") as store:
        yield store


@pytest.fixture
def image(store: Store, tmp_path: Path) -> Image:
    """peer:1, an image that runs, and peer:2, another."""
    (tmp_path / "other.tar").write_bytes(layer_tar("a", "b"))
    store.import_image(tmp_path / "other.tar", "peer:2", changes=["ENV A=b"])
    return store.import_image(busybox(tmp_path), "peer:1", changes=['CMD ["/bin/sh", "-c", "echo from inside"]'])


@pytest.fixture(name="podman")
def a_podman() -> Iterator[Run]:
    with podman() as run:
        yield run


@pytest.fixture(name="docker")
def a_docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    with docker(tmp_path_factory.mktemp("d")) as run:
        yield run


@pytest.mark.parametrize("format", ["docker-archive", "oci-archive", "oci-dir"])
def test_skopeo_reads_and_copies(store: Store, image: Image, tmp_path: Path, format: str) -> None:
    need("skopeo")
    store.save(["peer:1"], tmp_path / "out", format=format)
    transport = {"docker-archive": "docker-archive", "oci-archive": "oci-archive", "oci-dir": "oci"}[format]
    name = "peer:1" if format == "docker-archive" else "1"
    config = run("skopeo", "inspect", "--config", "--raw", f"{transport}:{tmp_path}/out:{name}")
    assert config.encode() == image.config_bytes
    run("skopeo", "copy", "-q", f"{transport}:{tmp_path}/out:{name}", f"oci:{tmp_path}/copied:new")
    with Store.open(tmp_path / "second", tmp_path / "run2") as second:
        (loaded,) = second.load(tmp_path / "copied")
    assert loaded.image.id == image.id
    assert loaded.image.diff_ids == image.diff_ids


def test_umoci_unpacks(store: Store, image: Image, tmp_path: Path) -> None:
    need("umoci")
    store.save(["peer:1", "peer:2"], tmp_path / "out", format="oci-dir")
    run("umoci", "unpack", "--image", f"{tmp_path}/out:1", tmp_path / "bundle")
    busy = tmp_path / "bundle" / "rootfs" / "bin" / "busybox"
    assert busy.read_bytes() == (tmp_path / "rootfs" / "bin" / "busybox").read_bytes()
    assert os.readlink(busy.with_name("sh")) == "busybox"


@pytest.mark.parametrize("format", ["docker-archive", "oci-archive"])
def test_podman_loads(store: Store, image: Image, tmp_path: Path, podman: Run, format: str) -> None:
    store.save(["peer:1"], tmp_path / "out", format=format)
    podman("load", "-q", "-i", tmp_path / "out")
    (seen,) = json.loads(podman("image", "inspect", "docker.io/library/peer:1"))
    assert seen["Id"] == image.id.hex
    assert seen["RootFS"]["Layers"] == list(image.diff_ids)


@pytest.mark.parametrize("format", ["docker-archive", "oci-archive", "oci-dir"])
def test_podman_saves_what_is_loaded(store: Store, image: Image, tmp_path: Path, podman: Run, format: str) -> None:
    store.save(["peer:1"], tmp_path / "out")
    podman("load", "-q", "-i", tmp_path / "out")
    podman("save", "-q", "--format", format, "-o", tmp_path / "back", "docker.io/library/peer:1")
    with Store.open(tmp_path / "second", tmp_path / "run2") as second:
        (loaded,) = second.load(tmp_path / "back")
    assert loaded.image.id == image.id
    assert loaded.image.diff_ids == image.diff_ids
    if format != "oci-dir":  # podman puts no name there
        assert loaded.names == ("peer:1",)


def test_docker_loads_runs_builds_on_and_saves(store: Store, image: Image, tmp_path: Path, docker: Run) -> None:
    store.save(["peer:1", "peer:2"], tmp_path / "out")
    assert docker("load", "-q", "-i", tmp_path / "out").splitlines() == [
        "Loaded image: peer:1",
        "Loaded image: peer:2",
    ]
    for name in ("peer:1", "peer:2"):
        (seen,) = json.loads(docker("image", "inspect", name))
        assert seen["Id"] == store.images.get(name).id
        assert seen["RootFS"]["Layers"] == list(store.images.get(name).diff_ids)
    assert docker("run", "--network", "none", "--name", "changed", "peer:1", "/bin/sh", "-c", "echo x > /new") == ""
    made = docker("commit", "changed", "peer:3").strip()
    docker("save", "-o", tmp_path / "back", "peer:1", "peer:3")
    with Store.open(tmp_path / "second", tmp_path / "run2") as second:
        # Docker writes the images in no order.
        loaded = sorted(second.load(tmp_path / "back"), key=lambda each: each.names)
        assert [each.names for each in loaded] == [("peer:1",), ("peer:3",)]
        assert [each.image.id for each in loaded] == [image.id, made]
        with second.layers.view(loaded[1].image.diff_ids) as view:
            assert b"".join(view.read(b"/new")) == b"x\n"


def test_gnu_tar_extracts(store: Store, image: Image, tmp_path: Path) -> None:
    store.save(["peer:1"], tmp_path / "out")
    (tmp_path / "x").mkdir()
    run("tar", "-xf", tmp_path / "out", "-C", tmp_path / "x")
    (entry,) = json.loads((tmp_path / "x" / "manifest.json").read_text())
    assert (tmp_path / "x" / entry["Config"]).read_bytes() == image.config_bytes
    listing = run("tar", "-tf", tmp_path / "x" / entry["Layers"][0])
    assert "bin/busybox" in listing.splitlines()
