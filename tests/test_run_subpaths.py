"""Paths within volumes and images as mounts, which links that lie there cannot lead elsewhere."""

import pytest
from boxes import box_store, needs_busybox, options, run

from layerfs.errors import InvalidInputError, LayerfsError, NotFoundError, UnsupportedError

pytestmark = [pytest.mark.root, needs_busybox]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with box_store(tmp_path_factory) as store:
        yield store


@pytest.fixture
def volume(store):
    """A volume with a directory, a file, and links that lead out of it."""
    place = store.containers.volumes.create("vol")
    (place.mountpoint / "sub" / "deep").mkdir(parents=True)
    (place.mountpoint / "sub" / "one").write_text("1\n")
    (place.mountpoint / "secret").write_text("not for all\n")
    (place.mountpoint / "out").symlink_to("../../../../../../../../etc")
    (place.mountpoint / "root").symlink_to("/")
    (place.mountpoint / "inner").symlink_to("/sub/deep")
    yield place.mountpoint
    store.containers.volumes.remove("vol")


def sh(store, runtime, script, *mounts, **flags):
    return run(store, "sh", "-c", script, runtime=runtime, rm=True, mount=list(mounts), **flags)


def within(path, more=""):
    return f"type=volume,src=vol,dst=/mnt,volume-subpath={path}{more}"


def test_a_directory_of_a_volume(store, runtime, volume):
    ran = sh(store, runtime, "ls /mnt; cat /mnt/one; echo 2 >/mnt/two; ls /mnt/..", within("sub"))
    assert ran.out.split()[:3] == ["deep", "one", "1"]
    assert "secret" not in ran.out
    assert (volume / "sub" / "two").read_text() == "2\n"
    ran = sh(store, runtime, "echo 3 >/mnt/two", within("./sub/deep/../", ",readonly"))
    assert "Read-only" in ran.err


def test_a_file_of_a_volume(store, runtime, volume):
    assert sh(store, runtime, "cat /mnt; echo 4 >/mnt", within("sub/one")).out == "1\n"
    assert (volume / "sub" / "one").read_text() == "4\n"


def test_links_stay_in_the_volume(store, runtime, volume):
    assert sh(store, runtime, "ls /mnt", within("inner")).out == ""
    assert "secret" in sh(store, runtime, "ls /mnt", within("root")).out
    with pytest.raises(NotFoundError):  # etc, in the volume
        sh(store, runtime, "ls /mnt", within("out"))
    container = store.containers.create(options("ls", "/mnt", runtime=runtime, mount=[within("sub/deep")]))
    try:
        (volume / "sub" / "deep").rmdir()
        (volume / "sub" / "deep").symlink_to("/etc")
        with pytest.raises(NotFoundError, match="sub/deep in volume vol: it is not there"):
            container.run()
    finally:
        container.remove()


def test_cp_keeps_to_the_path(store, runtime, volume):
    container = store.containers.create(options("true", runtime=runtime, mount=[within("sub")]))
    try:
        assert b"".join(container.read("/mnt/one")) == b"1\n"
        with pytest.raises(NotFoundError):
            b"".join(container.get_archive("/mnt/../secret"))
        (volume / "sub" / "link").symlink_to("/secret")
        with pytest.raises(LayerfsError):
            b"".join(container.read("/mnt/link"))
        container.copy_to("/data/seed", container, "/mnt/deep")
        assert (volume / "sub" / "deep" / "seed").read_text() == "seeded\n"
    finally:
        container.remove()


def test_after_a_restart(store, runtime, volume):
    container = store.containers.start(
        options("sh", "-c", "cat /mnt/one; sleep 60", runtime=runtime, mount=[within("sub")])
    )
    try:
        container.stop(timeout=0)
        (volume / "sub").rename(volume / "old")
        (volume / "sub").mkdir()
        (volume / "sub" / "new").touch()
        container.start()
        assert container.exec(["test", "-e", "/mnt/new"]) == 0
    finally:
        container.remove(force=True)


def test_a_path_of_an_image(store, runtime):
    mount = "type=image,src=box,dst=/mnt"
    ran = sh(store, runtime, "ls /mnt; cat /mnt/seed; touch /mnt/x", f"{mount},image-subpath=data")
    assert ran.out == "seed\nseeded\n"
    assert "Read-only" in ran.err
    assert sh(store, runtime, "cat /mnt", f"{mount},subpath=data/seed").out == "seeded\n"
    with pytest.raises(NotFoundError, match="nope in image box: it is not there"):
        sh(store, runtime, "true", f"{mount},image-subpath=nope")


def test_what_is_no_path_within(store, volume, tmp_path):
    for path in ("/sub", "../sub", "sub/../..", ""):
        with pytest.raises(InvalidInputError, match="subpath"):
            options("true", mount=[within(path)])
    with pytest.raises(InvalidInputError, match="subpath is not for type bind"):
        options("true", mount=["type=bind,src=/tmp,dst=/mnt,volume-subpath=x"])
    with pytest.raises(NotFoundError, match="nope in volume vol"):
        sh(store, "builtin", "true", within("nope"))
    with pytest.raises(UnsupportedError, match="--userns auto"):
        sh(store, "builtin", "true", within("sub"), userns="auto")
    with pytest.raises(UnsupportedError, match="bundles"):
        store.containers.bundle(options("true", mount=[within("sub")]), tmp_path / "bundle")
