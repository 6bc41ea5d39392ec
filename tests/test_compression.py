import bz2
import gzip
import io
import lzma
import random
from functools import partial

import lz4.frame
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerfs.compression import compress, detect, open_reader
from layerfs.errors import IntegrityError, InvalidInputError

random.seed(1)
DATA = random.randbytes(50_000) * 4 + bytes(3 << 20)
ENCODED = {
    "gzip": gzip.compress(DATA, 6, mtime=0),
    "bzip2": bz2.compress(DATA),
    "xz": lzma.compress(DATA),
    "lz4": lz4.frame.compress(DATA, content_checksum=True),
    "zstd": b"".join(compress([DATA], "zstd")),
    "none": DATA,
}


def plain(data: bytes, kind: str = "auto", size: int = 1 << 20) -> bytes:
    reader = open_reader(io.BytesIO(data), kind)
    pieces = []
    while piece := reader.read(size):
        assert len(piece) <= size
        pieces.append(piece)
    assert reader.read(size) == b""
    return b"".join(pieces)


@pytest.mark.parametrize("kind", ENCODED)
def test_reading(kind: str) -> None:
    assert detect(ENCODED[kind][:6]) == kind
    assert plain(ENCODED[kind]) == DATA
    assert plain(ENCODED[kind], size=1000) == DATA


@pytest.mark.parametrize("kind", ["gzip", "bzip2", "xz", "lz4", "zstd"])
def test_members_one_after_the_other_are_one_stream(kind: str) -> None:
    assert plain(ENCODED[kind] * 3) == DATA * 3


@pytest.mark.parametrize("kind", ["gzip", "bzip2", "xz", "lz4", "zstd"])
@pytest.mark.parametrize("damage", ["cut", "empty", "flip", "garbage"])
def test_damage_is_noticed(kind: str, damage: str) -> None:
    data = bytearray(ENCODED[kind])
    if damage == "cut":
        del data[-5:]
    elif damage == "empty":
        data.clear()
    elif damage == "flip":
        data[len(data) // 2] ^= 0x55
    else:
        data += b"garbage that is no member"
    with pytest.raises(IntegrityError, match="decompress"):
        plain(bytes(data), kind)


def test_padding_after_gzip() -> None:
    assert plain(ENCODED["gzip"] + bytes(100_000)) == DATA
    assert plain(ENCODED["gzip"] + bytes(512) + ENCODED["gzip"]) == DATA * 2


def test_a_bomb_is_read_in_bounded_pieces() -> None:
    reader = open_reader(io.BytesIO(gzip.compress(bytes(64 << 20))))
    assert len(reader.read(1 << 16)) <= 1 << 16


@pytest.mark.parametrize(
    ("kind", "level"), [("gzip", 0), ("gzip", 3), ("gzip", None), ("zstd", 1), ("zstd", 19), ("none", None)]
)
def test_writing_is_reproducible_and_readable(kind: str, level: int | None) -> None:
    small = DATA[:300_000]
    chunks = [small[i : i + 70_000] for i in range(0, len(small), 70_000)]
    once, again = (b"".join(compress(chunks, kind, level)) for _ in range(2))
    assert once == again
    assert plain(once) == small
    if kind == "gzip":
        assert gzip.decompress(once) == small
        assert once[4:8] == bytes(4)  # no time


def test_what_cannot_be_written_is_refused() -> None:
    for kind, level in (("xz", None), ("gzip", 9), ("zstd", 0)):
        with pytest.raises(InvalidInputError):
            list(compress([b"x"], kind, level))
    with pytest.raises(InvalidInputError):
        open_reader(io.BytesIO(b""), "rar")


@given(st.binary(max_size=2000))
@settings(max_examples=60)
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for kind in ENCODED:
        try:
            plain(data, kind)
        except IntegrityError:
            assert kind != "none"


def test_a_hundred_thousand_members() -> None:
    """As many as fit into 2 MB, empty or nearly: what one costs does not grow with what follows it."""
    empty = gzip.compress(b"", mtime=0)
    assert plain(empty * 100_000, "gzip") == b""
    assert plain((empty + b"\0") * 100_000, "gzip") == b""
    single = gzip.compress(b"x", mtime=0)
    assert plain(single * 100_000, "gzip") == b"x" * 100_000
    with pytest.raises(IntegrityError, match="cut short"):
        plain(empty * 100_000 + empty[:10], "gzip")


@pytest.mark.parametrize("kind", ["gzip", "bzip2", "xz", "lz4", "zstd"])
def test_members_of_all_sizes_in_input_of_any_pieces(kind: str) -> None:
    contents = [DATA[:n] for n in (0, 1, 300, 511, 5_000, 70_000, 0, 250_000, 3)]
    data = b"".join(encoded(content, kind) for content in contents)
    want = b"".join(contents)
    for step in (1, 500, 1 << 20):
        pieces = [data[at : at + step] for at in range(0, len(data), step)]
        read = partial(open_reader(Pieces(pieces), kind).read, 10_000)
        assert b"".join(iter(read, b"")) == want


class Pieces:
    """A reader that gives what it was given."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces[::-1]

    def read(self, size: int = 0, /) -> bytes:
        return self._pieces.pop() if self._pieces else b""


def encoded(data: bytes, kind: str) -> bytes:
    if kind in ("gzip", "zstd"):
        return b"".join(compress([data], kind))
    return bytes({"bzip2": bz2.compress, "xz": lzma.compress, "lz4": lz4.frame.compress}[kind](data))
