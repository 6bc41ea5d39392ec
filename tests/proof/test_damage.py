"""Bits that flip, wherever they lie: found, named, repaired where that is possible, and nothing good is lost."""

import random
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import tracer
from counting import points
from world import World, said

from layerfs import Store
from layerfs.cli import main
from layerfs.containers import create_options
from layerfs.digest import Digest
from layerfs.errors import IntegrityError, LayerfsError, NotFoundError

pytestmark = pytest.mark.root
_TWO = "docker.io/library/two:1"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    if tracer.available():
        pytest.skip(tracer.available())
    world = World(tmp_path_factory.mktemp("damage") / "w")
    with world.open() as store:
        store.pull(f"{world.host}/pulled:1")
    world.keep()
    yield world
    world.close()


def flip(path: Path, at: int, bit: int) -> None:
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ (1 << bit)]))
    path.chmod(0o444)


@dataclass(frozen=True)
class Region:
    """Bytes of a file that mean the same kind of thing; ``quick``: the quick check must see all flips."""

    what: str
    path: Path
    start: int
    end: int
    quick: bool
    digest: Digest


def regions(store: Store) -> list[Region]:
    found = []
    for diff_id in store.layers.list():
        path = store.layers.path(diff_id)
        with store.layers.open(diff_id) as layer:
            header = layer.header
        for what, start, end, quick in (
            ("header", 0, 1024, True),
            ("superblock", 1024, 4096, True),
            ("content", 4096, header.meta_offset, False),
            ("metadata", header.meta_offset, header.image_size, True),
            ("rest", header.rest_offset, header.rest_offset + header.rest_length, True),
        ):
            if end > start:
                found.append(Region(f"{what} of a layer", path, start, end, quick, diff_id))
    for digest in store.content.digests():
        path = store.content.path(digest)
        found.append(Region("a blob", path, 0, path.stat().st_size, False, digest))
    return found


def tar_of(store: Store, diff_id: Digest) -> bytes:
    with store.layers.open_tar(diff_id) as reader:
        return b"".join(iter(lambda: reader.read(1 << 20), b""))


