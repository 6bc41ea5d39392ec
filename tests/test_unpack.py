"""Tar in, layer out: the tree, in both formats, against the oracle, GNU tar, the kernel and our own reader."""

import os
import subprocess
from pathlib import Path

import pytest
import tarbuild as t
from corekit import FORMATS, needs_root, read_tree, repack, tree, unpack
from fstree import assert_same, capture
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oracle_unpack import Refused, expected

from layerfs.errors import IntegrityError, LayerfsError

pytestmark = [
    needs_root,
    pytest.mark.filterwarnings("ignore:Generating overly large repr"),  # archives are long
]

ROOT = t.directory("./", mode=0o755, mtime_ns=1_500_000_000_000_000_007)
KEEP = b"trusted.overlay.opaque"

CASES = {
    "nothing": b"",
    "root": ROOT,
    "plain": t.directory("d") + t.file("d/f", b"hello") + t.symlink("l", "d/f") + t.hardlink("h", "d/f"),
    "types": t.device("c", "c", 5, 1) + t.device("b", "b", 8, 65537) + t.fifo("p") + t.file("e"),
    "device-in-v7": t.member(
        "c", form="v7", type=b"3", fields={329: t.number(4, 8), 337: t.number(5, 8)}
    ),
    "modes": b"".join(t.file(f"m{m:o}", b"x", mode=m) for m in (0o4755, 0o2755, 0o1777, 0, 0o7777)),
    "ids": t.file("a", b"x", uid=4294967294, gid=65536) + t.file("b", b"y", uid=65535, gid=70000),
    "times": b"".join(
        t.file(f"t{i}", b"x", mtime_ns=ns)
        for i, ns in enumerate((-1, -1_000_000_000, -(10**18), 1, 2**32 * 10**9 + 5, 15 * 10**18 // 2))
    ),
    "names": b"".join(
        t.file(n, n)
        for n in (b"!", b"+", b",", b"-", b"a" * 255, b"\xff\xfe", b"new\nline", "žluťoučký".encode(), b" ", b"~")
    ),
    "implied": t.file("a/b/c/d", b"x") + t.file("a/b/e", b"y"),
    "implied-then-named": t.file("a/b", b"x") + t.directory("a", mode=0o700, uid=5, mtime_ns=77),
    "dot-slash": t.directory("./a/") + t.file(".//a///b", b"x") + t.file("/abs/x", b"y"),
    "file-over-file": t.file("f", b"old" * 1000) + t.file("f", b"new"),
    "file-over-dir": t.file("d/s/x", b"1") + t.file("d/y", b"2") + t.directory("d/t") + t.file("d", b"file"),
    "dir-over-file": t.file("d", b"file") + t.file("d2", b"") + t.directory("d") + t.file("d/x", b"x"),
    "dir-over-dir": t.directory("d", mode=0o700) + t.file("d/x", b"x") + t.directory("d", mode=0o711, uid=9),
    "dir-over-link": t.directory("a") + t.symlink("l", "a") + t.directory("l") + t.file("l/x", b"x"),
    "link-over-dir": t.file("d/x", b"x") + t.directory("a") + t.symlink("d", "a") + t.file("d/y", b"y"),
    "through-links": t.directory("real/sub")
    + t.symlink("one", "real")
    + t.symlink("two", "/one/sub/../..")
    + t.file("one/f", b"1")
    + t.file("two/g", b"2")
    + t.symlink("up", "../../../real")
    + t.file("up/h", b"3"),
    "whiteout-in-link": t.directory("r") + t.symlink("l", "r") + t.whiteout("l/gone") + t.opaque("l"),
    "hardlink-through-link": t.file("r/f", b"x") + t.symlink("l", "r") + t.hardlink("h", "l/f"),
    "hardlinks": t.file("a", b"x" * 9000)
    + t.hardlink("b", "a")
    + t.hardlink("c/d", "./b")
    + t.hardlink("e", "/c/d")
    + t.hardlink("a", "a"),
    "hardlink-first-name-goes": t.file("a", b"x" * 9000) + t.hardlink("b", "a") + t.file("a", b"other"),
    "hardlink-last-name-goes": t.file("a", b"x" * 9000) + t.hardlink("b", "a") + t.file("b", b"other"),
    "hardlink-all-names-go": t.file("a", b"x" * 9) + t.hardlink("b", "a") + t.file("a", b"1") + t.file("b", b"2"),
    "hardlink-over-dir": t.file("a", b"x") + t.file("d/e/f", b"y") + t.hardlink("d", "a"),
    "hardlink-to-symlink": t.symlink("l", "nowhere") + t.hardlink("k", "l") + t.fifo("p") + t.hardlink("q", "p"),
    "symlink-mode": t.symlink("l", "x", mode=0o600),
    "symlink-sizes": b"".join(t.symlink(f"l{n}", "x" * n) for n in (1, 59, 450, 480, 481, 500, 600, 4095)),
    "whiteouts": t.whiteout("a") + t.whiteout("d/b") + t.directory("d") + t.file("c", b"x") + t.whiteout("c"),
    "whiteout-then-dir": t.whiteout("d") + t.file("d/x", b"1") + t.whiteout("e") + t.directory("e"),
    "dir-then-whiteout": t.file("d/x", b"1") + t.whiteout("d"),
    "whiteout-file-dir": t.whiteout("d") + t.file("d", b"f") + t.directory("d") + t.file("d/x", b"1"),
    "whiteout-is-directory": t.directory(".wh.gone") + t.symlink("x/.wh.also", "y"),
    "whiteout-twice": t.whiteout("a") + t.whiteout("a"),
    "opaque": t.file("d/x", b"1") + t.opaque("d") + t.opaque() + t.directory("d", xattrs={"user.k": b"v"}),
    "opaque-hides-whiteouts": t.whiteout("d/gone") + t.file("d/s/x", b"1") + t.whiteout("d/s/y") + t.opaque("d"),
    "opaque-then-file": t.opaque("d") + t.file("d/x", b"1") + t.file("d", b"file"),
    "aufs": t.directory(".wh..wh.plnk") + t.file(".wh..wh.plnk/1.2", b"x") + t.file(".wh..wh.aufs", b"y"),
    "xattrs": t.file(
        "f", b"x", xattrs={"user.b": b"\0\xff=\n", "user.a": b"", "trusted.t": b"1", "security.foo": b"2" * 300}
    )
    + t.directory("d", xattrs={"user.big": b"v" * 3000})
    + t.symlink("l", "f", xattrs={"trusted.l": b"on a link"})
    + t.fifo("p", xattrs={"trusted.p": b"on a pipe"}),
    "xattrs-shared": b"".join(t.file(f"f{i}", b"x", xattrs={"user.same": b"value", "user.two": b"2"}) for i in "12345"),
    "xattrs-dropped": t.file(
        "f",
        b"x",
        xattrs={"trusted.overlay.opaque": b"y", "user.overlay.redirect": b"/", "system.other": b"1", "btrfs.x": b"1"},
    ),
    "xattr-twice": t.member("f", b"x", records=[("SCHILY.xattr.user.a", "1"), ("SCHILY.xattr.user.a", "2")]),
    "capability": t.file(
        "ping", b"x" * 10, mode=0o755, xattrs={"security.capability": bytes.fromhex("0100000200200000" + "0" * 24)}
    ),
    "acl-text": t.member(
        "f",
        b"x",
        mode=0o660,
        records={"SCHILY.acl.access": "user::rw-,user:1000:rw-,user:b:r--:77,group::r--,mask::rw-,other::---"},
    )
    + t.member(
        "d",
        type=b"5",
        mode=0o755,
        records={"SCHILY.acl.default": "user::rwx,group::r-x,group:5:rwx,mask::rwx,other::r-x"},
    ),
    "pax": t.pax({"path": "long/" + "n" * 200, "uid": "3000000", "size": "3", "comment": "x"})
    + t.header("short", size=0)
    + t.pad(b"abc"),
    "pax-global": t.pax({"uid": "7", "mtime": "5.5"}, type="g") + t.file("a", b"x") + t.file("b", b"y", uid=1),
    "pax-empty": t.pax(b"") + t.file("a", b"x"),
    "gnu-long": t.gnu_long("d/" * 60 + "n" * 120) + t.file("short", b"x", form="gnu")
    + t.gnu_long("t" * 300, type="K") + t.symlink("l", "short", form="gnu"),
    "prefix": t.file("name", b"x", prefix="some/prefix"),
    "v7-directory": t.member("old/", type=b"\0", form="v7") + t.file("old/x", b"1", type=b"\0", form="v7"),
    "contiguous-and-unknown": t.file("c", b"7", type=b"7") + t.file("z", b"Z", type=b"Z"),
    "base-256": t.file("f", b"x", uid=t.number(3_000_000, 8), mtime=-5, form="gnu"),
    "spaces-in-numbers": t.file("f", b"x", mode=b"   644 ", uid=b"      5\0", gid=b"\0" * 8, mtime=b"  17 \0"),
    "label": t.header("a volume", type="V", form="gnu") + t.file("f", b"x"),
    "sizes": b"".join(t.file(f"s{n}", os.urandom(8) * (n // 8 + 1), size=n, extend=True)[: 512 + (n + 511) // 512 * 512]
        for n in (0, 1, 511, 512, 513, 4095, 4096, 4097, 65536, 131071, 131072, 300000)),
    "zeros": t.file("z", bytes(400_000)) + t.file("m", bytes(131072) + b"x" * 65536 + bytes(200_000) + b"end")
    + t.file("small", bytes(5000)) + t.file("edge", b"x" + bytes(262143)) + t.file("tail", bytes(196607) + b"x"),
}  # fmt: skip
SEGMENTS = [(0, b"a" * 512), (8192, b"b" * 1024), (100_000, b"c" * 700)]
for name, make in (
    ("1.0", t.pax_sparse_1_0),
    ("0.1", t.pax_sparse_0_1),
    ("0.0", t.pax_sparse_0_0),
    ("gnu", t.gnu_sparse),
):
    CASES[f"sparse-{name}"] = make("s", 200_000, [*SEGMENTS, (200_000, b"")]) + t.file("after", b"x")
    CASES[f"sparse-{name}-many"] = make("s", 1 << 20, [(i * 16384, b"x" * 512) for i in range(64)])
    CASES[f"sparse-{name}-hole"] = make("s", 12345, [(12345, b"")])
    CASES[f"sparse-{name}-replaced"] = make("s", 70_000, SEGMENTS[:2]) + t.file("s", b"now plain")


def sample(name: str) -> bytes:
    return t.archive(CASES[name])


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", CASES)
def test_tree(name: str, format: str, tmp_path: Path) -> None:
    data = sample(name)
    layer = unpack(data, tmp_path / "layer", format)
    want = expected(data)
    ignore = ("mtime_ns", "mode") if format == "dir" else ()  # of whiteouts alone, see below
    got = tree(layer)
    if format == "dir":
        for path, node in want.items():
            if node.type != "c" or node.rdev != (0, 0):
                assert got[path].mtime_ns == node.mtime_ns, path
                assert got[path].mode == node.mode, path
    assert_same(got, want, ignore=ignore)
    if format == "erofs":
        assert_same(read_tree(layer.path), want)
    assert layer.result.tar_bytes == len(data)
    assert layer.result.entries == len(want) - 1
    assert layer.result.data_bytes == sum(
        node.size for path, node in want.items() if not node.links or node.links[0] == path
    )
    assert layer.result.whiteouts == sum(n.type == "c" and n.rdev == (0, 0) for n in want.values())
    assert layer.result.opaques == sum(("trusted.overlay.opaque", b"y") in n.xattrs for n in want.values())
    assert repack(layer) == data


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    ("name", "data"),
    {
        "no end": t.file("a", b"x"),
        "one zero block": t.file("a", b"x") + bytes(512),
        "a lone zero block ends": t.file("a", b"x") + bytes(512) + t.file("b", b"y") + bytes(1024),
        "garbage after the end": t.file("a", b"x") + bytes(1024) + b"garbage" * 999,
        "part of a zero block": t.file("a", b"x") + bytes(100),
        "extended header at the end": t.file("a", b"x") + t.pax({"path": "zz"}),
    }.items(),
)
def test_ends_as_gnu_tar_sees_them(name: str, data: bytes, format: str, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    done = subprocess.run(["tar", "xf", "-", "-C", tmp_path / "x"], input=data, capture_output=True)
    assert done.returncode == 0
    layer = unpack(data, tmp_path / "layer", format)
    assert_same(tree(layer), capture(tmp_path / "x"), root=False)
    assert repack(layer) == data


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("type", [b"0", b"7", b"\0"])
def test_a_slash_at_the_end_makes_a_directory(type: bytes, format: str, tmp_path: Path) -> None:
    data = t.archive(t.member("d/", type=type, mode=0o750), t.file("d/f", b"x"))
    (tmp_path / "x").mkdir()
    subprocess.run(["tar", "xf", "-", "-C", tmp_path / "x"], input=data, check=True)
    assert_same(tree(unpack(data, tmp_path / "layer", format)), capture(tmp_path / "x"), root=False)


@pytest.mark.parametrize("format", FORMATS)
def test_a_hard_link_may_have_a_body(format: str, tmp_path: Path) -> None:
    """The oracle's parser gives up at it; bsdtar reads it as we do."""
    for n, body in enumerate((b"body", b"b" * 512, b"long" * 1000)):
        data = t.archive(t.file("a", body), t.hardlink("b", "a", body), t.file("c", b"x"))
        layer = unpack(data, tmp_path / str(n), format)
        got = tree(layer)
        assert got[b"a"].links == (b"a", b"b")
        assert got[b"c"].size == 1
        assert repack(layer) == data
        assert_same(got, tree(unpack(data, tmp_path / f"{n}s", format, [100])))


def test_a_hard_link_may_claim_a_body_that_is_not_there(tmp_path: Path) -> None:
    data = t.archive(t.file("a", b"body"), t.hardlink("b", "a", size=4), t.file("c", b"x"))
    got = tree(unpack(data, tmp_path / "layer"))
    assert got.keys() == {b"", b"a", b"b", b"c"}


def test_garbage_in_fields_that_do_not_matter(tmp_path: Path) -> None:
    data = t.archive(t.file("f", b"x", major=b"garbage", minor=b"\xff" * 8))
    assert tree(unpack(data, tmp_path / "layer"))[b"f"].size == 1


def test_an_empty_pax_value_takes_back_the_global_one(tmp_path: Path) -> None:
    data = t.pax({"uid": "7"}, type="g") + t.pax({"uid": ""}, type="g") + t.file("a", b"x", uid=3)
    assert tree(unpack(data, tmp_path / "layer"))[b"a"].uid == 3


def test_content_without_padding_at_the_end(tmp_path: Path) -> None:
    data = t.header("a", size=5) + b"hello"
    layer = unpack(data, tmp_path / "layer")
    assert tree(layer)[b"a"].size == 5
    assert repack(layer) == data


# ---- properties ----

PARTS = st.sampled_from(["a", "b", "c", "d", ".wh.a", ".wh.b", ".wh..wh..opq", ".wh..wh.aufs", "."])
PATHS = st.lists(PARTS, min_size=1, max_size=4).map("/".join)
DATA = st.one_of(
    st.binary(max_size=700),
    st.sampled_from([bytes(140_000), bytes(70_000) + b"x" * 70_000, b"y" * 5000, b"x" + bytes(200_000)]),
)
ATTRIBUTES = st.fixed_dictionaries(
    {
        "mode": st.integers(0, 0o7777),
        "uid": st.sampled_from([0, 1000, 70000, 4294967294]),
        "mtime_ns": st.sampled_from([0, 1, 10**18 + 1, -5 * 10**9 // 2]),
        "xattrs": st.sampled_from([{}, {"user.a": b"1"}, {"user.a": b"1", "trusted.b": b"\0\n"}]),
    }
)
TARGETS = st.one_of(PATHS, PATHS.map(lambda p: "/" + p), PATHS.map(lambda p: "../" + p), st.just(".."))
MEMBERS = st.one_of(
    st.builds(lambda p, d, k: t.file(p, d, **k), PATHS, DATA, ATTRIBUTES),
    st.builds(lambda p, k: t.directory(p, **k), PATHS, ATTRIBUTES),
    st.builds(lambda p, to: t.symlink(p, to), PATHS, TARGETS),
    st.builds(lambda p, to: t.hardlink(p, to), PATHS, PATHS),
    st.builds(lambda p: t.device(p, "b", 7, 300), PATHS),
    st.builds(t.fifo, PATHS),
    st.builds(lambda p: t.pax_sparse_1_0(p, 100_000, [(4096, b"x" * 512), (50_000, b"y")]), PATHS),
    st.builds(lambda p: t.gnu_sparse(p, 30_000, [(i * 4096, b"z" * 512) for i in range(6)]), PATHS),
)
ARCHIVES = st.lists(MEMBERS, max_size=12).map(lambda m: t.archive(*m))
SPLITS = st.lists(st.integers(1, 2000), max_size=8)
QUIET = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.data_too_large])


def attempt(data: bytes, where: Path, format: str, splits: list[int]) -> tuple[object, ...]:
    """All that unpacking gives: the layer's bytes or tree, rest and result; or the error."""
    try:
        layer = unpack(data, where, format, splits)
    except LayerfsError as e:
        return type(e), str(e)
    if format == "dir":
        return capture(layer.path / "fs", xattrs=True).keys(), layer.rest, layer.result
    return layer.path.read_bytes(), layer.rest, layer.result


@given(ARCHIVES, SPLITS, st.sampled_from(FORMATS))
@settings(QUIET, max_examples=150)
def test_any_split_gives_the_same(tmp_path_factory, data: bytes, splits: list[int], format: str) -> None:
    where = tmp_path_factory.mktemp("split")
    assert attempt(data, where / "a", format, []) == attempt(data, where / "b", format, splits)


@given(ARCHIVES, st.integers(0, 1 << 20), st.integers(0, 255), SPLITS)
@settings(QUIET, max_examples=150)
def test_any_split_of_damaged_archives_gives_the_same(
    tmp_path_factory, data: bytes, at: int, byte: int, splits: list[int]
) -> None:
    where = tmp_path_factory.mktemp("damaged")
    damaged = bytearray(data)
    damaged[at % len(data)] = byte
    cut = bytes(damaged[: len(data) - at % 700])
    assert attempt(cut, where / "a", "erofs", []) == attempt(cut, where / "b", "erofs", splits)


@given(ARCHIVES, st.sampled_from(FORMATS))
@settings(QUIET, max_examples=200)
def test_the_tree_is_the_oracles(tmp_path_factory, data: bytes, format: str) -> None:
    where = tmp_path_factory.mktemp("oracle")
    try:
        want = expected(data)
    except Refused:
        with pytest.raises(IntegrityError):
            unpack(data, where / "layer", format)
        return
    layer = unpack(data, where / "layer", format)
    marks = {p for p, n in want.items() if n.type == "c" and n.rdev == (0, 0)}
    got = tree(layer)
    if format == "dir":  # times and modes of whiteouts are nobody's
        assert marks == {p for p, n in got.items() if n.type == "c" and n.rdev == (0, 0)}
        got, want = ({p: n for p, n in x.items() if p not in marks} for x in (got, want))
    assert_same(got, want)
    assert repack(layer) == data
