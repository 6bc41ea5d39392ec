"""Namespaces, users, filters and mounts of launched processes, and the ways out that must be shut."""

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from launchkit import (
    DOCKER_CAPABILITIES,
    Ended,
    busybox_root,
    descriptors,
    end,
    needs_busybox,
    opened,
    run,
    wait,
)

from layerfs import native
from layerfs.errors import NativeError, UnsupportedError
from layerfs.runtime.seccomp import seccomp_program

pytestmark = [pytest.mark.root, needs_busybox]
AT_FDCWD = -100
ALL_CAPABILITIES = (1 << 41) - 1


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return busybox_root(tmp_path / "root")


@pytest.fixture(autouse=True)
def no_descriptor_leaks() -> Iterator[None]:
    with pytest.raises(NativeError, match="no command"):
        native.launch(native.LaunchSpec(args=[]))
    before = descriptors()
    yield
    assert descriptors() == before


def sh(tree: Path, script: str, **options: object) -> Ended:
    return run(tree, "sh", "-c", script, **options)


def field(text: str, name: str) -> str:
    return next(line.split(None, 1)[1].strip() for line in text.splitlines() if line.startswith(name + ":"))


@contextmanager
def running(tree: Path, *args: str, **options: object) -> Iterator[tuple[int, int]]:
    """A container that runs: (pid, pidfd) of its first process; killed at the end."""
    root = native.bind_mount(AT_FDCWD, str(tree))
    defaults: dict[str, object] = {"env": ["PATH=/bin"], "capabilities": DOCKER_CAPABILITIES}
    try:
        spec = native.LaunchSpec(root=root, args=args or ("sleep", "60"), **(defaults | options))  # type: ignore[arg-type]
        pid, pidfd, _ = native.launch(spec)
    finally:
        os.close(root)
    try:
        yield pid, pidfd
    finally:
        end(pidfd)


def join(pidfd: int, script: str, **options: object) -> Ended:
    """Run a shell script in a container that runs."""
    files = [os.memfd_create(name) for name in ("out", "err")]
    defaults: dict[str, object] = {"env": ["PATH=/bin"], "capabilities": DOCKER_CAPABILITIES}
    null = os.open("/dev/null", os.O_RDONLY)
    try:
        spec = native.JoinSpec(
            pidfd=pidfd, args=["sh", "-c", script], stdio=(null, files[0], files[1]), **(defaults | options)
        )  # type: ignore[arg-type]
        status = wait(native.join(spec).pidfd)
        out, err = (os.pread(fd, 1 << 20, 0).decode() for fd in files)
    finally:
        for fd in (null, *files):
            os.close(fd)
    return Ended(status, out, err)


# Joining ------------------------------------------------------------------------------------------------


def test_join_is_in_the_container_and_a_child_of_ours(tree: Path) -> None:
    with running(tree, hostname="box", no_network=True) as (pid, pidfd):
        ended = join(pidfd, "hostname; pwd; for n in mnt pid uts ipc net cgroup; do readlink /proc/self/ns/$n; done")
        expected = [os.readlink(f"/proc/{pid}/ns/{name}") for name in ("mnt", "pid", "uts", "ipc", "net", "cgroup")]
        assert ended.out.split() == ["box", "/", *expected]
        assert join(pidfd, "exit 9").status == 9
        assert join(pidfd, "kill -9 $$").status == -signal.SIGKILL


def test_join_has_the_same_rules(tree: Path) -> None:
    (tree / "work").mkdir()
    with running(tree) as (_, pidfd):
        ended = join(pidfd, "cat /proc/self/status; pwd; ls /proc/self/fd", uid=33, gid=44, groups=[55], cwd="/work")
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


# Init and limits ----------------------------------------------------------------------------------------


def test_init_buries_orphans_passes_signals_and_ends_with_the_status(tree: Path) -> None:
    script = "(sleep 0.1 &) ; sleep 0.3; ps; exit 6"
    ended = sh(tree, script, init=True)
    assert ended.status == 6
    assert "layerfs-init" in Path("/proc/self/comm").read_text() or ended.out.splitlines()[1].split()[0] == "1"
    assert "defunct" not in ended.out
    assert sh(tree, "kill -TERM $$", init=True).status == 128 + signal.SIGTERM
    with running(tree, "sh", "-c", "trap 'exit 3' USR1; touch /ready; while :; do sleep 0.02; done", init=True) as (
        _,
        pidfd,
    ):
        while not (tree / "ready").exists():
            time.sleep(0.01)
        signal.pidfd_send_signal(pidfd, signal.SIGUSR1)
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


# Namespaces ---------------------------------------------------------------------------------------------


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


# Mounts -------------------------------------------------------------------------------------------------


