"""Sizes that add up, layers from one format to the other, and sweeps that stop nobody."""

import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import tarbuild as tar
from boxes import add_box, needs_busybox, run
from support import unmount_below

from layerfs import Store
from layerfs.cli import main
from layerfs.digest import Digest
from layerfs.errors import InUseError, InvalidInputError
from layerfs.metadata import Database
from layerfs.oci import Descriptor

pytestmark = pytest.mark.root
_OCI = "application/vnd.oci.image"
_MANY = 1000


@pytest.fixture
def store(tmp_path: Path):
    with Store.open(tmp_path / "root", tmp_path / "run") as store:
        yield store
    unmount_below(tmp_path)


def bring(store: Store, place: Path, name: str, *files: bytes) -> None:
    (place / "in.tar").write_bytes(tar.archive(*files))
    store.import_image(place / "in.tar", name)


def du(path: Path) -> int:
    return int(subprocess.run(["du", "-s", "-B1", path], capture_output=True, check=True).stdout.split()[0])


def test_sizes_are_those_of_du(store: Store, tmp_path: Path) -> None:
    common = tar.file("common", os.urandom(300_000))
    for number in range(5):
        bring(store, tmp_path, f"i{number}:1", common, *([tar.file("own", os.urandom(9_000))] if number > 1 else []))
    usage = store.usage()
    files = [path for path in (store.root / "layers").rglob("*") if path.is_file()]
    assert usage.layers == sum(path.stat().st_blocks * 512 for path in files)
    assert abs(usage.blobs - du(store.root / "blobs")) == 0
    for row in usage.images:
        needed = {*row.image.diff_ids, row.image.id, row.image.target.digest}
        parts = [
            store.layers.path(digest) if store.layers.has(digest) else store.content.path(digest) for digest in needed
        ]
        assert row.shared + row.unique == sum(path.stat().st_blocks * 512 for path in parts)
    unique = {row.image.names[0]: row.unique for row in usage.images}
    assert unique["docker.io/library/i0:1"] < 100_000 < unique["docker.io/library/i2:1"]
    before = du(store.root / "layers") + du(store.root / "blobs")
    for number in (0, 2, 3):
        store.remove_image(f"i{number}:1", prune=False)
    promised = store.usage().reclaimable
    assert promised == store.sweep(dry_run=True).reclaimed
    freed = store.sweep().reclaimed
    assert freed == promised
    assert before - du(store.root / "layers") - du(store.root / "blobs") == freed


