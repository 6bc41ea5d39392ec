"""The store as a whole: opening, sharing, keeping, damage, two processes at once."""

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.test_images import tar

from layerfs.errors import IntegrityError, InvalidInputError, LayerfsError, NotFoundError
from layerfs.leases import Lease
from layerfs.store import Store


def open_store(root: Path, layer_format: str = "auto") -> Store:
    return Store.open(root / "store", root / "run", layer_format=layer_format)


def fill(store: Store, path: Path, name: str, **files: str) -> None:
    path.write_bytes(tar(**files).getvalue())
    store.import_image(path, name)


def test_opening_remembers_the_format(tmp_path: Path) -> None:
    with open_store(tmp_path, "dir") as store:
        assert store.layer_format == "dir"
    with open_store(tmp_path) as store:
        assert store.layer_format == "dir"
    with pytest.raises(InvalidInputError, match="format dir, not erofs"):
        open_store(tmp_path, "erofs")
    with pytest.raises(InvalidInputError, match="not known"):
        open_store(tmp_path, "zfs")
    with pytest.raises(NotFoundError):
        Store.open(tmp_path / "none", create=False)
    assert not (tmp_path / "none").exists()


def test_others_are_kept_out(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        for path in (store.root, store.run_root, *(p for p in store.root.iterdir() if p.is_dir())):
            assert path.stat().st_mode & 0o077 == 0, path


def _open(root: Path) -> None:
    open_store(root).close()


def test_many_processes_make_one_store(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_open, args=(tmp_path,)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4


def test_a_layer_is_stored_once(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        fill(store, tmp_path / "t", "a", file="same")
        fill(store, tmp_path / "t", "b", file="same")
        assert len(list(store.layers.list())) == 1
        sizes = {row.image.names[0]: row for row in store.usage().images}
        assert all(row.shared > 0 for row in sizes.values())
        store.remove_image("a")
        assert len(list(store.layers.list())) == 1
        assert store.usage().images[0].unique > 0


def test_sizes_add_up_to_what_is_on_disk(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        for i in range(3):
            fill(store, tmp_path / "t", f"a{i}", file="x" * 50_000 * (i + 1), common="y")
        usage = store.usage()
        du = int(subprocess.check_output(["du", "-s", "--block-size=1", store.root / "layers"]).split()[0])
        directories = sum(p.lstat().st_blocks * 512 for p in (store.root / "layers").rglob("*") if p.is_dir())
        directories += (store.root / "layers").lstat().st_blocks * 512
        assert usage.layers == du - directories
        assert sum(row.unique for row in usage.images) <= usage.layers + usage.blobs
        assert usage.reclaimable == 0
        store.images.remove("a1")
        assert 0 < store.usage().reclaimable == store.sweep(dry_run=True).reclaimed == store.sweep().reclaimed


def test_a_lease_keeps_what_the_sweep_would_take(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        fill(store, tmp_path / "t", "a", file="x")
        image = store.images.get("a")
        with Lease(store.database, store.parts.ingest) as lease:
            lease.protect([*image.diff_ids, image.id, image.target.digest])
            store.remove_image("a")
            assert store.layers.has(image.diff_ids[0])
            assert store.content.has(image.id)
        store.sweep()
        assert not store.layers.has(image.diff_ids[0])
        assert not store.content.has(image.id)


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("layer_format", ["erofs", "dir"])
def test_check_finds_damage(tmp_path: Path, layer_format: str, quick: bool) -> None:
    with open_store(tmp_path, layer_format) as store:
        fill(store, tmp_path / "t", "a", file="content " * 1000)
        assert list(store.check(quick=quick)) == []
        diff_id = store.images.get("a").diff_ids[0]
        path = store.layers.path(diff_id)
        victim = path if layer_format == "erofs" else path / "rest.lz4"
        data = bytearray(victim.read_bytes())
        data[-20] ^= 0xFF
        os.chmod(victim, 0o644)
        victim.write_bytes(data)
        findings = list(store.check(quick=quick))
        assert [f.kind for f in findings if f.kind == "layer"] == ["layer"]
        assert "docker.io/library/a:latest" in findings[0].images
        assert not store.layers.has(diff_id)


def test_a_damaged_layer_is_made_again_from_its_blob(tmp_path: Path) -> None:
    import gzip

    with open_store(tmp_path) as store:
        fill(store, tmp_path / "t", "a", file="content " * 1000)
        store.save(["a"], tmp_path / "oci", format="oci-dir")
        layer = store.images.get("a").manifest.layers[0]
        plain = (tmp_path / "oci" / "blobs" / "sha256" / layer.digest.hex).read_bytes()
        blob = gzip.compress(plain)
        digest = store.content.write(blob)
        store.database.add_layer_blob(digest, layer.digest, len(blob), "application/vnd.oci.image.layer.v1.tar+gzip")
        path = store.layers.path(layer.digest)
        os.truncate(path, path.stat().st_size - 100) if path.is_file() else (path / "rest.lz4").unlink()
        assert [f.repaired for f in store.check(repair=True) if f.kind == "layer"] == [True]
        assert list(store.check()) == []


def test_a_damaged_blob_goes_and_is_named(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        fill(store, tmp_path / "t", "a", file="x")
        image = store.images.get("a")
        path = store.content.path(image.id)
        path.chmod(0o644)
        path.write_bytes(b"{}")
        kinds = {finding.kind for finding in store.check()}
        assert kinds == {"blob", "image"}
        with pytest.raises(LayerfsError):
            store.images.get("a")


@pytest.mark.parametrize("layer_format", ["erofs", "dir"])
def test_what_is_no_blob_and_no_layer_stands_in_nobodys_way(tmp_path: Path, layer_format: str) -> None:
    with open_store(tmp_path, layer_format) as store:
        fill(store, tmp_path / "t", "a", file="content")
        strays = [store.root / "blobs/sha256/notes.txt", store.root / "layers/sha256/lost+found"]
        strays[0].write_text("mine")
        strays[1].mkdir()
        assert [(f.kind, f.name) for f in store.check()] == [("litter", str(path)) for path in strays]
        assert store.sweep().layers == ()
        store.prune_images(all_unused=True, blobs=True)
        assert list(store.layers.list()) == list(store.content.digests()) == []
        assert strays[0].read_text() == "mine"
        assert strays[1].is_dir()


def test_a_read_only_store_is_read(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        fill(store, tmp_path / "t", "a", file="content")
    subprocess.run(["mount", "--bind", tmp_path / "store", tmp_path / "store"], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", tmp_path / "store"], check=True)
        with open_store(tmp_path) as store:
            image = store.images.get("a")
            with store.layers.view(image.diff_ids) as view:
                assert b"".join(view.read(b"/file")) == b"content"
            with pytest.raises(LayerfsError):
                fill(store, tmp_path / "t", "b", file="x")
    finally:
        subprocess.run(["umount", tmp_path / "store"], check=True)


def test_import_refuses_before_it_works(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        (tmp_path / "t").write_bytes(tar(file="x").getvalue())
        for reference, changes in (("UPPER", ()), ("a@sha256:" + "a" * 64, ()), ("a", ("NONSENSE x",))):
            with pytest.raises(InvalidInputError):
                store.import_image(tmp_path / "t", reference, changes=changes)
        (tmp_path / "t").write_bytes(tar(file="x" * 1000).getvalue()[:700])
        with pytest.raises(IntegrityError, match="import"):
            store.import_image(tmp_path / "t", "a")
        with pytest.raises(NotFoundError):
            store.import_image(tmp_path / "nowhere", "a")
        assert list(store.layers.list()) == []
        assert store.images.list() == []
        assert os.listdir(store.parts.places.ingest) == [
            n for n in os.listdir(store.parts.places.ingest) if n.startswith("lock-")
        ]


def test_the_library_prints_nothing(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(tar(file="x").getvalue())
    program = (
        "import sys; from layerfs import Store\n"
        "with Store.open(sys.argv[1], sys.argv[2]) as s: s.import_image(sys.argv[3], 'a'); s.save(['a'], sys.argv[4])"
    )
    arguments = [str(tmp_path / name) for name in ("store", "run", "t", "out.tar")]
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")
