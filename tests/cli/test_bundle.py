"""``layerfs bundle`` and a runtime that knows nothing of layerfs."""

import json
import os
import shutil
import subprocess

import pytest

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("runc") is None, reason="needs the Debian package runc"),
]


def run_by_runc(bundle, state):
    return subprocess.run(
        ["runc", "--root", state, "run", "--bundle", bundle, "mine"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_a_bundle_whose_root_is_mounted(layerfs, box, tmp_path):
    bundle = tmp_path / "bundle"
    script = "id -u; hostname; echo x >/new; exit 5"
    id = layerfs("bundle", "--hostname", "inside", "-e", "A=b", "box", bundle, "sh", "-c", script).strip()
    document = json.loads((bundle / "config.json").read_text())
    assert "A=b" in document["process"]["env"]
    assert os.path.ismount(bundle / "rootfs")
    done = run_by_runc(bundle, tmp_path / "state")
    assert (done.returncode, done.stdout) == (5, "0\ninside\n"), done.stderr
    # What it changed is the container's, as after any run.
    assert "A /new" in layerfs("diff", id)
    layerfs("rm", id)
    assert not os.path.ismount(bundle / "rootfs")


def test_a_bundle_of_a_user_namespace_is_refused(layerfs, box, tmp_path):
    error = layerfs.error("bundle", "--userns", "auto", "box", tmp_path / "bundle", code=None)
    assert "--userns auto: not offered for bundles" in error
    assert layerfs("ps", "-aq") == ""


def test_a_bundle_with_instructions(layerfs, box, tmp_path):
    bundle = tmp_path / "with space"
    id, *commands = layerfs("bundle", "--mount-instructions", "box", bundle, "cat", "/old").splitlines()
    assert not os.path.ismount(bundle / "rootfs")
    assert commands
    for command in commands:
        subprocess.run(["sh", "-c", command], check=True)
    try:
        done = run_by_runc(bundle, tmp_path / "state")
        assert (done.returncode, done.stdout) == (0, "1"), done.stderr
    finally:
        subprocess.run(["umount", bundle / "rootfs"], check=True)
    layerfs("rm", id)


def test_refusals(layerfs, box, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    assert "not empty" in layerfs.error("bundle", "box", tmp_path / "full", code=1)
    assert "none" in layerfs.error("bundle", "--pull", "never", "none", tmp_path / "x", code=1)
    assert layerfs("ps", "-aq") == ""
    assert not (tmp_path / "x").exists()
