"""More processes in a container that runs, the reaper, and limits."""

import errno
import os
import resource
import signal
import time
from pathlib import Path

import pytest
from launchkit import (
    DOCKER_CAPABILITIES,
    field,
    needs_busybox,
    run,
    run_in,
    running,
    sh,
    wait,
)

from layerfs import native
from layerfs.errors import NativeError

pytestmark = [pytest.mark.root, needs_busybox, pytest.mark.usefixtures("no_descriptor_leaks")]


def test_join_is_in_the_container_and_a_child_of_ours(tree: Path) -> None:
    with running(tree, hostname="box", no_network=True) as (pid, pidfd):
        ended = run_in(pidfd, "hostname; pwd; for n in mnt pid uts ipc net cgroup; do readlink /proc/self/ns/$n; done")
        expected = [os.readlink(f"/proc/{pid}/ns/{name}") for name in ("mnt", "pid", "uts", "ipc", "net", "cgroup")]
        assert ended.out.split() == ["box", "/", *expected]
        assert run_in(pidfd, "exit 9").status == 9
        assert run_in(pidfd, "kill -9 $$").status == -signal.SIGKILL


def test_join_has_the_same_rules(tree: Path) -> None:
    (tree / "work").mkdir()
    with running(tree) as (_, pidfd):
        ended = run_in(pidfd, "cat /proc/self/status; pwd; ls /proc/self/fd", uid=33, gid=44, groups=[55], cwd="/work")
        assert field(ended.out, "Uid").split() == ["33"] * 4
        assert field(ended.out, "Groups") == "55"
        assert int(field(ended.out, "CapBnd"), 16) == DOCKER_CAPABILITIES
        assert field(ended.out, "NoNewPrivs") == "1"
        assert ended.out.split()[-5:] == ["/work", "0", "1", "2", "3"]


def test_join_of_a_missing_command_directory_or_container(tree: Path) -> None:
    with running(tree) as (_, pidfd):
        with pytest.raises(native.CommandError, match="run nothing"):
            native.join(native.JoinSpec(pidfd=pidfd, args=["nothing"], env=["PATH=/bin"]))
        for cwd in ("/missing", "/proc/self/fd/3", "/proc/1/root"):
            with pytest.raises(NativeError, match="in the container"):
                native.join(native.JoinSpec(pidfd=pidfd, args=["true"], env=["PATH=/bin"], cwd=cwd))
        kept = os.dup(pidfd)
    with pytest.raises(NativeError, match="join the container"):
        native.join(native.JoinSpec(pidfd=kept, args=["true"], env=["PATH=/bin"]))
    os.close(kept)


def test_join_with_a_terminal(tree: Path) -> None:
    with running(tree) as (_, pidfd):
        process = native.join(
            native.JoinSpec(
                pidfd=pidfd, args=["sh", "-c", "tty; stty size"], env=["PATH=/bin"], tty=True, tty_size=(7, 8)
            )
        )
        assert process.terminal is not None
        data = b""
        try:
            while piece := os.read(process.terminal, 4096):
                data += piece
        except OSError as exc:
            assert exc.errno == errno.EIO  # noqa: PT017
        os.close(process.terminal)
        assert wait(process.pidfd) == 0
        assert data.split() == [b"/dev/pts/0", b"7", b"8"]


def test_join_detached_is_no_child_of_ours(tree: Path) -> None:
    with running(tree) as (_, pidfd):
        process = native.join(
            native.JoinSpec(pidfd=pidfd, args=["sh", "-c", "echo x > /mark"], env=["PATH=/bin"], detach=True)
        )
        assert int(Path(f"/proc/{process.pid}/stat").read_text().rsplit(")")[1].split()[1]) != os.getpid()
        os.close(process.pidfd)
        deadline = time.monotonic() + 5
        while not (tree / "mark").exists():
            assert time.monotonic() < deadline


def test_init_buries_orphans_and_ends_with_the_status(tree: Path) -> None:
    script = "(sleep 0.1 &) ; sleep 0.3; ps; exit 6"
    ended = sh(tree, script, init=True)
    assert ended.status == 6
    assert "layerfs-init" in Path("/proc/self/comm").read_text() or ended.out.splitlines()[1].split()[0] == "1"
    assert "defunct" not in ended.out
    assert sh(tree, "kill -TERM $$", init=True).status == 128 + signal.SIGTERM


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGRTMIN])
def test_init_passes_every_signal_on(tree: Path, number: int) -> None:
    """The first of the real-time signals of glibc is one that musl has for itself."""
    script = f"trap 'exit 3' {number:d}; touch /ready; while :; do sleep 0.02; done"
    with running(tree, "sh", "-c", script, init=True) as (_, pidfd):
        while not (tree / "ready").exists():
            time.sleep(0.01)
        signal.pidfd_send_signal(pidfd, number)
        info = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOWAIT)
        assert info is not None
        assert info.si_status == 3


def test_init_reports_a_missing_command(tree: Path) -> None:
    with pytest.raises(native.CommandError, match="run nothing"):
        run(tree, "nothing", init=True)


def test_rlimits_and_oom_score(tree: Path) -> None:
    ended = sh(
        tree,
        "cat /proc/self/limits /proc/self/oom_score_adj",
        rlimits=[(resource.RLIMIT_NOFILE, 100, 200), (resource.RLIMIT_CORE, 0, -1)],
        oom_score_adj=333,
    )
    lines = ended.out.splitlines()
    assert next(line.split()[3:5] for line in lines if line.startswith("Max open files")) == ["100", "200"]
    assert next(line.split()[4:6] for line in lines if line.startswith("Max core file")) == ["0", "unlimited"]
    assert lines[-1] == "333"


def test_sysctls_of_the_container_only(tree: Path) -> None:
    ended = sh(
        tree,
        "cat /proc/sys/kernel/msgmax /proc/sys/net/ipv4/ip_default_ttl",
        sysctls={"kernel.msgmax": "4321", "net.ipv4.ip_default_ttl": "77"},
        no_network=True,
    )
    assert ended.out.split() == ["4321", "77"]
    for name, network in (("kernel.core_pattern", True), ("vm.swappiness", True), ("net.ipv4.ip_forward", False)):
        with pytest.raises(NativeError, match="not a setting of the container's own"):
            run(tree, "true", sysctls={name: "1"}, no_network=network)
