"""The reader: what the kernel shows without a mount, and no fault whatever is in the file."""

import os
import random
import stat
import struct
import threading
from pathlib import Path

import pytest
import tarbuild as t
from corekit import UUID, fsck, mounted, needs_root, read_tree, tree, unpack
from fstree import assert_same, capture
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layerfs.errors import IntegrityError, LayerfsError
from layerfs.native import Reader

SPARSE = [(0, b"a" * 5000), (65536, b"b" * 100), (150_000, b"c" * 50)]
SAMPLE = t.archive(
    t.directory("./", mode=0o755, mtime_ns=5),
    t.directory("d", mode=0o1777, uid=70000, xattrs={"user.d": b"1", "trusted.e": b"2" * 40}),
    t.file("d/small", b"hello"),
    t.file("d/large", bytes(range(256)) * 2000, mtime_ns=-7),
    t.hardlink("d/other", "d/large"),
    t.pax_sparse_1_0("sparse", 200_000, SPARSE),
    t.symlink("link", "d/small"),
    t.symlink("long-link", "t" * 3000),
    t.device("dev", "b", 259, 70000),
    t.fifo("pipe"),
    t.whiteout("gone"),
    *(t.file(f"many/{'n' * (i % 200)}{i:05}", b"x" * (i % 7)) for i in range(500)),
)


@pytest.fixture(scope="module", params=[512, 4096])
def image(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack(SAMPLE, tmp_path_factory.mktemp("reader") / "layer", block_size=request.param).path


@pytest.fixture
def reader(image: Path):  # type: ignore[no-untyped-def]
    fd = os.open(image, os.O_RDONLY)
    with Reader(fd) as r:
        os.close(fd)
        yield r


def find(r: Reader, path: str) -> int:
    nid = r.root
    for name in path.encode().split(b"/"):
        found = r.lookup(nid, name)
        assert found is not None, path
        nid = found
    return nid


@needs_root
def test_the_tree_is_what_the_kernel_shows(image: Path) -> None:
    with mounted(image) as top:
        assert_same(read_tree(image), capture(top))


@needs_root
def test_numbers_are_the_kernels(image: Path, reader: Reader) -> None:
    with mounted(image) as top:
        for path in ("d", "d/large", "sparse", "link", "dev", "many"):
            want = os.lstat(top / path)
            got = reader.stat(find(reader, path))
            assert (got.nid, got.mode, got.nlink, got.size) == (
                want.st_ino,
                want.st_mode,
                want.st_nlink,
                want.st_size,
            )


def test_lookup(reader: Reader) -> None:
    many = find(reader, "many")
    names = [name for name, _, _ in reader.readdir(many)]
    assert len(names) == 500
    assert names == sorted(names)
    for name, nid, kind in reader.readdir(many):
        assert reader.lookup(many, name) == nid
        assert kind == stat.S_IFREG >> 12
        for near in (name + b"!", name[:-1], name[:-1] + b"\xff"):
            assert reader.lookup(many, near) in (None, reader.lookup(many, near) if near in names else None)
    assert reader.lookup(many, b"") is None
    assert reader.lookup(many, b"x" * 300) is None
    assert reader.lookup(many, b"..") == reader.root
    assert reader.lookup(many, b".") == many
    assert reader.lookup(find(reader, "pipe"), b"x") is None  # no directory


def test_content(reader: Reader) -> None:
    large = find(reader, "d/large")
    assert reader.read(large, 0, 1 << 20) == bytes(range(256)) * 2000
    assert reader.read(large, 100, 5) == bytes(range(100, 105))
    assert reader.read(large, 512_000, 10) == b""
    assert reader.read(large, 2**63, 10) == b""
    buffer = bytearray(1000)
    assert reader.read_into(large, 511_990, buffer) == 10
    assert bytes(buffer[:10]) == bytes(range(246, 256))
    with pytest.raises(LayerfsError):
        reader.read(find(reader, "d"), 0, 1)
    with pytest.raises(LayerfsError):
        reader.readlink(large)


def test_extents_lead_to_the_content(reader: Reader, image: Path) -> None:
    layer = image.read_bytes()
    for path in ("sparse", "d/large", "d/small"):
        nid = find(reader, path)
        size, at, out = reader.stat(nid).size, 0, bytearray()
        while at < size:
            where, length = reader.extent(nid, at)
            assert length > 0
            out += bytes(length) if where is None else layer[where : where + length]
            at += length
        assert bytes(out[:size]) == reader.read(nid, 0, size)
        assert reader.extent(nid, size) == (None, 0)


def test_one_reader_serves_threads(reader: Reader) -> None:
    wrong: list[object] = []

    def work(seed: int) -> None:
        rng = random.Random(seed)
        names = [name for name, _, _ in reader.readdir(find(reader, "many"))]
        for _ in range(300):
            nid = reader.lookup(find(reader, "many"), rng.choice(names))
            if nid is None or reader.read(nid, 0, 9) != b"x" * reader.stat(nid).size:
                wrong.append(nid)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_golden_image() -> None:
    """An image made by another writer: small files inline, a name filter, one xattr."""
    data = bytearray(16384)

    def put(at: int, values: bytes) -> None:
        data[at : at + len(values)] = values

    # superblock: no checksum, 4 KiB blocks, root nid 1, metadata at block 3
    put(1024, struct.pack("<IIIBBHQqIIII16s", 0xE0F5E1E2, 0, 2, 12, 0, 1, 5, 1700000000, 0, 4, 3, 0, UUID))
    names = [b"!", b".", b"..", b"big", b"ln"]
    nids, types = [5, 1, 1, 7, 9], [1, 2, 2, 1, 7]
    body, at = b"", 12 * len(names)
    for name, nid, kind in zip(names, nids, types, strict=True):
        body += struct.pack("<QHBB", nid, at, kind, 0)
        at += len(name)
    body += b"".join(names)
    compact = "<HHHHIIIIHHI"
    put(12288 + 32, struct.pack(compact, 4, 0, 0o40755, 2, len(body), 0, 0, 1, 0, 0, 0) + body)
    put(12288 + 5 * 32, struct.pack(compact, 4, 0, 0o100644, 1, 3, 60, 0, 2, 0, 0, 0) + b"abc")
    put(12288 + 7 * 32, struct.pack("<HHHHQIIIIqII", 1, 0, 0o100644, 0, 5000, 1, 3, 70000, 0, -5, 7, 1) + bytes(16))
    put(12288 + 9 * 32, struct.pack(compact, 4, 0, 0o120777, 1, 3, 0, 0, 4, 0, 0, 0) + b"big")
    put(4096, b"B" * 5000)
    fd = os.memfd_create("golden")
    os.write(fd, data)
    with Reader(fd) as r:
        assert [name for name, _, _ in r.readdir(r.root)] == [b"!", b"big", b"ln"]
        assert r.read(find(r, "!"), 0, 100) == b"abc"
        assert r.stat(find(r, "!")).mtime == 1700000060
        assert r.read(find(r, "big"), 0, 9999) == b"B" * 5000
        assert (r.stat(find(r, "big")).uid, r.stat(find(r, "big")).mtime_ns) == (70000, -5 * 10**9 + 7)
        assert r.readlink(find(r, "ln")) == b"big"
    os.close(fd)


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (1024, b"\0"),  # magic
        (1024 + 4, b"\xff"),  # checksum
        (1024 + 12, b"\x08"),
        (1024 + 12, b"\x0d"),
        (1024 + 0x50, b"\xff"),  # features
        (1024 + 14, b"\xff\xff"),  # root
        (1024 + 0x28, b"\xff\xff\xff\xff"),  # metadata
        (1024 + 0x24, b"\xff\xff\xff\xff"),  # blocks
    ],
)
def test_a_wrong_superblock_is_refused(at: int, value: bytes, tmp_path: Path) -> None:
    data = bytearray(unpack(SAMPLE, tmp_path / "layer").path.read_bytes())
    data[at : at + len(value)] = value
    fd = os.memfd_create("damaged")
    os.write(fd, data)
    with pytest.raises(IntegrityError):
        Reader(fd)
    os.close(fd)


