"""The layer tar of an upper directory: against the oracle, against other readers, and while files change."""

import errno
import os
import subprocess
import tarfile
import time
from io import BytesIO
from pathlib import Path

import pytest
from diffkit import changes_of, items, make, mknod_socket, opened, read_all, scratch, short, tar_and_stats, tar_of
from fstree import Device, Dir, File, Hole, Link, Opaque, Symlink, Whiteout, Xattr, apply, assert_same, holes
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from oracle_tar import archive

from layerfs.errors import NativeError, UnsupportedError
from layerfs.native import Differ

pytestmark = pytest.mark.root
quick = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture
def upper(tmp_path: Path) -> Path:
    path = tmp_path / "upper"
    path.mkdir()
    return path


def members(data: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=BytesIO(data), errors="surrogateescape") as tar:
        return tar.getmembers()


def names(data: bytes) -> list[str]:
    return [m.name + "/" * m.isdir() for m in members(data)]


# ---- the bytes ----


@quick
@given(
    tree=items(upper=True), sparse_min=st.sampled_from([0, 1, 250_000]), clamp=st.sampled_from([None, 1_650_000_000])
)
def test_same_bytes_as_the_oracle(
    tmp_path_factory: pytest.TempPathFactory, tree: list[object], sparse_min: int, clamp: int | None
) -> None:
    with scratch(tmp_path_factory) as where:
        root = make(where / "upper", tree)
        for options in ({}, {"userxattr": True}):
            want = archive(root, sparse_min=sparse_min, clamp_mtime=clamp, **options)
            assert tar_of(root, sparse_min=sparse_min, clamp_mtime=clamp, **options) == want


@quick
@given(tree=items())
def test_a_tree_gives_the_same_bytes_as_the_oracle(
    tmp_path_factory: pytest.TempPathFactory, tree: list[object]
) -> None:
    with scratch(tmp_path_factory) as where:
        root = make(where / "tree", tree)
        assert tar_of(root, tree=True, sparse_min=1) == archive(root, tree=True, sparse_min=1)


@quick
@given(tree=items(upper=True), sizes=st.lists(st.sampled_from([1, 7, 511, 512, 513, 4096, 100_000]), min_size=1))
@example(tree=[Hole("h", 1 << 18, {5000: b"x"}), File("a", b"y" * 3000)], sizes=[1])
def test_any_buffer_gives_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, tree: list[object], sizes: list[int]
) -> None:
    with scratch(tmp_path_factory) as where:
        root = make(where / "upper", tree)
        assert tar_of(root, sizes, sparse_min=1) == tar_of(root, sparse_min=1)


