import io
import json
import sqlite3
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from layerfs.digest import Digest
from layerfs.errors import IntegrityError, InUseError, InvalidInputError, LayerfsError, NotFoundError
from layerfs.oci import MEDIA_INDEX, MEDIA_MANIFEST, Descriptor, Index, Platform, descriptor_of, encode
from layerfs.store import Store


@pytest.fixture(params=["erofs", "dir"])
def store(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Store]:
    with Store.open(tmp_path / "store", tmp_path / "run", layer_format=request.param) as store:
        yield store


def tar(**files: str) -> io.BytesIO:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content.encode()))
    out.seek(0)
    return out


def make(store: Store, path: Path, name: str | None, content: str = "x", platform: str | None = None) -> Digest:
    path.write_bytes(tar(file=content).getvalue())
    return store.import_image(path, name, platform=Platform.parse(platform) if platform else None).id


def test_every_way_to_mean_an_image(store: Store, tmp_path: Path) -> None:
    image_id = make(store, tmp_path / "t", "app:1")
    image = store.images.get("app:1")
    for text in (
        "app:1",
        "docker.io/library/app:1",
        image_id,
        image_id[7:],
        image_id[7:19],
        image_id[:9],
        image.target.digest,
    ):
        assert store.images.get(text).id == image_id
    for text in ("app", "app:2", "f" * 64, "00"):
        if not image_id.startswith(f"sha256:{text}"):
            with pytest.raises(NotFoundError, match="not in the store"):
                store.images.get(text)
    with pytest.raises(InvalidInputError):
        store.images.get("UPPER CASE")


def test_tag_and_remove_by_name(store: Store, tmp_path: Path) -> None:
    image_id = make(store, tmp_path / "t", "app:1")
    assert store.images.tag("app:1", "other/name") == "docker.io/other/name:latest"
    assert [r.kind for r in store.remove_image("app:1")] == ["untagged"]
    assert store.layers.has(store.images.get("other/name").diff_ids[0])
    removed = store.remove_image("other/name")
    assert [(r.kind, r.what) for r in removed[:2]] == [("untagged", "other/name:latest"), ("deleted", image_id)]
    assert list(store.layers.list()) == []
    assert list(store.content.digests()) == []
    with pytest.raises(InvalidInputError, match="digest"):
        store.images.tag(image_id, "x@" + image_id)


def test_an_id_with_several_names_needs_force(store: Store, tmp_path: Path) -> None:
    image_id = make(store, tmp_path / "t", "app:1")
    store.images.tag("app:1", "app:2")
    with pytest.raises(InUseError, match="app:1, app:2"):
        store.remove_image(image_id)
    store.remove_image(image_id, force=True)
    assert store.images.list() == []


def test_a_moved_name_leaves_a_dangling_image(store: Store, tmp_path: Path) -> None:
    first = make(store, tmp_path / "t", "app:1", "one")
    second = make(store, tmp_path / "t", "app:1", "two")
    assert store.images.get("app:1").id == second
    assert store.images.get(first).names == ()
    pruned = store.prune_images(dry_run=True)
    assert [r.what for r in pruned.images] == [first]
    assert store.images.get(first).names == ()
    store.prune_images()
    assert [image.id for image in store.images.list()] == [second]
    store.prune_images(all_unused=True)
    assert store.images.list() == []


def test_containers_keep_their_image(store: Store, tmp_path: Path) -> None:
    image_id = make(store, tmp_path / "t", "app:1")
    store.database.add_container("c" * 64, "box", None, image_id, {"status": "running"})
    with pytest.raises(InUseError, match="running container cccccccccccc"):
        store.remove_image("app:1", force=True)
    store.database.set_container_state("c" * 64, {"status": "exited"})
    with pytest.raises(InUseError, match="used by container"):
        store.remove_image("app:1")
    assert store.prune_images(all_unused=True).images == ()
    assert next(r.kind for r in store.remove_image("app:1", force=True)) == "untagged"


def test_an_index_is_one_image_for_several_platforms(store: Store, tmp_path: Path) -> None:
    host = make(store, tmp_path / "t", None, "host")
    other = make(store, tmp_path / "t", None, "other", "linux/s390x")
    manifests = tuple(
        Descriptor(media_type=MEDIA_MANIFEST, digest=d.digest, size=d.size, platform=store.images.get(i).platform)
        for i, d in ((i, store.images.get(i).manifest_descriptor) for i in (other, host))
    )
    missing = descriptor_of(b"not here", MEDIA_MANIFEST)
    data = encode(Index(media_type=MEDIA_INDEX, manifests=(*manifests, missing)))
    store.content.write(data)
    store.images.add(descriptor_of(data, MEDIA_INDEX), "docker.io/library/multi:1")
    assert store.images.get("multi:1").id == host
    assert store.images.get("multi:1", Platform.parse("linux/s390x")).id == other
    with pytest.raises(NotFoundError, match="linux/riscv64"):
        store.images.get("multi:1", Platform.parse("linux/riscv64"))
    store.remove_image(host, force=True)
    assert store.images.get(other).id == other


