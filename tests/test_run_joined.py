"""Containers that share namespaces: ``container:NAME``, shareable and no IPC."""

import os
import time

import pytest
from boxes import box_store, needs_busybox, options, sh

from layerfs.errors import InUseError, InvalidInputError, LayerfsError, NotFoundError, UnsupportedError

pytestmark = [pytest.mark.root, needs_busybox]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with box_store(tmp_path_factory) as store:
        yield store


@pytest.fixture
def donor(store, runtime):
    made = []

    def start(*args, **flags):
        flags = {"name": "donor", "runtime": runtime, **flags}
        made.append(store.containers.start(options(*(args or ("sleep", "60")), **flags)))
        return made[-1]

    yield start
    for container in made:
        container.remove(force=True)


def namespace(container, kind):
    return os.readlink(f"/proc/{container.state.process.pid}/ns/{kind}")


@pytest.mark.parametrize(("flag", "kind"), [("network", "net"), ("pid", "pid"), ("ipc", "ipc"), ("uts", "uts")])
def test_each_kind(store, runtime, donor, flag, kind):
    container = donor(network="none", ipc="shareable")
    script = "for k in net pid ipc uts cgroup mnt; do readlink /proc/self/ns/$k; done"
    ran = sh(
        store,
        runtime,
        script,
        network="none" if flag != "network" else "container:donor",
        **({flag: "container:donor"} if flag != "network" else {}),
    )
    found = dict(line.split(":") for line in ran.out.split())
    same = [name for name, value in found.items() if namespace(container, name) == f"{name}:{value}"]
    assert same == [kind]


def test_a_network_brings_names_and_addresses(store, runtime, donor):
    """Both see what either writes, and the second has the host name of the first."""
    container = donor("sh", "-c", "hostname; nc -l -p 80 -e cat; sleep 60", network="none", hostname="first")
    script = "hostname; cat /etc/hostname; echo 10.9.8.7 other >>/etc/hosts; for i in 1 2 3 4 5 6 7 8 9; do "
    script += "echo hello | nc 127.0.0.1 80 && break; sleep 0.1; done"
    ran = sh(store, runtime, script, network="container:donor")
    assert ran.out == "first\nfirst\nhello\n"
    assert b"10.9.8.7 other" in b"".join(container.get_archive("/etc/hosts"))
    other = store.containers.create(options("true", runtime=runtime, network="container:donor"))
    shown = other.inspect()
    assert shown["HostConfig"]["NetworkMode"] == f"container:{container.id}"
    assert shown["NetworkSettings"]["Networks"] == {}
    other.remove()


def test_processes_of_another(store, runtime, donor):
    donor("sleep", "54321")
    ran = sh(store, runtime, "ps -o pid,args; kill -0 1 && echo seen", pid="container:donor")
    assert "1 sleep 54321" in ran.out
    assert ran.out.endswith("seen\n")


def test_shared_memory_of_another(store, runtime, donor):
    container = donor("sh", "-c", "echo one >/dev/shm/a; sleep 60", ipc="shareable", shm_size="1m")
    wait_for(lambda: b"one" in b"".join(container.get_archive("/dev/shm/a")))
    script = "cat /dev/shm/a; echo two >/dev/shm/b; df -k /dev/shm | tail -1; grep -c ' /dev/shm ' /proc/mounts"
    script += "; grep ' /dev/shm ' /proc/mounts"
    ran = sh(store, runtime, script, ipc="container:donor")
    lines = ran.out.splitlines()
    assert lines[0] == "one"
    assert "1024" in lines[1].split()
    assert lines[2] == "1"
    assert {"nosuid", "nodev", "noexec"} <= set(lines[3].split()[3].split(","))
    assert b"two" in b"".join(container.get_archive("/dev/shm/b"))


def wait_for(done):
    until = time.monotonic() + 5
    while time.monotonic() < until:
        try:
            if done():
                return
        except NotFoundError:
            pass
        time.sleep(0.02)
    raise AssertionError("it never happened")


def test_private_memory_is_not_shared(store, runtime, donor):
    donor()
    with pytest.raises(LayerfsError, match="its IPC namespace is private"):
        sh(store, runtime, "true", ipc="container:donor")
    ran = sh(store, runtime, "readlink /proc/self/ns/ipc; grep -c shm /proc/mounts", ipc="none")
    assert ran.out.split()[0] != os.readlink("/proc/self/ns/ipc")
    assert ran.out.split()[1] == "0"


def test_exec_sees_the_same(store, runtime, donor):
    donor("sleep", "54321", name="first")
    second = donor(name="second", pid="container:first", network="container:first", uts="container:first")
    assert second.exec(["sh", "-c", "ps -o args | grep -q '^sleep 54321'"]) == 0


def test_in_a_chain(store, runtime, donor):
    donor(name="first", network="none", hostname="head")
    donor(name="second", network="container:first")
    assert sh(store, runtime, "hostname", network="container:second").out == "head\n"


def test_it_goes_on_with_what_it_has_and_starts_again_with_the_new(store, runtime, donor):
    first = donor(network="none")
    second = donor(name="second", network="container:donor")
    first.stop(timeout=0)
    assert second.state.status == "running"
    second.stop(timeout=0)
    with pytest.raises(LayerfsError, match="not running"):
        second.start()
    first.start()
    second.start()
    assert namespace(first, "net") == namespace(second, "net")


def test_what_cannot_be_joined(store, runtime, donor):
    with pytest.raises(NotFoundError, match="nobody"):
        sh(store, runtime, "true", network="container:nobody")
    with pytest.raises(InvalidInputError, match="name of the container is missing"):
        sh(store, runtime, "true", pid="container:")
    created = store.containers.create(options("true", name="idle", runtime=runtime))
    with pytest.raises(LayerfsError, match="not running"):
        sh(store, runtime, "true", pid="container:idle")
    created.remove()
    donor()
    for flag in ({"hostname": "x"}, {"dns": ["1.2.3.4"]}, {"add_host": ["a:1.2.3.4"]}, {"expose": ["80"]}):
        with pytest.raises(InvalidInputError, match="cannot go with --network container:"):
            sh(store, runtime, "true", network="container:donor", **flag)
    with pytest.raises(InvalidInputError, match="cannot go with --uts"):
        sh(store, runtime, "true", uts="container:donor", hostname="x")
    with pytest.raises(InvalidInputError, match="cannot go with --pid container:"):
        sh(store, runtime, "true", pid="container:donor", userns="auto")
    with pytest.raises(UnsupportedError, match="cgroupns"):
        sh(store, runtime, "true", cgroupns="container:donor")
    assert len(store.containers.list()) == 1  # of those that could not start none is left
    donor("false", name="often", restart="always")
    wait_for(lambda: store.containers.get("often").state.status == "restarting")
    with pytest.raises(InUseError, match="restarting"):
        sh(store, runtime, "true", pid="container:often")
