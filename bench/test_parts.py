"""The parts, one after the other; ``make bench`` prints a table. What is measured is checked to be right elsewhere."""

import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import xxhash

from layerfs import native
from layerfs.compression import compress, open_reader
from layerfs.digest import Digest
from layerfs.layers import LayerStore
from layerfs.metadata import Database
from layerfs.oci import MEDIA_MANIFEST, descriptor_of

PIECE = 1 << 20
Benchmark = Callable[..., Any]


def pieces(data: bytes) -> list[memoryview]:
    view = memoryview(data)
    return [view[i : i + PIECE] for i in range(0, len(data), PIECE)]


def unpack(data: bytes, path: Path, **options: Any) -> native.UnpackResult:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with native.Unpacker(fd, **options) as unpacker:
            for piece in pieces(data):
                unpacker.write(piece)
                unpacker.rest()
            return unpacker.finish(bytes(16))
    finally:
        os.close(fd)


def repack(path: Path, rest: bytes) -> int:
    fd, total = os.open(path, os.O_RDONLY), 0
    try:
        with native.Repacker(fd) as repacker:
            for piece in pieces(rest):
                repacker.feed(piece)
                while out := repacker.read(PIECE):
                    total += len(out)
    finally:
        os.close(fd)
    return total


def drain(reader: Any) -> int:
    total = 0
    while piece := reader.read(PIECE):
        total += len(piece)
    return total


@pytest.mark.parametrize("kind", ["many_small", "one_large"])
def test_tar_to_erofs(benchmark: Benchmark, request: pytest.FixtureRequest, tmp_path: Path, kind: str) -> None:
    data = request.getfixturevalue(kind)
    assert benchmark(unpack, data, tmp_path / "layer").tar_bytes == len(data)


def test_tar_to_directory(benchmark: Any, many_small: bytes, tmp_path: Path) -> None:
    count = iter(range(1000))

    def once() -> None:
        work = tmp_path / f"layer{next(count)}"
        work.mkdir()
        fd = os.open(work, os.O_RDONLY | os.O_DIRECTORY)
        with native.Unpacker(fd, directory=True) as unpacker:
            for piece in pieces(many_small):
                unpacker.write(piece)
                unpacker.rest()
            unpacker.finish(bytes(16))
        os.close(fd)

    benchmark.pedantic(once, rounds=1)


def test_exact_tar(benchmark: Benchmark, mixed: bytes, tmp_path: Path) -> None:
    fd = os.open(tmp_path / "layer", os.O_RDWR | os.O_CREAT, 0o600)
    rest = b""
    with native.Unpacker(fd) as unpacker:
        for piece in pieces(mixed):
            unpacker.write(piece)
            rest += unpacker.rest()
        unpacker.finish(bytes(16))
        rest += unpacker.rest()
    os.close(fd)
    assert benchmark(repack, tmp_path / "layer", rest) == len(mixed)


def test_layer_in_with_hash_and_sync(benchmark: Any, mixed: bytes, tmp_path: Path) -> None:
    """All of ``LayerStore``: sha256, unpacking, rest, header, fdatasync, rename."""
    for name in ("layers/sha256", "run", "ingest"):
        (tmp_path / name).mkdir(parents=True)
    store = LayerStore(tmp_path / "layers", tmp_path / "run", tmp_path / "ingest", "erofs")

    def once() -> None:
        with store.writer() as writer:
            for piece in pieces(mixed):
                writer.write(piece)
            store.delete(writer.commit().diff_id)

    benchmark(once)


def test_diff_of_an_upper(benchmark: Benchmark, upper: Path) -> None:
    def once() -> int:
        fd = os.open(upper, os.O_RDONLY | os.O_DIRECTORY)
        with native.Differ(fd) as differ:
            total = drain(differ)
        os.close(fd)
        return total

    assert benchmark(once) > 5000 * 4096


def test_changes_of_an_upper(benchmark: Benchmark, upper: Path) -> None:
    def once() -> int:
        fd = os.open(upper, os.O_RDONLY | os.O_DIRECTORY)
        with native.Differ(fd) as differ:
            count = sum(1 for _ in differ.changes())
        os.close(fd)
        return count

    assert benchmark(once) >= 5000


def test_reader_lists_a_layer(benchmark: Benchmark, many_small: bytes, tmp_path: Path) -> None:
    unpack(many_small, tmp_path / "layer")

    def once() -> int:
        fd, count = os.open(tmp_path / "layer", os.O_RDONLY), 0
        with native.Reader(fd) as reader:
            pending = [reader.root]
            while pending:
                for _, nid, kind in reader.readdir(pending.pop()):
                    count += 1
                    if kind == 4:
                        pending.append(nid)
        os.close(fd)
        return count

    assert benchmark(once) == 50_000 + 500 + 2


@pytest.mark.parametrize("name", ["sha256", "xxh3_128"])
def test_hashing(benchmark: Benchmark, mixed: bytes, name: str) -> None:
    benchmark((lambda: hashlib.sha256(mixed)) if name == "sha256" else (lambda: xxhash.xxh3_128(mixed)))


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_compressing(benchmark: Benchmark, mixed: bytes, kind: str) -> None:
    assert benchmark(lambda: sum(map(len, compress((bytes(p) for p in pieces(mixed)), kind)))) < len(mixed)


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_decompressing(benchmark: Benchmark, mixed: bytes, kind: str) -> None:
    data = b"".join(compress([mixed], kind))
    assert benchmark(lambda: drain(open_reader(io.BytesIO(data)))) == len(mixed)


def test_recording_an_image_durably(benchmark: Benchmark, tmp_path: Path) -> None:
    database, count = Database(tmp_path / "x.db"), iter(range(10**6))

    def once() -> None:
        target = descriptor_of(str(next(count)).encode(), MEDIA_MANIFEST)
        database.add_image(
            target, target.digest, [Digest.of(b"x")], [target.digest], f"docker.io/library/{target.digest.short}:1"
        )

    benchmark(once)
    database.close()


def test_finding_an_image_among_ten_thousand(benchmark: Benchmark, tmp_path: Path) -> None:
    database = Database(tmp_path / "x.db")
    with database.transaction():
        for i in range(10_000):
            target = descriptor_of(str(i).encode(), MEDIA_MANIFEST)
            database.add_image(target, target.digest, [Digest.of(b"x")], [target.digest], f"docker.io/library/a{i}:1")
    wanted = descriptor_of(b"77", MEDIA_MANIFEST).digest
    assert benchmark(database.find_images, wanted[:19])[0].target.digest == wanted
    database.close()
