"""A directory that is as it was is not gone through again; whatever changes in it is seen all the same."""

import os
import shutil
import socket
import sqlite3
import stat
import time
from contextlib import closing

import pytest

from layerfs.build import memory, stamp, tree
from layerfs.errors import BuildError

pytestmark = pytest.mark.root

TEXT = "FROM scratch\nCOPY --exclude=**/*.o d /d\n"
FILES = {"d/a": "1", "d/s/b": "22", "d/s/l": "->b", "d/x.o": "o", "d/t/c": "3", ".dockerignore": "d/t/*.log\nd/out\n"}


@pytest.fixture
def walked(monkeypatch):
    """The directories gone through, file by file. Fresh files count as old ones here; see the last test."""
    for module in (stamp, memory):
        monkeypatch.setattr(module, "RACY_SECONDS", -1000)
    walk, found = tree.Tree._walk, []

    def noted(self, cursor, names, *rest):
        found.append(names)
        return walk(self, cursor, names, *rest)

    monkeypatch.setattr(tree.Tree, "_walk", noted)
    return found


def tick():
    time.sleep(0.02)  # the next time of change is another one


def keep_times(path, change):
    before = os.lstat(path)
    change(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns), follow_symlinks=False)


def swap(directory):
    directory.rename(directory.parent / "old")
    shutil.copytree(directory.parent / "old", directory, symlinks=True)
    shutil.rmtree(directory.parent / "old")
    (directory / "b").write_text("33")


CHANGES = {
    "content, of the same size and time": (lambda d: keep_times(d / "a", lambda a: a.write_text("2")), True),
    "mode": (lambda d: (d / "a").chmod(0o600), True),
    "mode of a directory": (lambda d: (d / "s").chmod(0o700), True),
    "mode of the source": (lambda d: d.chmod(0o700), True),
    "name": (lambda d: (d / "a").rename(d / "z"), True),
    "name of a directory": (lambda d: (d / "s").rename(d / "z"), True),
    "a new file": (lambda d: (d / "s/new").touch(), True),
    "a new directory": (lambda d: (d / "s/new").mkdir(), True),
    "a file gone": (lambda d: (d / "s/b").unlink(), True),
    "a link": (lambda d: ((d / "s/l").unlink(), (d / "s/l").symlink_to("a")), True),
    "an attribute": (lambda d: os.setxattr(d / "a", "user.x", b"y"), True),
    "an attribute of a directory": (lambda d: os.setxattr(d / "s", "user.x", b"y"), True),
    "another directory in its place": (lambda d: swap(d / "s"), True),
    "a new file that is left out": (lambda d: (d / "t/x.log").touch(), False),
    "a new directory that is left out": (lambda d: (d / "out").mkdir(), False),
    "a new file that is excluded": (lambda d: (d / "s/y.o").touch(), False),
    "time alone": (lambda d: os.utime(d / "a", (1, 1)), False),
    "a name back and forth": (lambda d: ((d / "s").rename(d / "z"), (d / "z").rename(d / "s")), False),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changes(kit, walked, name):
    change, seen = CHANGES[name]
    kit.build(TEXT, FILES)
    walked.clear()
    kit.build(TEXT)
    assert (kit.steps(), walked) == ((0, 1), [])
    tick()
    change(kit.context / "d")
    kit.build(TEXT)
    assert kit.steps() == (int(seen), int(not seen))
    assert "/d/t/x.log" not in kit.entries()
    kit.build(TEXT, no_cache=True, tags=("whole",))
    assert kit.steps() == (1, 0)
    assert kit.entries("made").keys() == kit.entries("whole").keys()
    for path, entry in kit.entries("made").items():
        other = kit.stat(path, "whole")
        assert (entry.mode, entry.target) == (other.mode, other.target), path
        assert kit.xattrs(path, "made") == kit.xattrs(path, "whole"), path
        assert not stat.S_ISREG(entry.mode) or kit.read(path) == kit.read(path, "whole")


def test_what_is_left_out_is_part_of_the_question(kit, walked):
    kit.build(TEXT, FILES)
    kit.build(TEXT, {".dockerignore": "d/a"})
    assert (kit.steps(), "/d/a" in kit.entries()) == ((1, 0), False)
    kit.build(TEXT.replace("**/*.o", "t/c"))
    assert (kit.steps(), "/d/t/c" in kit.entries(), "/d/x.o" in kit.entries()) == ((1, 0), False, True)


def test_files_beside_directories(kit, walked):
    kit.build("FROM scratch\nCOPY d/a d <<E /d/\nhi\nE", FILES)
    walked.clear()
    kit.build("FROM scratch\nCOPY d/a d <<E /d/\nhi\nE")
    assert (kit.steps(), walked) == ((0, 1), [])
    tick()
    keep_times(kit.context / "d/a", lambda a: a.write_text("2"))
    kit.build("FROM scratch\nCOPY d/a d <<E /d/\nhi\nE")
    assert (kit.steps(), kit.read("/d/a")) == ((1, 0), "2")


def test_directories_and_questions_of_their_own(kit, walked):
    """What one COPY asks does not take the place of what another one asks."""
    text = "FROM scratch\nCOPY d /d\nCOPY e /e\nCOPY --exclude=a d /f\nCOPY --exclude=c d /g\n"
    kit.build(text, {**FILES, "e/a": "5"})
    walked.clear()
    kit.build(text)
    assert (kit.steps(), walked) == ((0, 4), [])


def test_a_file_alone_is_remembered(kit, walked, monkeypatch):
    kit.build("FROM scratch\nCOPY d/a /a\n", FILES)
    opened, found = tree.Cursor.open, []
    monkeypatch.setattr(tree.Cursor, "open", lambda self, names, *flags: found.append(names) or opened(self, names))
    kit.build("FROM scratch\nCOPY d/a /a\n")
    assert (kit.steps(), found) == ((0, 1), [])


def test_a_bind_mount_of_the_context(kit, walked):
    text = "FROM box\nRUN --mount=target=/m cat /m/d/a > /o"
    kit.build(text, FILES)
    walked.clear()
    kit.build(text)
    assert (kit.steps(), walked) == ((0, 1), [])
    tick()
    keep_times(kit.context / "d/a", lambda a: a.write_text("2"))
    kit.build(text)
    assert (kit.steps(), kit.read("/o")) == ((1, 0), "2")


def test_a_socket_is_told_of_each_time(kit, walked):
    kit.write(FILES)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(kit.context / "d/socket"))
    for _ in range(2):
        kit.build(TEXT)
        assert any("is a socket" in text for text in kit.result.warnings)


