"""The built-in launcher, from outside: real processes over real mounts."""

import errno
import fcntl
import os
import select
import signal
import struct
import termios
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from launchkit import (
    DOCKER_CAPABILITIES,
    Ended,
    busybox_root,
    children,
    descriptors,
    end,
    needs_busybox,
    opened,
    run,
    run_over,
    wait,
)

from layerfs import native
from layerfs.errors import NativeError

pytestmark = [pytest.mark.root, needs_busybox]
AT_FDCWD = -100


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return busybox_root(tmp_path / "root")


@pytest.fixture(autouse=True)
def no_descriptor_leaks() -> Iterator[None]:
    with pytest.raises(NativeError, match="no command"):
        native.launch(native.LaunchSpec(args=[]))  # from the first launch on the launcher stays open
    before = descriptors()
    yield
    assert descriptors() == before


def sh(tree: Path, script: str, **options: object) -> Ended:
    return run(tree, "sh", "-c", script, **options)


def status_field(text: str, name: str) -> str:
    return next(line.split(None, 1)[1].strip() for line in text.splitlines() if line.startswith(name + ":"))


def test_exit_codes_and_signals(tree: Path) -> None:
    assert run(tree, "true").status == 0
    assert sh(tree, "exit 42").status == 42
    root = native.bind_mount(AT_FDCWD, str(tree))
    _, pidfd, _ = native.launch(native.LaunchSpec(root=root, args=["sleep", "60"], env=["PATH=/bin"]))
    os.close(root)
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    assert wait(pidfd) == -signal.SIGKILL


def test_input_output_and_environment(tree: Path) -> None:
    assert run(tree, "cat", stdin=b"through").out == "through"
    ended = run(tree, "env", env=["PATH=/bin", "A=b c", "EMPTY="])
    assert sorted(ended.out.splitlines()) == ["A=b c", "EMPTY=", "PATH=/bin"]
    assert sh(tree, "echo oops >&2").err == "oops\n"


def test_working_directory_is_made_and_entered(tree: Path) -> None:
    assert run(tree, "pwd", cwd="/made/on the/way").out == "/made/on the/way\n"
    assert (tree / "made/on the/way").stat().st_mode & 0o7777 == 0o755


def test_host_name_and_pid_one(tree: Path) -> None:
    assert sh(tree, "hostname; echo $$", hostname="box").out == "box\n1\n"
    assert os.uname().nodename != "box"


def test_the_host_is_out_of_sight(tree: Path) -> None:
    ended = sh(tree, "ps; cat /proc/mounts; ls /", hostname="box")
    assert str(tree.parent) not in ended.out
    assert [line.split()[0] for line in ended.out.splitlines() if "sh -c" in line] == ["1", "2"]
    assert ended.out.split()[-7:] == ["bin", "dev", "etc", "proc", "root", "sys", "tmp"]


@pytest.mark.parametrize("uid", [0, 1000])
def test_user_groups_and_capabilities(tree: Path, uid: int) -> None:
    ended = run(tree, "cat", "/proc/self/status", uid=uid, gid=7, groups=[10, 4000000000])
    text = ended.out
    assert status_field(text, "Uid").split() == [str(uid)] * 4
    assert status_field(text, "Gid").split() == ["7"] * 4
    assert status_field(text, "Groups").split() == ["10", "4000000000"]
    assert int(status_field(text, "CapBnd"), 16) == DOCKER_CAPABILITIES
    expected = DOCKER_CAPABILITIES if uid == 0 else 0
    assert int(status_field(text, "CapEff"), 16) == expected
    assert int(status_field(text, "CapPrm"), 16) == expected
    assert int(status_field(text, "CapInh"), 16) == 0
    assert int(status_field(text, "CapAmb"), 16) == 0
    assert status_field(text, "NoNewPrivs") == "1"


def test_no_capabilities_and_new_privileges(tree: Path) -> None:
    ended = run(tree, "cat", "/proc/self/status", capabilities=0, new_privileges=True)
    assert int(status_field(ended.out, "CapEff"), 16) == int(status_field(ended.out, "CapBnd"), 16) == 0
    assert status_field(ended.out, "NoNewPrivs") == "0"


