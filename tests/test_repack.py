"""Exact tar out: what any writer of tar wrote comes back byte for byte, and the tree is what GNU tar makes of it."""

import io
import os
import shutil
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
import tarbuild as t
from corekit import FORMATS, Unpacked, mounted, needs_root, pieces, read_tree, repack, tree, unpack
from fstree import Device, Dir, Fifo, File, Hole, Link, Node, Symlink, apply, assert_same, capture, holes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layerfs.errors import IntegrityError
from layerfs.native import Repacker, Unpacker

pytestmark = needs_root

ACL = bytes.fromhex("02000000 01000700ffffffff 02000600e8030000 04000500ffffffff 10000700ffffffff 20000500ffffffff")
CAPABILITY = bytes.fromhex("0100000200200000" + "0" * 24)

PLAIN = (
    Dir("", mode=0o755),
    Dir("dir", mode=0o1777),
    Dir("empty", mode=0o700, uid=12, gid=13),
    File("dir/small", b"x"),
    File("dir/block", b"b" * 512),
    File("dir/page", b"p" * 4096),
    File("big", os.urandom(1 << 20) + b"end", mode=0o4755),
    File("zeros", bytes(1 << 20)),
    File("half", b"h" * 100_000 + bytes(300_000) + b"t" * 100_000),
    File("empty-file", b"", mode=0),
    File("owned", b"o", mode=0o6711, uid=1000, gid=2_000_000),
    Symlink("link", "dir/small"),
    Symlink("dangling", "/no/where"),
    Link("dir/hard", "big"),
    Link("hard2", "big"),
    Link("hardlink-of-link", "link"),
)
SPECIAL = (Device("null", "c", 1, 3, mode=0o666), Device("disk", "b", 8, 17), Fifo("pipe", mode=0o600))
LONG = (
    File("l" * 255, b"long name"),
    File("/".join(["deep" * 20] * 30) + "/file", b"deep"),
    Symlink("long-link", "t" * 300),
    File(b"not-utf8-\xff\xfe\x80", b"raw"),
)
SPARSE = (
    Hole("sparse", size=3 << 20, pieces={0: b"head", 1 << 20: b"m" * 5000, (3 << 20) - 10: b"tail"}),
    Hole("hole", size=1 << 20, pieces={}),
    Hole("ends-in-hole", size=1 << 20, pieces={70_000: b"x" * 4096}),
    Hole("many", size=1 << 20, pieces={i * 16384: b"y" * 4096 for i in range(60)}),
)
EXTRA = (
    File("acl", b"a", mode=0o775, xattrs={"system.posix_acl_access": ACL}),
    Dir("acldir", mode=0o775, xattrs={"system.posix_acl_access": ACL, "system.posix_acl_default": ACL}),
    File("ping", b"p" * 99, mode=0o755, xattrs={"security.capability": CAPABILITY, "user.note": b"\0\n=\xff"}),
    File("before", b"old", mtime_ns=-123_456_789_012_345),
    File("future", b"new", mtime_ns=5_000_000_000 * 10**9 + 1),
)

