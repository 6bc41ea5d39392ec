"""``Listing`` against what Python's own calls say of the same directory."""

import os
import socket

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layerfs.errors import NativeError
from layerfs.native import Listing

FIELDS = ["mode", "ino", "dev", "nlink", "uid", "gid", "size", "mtime_ns", "ctime_ns", "rdev"]


def listed(path):
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return Listing(fd)
    finally:
        os.close(fd)


def facts(status):
    return {name: getattr(status, f"st_{name}") for name in FIELDS}


def check(path):
    found = listed(path)
    wanted = {name: facts(os.lstat(os.path.join(path, name))) for name in os.listdir(path)}
    assert {name: facts(status) for name, status in found} == wanted
    directories = {entry.name for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False)}
    assert {name for name, _ in found.directories()} == directories
    others = [values["ctime_ns"] // 10**9 for name, values in wanted.items() if name not in directories]
    assert found.newest == max(others, default=0)


def test_everything_there_is(tmp_path):
    place = os.fsencode(tmp_path)
    (tmp_path / "empty").mkdir()
    check(place + b"/empty")
    (tmp_path / "f").write_text("x")
    os.link(tmp_path / "f", tmp_path / "again")
    (tmp_path / "link").symlink_to("empty")
    (tmp_path / "nowhere").symlink_to("none")
    (tmp_path / "...").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tmp_path / "socket"))
    os.utime(tmp_path / "f", ns=(0, -1_500_000_001))
    check(place)
    check(b"/dev")


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(st.binary(min_size=1, max_size=255).filter(lambda name: not {0, 47} & set(name)), max_size=40))
def test_names(tmp_path_factory, names):
    place = os.fsencode(tmp_path_factory.mktemp("names"))
    for number, name in enumerate(sorted(names - {b".", b".."})):
        path = os.path.join(place, name)
        os.mkdir(path) if number % 3 == 0 else open(path, "wb").close()
    check(place)


@pytest.mark.parametrize("length", [1, 200])
def test_more_than_one_call_gives(tmp_path, length):
    for number in range(2000):
        name = tmp_path / f"{number:0{max(length, 4)}}"
        name.mkdir() if number % 2 else name.touch()
    check(os.fsencode(tmp_path))


def test_the_same_files_are_the_same_bytes(tmp_path):
    (tmp_path / "f").write_text("x")
    (tmp_path / "d").mkdir()
    before = listed(tmp_path).files
    (tmp_path / "d/g").write_text("of another directory")
    assert listed(tmp_path).files == before
    times = os.stat(tmp_path / "f")
    (tmp_path / "f").write_text("y")
    os.utime(tmp_path / "f", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert listed(tmp_path).files != before


def test_no_directory(tmp_path):
    (tmp_path / "f").touch()
    fd = os.open(tmp_path / "f", os.O_RDONLY)
    try:
        with pytest.raises(NativeError, match="list directory: Not a directory"):
            Listing(fd)
    finally:
        os.close(fd)