@pytest.mark.parametrize("size", [0, 100, 1023, 1024, 1151, 1152, 4096, 8192])
def test_a_file_cut_short_is_refused(size: int, tmp_path: Path) -> None:
    path = unpack(SAMPLE, tmp_path / "layer").path
    os.truncate(path, size)
    fd = os.open(path, os.O_RDONLY)
    with pytest.raises(IntegrityError):
        Reader(fd)
    os.close(fd)


def no_checksum(data: bytearray) -> bytearray:
    data[1024 + 8] &= 0xFE
    return data


@given(st.lists(st.tuples(st.integers(0, 1 << 24), st.integers(0, 255)), min_size=1, max_size=20))
@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damage_gives_integrity_errors_only(image: Path, changes: list[tuple[int, int]]) -> None:
    data = no_checksum(bytearray(image.read_bytes()))
    meta = len(data) - 40_000 if len(data) > 60_000 else 4096
    for at, value in changes:
        data[meta + at % (len(data) - meta)] = value
    fd = os.memfd_create("damaged")
    os.write(fd, data)
    try:
        with Reader(fd) as r:
            for i, (_, s) in enumerate(r.walk()):
                if i > 5000:
                    break
                r.xattrs(s.nid)
                if stat.S_ISREG(s.mode):
                    r.read(s.nid, 0, 1 << 16)
                elif stat.S_ISLNK(s.mode):
                    r.readlink(s.nid)
    except IntegrityError:
        pass
    finally:
        os.close(fd)


def test_a_directory_with_two_names_ends_the_walk(tmp_path: Path) -> None:
    layer = unpack(t.archive(t.directory("a"), t.directory("b")), tmp_path / "layer")
    data = no_checksum(bytearray(layer.path.read_bytes()))
    fd = os.memfd_create("loop")
    os.write(fd, data)
    with Reader(fd) as r:
        root, a = r.root, r.lookup(r.root, b"a")
    assert a is not None
    at = data.index(struct.pack("<Q", a), layer.result.meta_offset)  # in the root, which is first
    data[at : at + 8] = struct.pack("<Q", root)
    os.pwrite(fd, data, 0)
    with Reader(fd) as r, pytest.raises(IntegrityError):
        list(r.walk())
    os.close(fd)


@pytest.mark.skipif(not os.path.exists("/usr/bin/fsck.erofs"), reason="needs erofs-utils")
def test_fsck_finds_nothing(tmp_path: Path) -> None:
    layer = unpack(SAMPLE, tmp_path / "layer", block_size=4096)
    assert fsck(layer.path) == ""
    damaged = bytearray(layer.path.read_bytes())
    damaged[1024 + 4] ^= 1
    layer.path.write_bytes(damaged)
    assert fsck(layer.path) != ""  # so it does look


@needs_root
def test_same_tree_in_both_formats(tmp_path: Path) -> None:
    a, b = unpack(SAMPLE, tmp_path / "a"), unpack(SAMPLE, tmp_path / "b", "dir")
    x, y = ({p: n for p, n in tree(layer).items() if p != b"gone"} for layer in (a, b))
    assert_same(x, y)
