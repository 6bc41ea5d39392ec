"""The diff of two trees, which is the check of the diff of an upper; and both against real overlay mounts."""

import os
import random
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from corekit import unpack
from diffkit import (
    changes_between,
    changes_of,
    items,
    make,
    mknod_socket,
    overlay,
    scratch,
    short,
    tar_and_stats,
    tar_between,
    tar_of,
)
from fstree import Dir, File, Link, Opaque, Symlink, Whiteout, assert_same, capture
from hypothesis import HealthCheck, example, given, settings

from layerfs.errors import UnsupportedError
from layerfs.native import Reader

pytestmark = pytest.mark.root
quick = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
EMPTY = bytes(1024)


def applied(layer: bytes, base: Path, where: Path) -> dict[bytes, object]:
    """What the kernel makes of the layer over the base."""
    unpack(layer, where / "layer", "dir")
    with overlay(where / "merged", [where / "layer/fs", base]) as merged:
        return capture(merged)


# ---- two trees ----


@quick
@given(a=items(), b=items())
@example(a=[File("x"), Link("y", "x")], b=[File("x"), File("y")])
@example(a=[File("x"), File("y")], b=[File("x"), Link("y", "x")])
@example(a=[File("x"), Link("y", "x"), Link("z", "x")], b=[File("x"), Link("z", "x")])
@example(
    a=[File("x"), Link("y", "x"), File("z"), Link("w", "z")], b=[File("x"), Link("z", "x"), File("y"), Link("w", "y")]
)
@example(a=[File("d/x", b"1")], b=[File("d/x", b"2")])
@example(a=[File("d/x/y")], b=[File("d/x")])
@example(a=[File("d")], b=[File("d/x/y")])
def test_the_difference_over_the_first_gives_the_second(
    tmp_path_factory: pytest.TempPathFactory, a: list[object], b: list[object]
) -> None:
    with scratch(tmp_path_factory) as where:
        base, target = make(where / "a", a), make(where / "b", b)
        layer = tar_between(base, target)
        # A layer of nothing says nothing of the root either, which a mount would take from it.
        assert_same(base if layer == EMPTY else applied(layer, base, where), target)
        assert tar_between(base, target, [513]) == layer


@quick
@given(tree=items())
def test_equal_trees_differ_in_nothing(tmp_path_factory: pytest.TempPathFactory, tree: list[object]) -> None:
    with scratch(tmp_path_factory) as where:
        a, b = make(where / "a", tree), make(where / "b", tree)
        assert tar_between(a, b) == EMPTY
        assert tar_between(a, a) == EMPTY
        assert changes_between(a, b) == []


@quick
@given(a=items(), b=items())
def test_the_list_names_what_differs(
    tmp_path_factory: pytest.TempPathFactory, a: list[object], b: list[object]
) -> None:
    """Against a comparison of two captured trees. Only a C may be more: other names of a changed inode."""
    with scratch(tmp_path_factory) as where:
        base, target = make(where / "a", a), make(where / "b", b)
        x, y = capture(base), capture(target)
        listed = {c.path: c.kind for c in changes_between(base, target)}
        added = {p for p in y if p not in x}
        gone = {p for p in x if p not in y and (os.path.dirname(p) in y and y[os.path.dirname(p)].type == "d")}
        changed = {p for p in x if p and p in y and x[p] != y[p]}
        above = {p for q in added | gone | changed for p in parents(q)} - added
        assert {p for p, kind in listed.items() if kind == "A"} == added
        assert {p for p, kind in listed.items() if kind == "D"} == gone
        extra = {p for p, kind in listed.items() if kind == "C"} ^ (changed | above)
        linked = {p for p in y if y[p].links or (p in x and x[p].links)}
        assert extra <= linked | {p for q in linked for p in parents(q)}


def parents(path: bytes) -> Iterator[bytes]:
    while path := os.path.dirname(path):
        yield path


def test_same_size_and_time_but_other_content(tmp_path: Path) -> None:
    a, b = (
        make(tmp_path / "a", [File("d/f", b"1" * 200_000)]),
        make(tmp_path / "b", [File("d/f", b"1" * 199_999 + b"2")]),
    )
    assert short(changes_between(a, b)) == ["C /d", "C /d/f"]


def test_sorted_by_path(tmp_path: Path) -> None:
    tree = [File("a/b"), File("a.b"), File("a-/c"), File("a"[:1] + "0")]
    listed = changes_of(make(tmp_path / "a", tree), tree=True)
    assert listed == sorted(listed)
    assert short(listed) == ["A /a", "A /a-", "A /a-/c", "A /a.b", "A /a/b", "A /a0"]


def test_sockets_that_hide_something(tmp_path: Path) -> None:
    """A layer cannot hold a socket; what it hides must not come back."""
    a, b = make(tmp_path / "a", [File("d/f", b"1"), File("g")]), make(tmp_path / "b", [Dir("d"), File("g")])
    for name in ("d/f", "new"):
        mknod_socket(b / name)
    layer = tar_between(a, b)
    assert b"d/.wh.f\0" in layer
    assert b"new" not in layer
    data, stats = tar_and_stats(b, lowers=[a])
    assert b"d/.wh.f\0" in data
    assert b"new" not in data
    assert (stats.sockets, stats.whiteouts) == (2, 1)
    assert tar_and_stats(b)[1].sockets == 2
    assert short(changes_between(a, b)) == ["C /d", "C /d/f", "A /new"]


