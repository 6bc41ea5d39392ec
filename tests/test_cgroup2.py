"""Control groups of version 2, on a tree of plain files that stands for one: not every host has them."""

import os
import subprocess
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from layerfs.errors import NativeError, UnsupportedError
from layerfs.runtime import Cgroup, Limits, cgroups
from layerfs.runtime.cgroups import roots_in

CONTROLS = (
    "cgroup.freeze", "cgroup.procs", "cgroup.events", "memory.max", "memory.swap.max", "memory.low", "memory.current",
    "memory.stat", "cpu.max", "cpu.weight", "cpu.stat", "cpuset.cpus", "cpuset.mems", "pids.max", "pids.current",
    "io.stat",
)  # fmt: skip


@pytest.fixture
def host(tmp_path, monkeypatch):
    """The root of the hierarchy; a directory made in it has its files at once, as the kernel does it."""
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory hugetlb pids rdma\n")
    (tmp_path / "cgroup.subtree_control").touch()
    monkeypatch.setattr(cgroups, "_roots", lambda: {"": tmp_path})
    monkeypatch.setattr(cgroups, "_all_roots", lambda: (tmp_path,))
    written = []
    make, write = Path.mkdir, Path.write_text

    def mkdir(path, *args, **keywords):
        fresh = not path.exists()
        make(path, *args, **keywords)
        if fresh and path.is_relative_to(tmp_path):
            for name in CONTROLS:
                (path / name).touch()
            write(path / "cgroup.events", "populated 0\nfrozen 0\n")

    def write_text(path, text, *args, **keywords):
        if path.is_relative_to(tmp_path):
            written.append((str(path.relative_to(tmp_path)), text))
        return write(path, text, *args, **keywords)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    monkeypatch.setattr(Path, "write_text", write_text)
    return tmp_path, written


@contextmanager
def kernel(group):
    """Freezes and thaws, some time after it was told to."""
    done = threading.Event()

    def serve():
        while not done.is_set():
            frozen = (group / "cgroup.freeze").read_text().strip() or "0"
            with open(group / "events.new", "w") as file:
                file.write(f"populated 1\nfrozen {frozen}\n")
            os.rename(group / "events.new", group / "cgroup.events")
            time.sleep(0.005)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_one_group_with_controllers_handed_down(host):
    root, written = host
    with Cgroup("abc").create(Limits()) as fds:
        assert [os.readlink(f"/proc/self/fd/{fd}") for fd in fds] == [str(root / "layerfs/abc")]
    wanted = ["+cpu", "+memory", "+pids", "+cpuset", "+io"]  # what is not there or not wanted is left out
    for place in ("cgroup.subtree_control", "layerfs/cgroup.subtree_control"):
        assert [text for path, text in written if path == place] == wanted
    assert not [path for path, _ in written if path.startswith("layerfs/abc")]  # nothing was asked for
    assert Cgroup("abc").paths == [str(root / "layerfs/abc")]
    assert not Cgroup("other").exists()


def test_below_a_parent(host):
    root, written = host
    with Cgroup("abc", "/a/b/").create(Limits(pids=5), counted=False):
        assert (root / "a/b/abc/pids.max").read_text() == "5"
    assert ("a/b/cgroup.subtree_control", "+pids") in written


@pytest.mark.parametrize(
    ("limits", "wanted"),
    [
        (Limits(memory=64 << 20), {"memory.max": str(64 << 20)}),
        (Limits(memory=100, memory_swap=250), {"memory.max": "100", "memory.swap.max": "150"}),  # swap alone, here
        (Limits(memory=100, memory_swap=-1), {"memory.swap.max": "max"}),
        (Limits(memory_reservation=7), {"memory.low": "7"}),
        (Limits(cpus=1.5), {"cpu.max": "150000 100000"}),
        (Limits(cpu_shares=1024), {"cpu.weight": "39"}),
        (Limits(cpu_shares=2), {"cpu.weight": "1"}),
        (Limits(cpu_shares=262144), {"cpu.weight": "10000"}),
        (Limits(cpuset_cpus="0-1", cpuset_mems="0"), {"cpuset.cpus": "0-1", "cpuset.mems": "0"}),
        (Limits(pids=-1), {"pids.max": "max"}),
    ],
)
def test_limits(host, limits, wanted):
    root, _ = host
    with Cgroup("abc").create(limits):
        for name, text in wanted.items():
            assert (root / "layerfs/abc" / name).read_text() == text


def test_a_limit_that_the_host_has_not(host, monkeypatch):
    root, _ = host
    with Cgroup("abc").create(Limits()):
        pass
    (root / "layerfs/abc/cpu.max").unlink()
    with pytest.raises(UnsupportedError, match="no such control group"):
        Cgroup("abc").set_limits(Limits(cpus=1))
    (root / "layerfs/abc/memory.swap.max").unlink()  # swap that is not counted needs no limit
    Cgroup("abc").set_limits(Limits(memory=5, memory_swap=10))
    assert (root / "layerfs/abc/memory.max").read_text() == "5"


