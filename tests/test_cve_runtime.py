"""Known vulnerabilities of runtimes and of copying to and from containers: what a container cannot reach."""

import os
import subprocess
import time
from pathlib import Path

import pytest
import tarbuild as tar
from boxes import add_box, needs_busybox, run
from cvekit import Host, host

from layerfs.errors import LayerfsError

__all__ = ["host"]

pytestmark = [pytest.mark.root, needs_busybox]


def box(host: Host, *more: bytes, changes: tuple[str, ...] = ()) -> None:
    with host.store() as store:
        add_box(store, host.place, *more, changes=changes)


@pytest.fixture
def running(host: Host):
    """A container that swaps a directory and a link to the host for each other, as fast as it can."""
    box(host)
    script = (
        f"mkdir /swap /real; echo inside > /real/victim; ln -s {host.outside} /evil; "
        "while true; do mv -T /swap /a; mv -T /evil /swap; mv -T /swap /evil; mv -T /a /swap; done"
    )
    assert host("run", "-d", "--name", "trier", "box", "sh", "-c", script).code == 0
    yield host
    assert host("rm", "-f", "trier").code == 0


def test_cve_2018_15664_cp_out_of_a_container_that_swaps(running: Host, tmp_path: Path) -> None:
    """CVE-2018-15664, CVE-2019-10152, CVE-2019-18466: what comes is never of the host."""
    end = time.monotonic() + 3
    tries = 0
    while time.monotonic() < end:
        target = tmp_path / "got"
        running("cp", "trier:/swap/victim", target)
        tries += 1
        if target.exists():
            assert target.read_bytes() != b"precious"
            target.unlink()
    assert tries > 3


@pytest.mark.parametrize("source", ["new", "victim"])
def test_cve_2026_41568_cp_into_a_container_that_swaps(running: Host, source: str, tmp_path: Path) -> None:
    """CVE-2018-15664, CVE-2021-41089, CVE-2026-41568, CVE-2026-42306: nothing is made or changed on the host."""
    file = tmp_path / source
    file.write_bytes(b"evil")
    file.chmod(0o777)
    end = time.monotonic() + 3
    while time.monotonic() < end:
        running("cp", file, "trier:/swap/")
    running.unharmed()


def test_commit_and_export_of_a_container_that_swaps(running: Host, tmp_path: Path) -> None:
    for number in range(3):
        said = running("export", "-o", tmp_path / "out.tar", "trier")
        if said.code == 0:
            assert b"precious" not in (tmp_path / "out.tar").read_bytes()
        said = running("commit", "trier", f"x:{number}")
        if said.code == 0:
            with running.store() as store, store.view(f"x:{number}") as view:
                assert not [entry for entry in view.walk() if entry.path.endswith(b"/shadow")]
    running.unharmed()


def test_exec_in_a_container_that_swaps(running: Host) -> None:
    for _ in range(5):
        said = running("exec", "-w", "/swap", "trier", "cat", "victim")
        assert "precious" not in said.out
    running.unharmed()


def test_cve_2019_10152_links_of_a_container_are_its_own(host: Host, tmp_path: Path) -> None:
    """Absolute links and `..` are looked up in the container, both ways."""
    box(host, tar.symlink("link", str(host.outside)), tar.symlink("up", "../" * 30 + str(host.outside)[1:]))
    assert host("create", "--name", "trier", "box", "true").code == 0
    (tmp_path / "in").write_bytes(b"evil")
    for name in ("link", "up"):
        assert host("cp", f"trier:/{name}/victim", tmp_path / "got").code != 0
        host("cp", tmp_path / "in", f"trier:/{name}/victim")
    host.unharmed()


def test_cve_2019_14271_no_library_of_the_container_is_loaded(host: Host, tmp_path: Path) -> None:
    """A copy looks up no users by libnss in the container, and executes nothing there."""
    libraries = [tar.directory("lib")] + [
        tar.file(f"lib/libnss_{name}.so.2", b"\x7fELF evil") for name in ("files", "compat")
    ]
    box(host, *libraries)
    assert host("create", "--name", "trier", "box", "true").code == 0
    (tmp_path / "in").write_bytes(b"x")
    assert host("cp", tmp_path / "in", "trier:/in").code == 0
    assert host("cp", "trier:/etc/passwd", tmp_path / "passwd").code == 0


