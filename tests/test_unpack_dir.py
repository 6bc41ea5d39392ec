"""The layer format dir: nothing outside is touched, and attributes are set in an order in which they stay."""

import os
import stat
import subprocess
import traceback
from pathlib import Path

import pytest
import tarbuild as t
from corekit import needs_root, repack, tree, unpack
from fstree import assert_same, capture

from layerfs.errors import LayerfsError

pytestmark = needs_root


@pytest.mark.parametrize(
    "members",
    [
        lambda out: t.symlink("l", out) + t.file("l/escaped", b"x"),
        lambda out: t.symlink("l", out + "/victim") + t.file("l", b"overwritten"),
        lambda out: t.symlink("l", "../" * 40 + out[1:]) + t.file("l/escaped", b"x"),
        lambda out: t.symlink("l", out + "/victim") + t.hardlink("h", "l") + t.file("h", b"overwritten"),
        lambda out: t.hardlink("h", out + "/victim"),
        lambda out: t.symlink("a", "b") + t.symlink("b", out) + t.directory("a/escaped"),
        lambda out: t.directory("d") + t.symlink("d", out) + t.file("d/escaped", b"x"),
        lambda out: t.symlink("l", out) + t.whiteout("l/victim"),
        lambda out: t.symlink("l", out) + t.opaque("l"),
        lambda out: t.symlink("l", out) + t.directory("l", mode=0o777, uid=9),
        lambda out: t.symlink("l", out + "/victim", mode=0o4777, uid=9, xattrs={"user.x": b"1"}),
        lambda out: t.symlink("i/go_up", "..") + t.symlink("i/go_up/escape", out) + t.file("escape/escaped", b"x"),
        lambda out: t.file("../escaped", b"x"),
        lambda out: t.file("/" + out + "/escaped", b"x"),
        lambda out: t.symlink(".", out) + t.file("escaped", b"x"),
        lambda out: t.member("./", type=b"2", link=out) + t.file("escaped", b"x"),
    ],
)
def test_links_do_not_lead_out(members, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "victim").write_bytes(b"innocent")
    os.chmod(outside / "victim", 0o600)
    before = capture(outside)
    data = t.archive(members(str(outside)))
    try:
        layer = unpack(data, tmp_path / "layer", "dir")
        assert repack(layer) == data
    except LayerfsError:
        pass
    assert_same(capture(outside), before)
    assert sorted(os.listdir(tmp_path)) == ["layer", "outside"]


def test_attributes_survive_each_other(tmp_path: Path) -> None:
    """A change of owner clears setuid and capabilities; a new child changes its directory's time."""
    capability = bytes.fromhex("0100000200200000" + "0" * 24)
    data = t.archive(
        t.directory("d", mode=0o2555, uid=5, gid=6, mtime_ns=7),
        t.file("d/suid", b"x", mode=0o6755, uid=1000, gid=1000, mtime_ns=8, xattrs={"security.capability": capability}),
        t.directory("d/sub", mode=0, uid=7, mtime_ns=9),
        t.file("d/sub/late", b"y", mode=0o400, uid=7),
        t.symlink("d/l", "suid", uid=3, gid=4, mtime_ns=10),
    )
    got = tree(unpack(data, tmp_path / "layer", "dir"))
    suid = got[b"d/suid"]
    assert (suid.mode, suid.uid, suid.mtime_ns) == (0o6755, 1000, 8)
    assert suid.xattrs == (("security.capability", capability),)
    assert (got[b"d"].mode, got[b"d"].gid, got[b"d"].mtime_ns) == (0o2555, 6, 7)
    assert (got[b"d/sub"].mode, got[b"d/sub"].mtime_ns) == (0, 9)
    assert (got[b"d/l"].uid, got[b"d/l"].mtime_ns) == (3, 10)


