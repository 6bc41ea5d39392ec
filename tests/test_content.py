import io
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from layerfs import native
from layerfs.content import ContentStore
from layerfs.digest import Digest
from layerfs.errors import IntegrityError, NotFoundError
from layerfs.fsutil import Ingest
from layerfs.oci import MEDIA_CONFIG, descriptor_of

DATA = bytes(range(256)) * 5000


@pytest.fixture
def store(tmp_path: Path) -> ContentStore:
    return make(tmp_path)


def make(root: Path) -> ContentStore:
    for name in ("blobs/sha256", "blobs/sha512", "ingest"):
        (root / name).mkdir(parents=True, exist_ok=True)
    return ContentStore(root / "blobs", root / "ingest")


def test_write_and_read(store: ContentStore) -> None:
    digest = store.write(DATA)
    assert store.has(digest)
    assert store.read(digest, len(DATA)) == DATA
    assert store.size(digest) == len(DATA)
    assert list(store.digests()) == [digest]
    assert store.path(digest).stat().st_mode & 0o777 == 0o444
    assert os.listdir(store._ingest) == []
    with pytest.raises(IntegrityError, match="more than"):
        store.read(digest, 10)
    assert store.delete(digest) > 0
    assert store.delete(digest) == 0
    with pytest.raises(NotFoundError):
        store.open(digest)


def test_damage_is_noticed_when_a_small_blob_is_read(store: ContentStore) -> None:
    digest = store.write(b"right")
    store.path(digest).chmod(0o644)
    store.path(digest).write_bytes(b"wrong")
    with pytest.raises(IntegrityError):
        store.read(digest, 100)


def test_a_wrong_blob_never_appears(store: ContentStore) -> None:
    descriptor = descriptor_of(DATA, MEDIA_CONFIG)
    for wrong in (DATA[:-1], DATA + b"x", DATA[:-1] + b"x"):
        with pytest.raises(IntegrityError):
            store.put(descriptor, io.BytesIO(wrong))
        assert not store.has(descriptor)
        assert os.listdir(store._ingest) == []


def test_a_partial_blob_is_gone_on_with(store: ContentStore) -> None:
    digest = Digest.of(DATA)
    with store.writer(digest, len(DATA)) as writer:
        writer.write(DATA[:1000])
    with store.writer(digest, len(DATA)) as writer:
        assert writer.offset == 1000
        writer.write(DATA[1000:])
        writer.commit()
    assert store.read(digest, len(DATA)) == DATA
    with store.writer(digest, len(DATA)) as writer:
        assert writer.present


def test_a_partial_blob_that_was_wrong_is_started_over(store: ContentStore) -> None:
    digest = Digest.of(DATA)
    with store.writer(digest, len(DATA)) as writer:
        writer.write(b"x" * 1000)
    with pytest.raises(IntegrityError), store.writer(digest, len(DATA)) as writer:
        writer.write(DATA[1000:])
        writer.commit()
    with store.writer(digest, len(DATA)) as writer:
        assert writer.offset == 0


def _write_half(root: Path, ready: "multiprocessing.synchronize.Event", resume: bool = True) -> None:
    with make(root).writer(Digest.of(DATA), len(DATA), resume=resume) as writer:
        writer.write(DATA[: len(DATA) // 2])
        ready.set()
        time.sleep(60)


def test_a_killed_writer_leaves_its_half_and_no_lock(tmp_path: Path) -> None:
    store = make(tmp_path)
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_write_half, args=(tmp_path, ready))
    process.start()
    assert ready.wait(30)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    with store.writer(Digest.of(DATA), len(DATA)) as writer:
        assert writer.offset == len(DATA) // 2
        writer.write(DATA[writer.offset :])
        writer.commit()
    assert store.has(Digest.of(DATA))


def test_what_nobody_goes_on_with_is_litter(tmp_path: Path) -> None:
    """As the configuration that a killed build was writing: it is swept, but not under its writer."""
    store = make(tmp_path)
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_write_half, args=(tmp_path, ready, False))
    process.start()
    assert ready.wait(30)
    ingest = Ingest(tmp_path / "ingest")
    assert ingest.sweep() == 0
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    assert ingest.sweep() == 1
    assert os.listdir(tmp_path / "ingest") == []
    with store.writer(Digest.of(DATA), len(DATA), resume=False) as writer:
        writer.write(DATA)
        assert ingest.sweep() == 0
        writer.commit()
    assert store.has(Digest.of(DATA))


def _write_all(root: Path, counter: "multiprocessing.Queue[bool]") -> None:
    with make(root).writer(Digest.of(DATA), len(DATA)) as writer:
        counter.put(writer.present)
        if not writer.present:
            time.sleep(0.2)
            writer.write(DATA)
            writer.commit()


def test_two_writers_do_the_work_once(tmp_path: Path) -> None:
    store = make(tmp_path)
    context = multiprocessing.get_context("spawn")
    counter: multiprocessing.Queue[bool] = context.Queue()
    processes = [context.Process(target=_write_all, args=(tmp_path, counter)) for _ in range(3)]
    for process in processes:
        process.start()
    found = sorted(counter.get(timeout=30) for _ in processes)
    for process in processes:
        process.join()
    assert found == [False, True, True]
    assert store.read(Digest.of(DATA), len(DATA)) == DATA
    assert os.listdir(tmp_path / "ingest") == []


def test_partials_are_those_that_nobody_is_at(store: ContentStore) -> None:
    digests = [Digest.of(b"%d" % number) for number in range(3)]
    for digest in digests:
        with store.writer(digest, None) as writer:
            writer.write(b"part")
    paths = {store._ingest / f"blob-sha256-{digest.hex}" for digest in digests}
    assert {path for path, _ in store.partials()} == paths
    partials = store.partials()
    next(partials)
    for path in paths:
        path.unlink()
    assert list(partials) == []  # finished by others meanwhile
    with store.writer(digests[0], None) as writer:
        writer.write(b"0")
        assert list(store.partials()) == []
        writer.commit()


@pytest.mark.parametrize("sync", [True, False])
def test_a_large_blob_goes_to_the_disk_while_it_comes(
    tmp_path: Path, sync: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In steps that follow each other, so that the sync at the end waits for the last one only."""
    make(tmp_path)
    store = ContentStore(tmp_path / "blobs", tmp_path / "ingest", sync=sync)
    begun: list[tuple[int, int]] = []
    monkeypatch.setattr(native, "write_back", lambda fd, offset, length: begun.append((offset, length)))
    data = bytes(range(256)) * (20 << 12)
    with store.writer(Digest.of(data), len(data)) as writer:
        for at in range(0, len(data), 700_000):
            writer.write(data[at : at + 700_000])
        writer.commit()
    ends = [0, *(offset + length for offset, length in begun)]
    assert [offset for offset, _ in begun] == ends[:-1]
    assert ends[-1] > len(data) - (8 << 20) if sync else not begun
