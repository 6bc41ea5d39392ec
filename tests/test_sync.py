"""With ``sync`` what is acknowledged was brought to the disk; without it nothing waits for the disk but SQLite.

Which syncs at its checkpoints, so that a power cut never damages the database; that has its directory synced, too.
"""

import os
import re
import shutil
import subprocess
import sys

import pytest
from tests.test_images import tar

from layerfs import Store
from layerfs.store import _places

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")

_CALLS = "fsync,fdatasync,sync_file_range,syncfs,sync"


def _waits(tmp_path, *words, environment=None):
    """How often the command asked for something to be on the disk."""
    trace = tmp_path / "trace"
    subprocess.run(
        ["strace", "-f", "-qq", "-y", "-e", f"trace={_CALLS}", "-o", trace, sys.executable, "-m", "layerfs", *words],
        check=True,
        capture_output=True,
        env=os.environ
        | {"LAYERFS_ROOT": str(tmp_path / "root"), "LAYERFS_RUN": str(tmp_path / "run")}
        | (environment or {}),
    )
    calls = re.findall(r"\b(?:fsync|fdatasync|syncfs|sync)\((.*)", trace.read_text())
    return sum("/root/layerfs.db" not in call and "/root>" not in call for call in calls)


@pytest.mark.root
@pytest.mark.parametrize("layer_format", ["erofs", "dir"])
def test_no_command_waits_for_the_disk_without_sync(tmp_path, layer_format):
    source = tmp_path / "base.tar"
    source.write_bytes(tar(file="x" * 100_000).getvalue())
    Store.open(tmp_path / "root", tmp_path / "run", layer_format=layer_format).close()

    assert _waits(tmp_path, "import", str(source), "with:1") >= 4  # the layer, its directory, config, manifest, rows
    assert _waits(tmp_path, "save", "-o", str(tmp_path / "out.tar"), "with:1") >= 2

    source.write_bytes(tar(file="y" * 100_000).getvalue())
    assert _waits(tmp_path, "--no-sync", "import", str(source), "without:1") == 0
    assert _waits(tmp_path, "--no-sync", "create", "--name", "box", "without:1", "x") == 0
    assert _waits(tmp_path, "--no-sync", "commit", "box", "without:2") == 0
    assert (
        _waits(tmp_path, "save", "-o", str(tmp_path / "2.tar"), "without:2", environment={"LAYERFS_NO_SYNC": "1"}) == 0
    )
    assert _waits(tmp_path, "--no-sync", "save", "--format", "oci-dir", "-o", str(tmp_path / "3"), "without:2") == 0


def test_the_argument_goes_before_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("LAYERFS_NO_SYNC", "1")
    assert not _places.default_sync()
    for asked, is_synced in ((None, False), (True, True), (False, False)):
        with Store.open(tmp_path / "root", tmp_path / "run", sync=asked) as store:
            assert store.parts.sync is store.layers.sync is store.content.sync is is_synced
    monkeypatch.delenv("LAYERFS_NO_SYNC")
    with Store.open(tmp_path / "root", tmp_path / "run") as store:
        assert store.parts.sync
