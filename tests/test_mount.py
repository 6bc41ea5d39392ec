"""Mounts and the probe, by real mounts."""

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from launchkit import descriptors, layer_file, needs_detached_copies, opened

from layerfs import native
from layerfs.errors import NativeError, UnsupportedError

pytestmark = pytest.mark.root


@pytest.fixture(autouse=True)
def no_descriptor_leaks() -> Iterator[None]:
    before = descriptors()
    yield
    assert descriptors() == before


@pytest.fixture
def mounts(tmp_path: Path) -> Iterator[list[int]]:
    """Twelve mounted layers, base first; layer n holds d/n and d/all."""
    with ExitStack() as stack:
        fds = []
        for i in range(12):
            layer = layer_file(tmp_path / f"layer{i}", str(i), b"%d" % i)
            try:
                fds.append(native.erofs_mount(layer))
            finally:
                os.close(layer)
            stack.callback(os.close, fds[-1])
        yield fds


def read(dirfd: int, path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY, dir_fd=dirfd)
    try:
        return os.read(fd, 100)
    finally:
        os.close(fd)


def names(dirfd: int) -> list[str]:
    """What a detached mount holds at its top (its descriptor is an O_PATH one)."""
    return os.listdir(f"/proc/self/fd/{dirfd}")


def mountinfo() -> str:
    return Path("/proc/self/mountinfo").read_text()


def loops() -> str:
    return subprocess.run(["losetup", "-l", "-n", "-O", "BACK-FILE"], capture_output=True, text=True).stdout


def assert_no_loop(where: Path) -> None:
    """The device frees itself with its last user, who may be another program that looks at devices just now."""
    end = time.monotonic() + 5
    while str(where) in loops():
        assert time.monotonic() < end
        time.sleep(0.01)


def skip_unless_mounted(where: Path) -> None:
    layer = layer_file(where / "try", "x")
    try:
        os.close(native.erofs_mount(layer))
    except UnsupportedError:
        pytest.skip("needs Linux 6.12, which mounts EROFS from plain files")
    finally:
        os.close(layer)


@pytest.mark.parametrize("loop", [False, True])
def test_a_layer_file_is_mounted_and_leaves_nothing(tmp_path: Path, loop: bool) -> None:
    if not loop:
        skip_unless_mounted(tmp_path)
    before = set(mountinfo().splitlines())
    layer = layer_file(tmp_path / "layer", "hello", b"content")
    mount = native.erofs_mount(layer, loop=loop)
    os.close(layer)
    assert read(mount, "d/hello") == b"content"
    # Tests that run meanwhile mount too, in directories of their own.
    others = {line for line in mountinfo().splitlines() if str(tmp_path.parent.parent) in line.split()[4]}
    assert set(mountinfo().splitlines()) - before <= others
    assert str(tmp_path) not in mountinfo()
    assert (str(tmp_path) in loops()) == loop
    os.close(mount)
    assert_no_loop(tmp_path)


@pytest.mark.parametrize("loop", [False, True])
def test_what_is_no_image_is_refused_and_leaves_nothing(tmp_path: Path, loop: bool) -> None:
    if not loop:
        skip_unless_mounted(tmp_path)
    path = tmp_path / "bad"
    path.write_bytes(b"\1" * 65536)
    with path.open("rb") as f, pytest.raises(NativeError, match="not an EROFS image") as caught:
        native.erofs_mount(f.fileno(), loop=loop)
    assert caught.value.errno == errno.EINVAL
    assert_no_loop(tmp_path)


def test_a_file_on_overlayfs_cannot_be_mounted_and_the_message_says_so(tmp_path: Path) -> None:
    for name in ("lower", "upper", "work"):
        (tmp_path / name).mkdir()
    with opened(tmp_path / "lower", tmp_path / "upper", tmp_path / "work") as (lower, upper, work):
        mount = native.overlay_mount([lower], upper, work)
    layer = layer_file(Path(f"/proc/self/fd/{mount}/layer"), "x")
    try:
        with pytest.raises(UnsupportedError, match="overlayfs"):
            native.erofs_mount(layer)
    finally:
        os.close(layer)
        os.close(mount)


@needs_detached_copies
def test_upper_over_layers_top_most_first(tmp_path: Path, mounts: list[int]) -> None:
    (tmp_path / "upper").mkdir()
    (tmp_path / "work").mkdir()
    with opened(tmp_path / "upper", tmp_path / "work") as (upper, work):
        mount = native.overlay_mount(mounts[::-1], upper, work)
    try:
        assert read(mount, "d/all") == b"11"
        assert read(mount, "d/0") == b"0"
        assert names(mount) == ["d"]
        os.unlink("d/0", dir_fd=mount)
        # A directory of the lower cannot be renamed, so that an upper never holds a redirect.
        with pytest.raises(OSError) as caught:
            os.rename("d", "e", src_dir_fd=mount, dst_dir_fd=mount)
        assert caught.value.errno == errno.EXDEV
    finally:
        os.close(mount)
    assert (tmp_path / "upper/d/0").is_char_device()
    attributes = os.listxattr(tmp_path / "upper/d")
    assert not [name for name in attributes if "redirect" in name or "metacopy" in name]