# ---- an upper over its lowers ----


def test_added_changed_gone(tmp_path: Path) -> None:
    one = make(
        tmp_path / "1",
        [File("etc/a", b"1"), File("etc/b"), File("usr/x"), File("opt/p/q"), File("was/file"), File("f")],
    )
    two = make(tmp_path / "2", [Whiteout("usr"), File("opt/r"), Opaque("opt"), Dir("etc"), File("etc/c")])
    upper = make(
        tmp_path / "u",
        [Dir("etc"), File("etc/b", b"n"), File("etc/n"), Whiteout("etc/a"), Whiteout("usr"), Dir("usr2"),
         File("opt/p", b"n"), Whiteout("opt/q"), File("was/new"), Opaque("was"), Dir("f"), File("f/g")],
    )  # fmt: skip
    listed = short(changes_of(upper, [two, one]))
    assert listed == [
        "C /etc", "D /etc/a", "C /etc/b", "A /etc/n", "C /f", "A /f/g", "C /opt", "A /opt/p", "A /usr2",
        "C /was", "D /was/file", "A /was/new",
    ]  # fmt: skip
    assert set(short(changes_of(upper))) >= {"A /etc", "D /etc/a", "D /usr", "A /was/new"}


def test_a_directory_that_only_stands_above(tmp_path: Path) -> None:
    """Copied up with nothing changed in it: no change; with another mode, owner, time or attribute: one."""
    base = make(tmp_path / "b", [File("d/e/f")])
    upper = make(tmp_path / "u", [Dir("d/e")])
    assert changes_of(upper, [base]) == []
    os.setxattr(upper / "d/e", "user.a", b"1")
    assert short(changes_of(upper, [base])) == ["C /d", "C /d/e"]
    os.removexattr(upper / "d/e", "user.a")
    (upper / "d").chmod(0o700)
    assert short(changes_of(upper, [base])) == ["C /d"]


def operate(root: Path, rng: random.Random) -> None:
    """One random change in a mounted tree; one that is not possible there changes nothing."""
    paths = sorted(p for p in root.rglob("*"))
    pick: Callable[[], Path] = lambda: rng.choice(paths) if paths else root  # noqa: E731
    at = pick() if rng.random() < 0.7 else pick().parent / f"new{rng.randrange(9)}"
    try:
        match rng.randrange(9):
            case 0:
                at.write_bytes(rng.randbytes(rng.randrange(9000)))
            case 1:
                at.mkdir()
            case 2:
                shutil.rmtree(at) if at.is_dir() and not at.is_symlink() else at.unlink()
            case 3:
                os.link(pick(), at, follow_symlinks=False)
            case 4:
                at.symlink_to("somewhere")
            case 5:
                os.chmod(at, stat.S_IMODE(at.lstat().st_mode) ^ 0o70)
            case 6:
                os.rename(at, pick().parent / f"moved{rng.randrange(9)}")
            case 7:
                os.utime(at, ns=(0, rng.randrange(2**60)), follow_symlinks=False)
            case _:  # removed and made again: opaque
                shutil.rmtree(at)
                at.mkdir()
                (at / "inside").write_bytes(b"1")
    except OSError:
        pass


def base_layers(where: Path) -> list[bytes]:
    """Three layers, base first, with whiteouts and opaque directories among them."""
    trees = (
        [File("etc/a", b"1" * 5000), File("etc/b"), Link("etc/c", "etc/b"), File("usr/lib/x"), File("usr/lib-x"),
         Symlink("lnk", "etc"), File("var/log/l"), File("opt/deep/er/f")],
        [Whiteout("etc/a"), Dir("etc"), File("var/log/m"), Opaque("var/log"), Whiteout("lnk"), File("srv/s")],
        [File("etc/a", b"2"), File("lnk/now/dir"), Whiteout("usr/lib-x"), Dir("usr"), Dir("opt/deep")],
    )  # fmt: skip
    return [tar_of(make(where / f"tree{i}", tree)) for i, tree in enumerate(trees)]


