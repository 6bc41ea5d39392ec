"""The power goes at any instant: what was acknowledged is whole, and the rest is not half there."""

import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import tracer
from counting import LEFT_OUT, TIME
from disk import Disk
from world import SCENARIOS, Scenario, World, said

from layerfs import Store

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(bool(tracer.available()), reason=tracer.available() or "-"),
]
DURABLE = [
    "create-store", "import", "load", "pull", "tag", "rmi", "prune", "prune-all", "commit", "check",
]  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("power") / "w")
    yield world
    world.close()


def lost_at_each_sync(world: World, name: str, counts: Counter[str], step: int, seeds: int) -> list[str]:
    """Run a command once; before and after each of its syncs, and at the end, see what a power cut leaves."""
    scenario = SCENARIOS[name]
    world.prepare(scenario)
    root = world.place / "root"
    root.mkdir(exist_ok=True)
    disk, problems, target = Disk(root), [], world.base / "lost"
    pending: list[str] = []

    def look(where: str, done: str = "") -> None:
        if TIME.is_over:
            counts[LEFT_OUT] += seeds + 2
            return
        for kind in disk.states(target, seeds):
            counts["states of a disk after a power cut"] += 1
            try:
                _check(world, scenario, target, done)
            except Exception as exc:
                problems.append(f"{name}, {where}, {kind}: {said(exc)}")
            subprocess.run(["rm", "-rf", target], check=True)

    def handler(call: tracer.Call) -> tracer.Action:
        for path in pending:  # the call before this one has been made
            disk.sync_all() if path == "*" else disk.sync(path)
        pending.clear()
        if call.name in ("fsync", "fdatasync"):
            pending.extend(path for path in call.paths if path.startswith(str(root)))
        elif call.name == "syncfs":
            pending.append("*")
        if call.number % step == 0 or pending:
            look(f"before call {call.number}: {call.name} {call.paths}")
        return None

    result = world.command(scenario, handler)
    assert result.code == 0, result.err
    for path in pending:
        disk.sync(path)
    look("after the command", result.out)
    disk.close()
    shutil.rmtree(target, ignore_errors=True)
    return problems


def _check(world: World, scenario: Scenario, root: Path, done: str) -> None:
    run = world.base / "lost-run"
    if scenario.fresh and not done and not (root / "layerfs.db").exists():
        return  # no store yet, or litter of one: it is made anew
    with Store.open(root, run) as store:
        changes = {word.format(host=world.host) for word in scenario.changes}
        # The removal of a container is not synced: a row without its files may be back, which the check mends.
        undone = {row.id for row in store.database.containers() if row.name in changes}
        found = [f for f in store.check() if f.kind != "container" or f.name not in undone]
        findings = [f"{f.kind} {f.name}: {f.reason}" for f in found]
        assert scenario.damaged or not findings, findings
        list(store.check(repair=bool(undone)))
        assert scenario.damaged or not list(store.check())
        known = {name: str(target) for name, target in store.database.names()}
        for name, target in world.names.items():
            if name.removeprefix("docker.io/library/") not in changes:
                assert known.get(name) == target, f"{name}: {known.get(name)}"
        for image in store.images.list():
            assert scenario.damaged or all(store.layers.has(diff_id) for diff_id in image.diff_ids)
        if done:
            for name in changes if scenario.name in ("import", "load", "tag", "commit") else ():
                store.images.get(name)
            scenario.promised(store, done, world.place)
        store.sweep()
        assert not [name for name in os.listdir(root / "ingest") if not name.startswith(("lock-", "blob-"))]
    shutil.rmtree(run)


def test_the_disk_forgets_what_was_not_synced(tmp_path: Path) -> None:
    live, lost = tmp_path / "live", tmp_path / "lost"
    (live / "d").mkdir(parents=True)
    (live / "old").write_bytes(b"o" * 2000)
    disk = Disk(live)
    (live / "old").write_bytes(b"n" * 2000)
    (live / "d" / "new").write_bytes(b"n" * 2000)
    found = {"old": set(), "new": set()}
    for _ in disk.states(lost, 30):
        for name, path in (("old", lost / "old"), ("new", lost / "d" / "new")):
            found[name].add(path.read_bytes() if path.exists() else None)
        subprocess.run(["rm", "-rf", lost], check=True)
    assert {b"o" * 2000, b"n" * 2000} <= found["old"]
    assert {None, bytes(2000)} <= found["new"]
    assert len(found["old"]) > 3, "nothing torn"
    disk.sync(str(live / "d" / "new"))
    disk.sync(str(live / "d"))
    for _ in disk.states(lost, 5):
        assert (lost / "d" / "new").read_bytes() == b"n" * 2000
        subprocess.run(["rm", "-rf", lost], check=True)
    disk.close()


@pytest.mark.proof
@pytest.mark.parametrize("name", DURABLE)
def test_the_power_goes(world: World, name: str, counts: Counter[str]) -> None:
    assert lost_at_each_sync(world, name, counts, 6, 3) == []


@pytest.mark.parametrize("name", ["import", "rmi"])
def test_a_sample(world: World, name: str, counts: Counter[str]) -> None:
    assert lost_at_each_sync(world, name, counts, 40, 1) == []