@needs_detached_copies
def test_chmod_copies_the_data_up(tmp_path: Path, mounts: list[int]) -> None:
    (tmp_path / "upper").mkdir()
    (tmp_path / "work").mkdir()
    with opened(tmp_path / "upper", tmp_path / "work") as (upper, work):
        mount = native.overlay_mount(mounts[::-1], upper, work)
    fd = os.open("d/3", os.O_RDONLY, dir_fd=mount)
    os.fchmod(fd, 0o600)
    os.close(fd)
    os.close(mount)
    assert (tmp_path / "upper/d/3").read_bytes() == b"3"
    assert "trusted.overlay.metacopy" not in os.listxattr(tmp_path / "upper/d/3")


@needs_detached_copies
def test_read_only_stacks(mounts: list[int]) -> None:
    for lowers, top in ((mounts[:1], b"0"), (mounts[::-1], b"11")):
        mount = native.overlay_mount(lowers)
        try:
            assert read(mount, "d/all") == top
            with pytest.raises(OSError, match="Read-only"):
                os.mkdir("x", dir_fd=mount)
        finally:
            os.close(mount)


def test_a_single_directory_is_bound_read_only(tmp_path: Path) -> None:
    with opened(tmp_path) as (lower,):
        mount = native.overlay_mount([lower])
    with pytest.raises(OSError, match="Read-only"):
        os.mkdir("x", dir_fd=mount)
    os.close(mount)
    (tmp_path / "x").mkdir()  # the directory itself stays writable


@needs_detached_copies
def test_readonly_with_upper_shows_the_upper(tmp_path: Path, mounts: list[int]) -> None:
    (tmp_path / "upper").mkdir()
    (tmp_path / "upper/new").write_bytes(b"n")
    (tmp_path / "work").mkdir()
    with opened(tmp_path / "upper", tmp_path / "work") as (upper, work):
        mount = native.overlay_mount(mounts[:2], upper, work, readonly=True)
    assert read(mount, "new") == b"n"
    with pytest.raises(OSError, match="Read-only"):
        os.mkdir("x", dir_fd=mount)
    os.close(mount)


@pytest.mark.parametrize("count", [2, 500])
def test_many_lowers(tmp_path: Path, count: int) -> None:
    paths = []
    for i in range(count):
        paths.append(tmp_path / str(i))
        paths[-1].mkdir()
        (paths[-1] / f"file{i}").touch()
    with opened(*paths) as fds:
        mount = native.overlay_mount(fds)
    assert len(names(mount)) == count
    os.close(mount)


def test_501_lowers_are_refused_by_number(tmp_path: Path) -> None:
    with opened(tmp_path) as (fd,), pytest.raises(NativeError, match="of 501 layers: the kernel takes at most 500"):
        native.overlay_mount([fd] * 501)


def test_wrong_arguments_and_layers(tmp_path: Path) -> None:
    (tmp_path / "upper").mkdir()
    (tmp_path / "file").touch()
    with opened(tmp_path, tmp_path / "upper") as (fd, upper):
        for lowers, up in (([], -1), ([fd], upper)):
            with pytest.raises(NativeError, match="wrong arguments"):
                native.overlay_mount(lowers, up, -1)
        file = os.open(tmp_path / "file", os.O_RDONLY)
        with pytest.raises(NativeError, match="lowerdir") as caught:
            native.overlay_mount([file, fd])
        os.close(file)
    assert caught.value.errno in (errno.ENOTDIR, errno.EINVAL)


def test_volatile_and_userxattr_reach_the_kernel(tmp_path: Path) -> None:
    for name in ("lower/d", "upper", "work", "at"):
        (tmp_path / name).mkdir(parents=True)
    with opened(tmp_path / "lower", tmp_path / "upper", tmp_path / "work") as (lower, upper, work):
        mount = native.overlay_mount([lower], upper, work, volatile=True, userxattr=True)
    native.attach(mount, tmp_path / "at")
    try:
        line = next(line for line in mountinfo().splitlines() if str(tmp_path / "at") in line)
        assert "userxattr" in line
        assert "volatile" in line or "fsync=volatile" in line
        os.rmdir(tmp_path / "at/d")
        (tmp_path / "at/d").mkdir()
        assert os.getxattr(tmp_path / "upper/d", "user.overlay.opaque") == b"y"
    finally:
        os.close(mount)
        native.detach(tmp_path / "at")


@needs_detached_copies
def test_attach_detach(tmp_path: Path, mounts: list[int]) -> None:
    at = tmp_path / "at"
    at.mkdir()
    mount = native.overlay_mount(mounts)
    native.attach(mount, at)
    os.close(mount)
    assert (at / "d/0").read_bytes() == b"0"
    with (at / "d/0").open("rb"), pytest.raises(NativeError, match="unmount") as caught:
        native.detach(at)
    assert caught.value.errno == errno.EBUSY
    with (at / "d/0").open("rb"):
        native.detach(at, lazy=True)
    assert not list(at.iterdir())
    with pytest.raises(NativeError, match="unmount"):
        native.detach(at)
    with pytest.raises(NativeError, match="attach"):
        native.attach(mounts[0], tmp_path / "missing")