def test_tmpfs_with_options(tree: Path) -> None:
    ended = sh(
        tree,
        "grep ' /t ' /proc/mounts; echo x > /t/x; stat -c %a /t",
        mounts=[native.Mount(type="tmpfs", target="/t", options=["size=1m", "mode=0700", "noexec", "ro"])],
    )
    line, mode = ended.out.splitlines()
    assert {"ro", "nosuid", "nodev", "noexec", "size=1024k"} <= set(line.split()[3].split(","))
    assert mode == "700"
    assert "Read-only" in ended.err


def test_detached_mounts_as_sources_stay_the_callers(tmp_path: Path, tree: Path) -> None:
    (tmp_path / "v").mkdir()
    (tmp_path / "v/f").write_text("data")
    source = native.bind_mount(AT_FDCWD, str(tmp_path / "v"), readonly=True)
    ended = sh(
        tree, "cat /v/f; echo x > /v/f", mounts=[native.Mount(type="bind", source=source, target="/v", options=["ro"])]
    )
    os.close(source)
    assert ended.out == "data"
    assert "Read-only" in ended.err


def test_options_of_a_bind(tmp_path: Path, tree: Path) -> None:
    shutil.copy("/bin/busybox", tmp_path / "true")
    mount = native.Mount(type="bind", source=str(tmp_path), target="/v", options=["noexec", "nosuid", "slave"])
    ended = sh(tree, "grep ' /v ' /proc/mounts; grep ' /v ' /proc/self/mountinfo; /v/true || echo no", mounts=[mount])
    assert "noexec" in ended.out
    assert ended.out.endswith("no\n")
    for options in (["size=1m"], ["nonsense"]):
        with pytest.raises(NativeError, match="unknown option"):
            run(tree, "true", mounts=[native.Mount(type="bind", source="/tmp", target="/v", options=options)])


def test_device(tree: Path) -> None:
    script = "head -c 3 /dev/mine | wc -c; ls -l /dev/mine"
    ended = sh(tree, script, mounts=[native.Mount(type="device", source="/dev/zero", target="/dev/mine")])
    assert ended.out.startswith("3\nc")
    with pytest.raises(NativeError, match="no device"):
        run(tree, "true", mounts=[native.Mount(type="device", source="/etc/passwd", target="/dev/mine")])


def test_privileged(tree: Path) -> None:
    ended = sh(
        tree,
        "mount -t tmpfs t /tmp && echo mounted; echo x > /proc/sys/kernel/hostname && echo writable; ls /dev | wc -l;"
        "mknod /n c 1 3 && echo x > /n && echo device",
        privileged=True,
        capabilities=ALL_CAPABILITIES,
    )
    words = ended.out.split()
    assert [*words[:2], words[3]] == ["mounted", "writable", "device"]
    assert int(words[2]) >= len([p for p in Path("/dev").iterdir() if p.is_block_device()])


# Filters ------------------------------------------------------------------------------------------------


def test_seccomp_program(tree: Path) -> None:
    program = seccomp_program(DOCKER_CAPABILITIES)
    ended = sh(tree, "cat /proc/self/status; mount -t tmpfs t /tmp; unshare -U true || echo refused", seccomp=program)
    assert field(ended.out, "Seccomp") == "2"
    assert "not permitted" in ended.err
    assert sh(tree, "mount -t tmpfs t /tmp && echo ok", seccomp=program, capabilities=ALL_CAPABILITIES).out == ""
    lifted = seccomp_program(ALL_CAPABILITIES)
    assert sh(tree, "mount -t tmpfs t /tmp && echo ok", seccomp=lifted, capabilities=ALL_CAPABILITIES).out == "ok\n"


@pytest.mark.parametrize("new_privileges", [False, True])
def test_a_filter_holds_for_users_too(tree: Path, new_privileges: bool) -> None:
    rule = native.SeccompRule("mkdir", native.seccomp_errno(errno.ENOTBLK))
    program = native.seccomp_filter(native.SECCOMP_ALLOW, [rule, native.SeccompRule("nonsense", 0)])
    ended = sh(tree, "mkdir /tmp/x", seccomp=program, uid=9, new_privileges=new_privileges)
    assert "Block device required" in ended.err


def test_a_filter_that_is_none(tree: Path) -> None:
    for junk in (b"x", bytes(8)):
        with pytest.raises(NativeError, match="seccomp filter"):
            run(tree, "true", seccomp=junk)


# Ways out -----------------------------------------------------------------------------------------------


def hostile_interpreter(tree: Path, name: str, interpreter: str) -> None:
    (tree / "bin" / name).write_text(f"#!{interpreter}\n")
    (tree / "bin" / name).chmod(0o755)