def test_freezing(host, monkeypatch):
    root, _ = host
    group = Cgroup("abc")
    with pytest.raises(UnsupportedError, match="freezes"):
        group.freeze()
    with group.create(Limits()):
        pass
    with kernel(root / "layerfs/abc"):
        group.freeze()
        assert group.is_frozen()
        group.thaw()
        assert not group.is_frozen()
    monkeypatch.setattr(cgroups, "_FREEZE_SECONDS", 0.05)
    with pytest.raises(NativeError, match="do not stop"):
        group.freeze()
    assert (root / "layerfs/abc/cgroup.freeze").read_text() == "0"  # it was taken back


def test_counting(host):
    root, _ = host
    group = Cgroup("abc")
    assert group.usage() == cgroups.Usage()
    assert group.pids() == []
    with group.create(Limits()):
        pass
    for name, text in {
        "memory.current": "5000\n", "memory.stat": "anon 1\ninactive_file 1000\n", "memory.max": "max\n",
        "cpu.stat": "usage_usec 25\nuser_usec 20\n", "pids.current": "3\n", "pids.max": "10\n",
        "io.stat": "8:0 rbytes=100 wbytes=7 rios=1\n253:0 rbytes=20 wbytes=1\n", "cgroup.procs": "30\n4\n",
    }.items():  # fmt: skip
        (root / "layerfs/abc" / name).write_text(text)
    assert group.usage() == cgroups.Usage(
        memory=4000, memory_limit=0, cpu=25_000, pids=3, pids_limit=10, read_bytes=120, written_bytes=8
    )
    assert group.pids() == [4, 30]


def test_removal(host):
    root, _ = host
    (root / "layerfs").mkdir()
    os.mkdir(root / "layerfs/abc")
    Cgroup("abc").remove()
    assert not (root / "layerfs/abc").exists()
    Cgroup("abc").remove()  # nothing left is no error


UNIFIED = "30 23 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
HYBRID = (
    "31 23 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
    "32 23 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "33 23 0:29 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer\n"
)


def test_which_version_a_host_has():
    assert roots_in([UNIFIED]) == {"": Path("/sys/fs/cgroup")}
    both = Path("/sys/fs/cgroup/cpu,cpuacct")
    assert roots_in(HYBRID.splitlines()) == {"cpu": both, "cpuacct": both, "freezer": Path("/sys/fs/cgroup/freezer")}
    assert roots_in(["36 23 0:30 / /proc rw - proc proc rw\n"]) == {}


# ---- a real hierarchy ----


@pytest.fixture
def real(monkeypatch):
    """A place in the host's own hierarchy of version 2, whatever controllers it has there."""
    with open("/proc/self/mountinfo") as file:
        fields = [line.split() for line in file if " - cgroup2 " in line]
    if os.geteuid() != 0 or not fields:
        pytest.skip("needs root, and a mount of cgroup2")
    root = Path(fields[0][4]) / f"layerfs-test-{os.getpid()}"
    root.mkdir()
    monkeypatch.setattr(cgroups, "_roots", lambda: {"": root})
    monkeypatch.setattr(cgroups, "_all_roots", lambda: (root,))
    yield root
    for path in sorted(root.glob("**/"), key=lambda path: -len(path.parts)):
        path.rmdir()


@contextmanager
def in_group(group, *words):
    """A process in the group with the descriptors ``group``."""
    process = subprocess.Popen(words, stdout=subprocess.PIPE)
    try:
        for fd in group:
            procs = os.open("cgroup.procs", os.O_WRONLY, dir_fd=fd)
            os.write(procs, str(process.pid).encode())
            os.close(procs)
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def cpu_time(pid):
    return sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))


def test_the_kernel_freezes_thaws_counts_and_lets_go(real):
    group = Cgroup("one")
    with group.create(Limits()) as fds, in_group(fds, "sh", "-c", "while :; do :; done") as process:
        assert group.pids() == [process.pid]
        assert not group.is_frozen()
        group.freeze()
        assert group.is_frozen()
        before = cpu_time(process.pid)
        time.sleep(0.2)
        assert cpu_time(process.pid) == before
        group.thaw()
        assert not group.is_frozen()
        deadline = time.monotonic() + 10
        while cpu_time(process.pid) == before:
            assert time.monotonic() < deadline
        group.freeze()  # what is frozen can be killed all the same
    assert group.pids() == []
    group.remove()
    assert not group.exists()


def test_a_limit_without_its_controller_is_refused_by_the_real_one_too(real):
    wanted = {"memory": Limits(memory=64 << 20), "pids": Limits(pids=7)}
    available = (real / "cgroup.controllers").read_text().split()
    for controller, limits in wanted.items():
        group = Cgroup(controller)
        if controller in available:
            with group.create(limits):
                pass
        else:
            with pytest.raises(UnsupportedError, match=f"limit {controller}"), group.create(limits):
                pass
        group.remove()
        assert not group.exists()


def test_a_container_sees_the_one_hierarchy_where_it_has_a_group(host):
    group = Cgroup("one")
    assert group.shown() == []
    with group.create(Limits()):
        assert group.shown() == [("", ())]