def test_bind_mount(tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir/file").write_bytes(b"f")
    with opened(tmp_path) as (top,):
        readonly = native.bind_mount(top, "dir", readonly=True)
        writable = native.bind_mount(top, "dir")
        single = native.bind_mount(top, "dir/file")
        with pytest.raises(NativeError, match="bind missing"):
            native.bind_mount(top, "missing")
    assert read(readonly, "file") == b"f"
    with pytest.raises(OSError, match="Read-only"):
        os.mkdir("x", dir_fd=readonly)
    os.mkdir("x", dir_fd=writable)
    assert os.fstat(single).st_size == 1
    for fd in (readonly, writable, single):
        os.close(fd)


def test_read_ahead_is_raised_and_readahead_takes_any_range(tmp_path: Path) -> None:
    skip_unless_mounted(tmp_path)
    layer = layer_file(tmp_path / "layer", "x", bytes(3 << 20))
    mount = native.erofs_mount(layer)
    newest = max(Path("/sys/class/bdi").glob("erofs-*"), key=lambda path: int(path.name.split("-")[1]))
    assert int((newest / "read_ahead_kb").read_text()) == 1024
    native.readahead(layer, 0, 5 << 20)
    with pytest.raises(NativeError, match="read ahead"):
        native.readahead(-1, 0, 1)
    os.close(mount)
    os.close(layer)


def test_probe_finds_what_this_machine_can_do_and_leaves_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as (fd,):
        probe = native.probe(fd)
    assert probe.overlay
    assert probe.namespaces
    assert set(probe.reasons) == {name for name in native.Probe.__struct_fields__[:-1] if not getattr(probe, name)}
    assert not list(tmp_path.iterdir())


def test_probe_on_overlayfs_says_why_not(tmp_path: Path) -> None:
    for name in ("lower", "upper", "work"):
        (tmp_path / name).mkdir()
    with opened(tmp_path / "lower", tmp_path / "upper", tmp_path / "work") as (lower, upper, work):
        mount = native.overlay_mount([lower], upper, work)
    probe = native.probe(mount)
    os.close(mount)
    assert not probe.erofs
    assert "overlayfs" in probe.reasons["erofs"]
    assert not list((tmp_path / "upper").iterdir()) or not [p for p in (tmp_path / "upper").iterdir() if p.is_dir()]


OLD_KERNEL = """
import ctypes, json, os, struct, sys

libc = ctypes.CDLL(None, use_errno=True)
FSCONFIG, SET_STRING, SET_FD, ERRNO, ALLOW = 431, 1, 5, 0x50000, 0x7fff0000
code = [  # fsconfig(2) takes no descriptor: before Linux 6.5 overlayfs was mounted the old way
    (0x20, 0, 0, 0), (0x15, 0, 3, FSCONFIG), (0x20, 0, 0, 24), (0x15, 0, 1, SET_FD),
    (0x06, 0, 0, ERRNO | 95), (0x06, 0, 0, ALLOW),
]
rules = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *rule) for rule in code))
class Program(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("rules", ctypes.c_void_p)]
program = Program(len(code), ctypes.addressof(rules))
assert libc.personality(0x0020000) >= 0  # UNAME26: a kernel older than any that layerfs knows a newer way for
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(program)) == 0, os.strerror(ctypes.get_errno())

"""
OVERLAY = """
from layerfs import native
dirs = [os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in sys.argv[1:5]]
mount = native.overlay_mount(dirs[:2], dirs[2], dirs[3])
os.unlink("below", dir_fd=mount)
os.mkdir("new", dir_fd=mount)
print(json.dumps([os.uname().release, sorted(os.listdir(f"/proc/self/fd/{mount}"))]))
"""
PROBE = """
from pathlib import Path
from layerfs.layers import probe_format
print(json.dumps([os.uname().release, probe_format(Path(sys.argv[1]))]))
"""


def on_old_kernel(code: str, *places: Path) -> object:
    """What the code prints as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", OLD_KERNEL + code, *map(str, places)], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    release, found = json.loads(done.stdout)
    assert release.startswith("2.6.")
    return found


def test_overlay_on_a_kernel_that_takes_no_descriptors(tmp_path: Path) -> None:
    places = [tmp_path / name for name in ("top", "base", "upper", "work")]
    for place in places:
        place.mkdir()
    (tmp_path / "top" / "above").touch()
    (tmp_path / "base" / "below").touch()
    assert on_old_kernel(OVERLAY, *places) == ["above", "new"]
    assert sorted(path.name for path in (tmp_path / "upper").iterdir()) == ["below", "new"]


def test_the_format_of_a_store_on_a_kernel_that_takes_no_detached_layers(tmp_path: Path) -> None:
    assert on_old_kernel(PROBE, tmp_path) == "erofs"
    assert not list(tmp_path.iterdir())
    assert str(tmp_path) not in mountinfo()
