import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from layerfs.errors import InvalidInputError, NotFoundError
from layerfs.runtime import (
    Identity,
    Limits,
    MountSpec,
    Place,
    RunSpec,
    Runtimes,
    User,
    capability_mask,
    capability_names,
    identify,
    is_alive,
    oci_config,
    open_beneath,
    read_beneath,
    resolve_user,
    signal_number,
    signal_process,
    wait_gone,
)


@pytest.fixture
def tree(tmp_path):
    """A tree with links that lead everywhere, and a secret outside of it."""
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "a/b").mkdir(parents=True)
    (root / "a/b/file").write_text("inside")
    (tmp_path / "secret").write_text("outside")
    for name, target in {
        "absolute": "/a/b/file", "up": "../../../../a/b/file", "out": "../../secret",
        "out_absolute": str(tmp_path / "secret"),
        "loop": "loop", "dir": "a/b", "a/b/back": "../../etc", "chain": "dir/../b/file", "fd": "/proc/self/fd",
    }.items():  # fmt: skip
        (root / name).symlink_to(target)
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.mark.parametrize(
    "path",
    [
        b"a/b/file",
        b"/a/b/file",
        b"absolute",
        b"up",
        b"dir/file",
        b"chain",
        b"../../a/./b//file",
        b"dir/back/../a/b/file",
    ],
)
def test_paths_are_resolved_beneath_the_root(tree, path):
    assert read_beneath(tree, path, 100) == b"inside"


@pytest.mark.parametrize("path", [b"out", b"out_absolute", b"../secret", b"fd/0", b"nothing", b"a/b/file/x", b"a/b"])
def test_nothing_outside_is_reached(tree, path):
    assert read_beneath(tree, path, 100) is None


def test_a_place_says_where_something_would_be(tree):
    with Place(tree, b"dir/new") as place:
        assert (place.path, place.name, place.fd) == (b"/a/b/new", b"new", None)
        os.mkdir(place.name, dir_fd=place.parent)
    os.close(open_beneath(tree, b"/a/b/new"))
    with Place(tree, b"/..") as place:
        assert (place.path, place.name) == (b"/", b".")
    with Place(tree, b"dir", follow=False) as place:
        assert place.path == b"/dir"
    with pytest.raises(OSError, match="Too many") as caught:
        Place(tree, b"loop")
    assert caught.value.errno == errno.ELOOP
    with pytest.raises(NotADirectoryError):
        Place(tree, b"a/b/file/x")


def test_a_large_file_and_a_pipe_are_not_read(tree):
    with pytest.raises(OSError, match="too large"):
        read_beneath(tree, b"a/b/file", 3)
    os.mkfifo("pipe", dir_fd=tree)
    assert read_beneath(tree, b"pipe", 10) is None


def accounts(tree: int, passwd: str, group: str = "") -> None:
    for name, text in (("passwd", passwd), ("group", group)):
        Path(f"/proc/self/fd/{tree}/etc/{name}").write_text(text)


PASSWD = "root:x:0:0:r:/root:/bin/sh\nbob:x:1000:100::/home/bob:\n2000:x:0:0::/evil:\n#c:x:5:5:::\nbroken\n"
GROUP = "root:x:0:root\nusers:x:100:\naudio:x:29:bob,root\nbig:x:99999999999:bob\n"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("", User(0, 0, (0, 29), "/root")),
     ("root", User(0, 0, (0, 29), "/root")),
     ("bob", User(1000, 100, (100, 29), "/home/bob")),
     ("1000", User(1000, 100, (100, 29), "/home/bob")),
     ("bob:audio", User(1000, 29, (29,), "/home/bob")),
     ("1000:44", User(1000, 44, (44,), "/home/bob")),
     ("4711", User(4711, 0, (0,), "/")),
     ("2000", User(2000, 0, (0,), "/")),
     ("2147483647", User(2147483647, 0, (0,), "/"))],
)  # fmt: skip
def test_users(tree, text, wanted):
    accounts(tree, PASSWD, GROUP)
    assert resolve_user(tree, text) == wanted


def test_further_groups(tree):
    accounts(tree, PASSWD, GROUP)
    assert resolve_user(tree, "bob", ["users", "7", "root"]).groups == (100, 29, 7, 0)


@pytest.mark.parametrize(
    "text", ["2147483648", "4294967296", "-1", "+0", "99999999999999", "0:4294967296", "a:b:c", "bob:", "0:-1"]
)
def test_users_that_are_refused(tree, text):
    accounts(tree, PASSWD, GROUP)
    with pytest.raises(InvalidInputError):
        resolve_user(tree, text)


@pytest.mark.parametrize("text", ["alice", "bob:nogroup", ":x", "big", "0x0"])
def test_users_that_are_not_there(tree, text):
    accounts(tree, PASSWD, GROUP)
    with pytest.raises(NotFoundError):
        resolve_user(tree, text)


def test_a_passwd_that_leads_outside_is_not_there(tree, tmp_path):
    (tmp_path / "passwd").write_text("alice:x:1:1::/:\n")
    os.symlink("../../passwd", "etc/passwd", dir_fd=tree)
    with pytest.raises(NotFoundError):
        resolve_user(tree, "alice")


def test_a_passwd_of_any_size_is_not_read(tree):
    accounts(tree, "x" * (2 << 20))
    with pytest.raises(InvalidInputError, match="more than"):
        resolve_user(tree, "bob")