# name: what it holds, how it is written
GNU = ["--numeric-owner", "--sort=name"]
EVERYTHING = ["--format=posix", "--xattrs", "--xattrs-include=*", "--acls"]
WRITERS = {
    "v7": (PLAIN[:10] + PLAIN[11:], ["--format=v7"]),
    "ustar": (PLAIN[:10] + PLAIN[11:] + SPECIAL, ["--format=ustar"]),
    "oldgnu": (PLAIN + SPECIAL + LONG, ["--format=oldgnu"]),
    "oldgnu-sparse": (PLAIN + SPARSE, ["--format=oldgnu", "--sparse"]),
    "gnu": (PLAIN + SPECIAL + LONG, ["--format=gnu"]),
    "gnu-sparse": (PLAIN + SPARSE, ["--format=gnu", "--sparse"]),
    "posix": (PLAIN + SPECIAL + LONG + EXTRA, EVERYTHING),
    "posix-sparse-0.0": (PLAIN + SPARSE, [*EVERYTHING, "--sparse", "--sparse-version=0.0"]),
    "posix-sparse-0.1": (PLAIN + SPARSE, [*EVERYTHING, "--sparse", "--sparse-version=0.1"]),
    "posix-sparse-1.0": (PLAIN + SPARSE, [*EVERYTHING, "--sparse", "--sparse-version=1.0"]),
    "posix-blocking": (PLAIN, ["--format=posix", "--blocking-factor=1"]),
    "posix-global": (PLAIN, ["--format=posix", "--pax-option=globexthdr.name=g,comment=hello"]),
}


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[bytes, Path]]:
    """By writer: the archive, and what GNU tar extracts of it."""
    made = {}
    for name, (items, options) in WRITERS.items():
        where = tmp_path_factory.mktemp(name)
        (where / "src").mkdir()
        (where / "out").mkdir()
        apply(where / "src", *items)
        done = subprocess.run(
            ["tar", *GNU, *options, "-C", where / "src", "-cf", "-", "."], capture_output=True, check=True
        )
        extract = ["tar", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--acls", "-xpf", "-"]
        subprocess.run([*extract, "-C", where / "out"], input=done.stdout, check=True)
        shutil.rmtree(where / "src")
        made[name] = (done.stdout, where / "out")
    return made


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("writer", WRITERS)
def test_gnu_tar(archives: dict[str, tuple[bytes, Path]], writer: str, format: str, tmp_path: Path) -> None:
    data, extracted = archives[writer]
    layer = unpack(data, tmp_path / "layer", format, [1 << 20])
    want = capture(extracted)
    assert_same(tree(layer), want)
    if format == "erofs":
        assert_same(read_tree(layer.path), want)
    assert repack(layer) == data


@pytest.mark.parametrize("block_size", [512, 1024, 2048, 4096])
def test_gnu_tar_at_every_block_size(archives: dict[str, tuple[bytes, Path]], block_size: int, tmp_path: Path) -> None:
    data, extracted = archives["posix"]
    layer = unpack(data, tmp_path / "layer", block_size=block_size)
    assert_same(tree(layer), capture(extracted))
    assert repack(layer) == data


@pytest.mark.parametrize("format", FORMATS)
def test_holes_stay_holes(format: str, archives: dict[str, tuple[bytes, Path]], tmp_path: Path) -> None:
    data, _ = archives["posix-sparse-1.0"]
    layer = unpack(data, tmp_path / "layer", format)

    def check(top: Path) -> None:
        assert holes(top / "hole") == [(0, 1 << 20)]
        assert holes(top / "ends-in-hole")[-1] == (77824, (1 << 20) - 77824)
        assert sum(n for _, n in holes(top / "sparse")) >= (3 << 20) - 5 * 4096
        assert len(holes(top / "many")) == 60

    if format == "dir":
        check(layer.path / "fs")
    else:
        with mounted(layer.path) as top:
            check(top)
            assert sum(n for _, n in holes(top / "half")) >= 3 * 65536  # zeros became a hole
            assert holes(top / "zeros") == [(0, 1 << 20)]
        assert layer.path.stat().st_size < len(data)


@pytest.mark.skipif(shutil.which("bsdtar") is None, reason="needs bsdtar (libarchive-tools)")
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("style", ["pax", "ustar", "gnutar", "v7", "paxr"])
def test_bsdtar(style: str, format: str, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    items = (
        PLAIN[:10] + PLAIN[11:] + (SPECIAL + LONG + EXTRA[:3] if style == "pax" else ())
    )  # it writes times before 1970 wrongly
    apply(tmp_path / "src", *items)
    written = "pax" if style == "paxr" else style
    options = ["--read-sparse"] if style == "paxr" else []
    if style == "paxr":
        apply(tmp_path / "src", *SPARSE)
    command = ["bsdtar", f"--format={written}", *options, "--numeric-owner", "-C", tmp_path / "src", "-cf", "-", "."]
    data = subprocess.run(command, capture_output=True, check=True).stdout
    layer = unpack(data, tmp_path / "layer", format)
    whole = style in ("pax", "paxr")
    got, want = tree(layer), capture(tmp_path / "src")
    if not whole:  # only seconds
        got, want = ({p: _seconds(n) for p, n in x.items()} for x in (got, want))
    assert_same(got, want)
    assert repack(layer) == data


def _seconds(node: Node) -> Node:
    return replace(node, mtime_ns=node.mtime_ns // 10**9)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("style", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_python_tarfile(style: int, format: str, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    apply(tmp_path / "src", *PLAIN[:10], *PLAIN[11:-1], *SPECIAL)  # it writes no hard links of links
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=style) as archive:
        archive.add(tmp_path / "src", arcname=".")
    layer = unpack(out.getvalue(), tmp_path / "layer", format)
    # tarfile holds times as floating point numbers
    assert_same(tree(layer), capture(tmp_path / "src", xattrs=False), ignore=("mtime_ns",))
    assert repack(layer) == out.getvalue()


# ---- the rest stream and its reader ----


def layer_of(tmp_path: Path, format: str) -> tuple[bytes, Unpacked]:
    data = t.archive(
        t.file("a", b"a" * 3000),
        t.file("z", bytes(200_000)),
        t.file("a", b"again"),
        t.gnu_sparse("s", 9000, [(512, b"q" * 512)]),
    )
    return data, unpack(data, tmp_path / "layer", format)


@given(splits=st.lists(st.integers(1, 300), min_size=1, max_size=6), size=st.integers(1, 5000))
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("format", FORMATS)
def test_any_split_of_the_rest(tmp_path_factory, format: str, splits: list[int], size: int) -> None:
    data, layer = layer_of(tmp_path_factory.mktemp("rest"), format)
    assert repack(layer, splits, size) == data


@pytest.mark.parametrize("format", FORMATS)
def test_a_rest_cut_short_is_noticed(format: str, tmp_path: Path) -> None:
    _, layer = layer_of(tmp_path, format)
    fd = os.open(layer.path, os.O_RDONLY)
    for n in range(len(layer.rest)):
        with Repacker(fd, directory=format == "dir") as r:
            r.feed(layer.rest[:n])
            out = bytearray()
            while data := r.read():
                out += data
            try:
                r.finish()
            except IntegrityError:
                continue
            assert len(out) < layer.result.tar_bytes  # between two operations: the length tells
    os.close(fd)


@given(at=st.integers(0, 100_000), byte=st.integers(0, 255))
@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("format", FORMATS)
def test_a_damaged_rest_stays_inside_the_layer(tmp_path_factory, format: str, at: int, byte: int) -> None:
    _, layer = layer_of(tmp_path_factory.mktemp("rest"), format)
    rest = bytearray(layer.rest)
    rest[at % len(rest)] = byte
    fd = os.open(layer.path, os.O_RDONLY)
    try:
        with Repacker(fd, directory=format == "dir") as r:
            r.feed(rest)
            for _ in range(10):  # a ZERO may be very long
                if not r.read():
                    break
            else:
                return
            r.finish()
    except IntegrityError:
        pass
    finally:
        os.close(fd)


def varint(v: int) -> bytes:
    out = bytearray()
    while v >= 0x80:
        out.append(v & 0x7F | 0x80)
        v >>= 7
    return bytes([*out, v])


@pytest.mark.parametrize(
    "rest",
    [
        varint(5 << 2 | 3) + varint(9) + b"../.x",
        varint(9 << 2 | 3) + varint(9) + b"link/pass",
        varint(11 << 2 | 3) + varint(9) + b"/etc/passwd",
        varint(4 << 2 | 3) + varint(9) + b"link",
        varint(1 << 2 | 3) + varint(9) + b"\0",
        varint(70000 << 2 | 3) + varint(9) + b"x" * 70000,
        varint(4 << 2 | 3) + varint(9) + b"pipe" + varint(1 << 2 | 1) + varint(0),
        varint(3 << 2 | 3) + varint(9) + b"dir" + varint(1 << 2 | 1) + varint(0),
        varint(1 << 2 | 1) + varint(0),
        varint(0),
        b"\xff" * 10,
        varint(1 << 2 | 3) + varint(9) + b"f" + varint(9 << 2 | 1) + varint(0),
        varint(1 << 2 | 3) + varint(9) + b"f" + varint(1 << 2 | 1) + varint(2**64 - 1),
    ],
)
def test_a_hostile_rest_of_a_directory(rest: bytes, tmp_path: Path) -> None:
    (tmp_path / "layer" / "fs" / "dir").mkdir(parents=True)
    apply(tmp_path / "layer" / "fs", File("f", b"12345678"), Symlink("link", "/etc"), Fifo("pipe"))
    fd = os.open(tmp_path / "layer", os.O_RDONLY)
    with Repacker(fd, directory=True) as r, pytest.raises(IntegrityError):
        r.feed(rest)
        while r.read():
            pass
        r.finish()
    os.close(fd)


def test_read_into_gives_the_same(tmp_path: Path) -> None:
    data, layer = layer_of(tmp_path, "erofs")
    fd = os.open(layer.path, os.O_RDONLY)
    out, buffer = bytearray(), bytearray(777)
    with Repacker(fd) as r:
        for piece in pieces(layer.rest, [100]):
            r.feed(piece)
            while n := r.read_into(memoryview(buffer)[:700]):
                out += buffer[:n]
        r.finish()
    os.close(fd)
    assert out == data


def test_a_rest_that_is_drained_late_is_the_same(tmp_path: Path) -> None:
    data = t.archive(*(t.file(f"f{i}", os.urandom(20)) for i in range(3000)))
    layer = unpack(data, tmp_path / "layer")
    fd = os.open(tmp_path / "late", os.O_RDWR | os.O_CREAT)
    with Unpacker(fd) as u:
        u.write(data)
        u.finish(bytes(range(16)))
        assert u.rest() == layer.rest
        assert u.rest() == b""
    os.close(fd)