@pytest.mark.parametrize("path", ["proc", "sys", "dev", "etc"])
def test_cve_2019_19921_links_instead_of_mount_points(host: Host, path: str, runtime: str) -> None:
    """CVE-2019-19921, CVE-2023-27561, CVE-2023-28642, CVE-2025-52881: /proc and the like as links to elsewhere."""
    box(host)
    with host.store() as store:
        store.import_image(
            _write(host, tar.archive(tar.directory("bin"), _busybox(), tar.symlink(path, str(host.outside)))), "evil"
        )
        try:
            result = run(store, "/bin/busybox", "ls", f"/{path}/", image="evil", runtime=runtime)
        except LayerfsError:
            return
        assert "victim" not in result.out


def _busybox() -> bytes:
    return tar.file("bin/busybox", Path("/bin/busybox").read_bytes(), mode=0o755)


def _write(host: Host, data: bytes) -> Path:
    path = host.place / "layer.tar"
    path.write_bytes(data)
    return path


def test_cve_2024_45310_mount_points_are_not_made_on_the_host(host: Host, runtime: str) -> None:
    """CVE-2024-45310, CVE-2025-9566: the way to a mount point goes through a link in a volume that two share."""
    box(host)
    shared, other = host.place / "shared", host.place / "other"
    shared.mkdir()
    other.mkdir()
    (shared / "link").symlink_to(host.outside)
    with host.store() as store:
        for _ in range(2):
            try:
                run(store, "true", volume=[f"{shared}:/v", f"{other}:/v/link/new/deep"], runtime=runtime)
            except LayerfsError:
                continue
    host.unharmed()


@pytest.mark.parametrize("path", ["dev/null", "dev/console", "dev/pts", "dev/ptmx"])
def test_cve_2025_31133_devices_of_the_image_are_not_used(host: Host, path: str, runtime: str) -> None:
    """CVE-2025-31133, CVE-2025-52565: what masks paths is a real /dev/null, a console a real terminal."""
    box(host, tar.directory("dev"), tar.symlink(path, "/proc/sys/kernel/core_pattern"))
    before = Path("/proc/sys/kernel/core_pattern").read_bytes()
    with host.store() as store:
        result = run(
            store, "sh", "-c", "echo evil > /dev/null; wc -c < /proc/kcore; wc -c < /proc/keys", runtime=runtime
        )
    assert result.code == 0, result.err
    assert result.out.split() in ([], ["0", "0"], ["0"])
    assert Path("/proc/sys/kernel/core_pattern").read_bytes() == before


def test_cve_2019_5736_the_runtime_cannot_be_written(host: Host, runtime: str) -> None:
    box(host)
    with host.store() as store:
        try:
            result = run(store, "/proc/self/exe", "--help", runtime=runtime)
        except LayerfsError:
            return
        script = "for p in /proc/[0-9]*; do echo evil > $p/exe; done 2>/dev/null; echo done"
        assert run(store, "sh", "-c", script, runtime=runtime).out == "done\n"
    assert result is not None


def test_cve_2020_15257_no_abstract_sockets(host: Host) -> None:
    box(host)
    before = _abstract()
    assert host("run", "-d", "--name", "trier", "--network", "host", "box", "sleep", "100").code == 0
    try:
        assert not _abstract() - before
        assert not [place for place in host.run.rglob("*") if place.is_socket() and place.stat().st_mode & 0o077]
    finally:
        assert host("rm", "-f", "trier").code == 0


def _abstract() -> set[str]:
    lines = Path("/proc/net/unix").read_text().splitlines()
    return {line.split()[-1] for line in lines if line.split()[-1].startswith("@")}


