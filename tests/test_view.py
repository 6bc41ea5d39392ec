"""The view of a stack, read without a mount: against the mount that the kernel makes of the same layers."""

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tarbuild
from fstree import Node, assert_same, capture
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from suites.layer_suite import add, make_store, sample

from layerfs.digest import Digest
from layerfs.errors import IntegrityError, InvalidInputError, NotFoundError
from layerfs.layers import Entry, LayerStore, View
from layerfs.metadata import Database
from layerfs.snapshots import SnapshotStore


@pytest.fixture(params=["erofs", "dir"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LayerStore]:
    store = make_store(tmp_path, request.param)
    yield store
    assert store.release(store.mounted()) == []


def stack(store: LayerStore, *layers: bytes) -> list[Digest]:
    return [add(store, layer).diff_id for layer in layers]


def names(entries: list[Entry]) -> list[bytes]:
    return [entry.name for entry in entries]


def read(view: View, path: bytes) -> bytes:
    return b"".join(view.read(path))


# ---- one layer ----


def test_what_an_entry_says(store: LayerStore) -> None:
    tar = tarbuild.archive(
        tarbuild.directory("d", mode=0o1777),
        tarbuild.file("d/f", b"data", mode=0o4755, uid=os.getuid(), mtime_ns=1_500_000_000_123_456_789),
        tarbuild.member("x", b"", xattrs={"user.k": b"\0v"}),
        tarbuild.symlink("l", "d/f"),
        tarbuild.fifo("p"),
    )
    with store.view(stack(store, tar)) as view:
        f = view.stat(b"/d/f")
        assert (f.name, f.path, f.type, f.mode, f.size) == (b"f", b"/d/f", "file", stat.S_IFREG | 0o4755, 4)
        assert (f.uid, f.mtime_ns, f.nlink, f.layer) == (os.getuid(), 1_500_000_000_123_456_789, 1, 0)
        assert view.stat(b"d").type == "directory"
        assert view.stat(b"d").mode & 0o7777 == 0o1777
        assert view.stat(b"x").xattrs == {b"user.k": b"\0v"}
        assert (view.stat(b"l").type, view.stat(b"l").target) == ("symlink", b"d/f")
        assert view.resolve(b"l").path == b"/d/f"
        assert view.readlink(b"/l") == b"d/f"
        assert view.stat(b"p").type == "fifo"
        assert view.stat(b"/").is_dir
        assert names(view.listdir()) == [b"d", b"l", b"p", b"x"]
        assert [entry.path for entry in view.walk()] == [b"/", b"/d", b"/d/f", b"/l", b"/p", b"/x"]
        assert [entry.path for entry in view.walk(b"d/f")] == [b"/d/f"]
        assert read(view, b"l") == b"data"


def test_a_large_file(store: LayerStore) -> None:
    with store.view(stack(store, sample(7, 3_500_000))) as view:
        pieces = list(view.read(b"large"))
        assert b"".join(pieces) in sample(7, 3_500_000)
        assert max(map(len, pieces)) <= 1 << 20


@pytest.mark.parametrize(
    ("path", "error"),
    [
        (b"missing", NotFoundError),
        (b"d/missing/more", NotFoundError),
        (b"f/below", InvalidInputError),
        (b"loop", InvalidInputError),
        (b"dangling", NotFoundError),
        (b"f/..", InvalidInputError),
    ],
)
def test_paths_that_lead_nowhere(store: LayerStore, path: bytes, error: type[Exception]) -> None:
    tar = tarbuild.archive(
        tarbuild.directory("d"),
        tarbuild.file("f"),
        tarbuild.symlink("loop", "loop2"),
        tarbuild.symlink("loop2", "loop"),
        tarbuild.symlink("dangling", "/not/there"),
    )
    with store.view(stack(store, tar)) as view, pytest.raises(error, match="open"):
        view.resolve(path)


def test_the_wrong_type(store: LayerStore) -> None:
    tar = tarbuild.archive(tarbuild.directory("d"), tarbuild.file("f"), tarbuild.fifo("p"))
    with store.view(stack(store, tar)) as view:
        for call in (
            lambda: view.read(b"d"),
            lambda: view.read(b"p"),
            lambda: view.listdir(b"f"),
            lambda: view.readlink(b"f"),
        ):
            with pytest.raises(InvalidInputError):
                call()


def test_links_stay_inside(store: LayerStore) -> None:
    tar = tarbuild.archive(
        tarbuild.directory("a/b"),
        tarbuild.file("etc/passwd", b"inside"),
        tarbuild.symlink("a/b/abs", "/etc/passwd"),
        tarbuild.symlink("a/b/up", "../../../../../../etc/passwd"),
        tarbuild.symlink("a/dir", "/etc"),
        tarbuild.symlink("root", "/../.."),
    )
    with store.view(stack(store, tar)) as view:
        for path in (
            b"a/b/abs",
            b"a/b/up",
            b"a/dir/passwd",
            b"/../../etc/passwd",
            b"root/etc/./passwd",
            b"a/dir/../etc//passwd",
        ):
            assert view.resolve(path).path == b"/etc/passwd"
            assert read(view, path) == b"inside"
        assert view.resolve(b"a/dir", follow=False).type == "symlink"
        assert view.resolve(b"a/dir/", follow=False).type == "symlink"
        assert names(view.listdir(b"a/dir")) == [b"passwd"]


def test_an_empty_stack(store: LayerStore) -> None:
    with store.view([]) as view:
        assert view.stat(b"/").is_dir
        assert view.listdir() == []
        assert view.stat(b"/").xattrs == {}
        with pytest.raises(NotFoundError):
            view.stat(b"x")


def test_a_closed_view(store: LayerStore) -> None:
    view = store.view(stack(store, sample()))
    view.close()
    view.close()


# ---- several layers ----

BASE = tarbuild.archive(
    tarbuild.file("keep", b"base"),
    tarbuild.file("gone", b"base"),
    tarbuild.file("d/one", b"base"),
    tarbuild.file("d/two", b"base"),
    tarbuild.file("opaque/hidden", b"base"),
    tarbuild.file("file-over-dir/x", b"base"),
    tarbuild.file("dir-over-file", b"base"),
)
UPPER = tarbuild.archive(
    tarbuild.whiteout("gone"),
    tarbuild.directory("d", mode=0o700),
    tarbuild.file("d/two", b"upper"),
    tarbuild.whiteout("d/one"),
    tarbuild.file("d/three", b"upper"),
    tarbuild.opaque("opaque"),
    tarbuild.file("opaque/shown", b"upper"),
    tarbuild.file("file-over-dir", b"upper"),
    tarbuild.file("dir-over-file/y", b"upper"),
)


def test_the_rules_of_stacking(store: LayerStore) -> None:
    with store.view(stack(store, BASE, UPPER)) as view:
        assert [entry.path for entry in view.walk()] == [
            b"/", b"/d", b"/d/three", b"/d/two", b"/dir-over-file", b"/dir-over-file/y", b"/file-over-dir", b"/keep",
            b"/opaque", b"/opaque/shown",
        ]  # fmt: skip
        assert (view.stat(b"keep").layer, view.stat(b"d/two").layer) == (0, 1)
        assert read(view, b"d/two") == b"upper"
        assert view.stat(b"d").mode & 0o777 == 0o700
        assert view.stat(b"opaque").xattrs == {}  # the mark itself is not seen
        for path in (b"gone", b"d/one", b"opaque/hidden", b"dir-over-file/..x"):
            with pytest.raises(NotFoundError):
                view.stat(path)


def test_what_was_deleted_can_come_again(store: LayerStore) -> None:
    third = tarbuild.archive(tarbuild.file("gone", b"third"), tarbuild.file("d/one", b"third"))
    with store.view(stack(store, BASE, UPPER, third)) as view:
        assert read(view, b"gone") == b"third"
        assert names(view.listdir(b"d")) == [b"one", b"three", b"two"]


def test_an_upper_on_top(store: LayerStore, tmp_path: Path) -> None:
    upper = tmp_path / "upper"
    upper.mkdir()
    (upper / "new").write_bytes(b"new")
    os.mknod(upper / "keep", stat.S_IFCHR, 0)
    with store.view(stack(store, BASE), upper) as view:
        assert read(view, b"new") == b"new"
        assert b"keep" not in names(view.listdir())


def test_a_directory_in_a_hundred_layers_is_read_once_in_each(store: LayerStore) -> None:
    layers = [
        tarbuild.archive(*(tarbuild.file(f"d/{layer:03}-{number:02}") for number in range(5))) for layer in range(100)
    ]
    calls: Counter[str] = Counter()

    def counted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: object) -> object:
            calls[name] += 1
            return real(*arguments)

        return call

    with store.view(stack(store, *layers)) as view:
        directory = view.stat(b"d")
        for tree in view._trees:
            for name in ("names", "lookup"):
                setattr(tree, name, counted(name, getattr(tree, name)))
        assert len(view.listdir(directory)) == 500
    assert calls == {"names": 100}