def test_a_file_that_is_swapped_while_it_is_read(kit, walked, monkeypatch):
    """Its fingerprint must not be remembered as that of the file that was looked at."""
    kit.write(FILES)
    opened = tree.Cursor.open
    (kit.place / "other").write_text("9")

    def swapped(self, names, *flags):
        if names[-1] == b"a":
            os.rename(kit.context / "d/a", kit.place / "kept")
            os.rename(kit.place / "other", kit.context / "d/a")
        try:
            return opened(self, names, *flags)
        finally:
            if names[-1] == b"a":
                os.rename(kit.context / "d/a", kit.place / "other")
                os.rename(kit.place / "kept", kit.context / "d/a")

    monkeypatch.setattr(tree.Cursor, "open", swapped)
    with pytest.raises(BuildError, match="d/a: changed in the build context while it was read"):
        kit.build(TEXT)
    monkeypatch.setattr(tree.Cursor, "open", opened)
    kit.build(TEXT)
    assert kit.read("/d/a") == "1"


def test_a_file_that_is_swapped_before_it_is_written(kit, monkeypatch):
    """The layer must not have another content than its key."""
    kit.write({"d/large": bytes(3 << 20)})
    (kit.place / "other").write_bytes(b"x" * (3 << 20))
    opened, calls = tree.Cursor.open, []

    def swapped(self, names, *flags):
        calls.append(names)
        if len(calls) == 2:
            os.rename(kit.place / "other", kit.context / "d/large")
        return opened(self, names, *flags)

    monkeypatch.setattr(tree.Cursor, "open", swapped)
    with pytest.raises(BuildError, match="d/large: changed in the build context while it was read"):
        kit.build("FROM scratch\nCOPY d /d")
    assert calls == [(b"d", b"large")] * 2


