"""Containers in user namespaces of their own: no owner is changed on disk, ever."""

import io
import os
import stat
import tarfile
import time
from pathlib import Path

import pytest
from boxes import add_box, needs_busybox, options, run
from launchkit import needs_detached_copies

from layerfs import Store, snapshots
from layerfs.errors import InvalidInputError, LayerfsError, NotFoundError, UnsupportedError

pytestmark = [pytest.mark.root, needs_busybox]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    root = tmp_path_factory.mktemp("store")
    with Store.open(root, tmp_path_factory.mktemp("run")) as store:
        add_box(store, root)
        yield store
        assert store.containers.list() == []
        store.snapshots.release_layers()


def sh(store, runtime, script, **flags):
    return run(store, "sh", "-c", script, userns="auto", runtime=runtime, **flags)


@needs_detached_copies
def test_owners(store, runtime):
    script = "cat /proc/self/uid_map; id -u; stat -c '%u %g' /etc/passwd /data /data/seed /etc/hosts;"
    script += " touch /new; chown 7:8 /new; stat -c '%u %g' /new"
    ran = sh(store, runtime, script)
    lines = ran.out.splitlines()
    inside, outside, count = map(int, lines[0].split())
    assert (inside, count) == (0, 65536)
    assert outside >= 1 << 30
    assert lines[1:] == ["0", "0 0", "1000 29", "1000 0", "0 0", "7 8"]
    upper = store.snapshots.upper(ran.container.id)
    assert ((upper / "new").stat().st_uid, (upper / "new").stat().st_gid) == (7, 8)
    image = ran.container.commit().image
    with store.layers.view(image.diff_ids) as view:
        entry = view.stat(b"/new")
        assert (entry.uid, entry.gid) == (7, 8)
    ran.container.remove()


def test_two_have_different_numbers(store):
    first, second = (store.containers.create(options("true", userns="auto", runtime="builtin")) for _ in range(2))
    assert first.config.id_map != second.config.id_map
    first.remove()
    second.remove()


@needs_detached_copies
def test_it_is_nobody_on_the_host(store, runtime, tmp_path):
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "secret").chmod(0o600)
    (tmp_path / "dir").mkdir()
    ran = sh(
        store,
        runtime,
        "cat /host/secret; touch /host/dir/x; mount -t proc p /tmp; id -u",
        volume=[f"{tmp_path}:/host"],
        rm=True,
    )
    assert ran.out == "0\n"
    assert ran.err.count("denied") >= 2
    assert list((tmp_path / "dir").iterdir()) == []


@needs_detached_copies
def test_volumes_keep_their_owners(store, runtime):
    script = "stat -c '%u %g' /data/seed; touch /data/mine; chown 5 /data/mine"
    assert sh(store, runtime, script, volume=["vol:/data"], rm=True).out == "1000 0\n"
    mountpoint = store.containers.volumes.get("vol").mountpoint
    assert (mountpoint / "mine").stat().st_uid == 5
    assert (mountpoint / "seed").stat().st_uid == 1000
    store.containers.volumes.remove("vol")


def output(container, script):
    read, write = os.pipe()
    try:
        assert container.exec(["sh", "-c", script], stdio=(0, write, write)) == 0
    finally:
        os.close(write)
    with open(read) as file:
        return file.read()


@needs_detached_copies
def test_a_life(store, runtime, tmp_path):
    chosen = options("sh", "-c", "while :; do sleep 0.05; done", userns="auto", runtime=runtime, volume=["vol:/vol"])
    container = store.containers.start(chosen)
    base = container.config.id_map[0]
    assert os.stat(f"/proc/{container.pid}").st_uid == base
    pipe = os.pipe()
    assert container.exec(["id", "-u"], user="bob", stdio=(0, pipe[1], pipe[1])) == 0
    assert os.read(pipe[0], 100) == b"1000\n"
    os.close(pipe[0])
    os.close(pipe[1])
    with tarfile.open(fileobj=io.BytesIO(b"".join(container.get_archive("/data/seed")))) as archive:
        assert archive.next().uid == 1000
    # What is copied in belongs to its root, or with -a to whom it did; on disk as ever.
    (tmp_path / "f").write_text("content")
    os.chown(tmp_path / "f", 1000, 29)
    container.copy_in(str(tmp_path / "f"), "/tmp/plain")
    container.copy_in(str(tmp_path / "f"), "/tmp/kept", keep_owner=True)
    container.copy_in(str(tmp_path / "f"), "/vol/in")
    script = "stat -c '%n %u %g' /tmp/plain /tmp/kept /vol/in; cat /vol/in"
    assert output(container, script) == "/tmp/plain 0 0\n/tmp/kept 1000 29\n/vol/in 0 0\ncontent"
    upper = store.snapshots.upper(container.id)
    assert [os.stat(upper / "tmp" / name).st_uid for name in ("plain", "kept")] == [0, 1000]
    assert os.stat(store.containers.volumes.get("vol").mountpoint / "in").st_uid == 0
    with pytest.raises(NotFoundError, match="no such file"):
        container.copy_in(str(tmp_path / "f"), "/nowhere/x")
    container.restart(0)
    container.stop(0)
    container.copy_in(str(tmp_path / "f"), "/tmp")
    container.remove()
    store.containers.volumes.remove("vol")


@needs_detached_copies
@pytest.mark.parametrize("network", ["host", "none"])
def test_nothing_is_left_and_our_directories_stay_closed(store, runtime, network):
    ran = sh(store, runtime, "cat /proc/self/mounts; ls -ln /sys/fs/cgroup; id -u; exit 3", network=network, rm=True)
    assert (ran.code, ran.out.splitlines()[-1]) == (3, "0")
    assert list((store.run_root / "containers").iterdir()) == []
    assert stat.S_IMODE(store.run_root.stat().st_mode) == 0o700
    assert [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if ran.container.id in line] == []


@needs_detached_copies
def test_init_and_a_terminal_go_with_it(store, runtime):
    assert sh(store, runtime, "cat /proc/1/comm", init=True, rm=True).out == "layerfs-init\n"
    container = store.containers.start(
        options("sh", "-c", "tty; id -u; exec sleep 100", userns="auto", runtime=runtime, tty=True)
    )
    deadline = time.monotonic() + 20
    while b"0" not in (text := b"".join(entry.text for entry in container.logs())).splitlines():
        assert time.monotonic() < deadline, text
        time.sleep(0.02)
    assert text.startswith(b"/dev/")
    container.remove(force=True)


@needs_detached_copies
def test_a_command_that_is_not_there(store, runtime):
    with pytest.raises(LayerfsError) as caught:
        run(store, "nothere", userns="auto", runtime=runtime, rm=True)
    assert caught.value.exit_code == 127


def test_what_it_cannot_go_with(store):
    with pytest.raises(InvalidInputError, match="--privileged"):
        store.containers.create(options("true", userns="auto", privileged=True))
    with pytest.raises(UnsupportedError, match="keep-id"):
        store.containers.create(options("true", userns="keep-id"))


def test_auto_is_the_runtime_that_it_always_is(store):
    made = [store.containers.create(options("true", userns=userns)) for userns in ("auto", "host")]
    assert made[0].config.runtime == made[1].config.runtime
    for container in made:
        container.remove()


def test_a_kernel_that_cannot_is_said(store, monkeypatch):
    monkeypatch.setattr(snapshots, "_stacks_mapped", lambda: False)
    container = store.containers.create(options("true", userns="auto"))
    with pytest.raises(UnsupportedError, match="cannot stack mounts with other owners"):
        container.start()
    container.remove()