@pytest.mark.parametrize("option", ["--cpuset-cpus", "--cpuset-mems"])
def test_cve_2018_20699_a_huge_range_of_processors(host: Host, option: str) -> None:
    box(host)
    begin = time.monotonic()
    assert host("run", "--rm", option, "0-4294967295", "box", "true").code == 125
    assert time.monotonic() - begin < 5


def test_cve_2023_0778_a_volume_is_read_beneath_its_root(host: Host) -> None:
    """No verb exports a volume; a commit leaves volumes out, and a new one is filled from the image alone."""
    box(host, tar.directory("v"), tar.symlink("v/link", str(host.outside / "victim")))
    with host.store() as store:
        assert run(store, "cat", "/v/link", volume=["vol:/v"]).code != 0
        result = run(store, "sh", "-c", "rm /v/link; ln -s /etc/shadow /v/link", volume=["vol:/v"])
        assert result.code == 0


# ---- a container that tries ----


def test_what_a_container_finds_of_the_host(host: Host, runtime: str) -> None:
    """Descriptors, the root, devices, cgroups, keys, other processes, the kernel's settings."""
    box(host)
    tries = {
        "root of the host": f"ls /proc/1/root{host.outside} /proc/self/cwd{host.outside} 2>/dev/null",
        "upper directory": f"ls {host.root} {host.run} 2>/dev/null",
        "processes": "ls /proc | grep -c '^[0-9]*$' | awk '$1 > 4'",
        "disks": "mknod /tmp/sda b 8 0 2>/dev/null && head -c 1 /tmp/sda 2>/dev/null | wc -c | grep -v '^0$'",
        "memory": "mknod /tmp/mem c 1 1 2>/dev/null && head -c 1 /tmp/mem 2>/dev/null | wc -c | grep -v '^0$'",
        "core pattern": "echo '|/evil' 2>/dev/null > /proc/sys/kernel/core_pattern && echo written",
        "sysrq": "echo h 2>/dev/null > /proc/sysrq-trigger && echo written",
        "host name": "hostname evil 2>/dev/null && echo renamed",
        "release agent": "for f in /sys/fs/cgroup/*/release_agent; do echo x 2>/dev/null > $f && echo $f; done",
        "cgroups": "mkdir /sys/fs/cgroup/evil /sys/fs/cgroup/memory/evil 2>/dev/null && echo made",
        "mounting": "mount -t tmpfs x /tmp 2>/dev/null && echo mounted",
        "remounting": "mount -o remount,rw /sys 2>/dev/null && echo remounted",
        "namespaces of the host": "nsenter -t 1 -m ls / 2>/dev/null",
        "kernel log": "dmesg 2>/dev/null | head -1",
        "modules": "insmod /x.ko 2>&1 | grep -v 'denied\\|not permitted\\|No such\\|can.t\\|unknown'",
        "time": "date -s 2001-01-01 >/dev/null 2>&1 && date | grep 2001",
        "keys": "cat /proc/keys 2>/dev/null | head -1",
        "environment": "tr '\\0' '\\n' < /proc/1/environ | grep -i 'layerfs\\|REGISTRY'",
    }
    with host.store() as store:
        assert set(run(store, "ls", "/proc/1/fd", runtime=runtime).out.split()) <= {"0", "1", "2", "3"}
        for what, script in tries.items():
            result = run(store, "sh", "-c", script, runtime=runtime)
            assert result.out.strip() == "", f"{what}: {result.out}"
    assert os.uname().nodename != "evil"


def test_killing_the_keeper_of_a_container_leaves_no_way_in(host: Host) -> None:
    """A supervisor that is gone has no socket that a container could take over; the next command tidies up."""
    box(host)
    assert host("run", "-d", "--name", "trier", "box", "sleep", "100").code == 0
    pids = subprocess.run(["/usr/bin/pgrep", "-f", str(host.run)], capture_output=True, text=True).stdout.split()
    for pid in pids:
        if int(pid) not in (os.getpid(), os.getppid()):
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                if b"pytest" in file.read():
                    continue
            os.kill(int(pid), 9)
    time.sleep(0.2)
    assert host("rm", "-f", "trier").code == 0
    assert host("ps", "-aq").out == ""
