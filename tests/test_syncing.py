"""Large files reach the disk while they are written: in another thread, and no failure of that is lost."""

import errno
import os
import threading
import time
from pathlib import Path

import pytest
import tarbuild
from suites.layer_suite import make_store

from layerfs.content import ContentStore
from layerfs.digest import Digest
from layerfs.errors import NativeError

STEP = 32 << 20


class Syncs:
    """In place of fdatasync: which threads asked for it when a file was how long."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.early: list[int] = []
        self.last: list[int] = []
        self.error: OSError | None = None
        monkeypatch.setattr(os, "fdatasync", self._sync)

    def _sync(self, fd: int) -> None:
        size = os.fstat(fd).st_size
        if threading.current_thread() is threading.main_thread():
            self.last.append(size)
            return
        self.early.append(size)
        if self.error is not None:
            raise self.error

    def wait(self, count: int) -> None:
        """Until so many early ones were asked for."""
        for _ in range(1000):
            if len(self.early) >= count:
                return
            time.sleep(0.01)
        pytest.fail("nothing was synced")


@pytest.fixture
def syncs(monkeypatch: pytest.MonkeyPatch) -> Syncs:
    return Syncs(monkeypatch)


def blobs(tmp_path: Path, sync: bool = True) -> ContentStore:
    for name in ("blobs/sha256", "ingest"):
        (tmp_path / name).mkdir(parents=True)
    return ContentStore(tmp_path / "blobs", tmp_path / "ingest", sync=sync)


def store_blob(store: ContentStore, syncs: Syncs, waits: int) -> None:
    data = os.urandom(1 << 20) * 100
    with store.writer(Digest.of(data), len(data)) as writer:
        for count in range(1, waits + 1):
            writer.write(data[writer.offset : count * (STEP + (1 << 20))])
            syncs.wait(count)
        writer.write(data[writer.offset :])
        writer.commit()
    assert threading.active_count() == 1


def store_layer(tmp_path: Path, syncs: Syncs, layer_format: str, waits: int, sync: bool = True) -> None:
    store = make_store(tmp_path, layer_format, sync=sync)
    content = os.urandom(STEP)
    with store.writer() as writer:
        for count in range(1, 3):
            writer.write(tarbuild.file(f"file{count}", content))
            syncs.wait(min(count, waits))
        writer.write(bytes(1024))
        layer = writer.commit()
    assert threading.active_count() == 1
    assert store.has(layer.diff_id)


def test_a_blob_is_synced_while_it_grows(tmp_path: Path, syncs: Syncs) -> None:
    store_blob(blobs(tmp_path), syncs, 2)
    assert len(syncs.early) >= 2
    assert syncs.last[-1] == 100 << 20


def test_a_layer_is_synced_while_it_grows(tmp_path: Path, syncs: Syncs) -> None:
    store_layer(tmp_path, syncs, "erofs", 2)
    assert all(size >= STEP for size in syncs.early)
    assert syncs.last[-1] > 2 * STEP


@pytest.mark.parametrize(("layer_format", "sync"), [("dir", True), ("erofs", False)])
def test_a_directory_is_not_and_nothing_is_without_sync(
    tmp_path: Path, syncs: Syncs, layer_format: str, sync: bool
) -> None:
    store_layer(tmp_path, syncs, layer_format, 0, sync)
    assert syncs.early == []


def test_a_failure_is_told_at_the_end_though_the_last_sync_succeeds(tmp_path: Path, syncs: Syncs) -> None:
    syncs.error = OSError(errno.EIO, "bad disk")
    store = blobs(tmp_path / "content")
    with pytest.raises(NativeError, match=r"write blob .*Input/output error"):
        store_blob(store, syncs, 1)
    assert list(store.digests()) == []
    with pytest.raises(NativeError, match="unpack layer: Input/output error"):
        store_layer(tmp_path / "layers", syncs, "erofs", 1)
    assert list((tmp_path / "layers").rglob("sha256/*")) == []
    assert threading.active_count() == 1