@pytest.mark.parametrize("how", ["script", "link", "path"])
@pytest.mark.parametrize("joined", [False, True])
def test_the_program_behind_proc_self_exe_is_the_launcher_alone(tree: Path, how: str, joined: bool) -> None:
    """CVE-2019-5736: a command that is /proc/self/exe is the program that started it, here one without a spec."""
    name = "/proc/self/exe" if how == "path" else "evil"
    if how == "script":
        (tree / "bin/evil").write_text("#!/proc/self/exe\n")
        (tree / "bin/evil").chmod(0o755)
    elif how == "link":
        (tree / "bin/evil").symlink_to("/proc/self/exe")
    if not joined:
        assert run(tree, name).status == 2
        return
    with running(tree) as (_, pidfd):
        assert wait(native.join(native.JoinSpec(pidfd=pidfd, args=[name], env=["PATH=/bin"])).pidfd) == 2


def test_an_init_cannot_be_written_through_either(tree: Path) -> None:
    program = Path(native.__file__).parent.parent / "_supervisor"
    before = program.read_bytes()
    script = "echo x >> /proc/1/exe; dd if=/dev/zero of=/proc/1/exe count=1 conv=notrunc; cp /bin/busybox /proc/1/exe"
    ended = sh(tree, script, init=True)
    assert ended.status != 0
    assert program.read_bytes() == before


def test_capabilities_of_the_usual_set_do_not_reach_the_host(tree: Path) -> None:
    script = """
    mknod /tmp/disk b 254 0; cat /tmp/disk
    mount -t cgroup -o memory c /tmp; mount -t cgroup2 c /tmp
    mount -o bind /proc/sys /tmp; umount /proc/sysrq-trigger
    echo 1 > /proc/sys/kernel/core_pattern; echo b > /proc/sysrq-trigger
    ls /proc/1/root/..; chroot /proc/1/root/../.. ls
    cat /sys/kernel/security/* /sys/firmware/* 2>/dev/null
    """
    ended = sh(tree, script)
    assert sorted(set(ended.out.split())) == sorted({"bin", "dev", "etc", "proc", "root", "sys", "tmp"})


def test_a_racing_container_cannot_move_a_bind_target_out(tmp_path: Path, tree: Path) -> None:
    """CVE-2021-30465, 2025-31133: a component is exchanged with a link while the mounts are made."""
    outside, host = tmp_path / "outside", tmp_path / "host"
    outside.mkdir()
    host.mkdir()
    (tree / "a/b").mkdir(parents=True)
    stop = threading.Event()

    def exchange() -> None:
        steps: list[Callable[[], object]] = [
            lambda: os.rename(tree / "a", tree / "t"),
            lambda: os.symlink(outside, tree / "a"),
            lambda: os.unlink(tree / "a"),
            lambda: os.rename(tree / "t", tree / "a"),
            # The launcher has made a directory of its own in the place that was empty for a moment.
            lambda: shutil.rmtree(tree / "t", ignore_errors=True),
        ]
        while not stop.is_set():
            for step in steps:
                with suppress(OSError):
                    step()

    thread = threading.Thread(target=exchange)
    thread.start()
    try:
        for i in range(40):
            try:
                run(tree, "true", mounts=[native.Mount(type="bind", source=str(host), target=f"/a/b/{i}")])
            except NativeError:
                continue  # whoever loses the race is told so
    finally:
        stop.set()
        thread.join()
    assert not list(outside.iterdir())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["host", "outside", "root"]


def test_a_killed_launch_leaves_no_mount(tree: Path) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    with running(tree):
        assert Path("/proc/self/mountinfo").read_text() == before
    assert Path("/proc/self/mountinfo").read_text() == before


def test_die_with_parent(tree: Path) -> None:
    started: list[int] = []

    def work() -> None:
        root = native.bind_mount(AT_FDCWD, str(tree))
        spec = native.LaunchSpec(root=root, args=["sleep", "60"], env=["PATH=/bin"], die_with_parent=True)
        started.append(native.launch(spec)[1])
        os.close(root)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert wait(started[0]) == -signal.SIGKILL


def test_libseccomp_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = subprocess.run(
        [
            "unshare", "-m", "sh", "-c",
            "for f in $(ldconfig -p | sed -n 's/.*libseccomp.so.2.* => //p'); do mount --bind /dev/null $f; done;"
            " exec \"$0\" -c 'from layerfs import native; native.seccomp_filter(native.SECCOMP_ALLOW, [])'",
            sys.executable,
        ],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    assert "UnsupportedError" in missing.stderr
    assert "libseccomp.so.2 is not installed" in missing.stderr
    assert issubclass(UnsupportedError, NativeError)