def test_signals_are_as_at_the_start_of_a_session(tree: Path) -> None:
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    try:
        text = run(tree, "cat", "/proc/self/status").out
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR2})
        signal.signal(signal.SIGUSR1, before)
    for name in ("SigBlk", "SigIgn", "SigCgt"):
        assert int(status_field(text, name), 16) == 0


def test_no_descriptor_of_ours_leaks_in(tree: Path) -> None:
    leak = os.open("/", os.O_RDONLY)
    os.set_inheritable(leak, True)
    os.dup2(leak, 97, inheritable=True)
    try:
        names = sh(tree, "for f in /proc/self/fd/*; do echo ${f##*/}; done").out.split()
        # and not during exec either: the command itself is named through such a descriptor
        with pytest.raises(NativeError) as caught:
            run(tree, "/proc/self/fd/97/bin/true")
    finally:
        os.close(leak)
        os.close(97)
    assert set(names) <= {"0", "1", "2", "3"}  # 3: the shell's own view of the directory
    assert caught.value.errno == errno.ENOENT


def test_working_directory_through_a_magic_link_is_refused(tree: Path) -> None:
    for path in ("/proc/self/fd/7", "/proc/self/cwd", "/proc/self/root", "/proc/1/root/tmp"):
        with pytest.raises(NativeError, match="in the container"):
            run(tree, "pwd", cwd=path)


def test_devices(tree: Path) -> None:
    ended = sh(tree, "ls /dev; echo x > /dev/null; head -c 4 /dev/zero | wc -c; head -c 9 /dev/urandom | wc -c")
    names = [
        "console",
        "core",
        "fd",
        "full",
        "mqueue",
        "null",
        "ptmx",
        "pts",
        "random",
        "shm",
        "stderr",
        "stdin",
        "stdout",
        "tty",
        "urandom",
        "zero",
    ]
    assert ended.out.split() == [name for name in names if name != "console"] + ["4", "9"]
    assert ended.err == ""


def test_no_other_device_can_be_opened(tree: Path) -> None:
    os.mknod(tree / "disk", 0o600 | 0o060000, os.makedev(254, 0))
    os.mknod(tree / "mem", 0o666 | 0o020000, os.makedev(1, 1))
    os.mknod(tree / "nulldev", 0o666 | 0o020000, os.makedev(1, 3))
    script = "cat /nulldev; cat /mem; cat /disk; mknod /dev/m c 1 3; mknod /dev/shm/m c 1 3; cat /dev/m; cat /dev/shm/m"
    ended = sh(tree, script)
    assert ended.out == ""
    assert ended.err.count("ermission denied") == 5


def test_masked_and_readonly_paths(tree: Path) -> None:
    ended = sh(
        tree,
        "cat /proc/kcore /proc/timer_list /proc/keys /proc/interrupts | wc -c; ls /sys/firmware /proc/acpi;"
        "for f in /proc/sys/kernel/hostname /proc/sysrq-trigger /proc/irq/default_smp_affinity"
        " /sys/kernel/mm/transparent_hugepage/enabled; do echo x > $f && echo wrote $f; done; exit 0",
    )
    assert ended.out.splitlines()[0] == "0"
    assert "wrote" not in ended.out
    assert "can't create" in ended.err
    assert ended.out.count("\n") == 4  # an empty listing each


def test_capabilities_do_not_lift_the_masks(tree: Path) -> None:
    ended = sh(tree, "umount /proc/kcore; umount /proc; mount -o remount,rw /proc/sys; mount -t proc p /tmp; ls /tmp")
    assert ended.out == ""


def test_readonly_root(tree: Path) -> None:
    for name in ("proc", "sys", "dev"):
        (tree / name).mkdir()
    ended = sh(tree, "touch /x; touch /dev/shm/y && echo shm", readonly=True)
    assert ended.out == "shm\n"
    assert "Read-only" in ended.err
    assert not (tree / "x").exists()


def test_a_root_of_overlay_over_layers(tmp_path: Path, tree: Path) -> None:
    for name in ("upper", "work"):
        (tmp_path / name).mkdir()
    with opened(tree, tmp_path / "upper", tmp_path / "work") as (lower, upper, work):
        root = native.overlay_mount([lower], upper, work, volatile=True)
    try:
        assert run_over(root, "sh", "-c", "echo new > /new; rm /bin/wc").status == 0
    finally:
        os.close(root)
    assert (tmp_path / "upper/new").read_text() == "new\n"
    assert (tmp_path / "upper/bin/wc").is_char_device()
    assert not (tree / "new").exists()