def test_capabilities():
    default = capability_names(capability_mask())
    assert len(default) == 14
    assert "CAP_SYS_ADMIN" not in default
    assert capability_mask(drop=["all"]) == 0
    assert capability_names(capability_mask(["cap_net_admin"], ["ALL"])) == ["CAP_NET_ADMIN"]
    assert "CAP_CHOWN" not in capability_names(capability_mask(["ALL"], ["chown"]))
    assert capability_mask(privileged=True) == capability_mask(["ALL"])
    with pytest.raises(InvalidInputError, match="unknown"):
        capability_mask(["CAP_WHAT"])


def test_a_process_is_not_confused_with_another():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    identity = identify(child.pid)
    assert identity is not None
    assert is_alive(identity)
    assert not is_alive(Identity(identity.pid, identity.start_time + 1, identity.boot_id))
    assert not is_alive(Identity(identity.pid, identity.start_time, "another boot"))
    assert not signal_process(Identity(identity.pid, identity.start_time + 1, identity.boot_id), signal.SIGKILL)
    assert not wait_gone(identity, 0.01)
    assert signal_process(identity, signal.SIGTERM)
    assert wait_gone(identity, 10)
    assert not is_alive(identity)  # a zombie is not alive
    assert child.wait() == -signal.SIGTERM
    assert identify(child.pid) is None
    assert not signal_process(identity, signal.SIGTERM)
    child.stdin.close()


def test_a_process_that_is_being_reaped_is_gone(monkeypatch):
    """As kernels before Linux 6.9 say it, for a moment."""

    def reaped(pid):
        raise OSError(errno.EINVAL, "Invalid argument")

    here = identify(os.getpid())
    assert here is not None
    monkeypatch.setattr(os, "pidfd_open", reaped)
    assert wait_gone(here, 0)
    assert not signal_process(here, 0)


@pytest.mark.parametrize(
    ("text", "number"),
    [("9", 9), ("KILL", 9), ("sigterm", 15), ("SIGRTMIN+3", signal.SIGRTMIN + 3), ("RTMAX-1", signal.SIGRTMAX - 1)],
)
def test_signals(text, number):
    assert signal_number(text) == number


@pytest.mark.parametrize("text", ["", "0", "65", "-9", "NOPE", "RTMIN+99", "KILL+1", "_TERM"])
def test_what_is_no_signal(text):
    with pytest.raises(ValueError, match="not a signal"):
        signal_number(text)


def spec(**changes: object) -> RunSpec:
    values = {
        "id": "x", "args": ("sh",), "env": ("A=1",), "cwd": "/", "user": User(1, 2, (2, 3)), "hostname": "h",
        "capabilities": capability_mask(),
    }  # fmt: skip
    return RunSpec(**values | changes)


def test_the_oci_configuration():
    document = oci_config(
        spec(
            network="none", readonly=True, tty=True,
            mounts=(
                MountSpec(type="bind", target="/t", source="/s", readonly=True),
                MountSpec(type="tmpfs", target="/m", size=5),
            ),
            limits=Limits(memory=1 << 20, cpus=0.5, pids=7, ulimits=(("nofile", 1, -1),)),
        )
    )  # fmt: skip
    process, linux = document["process"], document["linux"]
    assert process["user"] == {"uid": 1, "gid": 2, "additionalGids": [2, 3], "umask": 0o022}
    assert set(process["capabilities"]) == {"bounding", "effective", "permitted"}
    assert process["noNewPrivileges"]
    assert process["rlimits"] == [{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 2**64 - 1}]
    assert {entry["type"] for entry in linux["namespaces"]} == {"pid", "mount", "uts", "ipc", "cgroup", "network"}
    assert {"/proc/kcore", "/sys/firmware", "/proc/interrupts"} <= set(linux["maskedPaths"])
    assert "/proc/sys" in linux["readonlyPaths"]
    assert linux["resources"]["memory"] == {"limit": 1 << 20}
    assert linux["resources"]["cpu"] == {"period": 100000, "quota": 50000}
    assert linux["resources"]["pids"] == {"limit": 7}
    assert linux["resources"]["devices"][0] == {"allow": False, "access": "rwm"}
    bind, tmpfs = document["mounts"][-2:]
    assert bind["destination"] == "/t"
    assert {"rbind", "ro", "nodev", "rprivate"} == set(bind["options"])
    assert {"nosuid", "nodev", "noexec", "size=5"} <= set(tmpfs["options"])


def test_no_network_namespace_on_the_host_network():
    assert "network" not in {entry["type"] for entry in oci_config(spec())["linux"]["namespaces"]}


def test_a_runtime_that_is_not_there(tmp_path):
    with pytest.raises(NotFoundError, match="no-such-runtime"):
        Runtimes(tmp_path).get("no-such-runtime")
    assert Runtimes(tmp_path).get("builtin").name == "builtin"


@pytest.mark.root
def test_auto_takes_what_works_and_says_why(tmp_path, monkeypatch):
    broken = tmp_path / "bin"
    broken.mkdir()
    (broken / "crun").write_text("#!/bin/sh\necho no >&2\nexit 1\n")
    (broken / "crun").chmod(0o755)
    monkeypatch.setenv("PATH", str(broken))
    run = tmp_path / "run"
    run.mkdir()
    choice = Runtimes(run).choice()
    assert choice.name == "builtin"
    assert choice.reasons["runc"] == "not installed"
    assert "ended" in choice.reasons["crun"]
    assert (run / "runtimes.json").exists()
    assert Runtimes(run).choice() == choice  # from the record
    (broken / "crun").unlink()
    assert Runtimes(run).choice().reasons["crun"] == "not installed"  # what it rested on has changed