def test_replaced_content_is_kept_for_the_tar_alone(tmp_path: Path) -> None:
    data = t.archive(
        t.file("d/a", b"first" * 1000, mode=0o4755),
        t.file("d/b", b"second"),
        t.file("d", b"now a file"),
        t.file("e", b"one"),
        t.file("e", b""),
        t.file("e", b"three"),
    )
    layer = unpack(data, tmp_path / "layer", "dir")
    assert sorted(os.listdir(layer.path)) == ["dead", "fs"]
    assert stat.S_IMODE((layer.path / "dead").stat().st_mode) == 0o700
    assert sorted(os.listdir(layer.path / "fs")) == ["d", "e"]
    assert repack(layer) == data
    assert not (unpack(t.archive(t.file("a", b"x")), tmp_path / "other", "dir").path / "dead").exists()


def test_paths_longer_than_the_system_takes(tmp_path: Path) -> None:
    deep = "/".join(["d" * 200] * 60)
    data = t.archive(
        t.file(deep + "/f", b"deep"),
        t.symlink("short", deep[:2000].rsplit("/", 1)[0]),
        t.hardlink(deep + "/h", deep + "/f"),
        t.file(deep + "/g", b"old"),
        t.file(deep + "/g", b"new"),
        t.file("short/x", b"through a link"),
        t.directory(deep, mode=0o700, mtime_ns=5),
        t.whiteout(deep + "/gone"),
    )
    layer = unpack(data, tmp_path / "layer", "dir")
    assert len(deep) > 12_000
    got = tree(layer)
    assert got[deep.encode() + b"/f"].links == (deep.encode() + b"/f", deep.encode() + b"/h")
    assert got[deep.encode()].mtime_ns == 5
    assert repack(layer) == data
    other = tree(unpack(data, tmp_path / "image"))
    assert got.keys() == other.keys()


@pytest.mark.parametrize("format", ["erofs", "dir"])
def test_the_deepest_tree(format: str, tmp_path: Path) -> None:
    deep = "/".join(["d"] * 4096)
    data = t.archive(t.file(deep + "/f", b"x"), t.file("d", b"a file now"))
    layer = unpack(data, tmp_path / "a", format)
    assert tree(layer).keys() == {b"", b"d"}
    assert repack(layer) == data
    layer = unpack(t.archive(t.file(deep + "/f", b"x")), tmp_path / "b", format)
    assert layer.result.entries == 4097
    if format == "dir":
        subprocess.run(["rm", "-rf", layer.path], check=True)  # what pytest uses cannot
    with pytest.raises(LayerfsError):
        unpack(t.archive(t.file(deep + "/d/f", b"x")), tmp_path / "c", format)
    subprocess.run(["rm", "-rf", tmp_path / "c"], check=True)


def as_nobody(work) -> int:  # type: ignore[no-untyped-def]
    """The exit status of work() in a child without any privilege."""
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_without_privilege(tmp_path_factory: pytest.TempPathFactory) -> None:
    where = Path("/tmp") / f"layerfs-test-{os.getpid()}"
    where.mkdir(mode=0o777)
    os.chmod(where, 0o777)
    data = t.archive(
        t.directory("d", uid=5, mode=0o555),
        t.file("d/f", b"x", uid=7, mode=0o4755, xattrs={"user.a": b"1", "trusted.b": b"2"}),
        t.device("null", "c", 1, 3),
        t.whiteout("gone"),
        t.opaque("d"),
        t.file("d", b"a file"),
        t.directory("e/sealed", mode=0),
        t.file("e/sealed/f", b"y", mode=0),
    )

    def work() -> None:
        layer = unpack(data, where / "layer", "dir", userxattr=True, chown=False)
        assert layer.result.skipped == 1  # the device
        assert layer.result.xattrs_dropped == 1  # trusted.b

    try:
        assert as_nobody(work) == 0
        got = capture(where / "layer" / "fs")
        assert got[b"null"].type == "f"
        assert (got[b"gone"].type, got[b"gone"].rdev) == ("c", (0, 0))
        assert got[b"d"].uid == 65534
        assert got[b"e/sealed"].mode == 0
    finally:
        subprocess.run(["rm", "-rf", where], check=True)


def test_a_full_disk_is_said_so(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], check=True)
    try:
        data = t.archive(t.file("big", os.urandom(4 << 20)))
        for format in ("erofs", "dir"):
            with pytest.raises(LayerfsError, match="No space left") as e:
                unpack(data, small / format, format)
            assert "write" in str(e.value)
    finally:
        subprocess.run(["umount", small], check=True)
