"""Commit: what a container changed becomes a layer, and an image."""

import json
import os
import shutil
import socket
import subprocess
import tarfile
from contextlib import contextmanager

import fstree
import pytest
import tarbuild as tar
from boxes import add_box, needs_busybox, options
from fstree import Device, Dir, Fifo, File, Hole, Link, Remove, Symlink, Xattr

from layerfs import Store
from layerfs.errors import InvalidInputError, LayerfsError, NotFoundError, UnsupportedError
from layerfs.images import Image

pytestmark = [pytest.mark.root, needs_busybox]


@pytest.fixture(scope="module", params=["erofs", "dir"])
def shared(request, tmp_path_factory):
    root = tmp_path_factory.mktemp("store")
    try:
        opened = Store.open(root, tmp_path_factory.mktemp("run"), layer_format=request.param)
    except UnsupportedError as exc:
        pytest.skip(str(exc))
    with opened as store:
        add_box(store, root, tar.directory("old"), tar.file("old/a", b"a"), tar.file("old/b", b"b"))
        yield store
        store.snapshots.release_layers()


@pytest.fixture
def store(shared):
    yield shared
    for container in shared.containers.list():
        container.remove(force=True, volumes=True)


@contextmanager
def inside(store, container, tmp_path):
    """The container's tree, mounted to be changed from here."""
    target = tmp_path / f"mount-{container.id[:8]}"
    target.mkdir(exist_ok=True)
    fd = store.snapshots.mount(container.id)
    try:
        store.snapshots.attach(fd, target)
    finally:
        os.close(fd)
    try:
        yield target
    finally:
        store.snapshots.detach(target)
        store.snapshots.release(container.id)
        target.rmdir()


@contextmanager
def seen(store, image: Image, tmp_path):
    """An image's tree, mounted read-only."""
    target = tmp_path / f"view-{image.id.hex[:8]}"
    target.mkdir()
    fd = store.snapshots.view(image.diff_ids)
    try:
        store.snapshots.attach(fd, target)
    finally:
        os.close(fd)
    try:
        yield target
    finally:
        store.snapshots.detach(target)
        target.rmdir()


def config(image: Image) -> dict:
    return json.loads(image.config_bytes)


CHANGES = (
    File("new", data=b"new", mode=0o4755, uid=70000, gid=3, mtime_ns=1234567890_123456789),
    Dir("old", mode=0o1777),
    Remove("old/a"),
    File("old/b", data=b"changed"),
    Link("linked", "new"),
    Symlink("link", target="/etc/passwd"),
    Fifo("pipe"),
    Device("dev0", kind="c", major=1, minor=3),
    Hole("sparse", size=4 << 20, pieces={1 << 20: b"data"}),
    Xattr("new", "user.note", b"\0\xff"),
    Dir("deep/er", mode=0o700),
)


def test_an_image_shows_what_the_container_showed(store, tmp_path):
    container = store.containers.create(options("true"))
    with inside(store, container, tmp_path) as tree:
        fstree.apply(tree, *CHANGES)
        shutil.rmtree(tree / "data")
        (tree / "data").mkdir()
    committed = container.commit("made:1", author="me", message="what it is")
    assert committed.notes == ()
    image = committed.image
    base = store.images.get("box")
    assert image.diff_ids[:-1] == base.diff_ids
    with inside(store, container, tmp_path) as tree, seen(store, image, tmp_path) as other:
        wanted = fstree.capture(tree)
        # Mount points of the runtime are no content of the image.
        for path in (b"proc", b"sys", b"dev", b"etc/hosts", b"etc/hostname", b"etc/resolv.conf"):
            assert wanted.pop(path)
        fstree.assert_same(wanted, fstree.capture(other))


