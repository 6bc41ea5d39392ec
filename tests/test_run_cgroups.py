"""What a container sees of its control groups in /sys/fs/cgroup, where programs look for their limits."""

import os
from pathlib import Path

import pytest
from boxes import box_store, needs_busybox, options, sh

from layerfs.errors import InvalidInputError

VERSION1 = Path("/sys/fs/cgroup/memory/tasks").exists()
VERSION2 = Path("/sys/fs/cgroup/cgroup.controllers").exists()

pytestmark = [
    pytest.mark.root,
    needs_busybox,
    pytest.mark.skipif(not VERSION1 and not VERSION2, reason="no memory group"),
]
LIMIT = "/sys/fs/cgroup/memory/memory.limit_in_bytes" if VERSION1 else "/sys/fs/cgroup/memory.max"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with box_store(tmp_path_factory) as store:
        yield store


def test_a_limit_is_seen_and_cannot_be_changed(store, runtime):
    ran = sh(store, runtime, f"cat {LIMIT}; echo {64 << 20} >{LIMIT}", memory="48m")
    assert ran.out == f"{48 << 20}\n"
    assert "Read-only" in ran.err


def test_groups_of_others_are_not_seen(store, runtime):
    found = sh(store, runtime, "find /sys/fs/cgroup -mindepth 2 -type d | grep -v :", memory="48m").out
    assert "layerfs" not in found
    shown = sh(store, runtime, "grep ' cgroup2* ' /proc/mounts", memory="48m", pids_limit="50").out.splitlines()
    assert shown
    for line in shown:
        assert {"ro", "nosuid", "nodev", "noexec"} <= set(line.split()[3].split(","))


def test_in_a_user_namespace_and_privileged(store):
    assert sh(store, "builtin", f"cat {LIMIT}", memory="48m", userns="auto").out == f"{48 << 20}\n"
    ran = sh(store, "builtin", f"echo {32 << 20} >{LIMIT}; cat {LIMIT}", memory="48m", privileged=True)
    assert ran.out == f"{32 << 20}\n"


def test_a_mount_of_the_users_own_is_left_alone(store, tmp_path):
    (tmp_path / "mine").touch()
    assert sh(store, "builtin", "ls /sys/fs/cgroup", volume=[f"{tmp_path}:/sys/fs/cgroup"]).out == "mine\n"
    assert sh(store, "builtin", "ls /sys/fs/cgroup", memory="48m", cgroupns="host").out == ""


DISKS = [path for path in Path("/dev").iterdir() if path.is_block_device()]
THROTTLED = VERSION2 or Path("/sys/fs/cgroup/blkio/blkio.throttle.read_bps_device").exists()


@pytest.mark.skipif(not DISKS or not THROTTLED, reason="no block device, or none that can be throttled")
def test_how_fast_a_device_may_be_read_and_written(store, runtime):
    disk = next(path for path in DISKS if not path.name.startswith(("loop", "ram")))
    number = f"{os.major(disk.stat().st_rdev)}:{os.minor(disk.stat().st_rdev)}"
    flags = {
        "device_read_bps": [f"{disk}:1mb"],
        "device_write_bps": [f"{disk}:2048"],
        "device_read_iops": [f"{disk}:30"],
        "device_write_iops": [f"{disk}:40"],
    }
    if VERSION1:
        ran = sh(
            store,
            runtime,
            "cd /sys/fs/cgroup/blkio; for k in read_bps write_bps read_iops write_iops; do "
            "cat blkio.throttle.${k}_device; done",
            **flags,
        )
        assert ran.out.splitlines() == [f"{number} {rate}" for rate in (1 << 20, 2048, 30, 40)]
    else:
        ran = sh(store, runtime, "cat /sys/fs/cgroup/io.max", **flags)
        assert ran.out == f"{number} rbps={1 << 20} wbps=2048 riops=30 wiops=40\n"


@pytest.mark.parametrize("word", ["/dev/null:1", "/dev/nothing:1", "vda:1", "/dev/vda", "/dev/null:"])
def test_what_is_no_device_or_no_rate(word):
    with pytest.raises(InvalidInputError, match="--device-read-bps"):
        options("true", device_read_bps=[word])
