"""Namespaces shared, entered and of users."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from launchkit import (
    DOCKER_CAPABILITIES,
    busybox_root,
    needs_busybox,
    needs_detached_copies,
    opened,
    run,
    running,
    sh,
    wait,
)

from layerfs import native
from layerfs.errors import NativeError

pytestmark = [pytest.mark.root, needs_busybox, pytest.mark.usefixtures("no_descriptor_leaks")]


def test_shared_namespaces(tree: Path) -> None:
    names = ("pid", "ipc", "uts", "cgroup", "net", "mnt")
    ended = sh(
        tree,
        f"for n in {' '.join(names)}; do readlink /proc/self/ns/$n; done; ls /dev/shm /dev/mqueue >&2 && echo ok",
        share=["pid", "ipc", "uts", "cgroup", "net"],
    )
    ours = [os.readlink(f"/proc/self/ns/{name}") for name in names]
    assert ended.out.split()[:5] == ours[:5]
    assert ended.out.split()[5] != ours[5]
    assert ended.out.split()[6] == "ok"


def test_entered_namespaces(tree: Path) -> None:
    with running(tree, no_network=True, hostname="first") as (pid, _):
        enter = [(name, os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY)) for name in ("net", "ipc", "uts", "pid")]
        own = os.readlink("/proc/self/ns/pid_for_children")
        try:
            ended = sh(tree, "hostname; ps; for n in net ipc uts pid; do readlink /proc/self/ns/$n; done", enter=enter)
        finally:
            for _, fd in enter:
                os.close(fd)
        expected = [os.readlink(f"/proc/{pid}/ns/{name}") for name in ("net", "ipc", "uts", "pid")]
        assert ended.out.split()[-4:] == expected
        assert ended.out.startswith("first\n")
        assert "sleep 60" in ended.out
        assert os.readlink("/proc/self/ns/pid_for_children") == own


def test_user_namespace_of_root(tree: Path) -> None:
    for path in (tree, *tree.rglob("*")):
        os.chown(path, 100000, 100000, follow_symlinks=False)
    ended = sh(
        tree,
        "id -u; cat /proc/self/uid_map /proc/self/setgroups; touch /made; echo x > /dev/null; ls /sys | wc -l",
        uid_map=[(0, 100000, 65536)],
        gid_map=[(0, 100000, 65536)],
        no_network=True,
    )
    assert ended.err == ""
    assert ended.out.split()[:5] == ["0", "0", "100000", "65536", "allow"]
    assert (tree / "made").stat().st_uid == 100000
    assert (
        sh(tree, "id -u", uid=7, gid=8, groups=[9], uid_map=[(0, 100000, 99)], gid_map=[(0, 100000, 99)]).out == "7\n"
    )


@needs_detached_copies
def test_idmapped_layers_need_no_chown(tmp_path: Path, tree: Path) -> None:
    for name in ("upper", "work"):
        (tmp_path / "snapshot" / name).mkdir(parents=True)
    maps = [(0, 100000, 65536)]
    userns = native.userns_open(maps, maps)
    fds = [userns]
    with opened(tree, tmp_path / "snapshot") as (lower, snapshot):
        fds += [native.idmap_mount(fd, userns) for fd in (lower, snapshot)]
    for name in ("upper", "work"):
        fds.append(os.open(name, os.O_PATH | os.O_DIRECTORY, dir_fd=fds[2]))
    root = native.overlay_mount([fds[1]], fds[3], fds[4], owner=(100000, 100000))
    for fd in fds:
        os.close(fd)
    out = os.memfd_create("out")
    try:
        spec = native.LaunchSpec(
            root=root,
            args=["sh", "-c", "stat -c %u /bin/busybox; touch /made; chown 5:6 /made; cat /proc/self/uid_map"],
            env=["PATH=/bin"],
            capabilities=DOCKER_CAPABILITIES,
            uid_map=maps,
            gid_map=maps,
            stdio=(0, out, 2),
        )
        _, pidfd, _ = native.launch(spec)
        assert wait(pidfd) == 0
        assert os.pread(out, 100, 0).split() == [b"0", b"0", b"100000", b"65536"]
    finally:
        os.close(root)
        os.close(out)
    made = (tmp_path / "snapshot/upper/made").stat()
    assert (made.st_uid, made.st_gid) == (5, 6)  # as it would be without any namespace


def test_maps_that_cannot_be(tree: Path) -> None:
    with pytest.raises(NativeError, match="uid_map"):
        run(tree, "true", uid_map=[(0, 0, 10), (5, 100, 10)], gid_map=[(0, 0, 10)])
    with pytest.raises(NativeError, match="both maps"):
        run(tree, "true", uid_map=[(0, 0, 10)])


ROOTLESS = """
import os, sys
from layerfs import native
native.LaunchSpec, native.launch, native.Mount  # loaded while its files can be read
os.setgroups([])
os.setgid(12345)
os.setuid(12345)
tree, state = sys.argv[1:3]
spec = native.LaunchSpec(
    lowers=[tree], upper=state + "/upper", work=state + "/work", overlay=["userxattr"],
    args=["sh", "-c", "id -u; rm -r /etc; mkdir /etc; echo x > /made; echo y > /dev/null; cat /proc/self/setgroups"],
    env=["PATH=/bin"], capabilities=(1 << 41) - 1, uid_map=[(0, 12345, 1)], gid_map=[(0, 12345, 1)], no_network=True,
    mounts=[native.Mount(type="bind", source=state + "/data", target="/data")],
)
pid, pidfd, _ = native.launch(spec)
info = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
sys.exit(info.si_status)
"""


@pytest.fixture
def public_path() -> Iterator[Path]:
    """A temporary place that every user may enter."""
    with tempfile.TemporaryDirectory(prefix="layerfs-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_an_ordinary_user_without_any_privilege(public_path: Path) -> None:
    tree, state = busybox_root(public_path / "tree"), public_path / "state"
    for name in ("upper", "work", "data"):
        (state / name).mkdir(parents=True)
    for path in (tree, *tree.rglob("*"), state, *state.rglob("*")):
        os.chown(path, 12345, 12345, follow_symlinks=False)
    ended = subprocess.run(
        [sys.executable, "-c", ROOTLESS, str(tree), str(state)],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.split() == ["0", "deny"]
    assert (state / "upper/made").stat().st_uid == 12345
    assert os.getxattr(state / "upper/etc", "user.overlay.opaque") == b"y"


SUBIDS = """
import os, sys
from layerfs import native
native.LaunchSpec, native.launch, native.Mount  # loaded while its files can be read
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
tree, state = sys.argv[1:3]
maps = [(0, 65534, 1), (1, 200000, 65535)]
spec = native.LaunchSpec(
    lowers=[tree], upper=state + "/upper", work=state + "/work", overlay=["userxattr"], groups=[5],
    args=["sh", "-c", "touch /made; chown 33:44 /made; cat /proc/self/setgroups"], env=["PATH=/bin"],
    capabilities=(1 << 41) - 1, uid_map=maps, gid_map=maps, no_network=True,
)
pid, pidfd, _ = native.launch(spec)
sys.exit(os.waitid(os.P_PIDFD, pidfd, os.WEXITED).si_status)
"""


@pytest.mark.skipif(shutil.which("newuidmap") is None, reason="needs the Debian package uidmap")
def test_an_ordinary_user_with_subordinate_ids(public_path: Path) -> None:
    tree, state = busybox_root(public_path / "tree"), public_path / "state"
    for name in ("upper", "work"):
        (state / name).mkdir(parents=True)
    for path in (tree, *tree.rglob("*"), state, *state.rglob("*")):
        os.chown(path, 65534, 65534, follow_symlinks=False)
    subids = public_path / "subids"
    subids.write_text("65534:200000:65536\n")
    places = "".join(f"mount --bind {subids} /etc/{name} && " for name in ("subuid", "subgid"))
    ended = subprocess.run(
        ["unshare", "-m", "sh", "-c", places + 'exec "$@"', "sh", sys.executable, "-c", SUBIDS, str(tree), str(state)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "allow\n", "")
    made = (state / "upper/made").stat()
    assert (made.st_uid, made.st_gid) == (200032, 200043)
