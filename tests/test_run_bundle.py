"""Roots for runtimes of the user's own: mounted trees and OCI bundles."""

import os
import shutil
import subprocess

import pytest
from boxes import box_store, needs_busybox, options

from layerfs.errors import ExistsError, NotFoundError

pytestmark = [pytest.mark.root, needs_busybox]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with box_store(tmp_path_factory) as store:
        yield store


def test_a_root(store):
    with store.rootfs("box") as root:
        assert (root / "etc/passwd").read_text().startswith("root:")
        (root / "new").write_text("x")
        assert subprocess.run(["chroot", root, "/bin/cat", "/new"], capture_output=True, check=True).stdout == b"x"
    assert not root.exists()
    with store.rootfs("box") as root:
        assert not (root / "new").exists()


def test_a_root_at_a_place_read_only(store, tmp_path):
    with store.rootfs("box", tmp_path, readonly=True) as root:
        assert root == tmp_path
        assert os.path.ismount(root)
        with pytest.raises(OSError, match="Read-only"):
            (root / "x").touch()
    assert not os.path.ismount(tmp_path)
    with pytest.raises(NotFoundError), store.rootfs("none"):
        pass


def test_a_root_goes_when_the_body_fails(store):
    with pytest.raises(ZeroDivisionError), store.rootfs("box") as root:
        raise ZeroDivisionError
    assert not root.exists()


def test_an_error_of_the_body_stays_what_it_is(store):
    with pytest.raises(FileNotFoundError, match="nothing-here"), store.rootfs("box") as root:
        (root / "nothing-here").read_bytes()


needs_runc = pytest.mark.skipif(shutil.which("runc") is None, reason="needs the Debian package runc")


@needs_runc
@pytest.mark.parametrize("mounted", [True, False])
def test_a_bundle_runs(store, tmp_path, mounted):
    chosen = options(
        "sh", "-c", "id -u; cat /etc/hostname; echo x >/x", user="bob", hostname="bundled", volume=["/vol"]
    )
    container, bundle = store.containers.bundle(chosen, tmp_path / "bundle", mounted=mounted)
    for command in bundle.mounts:
        subprocess.run(command, check=True)
    assert bool(bundle.mounts) != mounted
    try:
        state = ["runc", "--root", tmp_path / "state"]
        done = subprocess.run(
            [*state, "run", "--bundle", bundle.path, "from-a-bundle"],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        assert done.stdout == "1000\nbundled\n"
        assert "denied" in done.stderr  # bob may not write there
    finally:
        if not mounted:
            subprocess.run(["umount", bundle.path / "rootfs"], check=True)
            for command in bundle.mounts:
                if "erofs" in command:
                    subprocess.run(["umount", command[-1]], check=True)
        container.remove(volumes=True)
    assert not os.path.ismount(bundle.path / "rootfs")


def test_a_bundle_needs_an_empty_directory(store, tmp_path):
    (tmp_path / "x").touch()
    with pytest.raises(ExistsError, match="not empty"):
        store.containers.bundle(options("true"), tmp_path)
    assert store.containers.list() == []