def test_prune_removes_what_was_put_away(store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bring(store, tmp_path, "a:1", tar.file("f", os.urandom(20_000)))
    path = store.layers.path(store.images.get("a:1").diff_ids[0])
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(5000)
        file.write(b"damage")
    assert [finding.kind for finding in store.check()] == ["layer"]
    assert len(list((store.root / "layers" / "bad").iterdir())) == 1
    words = ["--root", str(store.root), "--run", str(store.run_root), "system", "prune", "-f"]
    assert main([*words, "--dry-run"]) == 0
    assert path.name in capsys.readouterr().out
    assert main(words) == 0
    assert path.name in capsys.readouterr().out
    assert list((store.root / "layers" / "bad").iterdir()) == []


@needs_busybox
@pytest.mark.parametrize("formats", [("erofs", "dir"), ("dir", "erofs")], ids="-to-".join)
def test_migrate(tmp_path: Path, formats: tuple[str, str]) -> None:
    before, after = formats
    with Store.open(tmp_path / "root", tmp_path / "run", layer_format=before) as store:
        add_box(store, tmp_path)
        bring(store, tmp_path, "b:1", tar.file("f", b"x" * 9000), tar.whiteout("gone"), tar.hardlink("h", "f"))
        ran = run(store, "sh", "-c", "echo changed > /etc/new")
        tars = {}
        for diff_id in store.layers.list():
            with store.layers.open_tar(diff_id) as reader:
                tars[diff_id] = b"".join(iter(lambda reader=reader: reader.read(1 << 20), b""))
        with pytest.raises(InvalidInputError):
            store.migrate("squashfs")
        assert store.migrate(after) == len(tars)
        assert store.layer_format == after
        assert store.migrate(after) == 0
        assert run(store, "cat", "/etc/passwd").code == 0
        assert [str(change.path) for change in store.diff(ran.container.id)]
    with Store.open(tmp_path / "root", tmp_path / "run") as store:
        assert store.layer_format == after
        assert list(store.check()) == []
        for diff_id, data in tars.items():
            with store.layers.open_tar(diff_id) as reader:
                assert b"".join(iter(lambda reader=reader: reader.read(1 << 20), b"")) == data
        assert sorted(path.name for path in store.root.glob("layers*") if path.is_dir()) == [f"layers-{after}"]
        assert store.info()["LayerFormat"] == after
        assert store.migrate(before)
        assert list(store.check()) == []
        usage = store.usage()
        assert usage.layers == sum(row.disk for row in store.database.layers())
    unmount_below(tmp_path)


@needs_busybox
def test_migrate_waits_for_nobody(store: Store, tmp_path: Path) -> None:
    """A container that runs, a mount, another command: refused, and nothing is changed."""
    add_box(store, tmp_path)
    with Store.open(store.root, store.run_root), pytest.raises(InUseError, match="another command"):
        store.migrate("dir")
    store.mount("box")
    with pytest.raises(InUseError, match="mounted"):
        store.migrate("dir")
    store.unmount("box")
    words = ["--root", str(store.root), "--run", str(store.run_root)]
    assert main([*words, "run", "-d", "--name", "runs", "box", "sleep", "100"]) == 0
    with pytest.raises(InUseError, match="running"):
        store.migrate("dir")
    assert main([*words, "rm", "-f", "runs"]) == 0
    assert run(store, "true").code == 0
    assert store.layer_format == "erofs"
    assert store.migrate("dir") > 0


def test_a_sweep_stops_nobody_for_long(store: Store, tmp_path: Path, counts: Counter[str]) -> None:
    """While four hundred layers go, another process writes to the database all the time; how long it waits."""
    for number in range(400):
        bring(store, tmp_path, f"i{number}:1", tar.file("f", b"%d" % number))
    for number in range(400):
        store.remove_image(f"i{number}:1", prune=False)
    waits, writer = tmp_path / "waits.json", os.fork()
    if writer == 0:
        _write_until_told(store.root, store.run_root, waits)
    while not waits.exists():
        time.sleep(0.01)
    begin = time.time()
    try:
        swept = store.sweep()
    finally:
        end = time.time()
        os.kill(writer, signal.SIGTERM)
        os.waitpid(writer, 0)
    assert len(swept.layers) == 400
    during = sorted(took for at, took in json.loads(waits.read_text()) if begin <= at <= end)
    assert len(during) > 5
    counts["longest wait of a writer for a sweep, in milliseconds"] = round(1000 * during[-1])
    # The promise is 50 ms; a machine that is busy with other things may let a process wait as long by itself.
    assert during[int(len(during) * 0.9)] < 0.05, during[-5:]


def fill(store: Store, images: int) -> None:
    """That many images, each with a layer of its own and ten blobs."""
    with store.database.transaction():
        for number in range(images):
            plain = tar.archive(tar.file("f", b"%d" % number))
            with store.layers.writer() as writer:
                writer.write(plain)
                layer = writer.commit()
            store.database.add_layer(layer.diff_id, layer.size, layer.disk, layer.entries, layer.data_bytes)
            blobs = [_put(store, plain + bytes(512 * n), f"{_OCI}.layer.v1.tar") for n in range(8)]
            config = {"architecture": "amd64", "os": "linux"}
            config |= {"rootfs": {"type": "layers", "diff_ids": [str(layer.diff_id)] * 8}}
            parts = {"config": _put(store, json.dumps(config).encode(), f"{_OCI}.config.v1+json"), "layers": blobs}
            manifest = {"schemaVersion": 2, "mediaType": f"{_OCI}.manifest.v1+json", **parts}
            target = _put(store, json.dumps(manifest).encode(), f"{_OCI}.manifest.v1+json")
            digest = Digest(target["digest"])
            store.images.add(Descriptor(media_type=target["mediaType"], digest=digest, size=target["size"]))
            store.database.set_name(f"docker.io/library/i{number}:1", digest)


def _put(store: Store, data: bytes, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": str(store.content.write(data)), "size": len(data)}


def held(store: Store, images: int, monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float]]:
    """Half of the images go, then all, with their blobs: how long each transaction kept all others from writing, in
    seconds and in seconds of this thread's work."""
    real, found = type(store.database).transaction, []

    @contextmanager
    def timed(database: Database, *, durable: bool = False) -> Iterator[None]:
        is_outer = not database._local.depth
        with real(database, durable=durable):
            begin, work = time.perf_counter(), time.thread_time()
            yield
        if is_outer:
            found.append((time.perf_counter() - begin, time.thread_time() - work))

    for number in range(images // 2):
        store.remove_image(f"i{number}:1", prune=False)
    monkeypatch.setattr(type(store.database), "transaction", timed)
    swept = store.sweep()
    assert (len(swept.layers), len(swept.blobs)) == (images // 2, images // 2 * 10)
    store.prune_images(all_unused=True, blobs=True)
    assert not list(store.content.digests())
    assert len(found) > images
    return sorted(found)


def test_a_sweep_holds_the_database_for_moments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counts: Counter[str]
) -> None:
    check_held(tmp_path, 60, monkeypatch, counts)


@pytest.mark.proof
def test_a_sweep_of_ten_thousand_blobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counts: Counter[str]) -> None:
    check_held(tmp_path, _MANY, monkeypatch, counts)


def check_held(place: Path, images: int, monkeypatch: pytest.MonkeyPatch, counts: Counter[str]) -> None:
    with Store.open(place / "root", place / "run", sync=False) as store:
        fill(store, images)
    with Store.open(place / "root", place / "run") as store:
        found = held(store, images, monkeypatch)
    what = "longest that a sweep kept others from writing, in milliseconds"
    counts[what] = max(counts[what], round(1000 * found[-1][0]))
    # The promise is 50 ms; a busy machine may take the processor or the disk away for as long, so that it is judged by
    # the work done. A machine that does nothing else, as where the proofs run, keeps it but now and then.
    assert max(work for _, work in found) < 0.02
    if images == _MANY:
        assert found[int(len(found) * 0.99)][0] < 0.05, found[-10:]


def _write_until_told(root: Path, run_root: Path, waits: Path) -> None:
    told: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: told.append(1))
    found: list[tuple[float, float]] = []
    try:
        with Store.open(root, run_root) as store:
            waits.write_text("[]")
            while not told:
                at, begin = time.time(), time.perf_counter()
                store.database.put_record("test", "key", {"now": at})
                found.append((at, time.perf_counter() - begin))
                time.sleep(0.0005)
        waits.write_text(json.dumps(found))
    finally:
        os._exit(0)