def test_an_index_that_contains_an_index_without_end_is_refused(store: Store) -> None:
    data, media_type = b"", MEDIA_MANIFEST
    descriptor = descriptor_of(b"missing", media_type)
    for _ in range(20):
        data = encode(Index(media_type=MEDIA_INDEX, manifests=(descriptor,)))
        store.content.write(data)
        descriptor = descriptor_of(data, MEDIA_INDEX)
    with pytest.raises(IntegrityError, match="indexes in one another"):
        store.images.add(descriptor, "docker.io/library/deep:1")


def test_created_reads_nanoseconds(store: Store, tmp_path: Path) -> None:
    make(store, tmp_path / "t", "app:1")
    image = store.images.get("app:1")
    document = image.config_bytes.replace(
        b'"created":"' + (image.config.created or "").encode() + b'"', b'"created":"2024-05-01T10:00:00.123456789Z"', 1
    )
    import json

    again = store.images.create(json.loads(document), image.manifest.layers)
    assert again.created == pytest.approx(1714557600.123456)


def test_an_image_that_goes_while_all_are_listed_is_left_out(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("app:1", "app:2"):
        make(store, tmp_path / "t", name, content=name)
    rows = store.database.images()
    store.remove_image("app:1")
    monkeypatch.setattr(store.database, "images", lambda: rows)
    assert [image.familiar_names for image in store.images.list()] == [("app:2",)]
    store.content.delete(store.images.get("app:2").id)
    damaged: list[LayerfsError] = []
    assert store.images.list(damaged) == []
    assert [str(error)[:18] for error in damaged] == ["image app:2: blob "]
    assert store.images.list() == []


def test_a_sweep_while_an_image_is_made_takes_none_of_it(store: Store, tmp_path: Path) -> None:
    """Its two blobs are written before it is recorded, and no lease names them."""
    image = store.images.get(make(store, tmp_path / "t", "app:1"))
    real, sweeper = store.images.add, threading.Thread(target=store.sweep)

    def add(target: Descriptor, name: str | None = None) -> None:
        sweeper.start()
        sweeper.join(0.5)
        real(target, name)

    store.images.add = add  # type: ignore[method-assign]
    document = json.loads(image.config_bytes) | {"author": "someone else"}
    made = store.images.create(document, image.manifest.layers, "docker.io/library/app:2")
    sweeper.join()
    assert store.images.get("app:2").id == made.id


def test_a_list_says_of_each_image_what_the_image_says(store: Store, tmp_path: Path) -> None:
    """One for this machine, one that an index leads to, one of which a layer has no record."""
    for number, name in enumerate(("app:1", "team/app:2", "bare:1")):
        make(store, tmp_path / "t", name, str(number))
    store.images.tag("app:1", "again:1")
    app, team, bare = (store.images.get(name) for name in ("app:1", "team/app:2", "bare:1"))
    store.database.add_repo_digest("docker.io/library/app", app.target.digest, app.target.digest)
    data = encode(Index(media_type=MEDIA_INDEX, manifests=(team.manifest_descriptor,)))
    store.content.write(data)
    store.images.add(descriptor_of(data, MEDIA_INDEX), "docker.io/library/multi:1")
    with closing(sqlite3.connect(store.database.path, isolation_level=None)) as raw:
        raw.execute("DELETE FROM layers WHERE diff_id = ?", (bare.diff_ids[0],))
    listed = {image.target.digest: image for image in store.images.list()}
    assert len(listed) == 4
    for text in ("app:1", "team/app:2", "bare:1", "multi:1"):
        image = store.images.get(text)
        fields = ("id", "names", "repo_digests", "added", "size", "created", "diff_ids", "platform", "config")
        for field in fields:
            assert getattr(listed[image.target.digest], field) == getattr(image, field), (text, field)


def test_a_list_asks_the_database_the_same_number_of_times_however_many_images(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    statements: list[str] = []
    monkeypatch.setattr(store.database, "_rows", _counted(store.database._rows, statements))
    counts = []
    for number in range(5):
        make(store, tmp_path / "t", f"app:{number}", str(number))
        statements.clear()
        assert len(store.images.list()) == number + 1
        counts.append(len(statements))
    assert len(set(counts)) == 1, counts


def _counted(real: Callable[..., Any], statements: list[str]) -> Callable[..., Any]:
    def rows(sql: str, *values: Any) -> Any:
        statements.append(sql)
        return real(sql, *values)

    return rows


def test_an_image_that_comes_while_all_are_listed_has_its_name(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prune would take it for one without a name."""
    real = store.database.images

    def images() -> Any:
        make(store, tmp_path / "t", "late:1")
        return real()

    monkeypatch.setattr(store.database, "images", images)
    assert [image.familiar_names for image in store.images.list()] == [("late:1",)]


def test_prune_of_an_index_without_a_name_leaves_the_image_that_has_one(store: Store, tmp_path: Path) -> None:
    make(store, tmp_path / "t", "app:1")
    descriptor = store.images.get("app:1").manifest_descriptor
    index = store.images.set_index("docker.io/library/multi:1", [descriptor])
    store.images.untag("multi:1")
    assert [removal.what for removal in store.prune_images().images] == [index.digest]
    assert store.images.get("app:1").manifest_descriptor == descriptor


def test_prune_leaves_what_got_a_name_meanwhile(store: Store, tmp_path: Path) -> None:
    image = make(store, tmp_path / "t", None)
    pruned = store.prune_images(keep=lambda each: store.images.tag(each.id, "late:1") == "")
    assert pruned.images == ()
    assert store.images.get("late:1").id == image