def test_the_configuration(store, tmp_path):
    base = config(store.images.get("box"))
    container = store.containers.create(options("echo", "hi", env=["A=1"], label=["k=v"], user="bob"))
    with inside(store, container, tmp_path) as tree:
        (tree / "x").touch()
    image = container.commit(
        "made:2", author="me", message="note", changes=["ENV B=2", "WORKDIR /w", "EXPOSE 80", 'ENTRYPOINT ["/bin/sh"]']
    ).image
    document = config(image)
    assert document["config"] == {
        "Env": ["A=1", "B=2"], "Labels": {"k": "v"}, "User": "bob", "WorkingDir": "/w", "ExposedPorts": {"80/tcp": {}},
        "Entrypoint": ["/bin/sh"],
    }  # fmt: skip
    assert document["author"] == "me"
    assert document["os"] == base["os"]
    assert document["history"][:-1] == base["history"]
    last = document["history"][-1]
    assert (last["created_by"], last["author"], last["comment"]) == ("echo hi", "me", "note")
    assert len(document["rootfs"]["diff_ids"]) == 2
    assert store.images.get("made:2").id == image.id


@pytest.mark.parametrize("format", ["oci", "docker"])
def test_media_types(store, format):
    container = store.containers.create(options("true"))
    image = container.commit(format=format).image
    kinds = {image.target.media_type, image.manifest.config.media_type, *(d.media_type for d in image.manifest.layers)}
    assert all(("docker" in kind) == (format == "docker") for kind in kinds)
    assert image.names == ()
    again = store.containers.create(options("true", image=image.id)).commit(format="oci").image
    assert not any("docker" in layer.media_type for layer in again.manifest.layers)


def test_squash_makes_one_layer(store, tmp_path):
    container = store.containers.create(options("true"))
    with inside(store, container, tmp_path) as tree:
        fstree.apply(tree, *CHANGES)
    image = container.commit("squashed:1", squash=True, message="all").image
    assert len(image.diff_ids) == 1
    assert [entry.get("comment") for entry in config(image)["history"]] == ["all"]
    plain = container.commit("plain:1").image
    with seen(store, image, tmp_path) as one, seen(store, plain, tmp_path) as two:
        fstree.assert_same(fstree.capture(one), fstree.capture(two))


