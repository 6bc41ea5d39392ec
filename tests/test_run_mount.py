"""``mount`` of containers: what an earlier run left does not keep them from it, and one that runs is refused."""

import os
import shutil
import time
from pathlib import Path

import pytest
from boxes import add_box, needs_busybox, options

from layerfs import Store
from layerfs.errors import InUseError
from layerfs.fsutil import boot_id
from layerfs.runtime import read_report

pytestmark = [pytest.mark.root, needs_busybox]


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "store", tmp_path / "run") as store:
        add_box(store, tmp_path)
        yield store
        store.unmount(force=True)
        for container in store.containers.list():
            container.remove(force=True)


def ended_unseen(store, *args):
    """A container under a supervisor that has come to its end, and nobody has looked since."""
    container = store.containers.start(options(*args, runtime="builtin"))
    deadline = time.monotonic() + 20
    while not (report := read_report(container.directory)) or not report.is_over:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return container


def test_one_that_ended_by_itself(store):
    container = ended_unseen(store, "sh", "-c", "echo hello > /greeting")
    assert store.database.container(container.id).state["status"] == "running"
    place = store.mount(container.name)
    assert (place / "greeting").read_text() == "hello\n"
    (place / "more").write_text("x")
    assert store.containers.get(container.name).status == "exited"
    with pytest.raises(InUseError, match="mounted at"):
        container.start()
    assert store.unmount(container.name) == [container.id]
    assert sorted(change.path for change in container.changes()) == [b"greeting", b"more"]


def test_the_claim_of_a_command_that_was_killed(store):
    container = store.containers.create(options("true"))
    store.database.set_mounted(container.id, "", boot_id())
    (store.mount(container.name) / "new").touch()
    store.unmount(container.name)
    assert [change.path for change in container.changes()] == [b"new"]


def test_after_a_reboot(store):
    container = ended_unseen(store, "true")
    state = store.database.container(container.id).state
    store.database.set_mounted(container.id, "", "another boot")
    shutil.copy(container.directory / "status.json", container.directory / "copy")
    (container.directory / "status.json").unlink()  # as when its supervisor could not write any more
    assert state["supervised"] is True
    assert store.mount(container.name).is_mount()


def test_one_that_runs_is_refused(store):
    container = store.containers.start(options("sleep", "60", runtime="builtin"))
    with pytest.raises(InUseError, match=rf"^mount container {container.name}: it is running"):
        store.mount(container.name)
    assert container.refresh().status == "running"
    with container.locked("hold"), pytest.raises(InUseError):
        store.mount(container.id)


def test_the_same_place_again_and_another_one(store, tmp_path):
    container = store.containers.create(options("true"))
    place = store.mount(container.name)
    assert store.mount(container.name) == place == store.mount(container.id, place)
    target = tmp_path / "target"
    target.mkdir()
    with pytest.raises(InUseError, match="it is mounted at"):
        store.mount(container.name, target)
    store.unmount(container.name)
    assert store.mount(container.name, target) == target
    assert os.path.ismount(target)


def test_a_store_is_migrated_when_its_containers_have_ended(store):
    container = ended_unseen(store, "sh", "-c", "echo hello > /greeting")
    store.migrate("dir" if store.layer_format == "erofs" else "erofs")
    found = store.containers.get(container.id)
    assert (found.status, found.exit_code) == ("exited", 0)
    assert Path(store.mount(container.id), "greeting").read_text() == "hello\n"


def test_the_end_of_a_detached_container_takes_the_mounts_of_its_layers_along(store):
    container = store.containers.start(options("true", runtime="builtin", rm=True))
    deadline = time.monotonic() + 20
    while container.directory.exists() or os.listdir(store.root / "snapshots") or store.layers.mounted():
        assert time.monotonic() < deadline, (os.listdir(store.root / "snapshots"), store.layers.mounted())
        time.sleep(0.01)