@pytest.mark.parametrize("depth", [*range(96, 104), *range(148, 160), *range(246, 262)])
def test_lengths_of_path_and_link_target(tmp_path: Path, depth: int) -> None:
    """Around the limits of the ustar fields: 100 for a name, 155 + 100 with a prefix."""
    path = ("x" * 49 + "/") * (depth // 50) + "y" * (depth % 50 + 1)
    root = make(tmp_path / "t", [File(path, b"1"), Symlink("l", "t" * depth), Dir(path + "d")])
    data = tar_of(root)
    assert data == archive(root)
    found = {m.name: m for m in members(data)}
    assert found[path].isfile()
    assert found[path + "d"].isdir()
    assert found["l"].linkname == "t" * depth


def test_order(upper: Path) -> None:
    apply(upper, File("b/2"), Whiteout("b/9"), Whiteout("z"), Opaque("b"), File("b-a"), File("a"), File("B"))
    assert names(tar_of(upper)) == [
        "./", ".wh.z", "B", "a", "b/", "b/.wh..wh..opq", "b/.wh.9", "b/2", "b-a",
    ]  # fmt: skip


def test_plain_headers_where_they_can_say_it(upper: Path) -> None:
    """A whole second, small numbers, short names: no PAX header at all."""
    second = 1_600_000_000 * 10**9
    apply(upper, File("a/b", b"1", mtime_ns=second), Dir("a", mtime_ns=second), Dir("", mtime_ns=second))
    assert len(tar_of(upper)) == 512 * (3 + 1 + 2)
    assert all(not m.pax_headers for m in members(tar_of(upper)))


def test_marks_of_overlayfs_stay_out(upper: Path) -> None:
    apply(upper, Dir("d"), File("d/f", b"1"))
    for name in ("origin", "impure", "nlink", "uuid", "upper", "protattr"):
        apply(upper, Xattr("d", f"trusted.overlay.{name}", b"1"), Xattr("d/f", f"trusted.overlay.{name}", b"1"))
    apply(upper, Xattr("d", "trusted.overlay.overlay.opaque", b"y"), Xattr("d/f", "user.overlay.x", b"2"))
    found = {m.name: m.pax_headers for m in members(tar_of(upper))}
    assert {k: v for k, v in found["d"].items() if "xattr" in k} == {"SCHILY.xattr.trusted.overlay.opaque": "y"}
    assert {k: v for k, v in found["d/f"].items() if "xattr" in k} == {"SCHILY.xattr.user.overlay.x": "2"}
    assert "user.overlay.x" not in str([m.pax_headers for m in members(tar_of(upper, userxattr=True))])


def test_hard_links_and_stats(upper: Path) -> None:
    apply(upper, File("b", b"12"), Link("a/z", "b"), Link("c", "b"), Symlink("s", "t"), Link("t", "s"), Opaque("a"))
    apply(upper, Whiteout("gone"))
    mknod_socket(upper / "socket")
    data, stats = tar_and_stats(upper)
    found = {m.name: (m.type, m.linkname) for m in members(data)}
    assert found["a/z"] == (b"0", "")
    assert found["b"] == found["c"] == (b"1", "a/z")
    assert found["t"] == (b"1", "s")
    assert "socket" not in found
    assert (stats.entries, stats.whiteouts, stats.opaques, stats.sockets, stats.bytes) == (len(found), 1, 1, 1, 2)


# ---- what other programs make of it ----


@quick
@given(tree=items())
def test_gnu_tar_gets_the_tree_back(tmp_path_factory: pytest.TempPathFactory, tree: list[object]) -> None:
    with scratch(tmp_path_factory) as where:
        root = make(where / "tree", tree)
        copy = where / "copy"
        copy.mkdir()
        subprocess.run(
            ["tar", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-C", str(copy), "-xpf", "-"],
            input=tar_of(root, tree=True, sparse_min=1), check=True, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert_same(root, copy)


def test_bsdtar_and_gnu_tar_list_it(upper: Path) -> None:
    apply(upper, Dir("d", uid=1 << 22), File("d/" + "n" * 200, b"1"), Link("l", "d/" + "n" * 200), Whiteout("w"))
    apply(upper, Device("null", "c", 1, 3), Hole("h", 1 << 22, {1 << 21: b"x"}), Opaque("d"))
    data = tar_of(upper)
    for command in (["tar", "-tvf", "-"], ["bsdtar", "-tvf", "-"]):
        done = subprocess.run(command, input=data, capture_output=True, check=True)
        assert done.stderr == b""
        lines = done.stdout.decode().splitlines()
        assert [line.split(" link to ")[0].split(" -> ")[0].split()[-1] for line in lines] == [
            "./", ".wh.w", "d/", "d/.wh..wh..opq", "d/" + "n" * 200, "h", "l", "null",
        ]  # fmt: skip
        assert "4194304" in next(line for line in lines if line.endswith(" h"))


def test_sparse_file_keeps_its_holes(upper: Path, tmp_path: Path) -> None:
    apply(upper, Hole("h", 1 << 30, {1 << 20: b"a" * 5000, (1 << 30) - 10: b"b" * 10}), Hole("e", 1 << 21, {}))
    data, stats = tar_and_stats(upper)
    assert len(data) < 40_000
    assert stats.bytes == (1 << 30) + (1 << 21)
    out = tmp_path / "out"
    out.mkdir()
    subprocess.run(["tar", "-C", str(out), "-xf", "-"], input=data, check=True)
    assert_same(upper, out, root=False)
    assert holes(out / "h") == holes(upper / "h")
    assert (out / "e").stat().st_blocks == 0
    assert len(tar_of(upper, sparse_min=0)) > 1 << 30


# ---- what no layer can say ----


@pytest.mark.parametrize("bad", [File("d/.wh.x", b"1"), Dir(".wh.d"), Whiteout("d/.wh.w"), Symlink(".wh.", "x")])
def test_whiteout_names_are_refused_by_name(upper: Path, bad: object) -> None:
    apply(upper, bad)
    with pytest.raises(NativeError, match=rf"write {bad.path}: a layer cannot hold a name") as caught:
        tar_of(upper)
    assert caught.value.errno == errno.EINVAL


def test_other_things_that_are_refused(upper: Path) -> None:
    apply(upper, Device("zero"))
    with pytest.raises(NativeError, match="write zero: device 0:0 would be a whiteout"):
        tar_of(upper, tree=True)
    assert names(tar_of(upper)) == ["./", ".wh.zero"]
    apply(upper, File("f", b"1"), Xattr("f", "user.a=b", b"1"))
    with pytest.raises(NativeError, match=r"write f: no tar can hold the attribute user.a=b"):
        tar_of(upper)


@pytest.mark.parametrize(
    ("mark", "message"), [("redirect", "diff d: renamed by overlayfs"), ("metacopy", "diff d/f: .*metacopy")]
)
def test_redirect_and_metacopy_are_refused(upper: Path, mark: str, message: str) -> None:
    apply(upper, File("d/f", b"1"), Xattr("d" if mark == "redirect" else "d/f", f"trusted.overlay.{mark}", b"x"))
    with pytest.raises(UnsupportedError, match=message):
        tar_of(upper)
    if mark == "metacopy":  # a list needs no content
        assert short(changes_of(upper)) == ["A /d", "A /d/f"]
        return
    with pytest.raises(UnsupportedError, match=message):
        changes_of(upper)


def test_whiteout_by_attribute(upper: Path) -> None:
    """The form that a nested overlay's host may hold: an empty file with the attribute, in a directory marked so."""
    apply(upper, File("w"), Xattr("w", "trusted.overlay.whiteout", b"y"), File("f", b"1"), Dir("d"))
    apply(upper, Xattr("f", "trusted.overlay.whiteout", b"y"), Xattr(".", "trusted.overlay.opaque", b"x"))
    assert names(tar_of(upper)) == ["./", "d/", "f", ".wh.w"]
    assert short(changes_of(upper)) == ["A /d", "A /f", "D /w"]


# ---- files that change ----


def test_files_that_change_while_they_are_read(upper: Path) -> None:
    apply(upper, File("a", b"a" * 300_000), File("b", b"1"), Dir("c/d"), File("e", b"1"), File("f", b"1"))
    with opened(upper) as fd, Differ(fd) as differ:
        data = differ.read(100_000)
        (upper / "b").unlink()
        (upper / "c/d").rmdir()
        (upper / "c").rmdir()
        (upper / "e").unlink()
        os.mkfifo(upper / "e")
        with (upper / "a").open("ab") as f:
            f.write(b"more")
        data += read_all(differ)
    found = members(data)
    assert [m.name for m in found] == [".", "a", "e", "f"]
    assert found[1].size == 300_000
    assert found[2].isfifo()


def test_a_file_that_becomes_shorter_is_an_error(upper: Path) -> None:
    apply(upper, File("d/a", b"a" * 300_000))
    with opened(upper) as fd, Differ(fd) as differ:
        differ.read(100_000)
        os.truncate(upper / "d/a", 200_000)
        with pytest.raises(NativeError, match="read d/a: it became shorter while it was read") as caught:
            read_all(differ)
    assert caught.value.errno == errno.EAGAIN


# ---- size ----


def test_a_wide_directory(tmp_path: Path) -> None:
    """100,000 names: in seconds, and in time proportional to their number."""
    took = {}
    for count in (10_000, 100_000):
        root = tmp_path / str(count)
        root.mkdir()
        for i in range(count):
            os.symlink("t", root / f"{i * 7919 % count:07}")
        start = time.process_time()
        data = tar_of(root, tree=True)
        took[count] = time.process_time() - start
        assert len(data) > 512 * count
    assert took[100_000] < 30 * took[10_000] + 0.5
    assert took[100_000] < 8


def test_depth_4096_with_few_descriptors(tmp_path: Path) -> None:
    import resource

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    root = tmp_path / "deep"
    root.mkdir()
    fd = os.open(root, os.O_RDONLY)
    try:
        for depth in range(4096):
            os.mkdir("d", dir_fd=fd)
            os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=fd)) if depth % 512 == 0 else None
            following = os.open("d", os.O_RDONLY, dir_fd=fd)
            os.close(fd)
            fd = following
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
        data, stats = tar_and_stats(root)
        assert stats.entries == 1 + 4096 + 8
        assert members(data)[-1].name == "f"
        assert len(changes_of(root)) == 4096 + 8
        os.mkdir("d", dir_fd=fd)
        with pytest.raises(NativeError, match="more than 4096 directories deep"):
            tar_of(root)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        os.close(fd)
        subprocess.run(["rm", "-rf", str(root)], check=True)


def test_reading_changes_no_access_time(upper: Path) -> None:
    apply(upper, File("d/f", b"1"))
    for path in (upper / "d/f", upper / "d"):
        os.utime(path, ns=(1, 2 * 10**9))
    tar_of(upper)
    assert [(upper / name).stat().st_atime_ns for name in ("d/f", "d")] == [1, 1]


def test_archive_or_list_but_not_both(upper: Path) -> None:
    with opened(upper) as fd, Differ(fd) as differ:
        differ.read()
        with pytest.raises(NativeError, match="an archive or a list, not both"):
            list(differ.changes())