def test_network(tree: Path) -> None:
    ended = sh(tree, "ping -c1 -W1 127.0.0.1 >/dev/null && echo pong; ls /sys/class/net", no_network=True)
    assert ended.out == "pong\nlo\n"
    assert sh(tree, "readlink /proc/self/ns/net").out.strip() == os.readlink("/proc/self/ns/net")


def test_missing_command_and_one_that_cannot_run(tree: Path) -> None:
    (tree / "etc/text").write_text("no program")
    (tree / "bin/noexec").write_text("#!/bin/sh\n")
    (tree / "bin/nointerp").write_text("#!/missing\n")
    (tree / "bin/nointerp").chmod(0o755)
    (tree / "bin/garbage").write_bytes(b"\x7fELFgarbage")
    (tree / "bin/garbage").chmod(0o755)
    cases = {
        "nothing": errno.ENOENT,
        "/bin/nothing": errno.ENOENT,
        "": errno.ENOENT,
        "nointerp": errno.ENOENT,
        "/etc/text": errno.EACCES,
        "/etc": errno.EACCES,
        "noexec": errno.EACCES,
        "garbage": errno.ENOEXEC,
    }
    for name, expected in cases.items():
        with pytest.raises(NativeError, match=f"run {name}") as caught:
            run(tree, name)
        assert caught.value.errno == expected, name


def test_path_is_searched_inside_in_order(tree: Path) -> None:
    (tree / "first").mkdir()
    (tree / "first/tool").write_text("#!/bin/sh\necho first\n")
    (tree / "second").mkdir()
    (tree / "second/tool").write_text("#!/bin/sh\necho second\n")
    (tree / "second/tool").chmod(0o755)
    env = ["PATH=/missing:/first:/second:/bin"]
    assert run(tree, "tool", env=env).out == "second\n"
    (tree / "first/tool").chmod(0o755)
    assert run(tree, "tool", env=env).out == "first\n"


def bind(source: Path, target: str, *options: str) -> native.Mount:
    return native.Mount(type="bind", source=str(source), target=target, options=options)


def test_binds_are_mounted_and_their_targets_made(tmp_path: Path, tree: Path) -> None:
    host = tmp_path / "host"
    host.mkdir()
    (host / "file").write_text("data\n")
    ended = sh(
        tree,
        "cat /data/in/file /etc/one; echo w > /data/in/new; echo w > /ro/new; echo w > /etc/one",
        mounts=[bind(host, "/data/in"), bind(host, "/ro", "ro"), bind(host / "file", "/etc/one")],
    )
    assert ended.out == "data\ndata\n"
    assert ended.err.count("Read-only") == 1
    assert (host / "new").read_text() == "w\n"
    assert (host / "file").read_text() == "w\n"
    assert (tree / "data/in").is_dir()
    assert (tree / "etc/one").read_text() == ""