@pytest.mark.parametrize("when", [1, 4], ids=["for its key", "for the layer"])
def test_a_file_that_is_cut_while_it_is_read(kit, monkeypatch, when):
    kit.write({"d/large": bytes(3 << 20)})
    read, calls = os.read, []

    def cutting(fd, count):
        data = read(fd, count)
        if os.path.samestat(os.fstat(fd), os.stat(kit.context / "d/large")):
            calls.append(count)
            if len(calls) == when:
                os.truncate(kit.context / "d/large", 1 << 20)
        return data

    monkeypatch.setattr(os, "read", cutting)
    with pytest.raises(BuildError, match="d/large: changed in the build context while it was read"):
        kit.build("FROM scratch\nCOPY d /d")
    assert len(calls) == when + 1
    monkeypatch.undo()
    kit.build("FROM scratch\nCOPY d /d")
    assert kit.stat("/d/large").size == 1 << 20


def test_small_files_are_opened_once(kit, monkeypatch):
    opened, found = tree.Cursor.open, []

    def noted(self, names, *flags):
        found.append(names)
        return opened(self, names, *flags)

    monkeypatch.setattr(tree.Cursor, "open", noted)
    kit.build(TEXT, {**FILES, "d/empty": "", "d/large": bytes(3 << 20)})
    assert sorted(names[-1] for names in found) == [b"a", b"b", b"c", b"empty", b"l", b"large", b"large"]
    assert [kit.read(path) for path in ("/d/a", "/d/s/b", "/d/empty")] == ["1", "22", ""]
    assert kit.stat("/d/large").size == 3 << 20


def test_fresh_files_are_gone_through_again(kit):
    """What changed within the last tick of the clock might change again and look the same."""
    kit.build(TEXT, FILES)
    assert not list((kit.place / "root/cache").glob("fingerprints/*"))
    time.sleep(3.1)
    kit.build(TEXT)
    assert remembered(kit) == {b"f": 3, b"t": 1}


def remembered(kit):
    """How many directories with files, and how many trees."""
    (path,) = (kit.place / "root/cache/fingerprints").glob("*.db")
    with closing(sqlite3.connect(path)) as db:
        return dict(db.execute("SELECT substr(key, 1, 1), count(*) FROM known GROUP BY 1"))


@pytest.mark.parametrize("damage", ["no database", "another one", "a bit", "locked", "an older layerfs"])
def test_damaged_memory(kit, walked, damage):
    """It is found again; never is something taken for what it is not."""
    kit.build(TEXT, FILES)
    (path,) = (kit.place / "root/cache/fingerprints").glob("*.db")
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        if damage == "no database":
            path.write_bytes(b"x" * 8192)
        elif damage == "another one":
            db.execute("DROP TABLE known")
        elif damage == "a bit":
            for key, value in db.execute("SELECT key, value FROM known").fetchall():
                flipped = value[:-1] + bytes([value[-1] ^ 1])
                db.execute("UPDATE known SET value = ? WHERE key = ?", (flipped, key))
        elif damage == "locked":
            db.execute("BEGIN EXCLUSIVE")
        else:
            path.unlink()
            path.with_suffix(".trees").write_bytes(b"\x80")
        walked.clear()
        kit.build(TEXT)
        assert kit.steps() == (0, 1)
        assert walked
    walked.clear()
    kit.build(TEXT)
    assert (kit.steps(), walked) == ((0, 1), [])


def test_more_directories_than_are_held(kit, walked, monkeypatch):
    monkeypatch.setattr(memory, "_DIRECTORIES", 2)
    monkeypatch.setattr(memory, "_PENDING", 3)
    files = {f"d/{outer}/{inner}/{name}": outer + inner + name for outer in "abc" for inner in "de" for name in "fg"}
    kit.build(TEXT, files)
    assert remembered(kit) == {b"f": 6, b"t": 1}
    tick()
    (kit.context / "d/b/e/f").write_text("other")
    opened, found = tree.Cursor.open, []
    monkeypatch.setattr(tree.Cursor, "open", lambda self, names, *flags: found.append(names) or opened(self, names))
    kit.build(TEXT)
    assert (kit.steps(), kit.read("/d/b/e/f")) == ((1, 0), "other")
    assert found.count((b"d", b"b", b"e", b"f")) == 1
    assert len(found) == len(files)  # one to find out, and the others for the layer
