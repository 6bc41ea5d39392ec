"""What a container sees and may, by the options that say so."""

import os
from pathlib import Path

import pytest
from boxes import box_store, needs_busybox, sh

from layerfs.errors import LayerfsError

pytestmark = [pytest.mark.root, needs_busybox]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with box_store(tmp_path_factory) as store:
        yield store


def test_tmpfs(store, runtime):
    ran = sh(
        store,
        runtime,
        "grep ' /t ' /proc/mounts; stat -c %a /t; echo x >/t/x && cat /t/x",
        tmpfs=["/t:size=64k,mode=1770"],
    )
    assert "tmpfs" in ran.out
    assert {"nosuid", "nodev", "noexec", "size=64k"} <= set(ran.out.split()[3].split(","))
    assert ran.out.endswith("\nx\n")
    assert "1770\n" in ran.out
    ran = sh(store, runtime, "dd if=/dev/zero of=/t/x bs=1k count=100", tmpfs=["/t:size=64k"])
    assert "No space" in ran.err


def test_ulimits(store, runtime):
    ran = sh(store, runtime, "ulimit -n; ulimit -Hn; ulimit -c", ulimit=["nofile=77:99", "core=0"])
    assert ran.out == "77\n99\n0\n"


def test_oom_score(store, runtime):
    assert sh(store, runtime, "cat /proc/self/oom_score_adj", oom_score_adj="500").out == "500\n"


def test_domain_name(store, runtime):
    assert sh(store, runtime, "cat /proc/sys/kernel/domainname", domainname="example.org").out == "example.org\n"


@pytest.mark.parametrize("kind", ["pid", "ipc", "uts"])
def test_namespaces_of_the_host(store, runtime, kind):
    ours = os.readlink(f"/proc/self/ns/{kind}")
    assert sh(store, runtime, f"readlink /proc/self/ns/{kind}").out.strip() != ours
    assert sh(store, runtime, f"readlink /proc/self/ns/{kind}", **{kind: "host"}).out.strip() == ours


def test_shared_memory(store, runtime):
    ran = sh(store, runtime, "df -k /dev/shm | tail -1", shm_size="1m")
    assert "1024" in ran.out.split()


def test_a_device(store, runtime):
    ran = sh(store, runtime, "test -c /dev/zero2 && head -c 3 /dev/zero2 | wc -c", device=["/dev/zero:/dev/zero2"])
    assert ran.out == "3\n"


def test_a_device_node_made_inside_cannot_be_opened(store, runtime):
    # The disk of the host, by its number.
    number = os.stat("/").st_dev
    major = os.major(number)
    script = f"mknod /d b {major} {os.minor(number)} && head -c 1 /d | wc -c"
    script += f"; mknod /dev/d b {major} 0; head -c 1 /dev/d"
    ran = sh(store, runtime, script)
    assert ran.out in ("0\n", "")
    assert "not permitted" in ran.err or "denied" in ran.err


def test_privileged_has_the_devices_of_the_host(store, runtime):
    names = [path.name for path in Path("/dev").iterdir() if path.is_block_device()]
    ran = sh(store, runtime, "cd /dev; ls; [ -c null ] && [ -c ptmx -o -L ptmx ] && ls shm", privileged=True)
    assert ran.code == 0
    assert {*names, "null", "kmsg"} <= set(ran.out.split())
    assert not set(names) & set(sh(store, runtime, "ls /dev").out.split())


def test_privileged(store, runtime):
    ran = sh(store, runtime, "grep CapEff /proc/self/status; mount -t tmpfs t /tmp && echo mounted", privileged=True)
    assert int(ran.out.split()[1], 16) == int(Path("/proc/self/status").read_text().split("CapPrm:")[1].split()[0], 16)
    assert ran.out.endswith("mounted\n")
    assert "mounted" not in sh(store, runtime, "mount -t tmpfs t /tmp && echo mounted").out


def test_masked_paths(store, runtime):
    script = "wc -c </proc/timer_list; ls /proc/acpi /sys/firmware | wc -l; echo x >/proc/sys/kernel/hostname"
    ran = sh(store, runtime, script)
    assert ran.out.splitlines()[0] == "0"
    assert ran.err.count("Read-only") == 1


def test_init(store, runtime):
    ran = sh(store, runtime, "sleep 0.01 & echo $$; exit 6", init=True)
    assert (ran.code, ran.out.strip() != "1") == (6, True)


def test_sysctl(store, runtime):
    assert sh(store, runtime, "cat /proc/sys/kernel/shmmni", sysctl=["kernel.shmmni=77"]).out == "77\n"
    with pytest.raises(LayerfsError):
        sh(store, runtime, "true", sysctl=["kernel.panic=77"])  # of the host, and of no namespace


def test_system_calls(store, runtime):
    script = "grep Seccomp: /proc/self/status; unshare -U true && echo unshared; mount -t tmpfs t /tmp && echo mounted"
    ran = sh(store, runtime, script)
    assert ran.out.split() == ["Seccomp:", "2"]
    ran = sh(store, runtime, script, security_opt=["seccomp=unconfined"])
    assert ran.out.split()[:2] == ["Seccomp:", "0"]
    ran = sh(store, runtime, "mount -t tmpfs t /tmp && echo mounted", cap_add=["SYS_ADMIN"])
    assert ran.out == "mounted\n"


def cgroup_file(controller, name):
    return Path("/sys/fs/cgroup", controller, name).exists()


@pytest.mark.skipif(
    not cgroup_file("memory", "tasks") and not cgroup_file("", "cgroup.controllers"), reason="no memory group"
)
def test_memory_limit(store, runtime):
    ran = sh(store, runtime, "dd if=/dev/zero of=/dev/null bs=64M count=1; echo $?", memory="16m", memory_swap="16m")
    assert ran.out.strip() != "0"
    ran = sh(store, runtime, "dd if=/dev/zero of=/dev/null bs=1M count=1 2>/dev/null; echo $?", memory="64m")
    assert ran.out == "0\n"


@pytest.mark.skipif(
    not cgroup_file("pids", "tasks") and not cgroup_file("", "cgroup.controllers"), reason="no pids group"
)
def test_pids_limit(store, runtime):
    # Not fewer: the threads of runc itself count in a group of version 2.
    ran = sh(store, runtime, "for i in $(seq 40); do sleep 0.2 & done; wait", pids_limit="20")
    assert "fork" in ran.err


def test_a_limit_that_cannot_be_set(store):
    with pytest.raises(LayerfsError, match="cpuset"):
        sh(store, "builtin", "true", cpuset_cpus="4000")


def test_an_image_as_a_mount(store, runtime):
    ran = sh(
        store,
        runtime,
        "cat /model/etc/group | head -1; touch /model/x",
        mount=["type=image,source=box,target=/model"],
    )
    assert ran.out == "root:x:0:\n"
    assert "Read-only" in ran.err