def test_bind_targets_follow_links_inside_the_root_only(tmp_path: Path, tree: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    host = tmp_path / "host"
    host.mkdir()
    (host / "file").write_text("data\n")
    (tree / "absolute").symlink_to(outside)
    (tree / "relative").symlink_to("../../outside")
    (tree / "up").symlink_to("..")
    (tree / "dangling").symlink_to("/nowhere")
    (tree / str(outside).lstrip("/")).mkdir(parents=True)
    (tree / "outside").mkdir()
    ended = sh(tree, f"cat {outside}/file /outside/file", mounts=[bind(host, "/absolute"), bind(host, "/relative")])
    assert ended.out == "data\ndata\n"
    assert sh(tree, "cat /made/file", mounts=[bind(host, "/up/../../made")]).out == "data\n"
    for target in ("/dangling", "/dangling/below"):
        with pytest.raises(NativeError, match="in the container"):
            sh(tree, "true", mounts=[bind(host, target)])
    assert not list(outside.iterdir())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["host", "outside", "root"]


def test_bind_targets_that_are_refused(tmp_path: Path, tree: Path) -> None:
    host = tmp_path / "host"
    host.mkdir()
    for target, reason in (
        ("/", "root of the container"),
        ("/bin/..", "root of the container"),
        ("/proc", "lies in /proc"),
        ("/proc/self/attr", "lies in /proc"),
        ("relative", "not an absolute path"),
        ("/bin/busybox", "Not a directory|mount at"),
    ):
        with pytest.raises(NativeError, match=reason):
            sh(tree, "true", mounts=[bind(host, target)])


@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
def test_links_where_file_systems_belong_are_refused(tree: Path, name: str) -> None:
    (tree / "victim").mkdir()
    (tree / name).symlink_to("victim")
    with pytest.raises(NativeError, match=f"open /{name} in the container"):
        run(tree, "true")


def test_no_device_through_a_bind(tmp_path: Path, tree: Path) -> None:
    host = tmp_path / "host"
    host.mkdir()
    os.mknod(host / "n", 0o666 | 0o020000, os.makedev(1, 3))
    assert "ermission denied" in sh(tree, "cat /v/n", mounts=[bind(host, "/v")]).err


def test_a_failed_launch_leaves_no_child(tmp_path: Path, tree: Path) -> None:
    before = children()
    with pytest.raises(native.CommandError):
        run(tree, "nothing", mounts=[bind(tmp_path, "/x")])
    with pytest.raises(NativeError, match="mount /missing at /x"):
        run(tree, "true", mounts=[bind(Path("/missing"), "/x")])
    assert children() == before


def launch_tty(tree: Path, *args: str, **options: object) -> tuple[int, int]:
    root = native.bind_mount(AT_FDCWD, str(tree))
    try:
        spec = native.LaunchSpec(root=root, args=args, env=["PATH=/bin"], tty=True, **options)  # type: ignore[arg-type]
        _, pidfd, tty = native.launch(spec)
    finally:
        os.close(root)
    assert tty is not None
    return pidfd, tty


def read_tty(tty: int) -> str:
    data = b""
    while select.select([tty], [], [], 10)[0]:
        try:
            piece = os.read(tty, 4096)
        except OSError as exc:
            assert exc.errno == errno.EIO  # noqa: PT017
            break
        data += piece
    return data.decode()


def test_terminal(tree: Path) -> None:
    script = "tty; test -t 0 && test -t 2 && echo terminal; ls -l /dev/console; stty size; cat /proc/self/stat"
    pidfd, tty = launch_tty(tree, "sh", "-c", f"read line; echo got $line; {script}", uid=5)
    fcntl.ioctl(tty, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 99, 0, 0))
    os.write(tty, b"hello\n")
    lines = read_tty(tty).splitlines()
    os.close(tty)
    assert wait(pidfd) == 0
    assert lines[:4] == ["hello", "got hello", "/dev/pts/0", "terminal"]
    assert " 5 " in lines[4]
    assert lines[5] == "33 99"
    assert lines[6].split()[5:8] != ["0", "0", "-1"]  # it has a session and a controlling terminal


def test_terminal_interrupt(tree: Path) -> None:
    pidfd, tty = launch_tty(tree, "sh", "-c", "trap 'echo caught; exit 3' INT; echo ready; while :; do sleep 1; done")
    while b"ready" not in os.read(tty, 100):
        continue
    os.write(tty, b"\x03")
    assert "caught" in read_tty(tty)
    os.close(tty)
    assert wait(pidfd) == 3


def test_a_terminal_hangs_up_with_its_master(tree: Path) -> None:
    pidfd, tty = launch_tty(tree, "sleep", "60")
    os.close(tty)
    try:
        # SIGHUP to pid 1 of a namespace without a handler has no effect; the process itself stays.
        assert not select.select([pidfd], [], [], 0.05)[0]
    finally:
        end(pidfd)


def test_launch_from_threads(tree: Path) -> None:
    results: list[int] = []

    def work() -> None:
        for i in range(10):
            results.append(sh(tree, f"exit {i}").status)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == sorted(list(range(10)) * 4)


def test_unknown_flags_and_empty_commands(tree: Path) -> None:
    with pytest.raises(NativeError, match="no command"):
        run(tree)
    with pytest.raises(NativeError, match="not an absolute path"):
        run(tree, "true", cwd="tmp")