def test_the_same_changes_give_the_same_image(store, tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    images = []
    for _ in range(2):
        container = store.containers.create(options("true"))
        with inside(store, container, tmp_path) as tree:
            (tree / "x").write_text("x")  # times after the epoch become the epoch
        images.append(container.commit().image)
    assert images[0].id == images[1].id
    assert images[0].target == images[1].target
    assert config(images[0])["created"] == "2023-11-14T22:13:20Z"


def test_what_is_left_out_is_named(store, tmp_path):
    (tmp_path / "host").mkdir()
    container = store.containers.create(options("true", volume=["vol:/data", f"{tmp_path}/host:/mnt"]))
    with inside(store, container, tmp_path) as tree:
        left = socket.socket(socket.AF_UNIX)
        left.bind(str(tree / "s"))
        left.close()
    committed = container.commit()
    notes = "\n".join(committed.notes)
    assert "/data: left out, it is a volume vol" in notes
    assert "/mnt: left out, it is a bind" in notes
    assert "1 sockets" in notes
    with store.layers.view(committed.image.diff_ids) as view:
        assert not {entry.name for entry in view.listdir(b"/")} & {b"s", b"mnt"}


def test_what_a_layer_cannot_hold_is_refused_by_name(store, tmp_path):
    container = store.containers.create(options("true"))
    with inside(store, container, tmp_path) as tree:
        (tree / ".wh.x").touch()
    with pytest.raises(LayerfsError, match=r"\.wh\.x"):
        container.commit("never:1")
    with pytest.raises(NotFoundError):
        store.images.get("never:1")


@pytest.mark.parametrize(
    "wrong",
    [
        {"format": "v1"},
        {"changes": ["WHAT x"]},
        {"changes": ["ENV"]},
        {"reference": "UPPER"},
        {"reference": "x@sha256:" + "0" * 64},
    ],
)
def test_what_is_wrong_is_told_before_the_work(store, wrong):
    container = store.containers.create(options("true"))
    before = set(store.layers.list())
    with pytest.raises(InvalidInputError):
        container.commit(**{"reference": None, **wrong})
    assert set(store.layers.list()) == before


def test_a_parent_that_is_gone(store, tmp_path):
    add_box(store, tmp_path, name="parent")
    container = store.containers.create(options("true", image="parent"))
    store.remove_image("parent", force=True)
    image = container.commit("orphan:1").image
    assert len(image.diff_ids) == 2
    assert config(image)["config"]["Cmd"] == ["true"]
    assert len(config(image)["history"]) == 2


def test_commit_of_a_container_of_a_committed_image(store, tmp_path):
    text = "box"
    for number in range(4):
        container = store.containers.create(options("true", image=text))
        with inside(store, container, tmp_path) as tree:
            (tree / "count").write_text(str(number))
            (tree / f"f{number}").touch()
        text = container.commit(f"chain:{number}").image.id
    image = store.images.get(text)
    assert len(image.diff_ids) == 5
    with seen(store, image, tmp_path) as tree:
        assert (tree / "count").read_text() == "3"
        assert all((tree / f"f{number}").exists() for number in range(4))


def test_export_is_the_merged_tree(store, tmp_path):
    container = store.containers.create(options("true"))
    with inside(store, container, tmp_path) as tree:
        fstree.apply(tree, *CHANGES)
    path = tmp_path / "flat.tar"
    with open(path, "wb") as sink:
        container.export(sink)
    with tarfile.open(path) as archive:
        names = archive.getnames()
    assert not [name for name in names if ".wh." in name]
    assert "old/a" not in names
    assert {"new", "bin/busybox", "old/b"} <= set(names)
    assert "etc/hosts" not in names
    out = tmp_path / "out"
    out.mkdir()
    subprocess.run(
        ["tar", "-x", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-C", out, "-f", path], check=True
    )
    with seen(store, container.commit().image, tmp_path) as tree:
        wanted, found = fstree.capture(tree), fstree.capture(out)
        fstree.assert_same(wanted, found, root=False)


def test_other_tools_read_it(store, tmp_path):
    if shutil.which("skopeo") is None:
        pytest.skip("needs the Debian package skopeo")
    container = store.containers.create(options("true"))
    with inside(store, container, tmp_path) as tree:
        (tree / "x").write_text("x")
    for format in ("oci", "docker"):
        container.commit(f"read:{format}", format=format)
        store.save([f"read:{format}"], tmp_path / f"{format}.tar", format="docker-archive")
        done = subprocess.run(
            ["skopeo", "inspect", f"docker-archive:{tmp_path}/{format}.tar"], capture_output=True, text=True, check=True
        )
        assert len(json.loads(done.stdout)["Layers"]) == 2


def test_two_commits_at_once(store, tmp_path):
    import threading

    containers = [store.containers.create(options("true")) for _ in range(4)]
    for container in containers:
        with inside(store, container, tmp_path) as tree:
            (tree / "same").write_text("x" * 100_000)
            os.utime(tree / "same", (1, 1))
            os.utime(tree, (1, 1))
    images = []
    threads = [threading.Thread(target=lambda c=c: images.append(c.commit().image)) for c in containers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({image.diff_ids for image in images}) == 1


def test_a_socket_hides_what_lies_below_it(store, tmp_path):
    """A layer cannot hold the socket; what it took the place of must not come back."""
    container = store.containers.create(options("true", name="sockets"))
    with inside(store, container, tmp_path) as tree:
        (tree / "old" / "a").unlink()
        made = socket.socket(socket.AF_UNIX)
        made.bind(str(tree / "old" / "a"))
        made.close()
    image = container.commit("sockets:1").image
    with store.layers.view(image.diff_ids) as view:
        assert sorted(entry.name for entry in view.listdir(b"/old")) == [b"b"]
    store.remove_image("sockets:1", force=True)
