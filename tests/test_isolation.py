"""Mounts and filters of launched processes, and the ways out that must be shut."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from launchkit import (
    ALL_CAPABILITIES,
    AT_FDCWD,
    DOCKER_CAPABILITIES,
    field,
    needs_busybox,
    run,
    running,
    sh,
    wait,
)

from layerfs import native
from layerfs.errors import NativeError, UnsupportedError
from layerfs.runtime.seccomp import seccomp_program

pytestmark = [pytest.mark.root, needs_busybox, pytest.mark.usefixtures("no_descriptor_leaks")]


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
    def own() -> list[str]:
        return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(tree.parent) in line]

    before = own()
    with running(tree):
        assert own() == before
    assert own() == before


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