# ---- against the kernel ----


def taken(view: View) -> dict[bytes, Node]:
    """The view in the form that ``fstree.capture`` gives a mount."""
    out = {}
    for entry in view.walk():
        content = b"".join(view.read(entry)) if entry.type == "file" else b""
        out[entry.path.lstrip(b"/")] = Node(
            type={"directory": "d", "file": "f", "symlink": "l", "char": "c", "block": "b", "fifo": "p"}[entry.type],
            mode=entry.mode & 0o7777,
            uid=entry.uid,
            gid=entry.gid,
            mtime_ns=entry.mtime_ns,
            size=entry.size if entry.type == "file" else 0,
            content=hashlib.sha256(content).hexdigest() if entry.type == "file" else "",
            target=entry.target,
            rdev=entry.rdev,
            xattrs=tuple(sorted((os.fsdecode(name), value) for name, value in entry.xattrs.items())),
            links=(),
        )
    return out


PATHS = st.sampled_from(["a", "b", "a/a", "a/b", "b/a", "b/b", "a/a/a", "a/a/b", "b/a/b"])
MEMBERS = st.one_of(
    st.builds(lambda path, data: tarbuild.file(path, data, mode=0o640), PATHS, st.binary(max_size=9)),
    st.builds(lambda path, mode: tarbuild.directory(path, mode=mode), PATHS, st.sampled_from([0o700, 0o755])),
    st.builds(lambda path, target: tarbuild.symlink(path, target), PATHS, st.sampled_from(["a", "/b", "../a"])),
    st.builds(tarbuild.whiteout, PATHS),
    st.builds(tarbuild.opaque, st.sampled_from(["a", "b", "a/a"])),
    st.builds(lambda path: tarbuild.member(path, b"", xattrs={"user.x": b"y", "trusted.t": b"1"}), PATHS),
)
FIRST = tarbuild.archive(*(tarbuild.file(f"{top}/{middle}/{name}") for top in "ab" for middle in "ab" for name in "ab"))


@pytest.mark.root
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(layers=st.lists(st.lists(MEMBERS, max_size=8), max_size=4))
def test_the_view_is_what_the_kernel_shows(store: LayerStore, layers: list[list[bytes]]) -> None:
    try:
        diff_ids = stack(store, FIRST, *(tarbuild.archive(*layer) for layer in layers))
    except IntegrityError:
        reject()  # a file below a file
    database = Database(store.root.parent / "db")
    snapshots = SnapshotStore(store.root.parent / "snapshots", store, database)
    fd = snapshots.view(diff_ids)
    try:
        mounted = capture(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)
        database.close()
    with store.view(diff_ids) as view:
        assert_same(mounted, taken(view), ignore=("links",))
        for path in mounted:
            assert view.stat(path).path.lstrip(b"/") == path
