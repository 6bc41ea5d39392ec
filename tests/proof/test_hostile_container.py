"""A container whose program tries to get out (``escape.c``): descriptors, keys, shared memory, file handles, devices,
files and calls of the kernel, the root; and one that looks into every process that joins it."""

import ctypes
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import tarbuild as tar
from boxes import add_box, needs_busybox
from cvekit import Host, host

__all__ = ["host"]

pytestmark = [pytest.mark.root, needs_busybox]
_ADD_KEY, _KEYCTL, _REVOKE, _USER, _SESSION = 248, 250, 3, -4, -3
_SHM_KEY = 0x6C667379
_libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    target = tmp_path_factory.mktemp("escape") / "escape"
    source = Path(__file__).with_name("escape.c")
    done = subprocess.run(["gcc", "-static", "-O1", "-Wall", "-Wextra", "-Werror", "-o", target, source], check=False)
    if done.returncode:
        pytest.skip("needs gcc and a static libc")
    return target.read_bytes()


@pytest.fixture
def secrets() -> Iterator[None]:
    """What the host has in its keyrings and in shared memory."""
    keys = [_libc.syscall(_ADD_KEY, b"user", b"layerfs-test-secret", b"x", 1, ring) for ring in (_USER, _SESSION)]
    memory = _libc.shmget(_SHM_KEY, 4096, 0o1666)
    assert memory >= 0
    yield
    _libc.shmctl(memory, 0, None)
    for key in keys:
        _libc.syscall(_KEYCTL, _REVOKE, key)


def prepare(host: Host, program: bytes) -> None:
    with host.store() as store:
        add_box(store, host.place, tar.directory("escape", mode=0o777), tar.file("escape/try", program, mode=0o755))


@pytest.mark.parametrize("user", ["root", "bob"])
@pytest.mark.parametrize("verb", ["run", "exec"])
def test_a_program_that_tries_everything(
    host: Host, program: bytes, secrets: None, runtime: str, user: str, verb: str, counts: Counter[str]
) -> None:
    prepare(host, program)
    tries = ["/escape/try", "try", str(host.outside), str(_SHM_KEY)]
    if verb == "run":
        words = ["run", "--name", "trier", "--runtime", runtime, "-u", user, "box", *tries]
        assert host(*words).code == 0
    else:
        words = ["run", "-d", "--name", "trier", "--runtime", runtime, "box", "sh", "-c", "sleep 100"]
        assert host(*words).code == 0
    said = _command(host, "logs", "trier") if verb == "run" else _command(host, "exec", "-u", user, "trier", *tries)
    last = said.pop()
    # runc 1.1 allows every container the device of tunnels by itself; layerfs does not ask for it.
    assert [line for line in said if (runtime, line) != ("runc", "device: character 10:200")] == []
    assert last.startswith("done, tried ")
    assert host("rm", "-f", "trier").code == 0
    counts["ways out of a container that were tried"] += int(last.split()[-1])


def test_the_program_sees_what_is_open(host: Host, program: bytes, secrets: None) -> None:
    """A privileged container may do most of it, and the program says so: what it does not find is not there."""
    prepare(host, program)
    tries = ["/escape/try", "try", str(host.outside), str(_SHM_KEY)]
    assert host("run", "--name", "trier", "--privileged", "--ipc", "host", "box", *tries).code == 0
    said = _command(host, "logs", "trier")
    found = {line.partition(":")[0] for line in said}
    assert {"bpf", "mount", "fsopen", "device", "opened for writing", "unshare of mounts", "acct"} <= found, said
    assert "shared memory of the host" in found
    assert "the host" not in found, "not even that one has other files than its own"
    assert host("rm", "-f", "trier").code == 0


def test_a_program_that_looks_into_those_that_join(host: Host, program: bytes, runtime: str) -> None:
    """What ``exec`` sends into a container has no way back that it could use (CVE-2016-9962 and its like)."""
    prepare(host, program)
    watch = ["/escape/try", "watch", str(host.outside), "5"]
    assert host("run", "-d", "--name", "watcher", "--runtime", runtime, "box", *watch).code == 0
    end, joined = time.monotonic() + 4, 0
    while time.monotonic() < end:
        joined += host("exec", "-w", "/tmp", "watcher", "true").code == 0
        host("cp", host.outside / "etc", "watcher:/tmp/in")
    assert joined > 3
    assert host("wait", "watcher").out.strip() == "0"
    said = _command(host, "logs", "watcher")
    assert said[-1].startswith("done")
    assert said[-2].startswith("seen ")
    assert int(said[-2].split()[1]) > joined, "it looked at nobody"
    assert said[:-2] == [], said
    assert host("rm", "-f", "watcher").code == 0


def _command(host: Host, *words: str) -> list[str]:
    """In a process of its own, because what a container says goes to the descriptors."""
    line = [sys.executable, "-m", "layerfs", "--root", str(host.root), "--run", str(host.run), *words]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)
    return done.stdout.splitlines() + done.stderr.splitlines()