@pytest.mark.parametrize("seed", range(25))
def test_a_real_overlay_and_its_upper_agree(tmp_path: Path, seed: int) -> None:
    """Random work in a mounted stack. Then the layer of the upper over the same stack is the same tree, and the
    list is that of the two trees, with lowers as layer files and as directories."""
    rng = random.Random(seed)
    tars = base_layers(tmp_path)
    lowers = [unpack(tar, tmp_path / f"l{i}", "dir").path / "fs" for i, tar in enumerate(tars)][::-1]
    images = [unpack(tar, tmp_path / f"i{i}").path for i, tar in enumerate(tars)][::-1]
    upper = tmp_path / "upper"
    with overlay(tmp_path / "base", lowers) as base, ExitStack() as stack:
        with overlay(tmp_path / "merged", lowers, upper) as merged:
            for _ in range(25):
                operate(merged, rng)
            want, between = capture(merged), changes_between(base, merged)
        layer = unpack(tar_of(upper), tmp_path / "layer", "dir").path / "fs"
        with overlay(tmp_path / "again", [layer, *lowers]) as again:
            assert_same(want, again)
        readers = [stack.enter_context(Reader(os.open(image, os.O_RDONLY))) for image in images]
        listed = changes_of(upper, lowers)
        assert changes_of(upper, readers) == listed
        assert changes_of(upper, [lowers[0], *readers[1:]]) == listed
        # Copied up, but the same as before: the upper cannot know.
        more = {c.path for c in listed} - {c.path for c in between}
        assert all(want[path].links or want[path].type != "d" or path in above(more) for path in more)
        assert [c for c in listed if c.path not in more] == between


def above(paths: set[bytes]) -> set[bytes]:
    return {p for path in paths for p in parents(path)}


def test_shell_work_in_a_container(tmp_path: Path) -> None:
    """What docker and podman would list, and what GNU tar finds in the layer."""
    base = make(
        tmp_path / "base",
        [File("etc/passwd", b"root"), File("etc/old"), File("usr/bin/tool", b"1", mode=0o755), File("data/a"),
         File("data/b"), File("tmp/t"), Link("etc/hard", "etc/passwd")],
    )  # fmt: skip
    upper = tmp_path / "upper"
    script = """
        echo user >> etc/passwd; rm etc/old; chmod 700 usr/bin/tool; rm -r data; mkdir data; touch data/c
        mkdir -p new/dir; ln -s dir new/link; mkfifo new/fifo; mknod new/null c 1 3
        dd if=/dev/zero of=new/sparse bs=1 count=1 seek=8M status=none; ln new/sparse new/again
        setfattr -n user.note -v hi new/sparse; setfattr -n trusted.overlay.nested -v 1 new/dir
    """
    with overlay(tmp_path / "merged", [base], upper) as merged:
        done = subprocess.run(["sh", "-ec", script], cwd=merged, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        want = capture(merged)
        assert_same(applied(tar_of(upper), base, tmp_path), want, ignore=["xattrs"])
    assert short(changes_of(upper, [base])) == [
        "C /data", "D /data/a", "D /data/b", "A /data/c", "C /etc", "D /etc/old", "C /etc/passwd", "A /new",
        "A /new/again", "A /new/dir", "A /new/fifo", "A /new/link", "A /new/null", "A /new/sparse", "C /usr",
        "C /usr/bin", "C /usr/bin/tool",
    ]  # fmt: skip
    listing = subprocess.run(["tar", "-tf", "-"], input=tar_of(upper), capture_output=True, check=True).stdout.decode()
    assert listing.split() == [
        "./", "data/", "data/.wh..wh..opq", "data/c", "etc/", "etc/.wh.old", "etc/passwd", "new/",
        "new/again", "new/dir/", "new/fifo", "new/link", "new/null", "new/sparse", "usr/",
        "usr/bin/", "usr/bin/tool",
    ]  # fmt: skip
    assert b"SCHILY.xattr.trusted.overlay.nested=1" in tar_of(upper)


@pytest.mark.parametrize(("option", "work"), [("redirect_dir=on", "mv d moved"), ("metacopy=on", "chmod 700 d/f")])
def test_an_upper_of_a_mount_with_redirects_is_refused(tmp_path: Path, option: str, work: str) -> None:
    """Of one with metacopy nothing but the list can be had."""
    base = make(tmp_path / "base", [File("d/f", b"1")])
    upper = tmp_path / "upper"
    with overlay(tmp_path / "merged", [base], upper, options=option) as merged:
        subprocess.run(["sh", "-ec", work], cwd=merged, check=True)
        between = changes_between(base, merged)
    match = option.split("_")[0].split("=")[0]
    with pytest.raises(UnsupportedError, match=match):
        tar_of(upper)
    if match == "metacopy":
        assert changes_of(upper, [base]) == between
        return
    with pytest.raises(UnsupportedError, match=match):
        changes_of(upper, [base])


def test_deep_lowers_need_few_descriptors(tmp_path: Path) -> None:
    """Directories as lowers are opened again by path: deeper than PATH_MAX, with 16 of them."""
    depth, name = 60, "n" * 100
    lowers = [tmp_path / str(i) for i in range(16)]
    for root in (*lowers, tmp_path / "u"):
        root.mkdir()
        here = os.open(root, os.O_RDONLY)
        for level in range(depth):
            os.mkdir(name, dir_fd=here)
            os.close(os.open(f"f{level}", os.O_CREAT, dir_fd=here))
            below = os.open(name, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
        os.close(here)
    listed = changes_of(tmp_path / "u", lowers)
    assert {change.kind for change in listed} == {"C"}
    assert len(listed) == 2 * depth
    subprocess.run(["rm", "-rf", *map(str, lowers), str(tmp_path / "u")], check=True)
