"""A tar into a layer by three threads: all of it, in order, whatever the pieces; and what fails is told."""

import hashlib
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tarbuild
from suites.layer_suite import make_store

from layerfs.errors import IntegrityError
from layerfs.layers.feeding import feed
from layerfs.layers.store import LayerStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LayerStore]:
    yield make_store(tmp_path / "store", "erofs")
    assert [thread for thread in threading.enumerate() if thread is not threading.main_thread()] == []


def large() -> bytes:
    content = random.Random(7).randbytes(3_333_333)
    return tarbuild.archive(*(tarbuild.file(f"f{n}", content[: n * 999_999]) for n in range(4)))


def own(data: bytes, step: int) -> Callable[[memoryview], bytes]:
    pieces = [data[at : at + step] for at in range(0, len(data), step)]
    return lambda buffer: pieces.pop(0) if pieces else b""


def into_the_buffer(data: bytes, step: int) -> Callable[[memoryview], memoryview]:
    left = memoryview(data)

    def read(buffer: memoryview) -> memoryview:
        nonlocal left
        n = min(len(left), len(buffer), step)
        buffer[:n], left = left[:n], left[n:]
        return buffer[:n]

    return read


@pytest.mark.parametrize("step", [100_000, 1 << 30])
@pytest.mark.parametrize("reader", [own, into_the_buffer])
def test_all_of_it_in_order(store: LayerStore, reader: Callable[..., Callable[[memoryview], bytes]], step: int) -> None:
    data = large()
    with store.writer() as writer:
        feed(writer, reader(data, step))
        layer = writer.commit()
    assert layer.diff_id.hex == hashlib.sha256(data).hexdigest()
    with store.open_tar(layer.diff_id) as tar:
        assert b"".join(iter(lambda: tar.read(1 << 20), b"")) == data


@pytest.mark.parametrize("calls", [0, 1, 5])
def test_a_reader_that_fails(store: LayerStore, calls: int) -> None:
    read, done = into_the_buffer(large(), 1 << 30), 0

    def failing(buffer: memoryview) -> memoryview:
        nonlocal done
        if done == calls:
            raise OSError("the disk is gone")
        done += 1
        return read(buffer)

    with store.writer() as writer, pytest.raises(OSError, match="the disk is gone"):
        feed(writer, failing)
    assert done == calls


def test_a_tar_that_is_refused_stops_the_reader(store: LayerStore) -> None:
    start = tarbuild.file("f", bytes(1_000_000))
    asked = 0

    def endless(buffer: memoryview) -> bytes:
        nonlocal asked
        asked += 1
        return start if asked == 1 else b"\xff" * len(buffer)

    with store.writer() as writer, pytest.raises(IntegrityError, match="header"):
        feed(writer, endless)
    assert asked < 20