def flips(world: World, counts: Counter[str], number: int, seed: int) -> list[str]:
    chance, problems = random.Random(seed), []
    world.reset(world.template, link=False)
    with world.open() as store:
        places = regions(store)
        tars = {diff_id: tar_of(store, diff_id) for diff_id in store.layers.list()}
        needed = {name: store.images.get(name).diff_ids for name in ("two:1", f"{world.host}/pulled:1", "box:1")}
    for turn in points(range(number)):
        region = places[turn * len(places) // number]
        at, bit = chance.randrange(region.start, region.end), chance.randrange(8)
        world.reset(world.template, link=False)
        flip(region.path, at, bit)
        try:
            _one(world, region, counts, tars, needed)
        except Exception as exc:
            problems.append(f"{region.what} {region.digest}, byte {at}, bit {bit}: {said(exc)}")
    return problems


def _one(world: World, region: Region, counts: Counter[str], tars: dict[Digest, bytes], needed: dict) -> None:
    counts["flips of a bit in layers and blobs"] += 1
    with world.open() as store:
        quick = [finding for finding in store.check(quick=True) if str(region.digest) in finding.name]
        assert quick or not region.quick, "the quick check did not see it"
        full = quick or [finding for finding in store.check() if str(region.digest) in finding.name]
        if not full:
            assert region.digest in tars, "a blob is not what it was, and nobody saw it"
            assert tar_of(store, region.digest) == tars[region.digest], "the layer is another one, and nobody saw it"
            counts["flips in bytes that mean nothing"] += 1
            return
        counts["flips found"] += 1
        counts["flips found by the quick check"] += bool(quick)
        counts["flips of which the file is named"] += bool(full[0].paths)
        wanted = bool(store.database.images_with(region.digest))
        assert bool(full[0].images) == wanted, "the images are not named"
        if region.digest in tars:
            _refused(store, region.digest, needed)
        list(store.check(repair=True))
        left = list(store.check())
        local = region.digest in _imported(store)
        if not left:
            counts["flips repaired"] += 1
        else:
            assert local, f"not repaired: {left}"
            counts["flips put away, because there is no other copy"] += 1
        for diff_id, tar in tars.items():
            if diff_id != region.digest or not left:
                assert tar_of(store, diff_id) == tar, f"{diff_id} is not what it was"
        assert {name: str(target) for name, target in store.database.names()} == world.names


def _imported(store: Store) -> set[Digest]:
    """All that came from a tar or container of the user's, of which there is no second copy, here or elsewhere."""
    found: set[Digest] = set()
    for row in store.database.images():
        layers, blobs = store.database.image_parts(row.target.digest)
        if not store.database.repo_digests(row.target.digest):
            found |= {*layers, *blobs}
    for row in store.database.snapshots():
        found |= set(row.diff_ids)
    return found


def _refused(store: Store, diff_id: Digest, needed: dict[str, tuple[Digest, ...]]) -> None:
    """Nothing starts from a layer that is known to be bad."""
    for name, layers in needed.items():
        if diff_id in layers:
            with pytest.raises((NotFoundError, IntegrityError)):
                store.containers.create(create_options(name, ["true"], {}))


@pytest.mark.proof
def test_any_bit_of_layers_and_blobs(world: World, counts: Counter[str]) -> None:
    assert flips(world, counts, 1000, 1) == []


def test_a_sample_of_bits(world: World, counts: Counter[str]) -> None:
    assert flips(world, counts, 40, 2) == []


# ---- the database ----

_FACTS = (
    "SELECT key, value FROM store",
    "SELECT target, media_type, size, image_id FROM images",
    "SELECT name, target FROM names",
    "SELECT repository, digest, target FROM repo_digests",
    "SELECT target, diff_id FROM image_layers",
    "SELECT target, digest FROM image_blobs",
    "SELECT diff_id, size, disk, entries, data_bytes FROM layers",
    "SELECT id, name, target, image_id FROM containers",
    "SELECT key, kind, diff_ids FROM snapshots",
)


def facts(path: Path) -> list[set[tuple[object, ...]]] | None:
    with suppress(sqlite3.Error, UnicodeDecodeError), closing(sqlite3.connect(path)) as db:
        return [set(db.execute(sql)) for sql in _FACTS]
    return None


def database_flips(world: World, counts: Counter[str], number: int, seed: int) -> list[str]:
    chance, problems = random.Random(seed), []
    path = world.place / "root" / "layerfs.db"
    world.reset(world.template, link=False)
    before = facts(path)
    assert before is not None
    for _ in points(range(number)):
        at, bit = chance.randrange(path.stat().st_size), chance.randrange(8)
        world.reset(world.template, link=False)
        flip(path, at, bit)
        path.chmod(0o644)
        counts["flips of a bit in the database"] += 1
        try:
            _one_database(world, path, before, counts)
        except Exception as exc:
            problems.append(f"byte {at}, bit {bit}: {said(exc)}")
    return problems


def _one_database(world: World, path: Path, before: list[set[tuple[object, ...]]], counts: Counter[str]) -> None:
    shutil.copyfile(path, world.base / "look.db")
    differs = facts(world.base / "look.db") != before
    found: list[object] = []
    try:
        with world.open() as store:
            found = list(store.check())
    except LayerfsError as exc:
        found = [exc]
    assert found or not differs, f"nobody saw it: {_first_difference(world.base / 'look.db', before)}"
    if not found:
        counts["flips in bytes that mean nothing"] += 1
        return
    counts["flips found"] += 1
    try:
        world.open().close()
    except LayerfsError:
        Store.rebuild_database(world.place / "root", world.place / "run")
    with world.open() as store:
        list(store.check(repair=True))
        assert list(store.check()) == []
        images = {str(image.id) for image in store.images.list()}
        assert images >= {str(row[3]) for row in before[1]}, "an image is lost"
        assert {each.name for each in store.containers.list()} >= world.containers, "a container is lost"
        lost = set(world.names) - {name for name, _ in store.database.names()}
        assert len(lost) <= 1, f"more than the name that was hit is lost: {lost}"
        counts["names lost with the row that had them"] += len(lost)
    counts["flips repaired"] += 1


def _first_difference(path: Path, before: list[set[tuple[object, ...]]]) -> object:
    now = facts(path)
    return [sorted(a ^ b, key=str)[:2] for a, b in zip(now or [], before, strict=False) if a != b]


@pytest.mark.proof
def test_any_bit_of_the_database(world: World, counts: Counter[str]) -> None:
    assert database_flips(world, counts, 600, 3) == []


def test_a_sample_of_the_database(world: World, counts: Counter[str]) -> None:
    assert database_flips(world, counts, 25, 4) == []


def test_a_database_that_is_gone_in_the_middle(world: World, counts: Counter[str]) -> None:
    """Whole pages of noise: layers, images and containers come back from what lies on disk."""
    path = world.place / "root" / "layerfs.db"
    for seed in range(3):
        world.reset(world.template, link=False)
        with path.open("r+b") as file:
            chance = random.Random(seed)
            for page in range(1, path.stat().st_size // 4096):
                if chance.random() < 0.5:
                    file.seek(page * 4096)
                    file.write(chance.randbytes(4096))
        with suppress(LayerfsError):
            world.open().close()
        Store.rebuild_database(world.place / "root", world.place / "run")
        with world.open() as store:
            assert list(store.check()) == []
            assert len(store.images.list()) >= 4
            assert len(store.containers.list()) == 1
        assert (path.parent / "layerfs.db.damaged").exists()
        counts["databases made anew from what lies on disk"] += 1


@pytest.mark.parametrize("lost", [("snapshots",), ("containers",), ("snapshots", "containers")], ids="+".join)
def test_a_container_without_its_files(world: World, lost: tuple[str, ...]) -> None:
    """A removal that a power cut has undone in the database alone: told, and mended without making that anew."""
    world.reset(world.template, link=False)
    with world.open() as store:
        (row,) = store.database.containers()
        for place in lost:
            shutil.rmtree(world.place / "root" / place / row.id)
        assert [(finding.kind, finding.name) for finding in store.check()] == [("container", row.id)]
        assert [finding.repaired for finding in store.check(repair=True)] == [True]
        assert not store.database.containers()
        assert list(store.check()) == []
    assert not (world.place / "root" / "layerfs.db.damaged").exists()


@pytest.mark.parametrize("stale", [1, 2, 3])
def test_a_container_that_is_removed_while_it_is_checked(
    world: World, stale: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that were read a moment before say nothing; above all, no database is made anew for that."""
    world.reset(world.template, link=False)
    with world.open() as store:
        rows = store.database.containers()
        assert main(["rm", "done"]) == 0
        (world.place / "root" / "containers" / "ab12").mkdir()  # of one that is being made
        real, asked = type(store.database).containers, []

        def containers(database: object) -> object:
            asked.append(1)
            return rows if len(asked) == stale else real(store.database)

        monkeypatch.setattr(type(store.database), "containers", containers)
        assert list(store.check(repair=True)) == []
        assert len(asked) >= stale
    assert not (world.place / "root" / "layerfs.db.damaged").exists()


def test_an_image_that_is_removed_while_it_is_checked(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its row was read before, and is no reason to bring it again."""
    world.reset(world.template, link=False)
    with world.open() as store:
        rows = store.database.images()
        store.remove_image("two:1")
        store.remove_image(f"{world.host}/pulled:1")
        monkeypatch.setattr(type(store.database), "images", lambda database: rows)
        assert list(store.check(repair=True)) == []
        assert [name for name, _ in store.database.names()] == sorted(
            set(world.names) - {_TWO, f"{world.host}/pulled:1"}
        )


def test_layers_that_are_swept_while_they_are_checked(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.reset(world.template, link=False)
    with world.open() as store:
        going = store.images.get("two:1").diff_ids
        store.remove_image("two:1", prune=False)
        real = type(store.layers).verify

        def verify(layers: object, diff_id: Digest, quick: bool = False) -> None:
            real(store.layers, diff_id, quick)
            if diff_id in going:
                store.sweep()

        monkeypatch.setattr(type(store.layers), "verify", verify)
        assert list(store.check(quick=True)) == []
