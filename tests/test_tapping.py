"""A blob's bytes are taken beside the one who reads them: all, in order, and what fails is told."""

import io
import threading
from collections.abc import Iterator

import pytest

from layerfs.errors import IntegrityError
from layerfs.unpack.tapping import tapped

DATA = bytes(range(256)) * 4000


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name == "layerfs-tap"] == []


@pytest.mark.parametrize("size", [1000, 100_000, len(DATA), 2 * len(DATA)])
def test_all_of_it_in_order(size: int) -> None:
    taken: list[bytes] = []
    read: list[bytes] = []
    lengths: list[int] = []
    with tapped(io.BytesIO(DATA), taken.append, lengths.append) as reader:
        while piece := reader.read(size):
            read.append(piece)
    assert taken == read
    assert b"".join(taken) == DATA
    assert lengths == [len(piece) for piece in read]


@pytest.mark.parametrize("good", [0, 1, 5])
def test_a_failure_ends_the_reading(good: int) -> None:
    taken: list[bytes] = []

    def take(piece: bytes) -> None:
        if len(taken) == good:
            raise IntegrityError("longer than announced")
        taken.append(piece)

    with (
        pytest.raises(IntegrityError, match="longer"),
        tapped(io.BytesIO(DATA), take, lambda size: None) as reader,
    ):
        while reader.read(1000):
            pass
    assert len(taken) == good


def test_a_failure_at_the_very_end_is_told() -> None:
    def take(piece: bytes) -> None:
        if piece.endswith(DATA[-10:]) and taken:
            raise IntegrityError("the disk is full")
        taken.append(piece)

    taken: list[bytes] = []
    with (
        pytest.raises(IntegrityError, match="full"),
        tapped(io.BytesIO(DATA), take, lambda size: None) as reader,
    ):
        for _ in range(2):
            reader.read(len(DATA) // 2)


def test_what_was_read_is_taken_though_the_reader_gives_up() -> None:
    taken: list[bytes] = []
    with (
        pytest.raises(ValueError, match="enough"),
        tapped(io.BytesIO(DATA), taken.append, lambda size: None) as reader,
    ):
        for _ in range(7):
            reader.read(1000)
        raise ValueError("enough")
    assert b"".join(taken) == DATA[:7000]
