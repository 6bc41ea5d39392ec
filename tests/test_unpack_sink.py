"""From blobs to layers in one pass, and back: the sink of the store, its source, root file systems."""

import gzip
import os
import socket
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing
from io import BytesIO, StringIO
from pathlib import Path

import pytest
import tarbuild
from suites.blob_suite import NAME, BlobSuite, Memory, Place, Slow, layer_tar, make_image, make_index, noise, on

from layerfs.archives import create_archive, open_archive
from layerfs.blobs import BlobReader, read_all
from layerfs.digest import Digest
from layerfs.errors import IntegrityError, InvalidInputError, LayerfsError, NativeError, NotFoundError
from layerfs.leases import Lease
from layerfs.oci import MEDIA_LAYER_GZIP, MEDIA_MANIFEST, Descriptor, Manifest, encode, parse_manifest
from layerfs.store import Store
from layerfs.transfer import copy
from layerfs.unpack import StoreSource, UnpackingSink, import_rootfs


@pytest.fixture(params=["erofs", "dir"])
def store(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Store]:
    with Store.open(tmp_path / "store", tmp_path / "run", layer_format=request.param) as store:
        yield store


@pytest.fixture
def lease(store: Store) -> Iterator[Lease]:
    with Lease(store.database, store.parts.ingest) as lease:
        yield lease


@pytest.fixture
def make_sink(store: Store, lease: Lease) -> Callable[..., UnpackingSink]:
    def make(**options: object) -> UnpackingSink:
        return UnpackingSink(
            store.content,
            store.layers,
            store.images,
            store.database,
            lease,
            **options,  # type: ignore[arg-type]
        )

    return make


class _Open:
    def __init__(self, source: StoreSource) -> None:
        self._source = source

    def __enter__(self) -> StoreSource:
        return self._source

    def __exit__(self, *_: object) -> None:
        pass


class TestUnpackingSink(BlobSuite):
    names = False

    @pytest.fixture
    def place(self, store: Store, make_sink: Callable[..., UnpackingSink]) -> Place:
        return Place(make_sink(), lambda: _Open(StoreSource(store.content, store.layers)))


def stored(store: Store) -> set[Digest]:
    return set(store.content.digests())


def left(store: Store) -> list[str]:
    """What is still being written."""
    return [name for name in os.listdir(store.parts.ingest.root) if not name.startswith(("lock-", "lease-"))]


def manifest_of(memory: Memory, target: Descriptor) -> Manifest:
    manifest = parse_manifest(memory.blobs[target.digest])
    assert isinstance(manifest, Manifest)
    return manifest


def tar_of(store: Store, diff_id: Digest) -> bytes:
    with store.layers.open_tar(diff_id) as reader:
        return b"".join(iter(lambda: reader.read(1 << 20), b""))


BASE, TOP = layer_tar("base", size=200_000), layer_tar("top")
Make = Callable[..., UnpackingSink]


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
@pytest.mark.parametrize("keep", [True, False])
def test_layers_blobs_and_rows(store: Store, make_sink: Make, compression: str, keep: bool) -> None:
    memory = Memory()
    target = make_image(memory, BASE, TOP, compression=compression)
    copy(memory, make_sink(keep_blobs=keep), target, name=NAME)
    manifest = manifest_of(memory, target)
    kept = {layer.digest for layer in manifest.layers} if keep and compression != "none" else set()
    assert stored(store) == {target.digest, manifest.config.digest} | kept
    for tar in (BASE, TOP):
        assert tar_of(store, Digest.of(tar)) == tar
        row = store.database.layer(Digest.of(tar))
        assert row is not None
        assert row.size == len(tar)
    image = store.images.get(NAME)
    assert image.id == manifest.config.digest
    assert list(image.diff_ids) == [Digest.of(BASE), Digest.of(TOP)]
    if compression != "none":
        assert store.database.layer_of_blob(manifest.layers[0].digest) == Digest.of(BASE)
    assert left(store) == []


def test_a_layer_that_is_here_is_not_fetched_in_any_form(make_sink: Make) -> None:
    memory = Memory()
    copy(memory, make_sink(), make_image(memory, BASE, compression="gzip"))
    other = Memory()
    target = make_image(other, BASE, TOP, compression="zstd")
    copy(other, make_sink(), target)
    layers = manifest_of(other, target).layers
    assert layers[0].digest not in other.opened
    assert layers[1].digest in other.opened


def test_an_image_that_is_here_is_not_read_again(make_sink: Make) -> None:
    memory = Memory()
    target = make_index(memory, on(make_image(memory, BASE), "linux/amd64"))
    copy(memory, make_sink(), target)
    memory.opened.clear()
    copy(memory, make_sink(), target)
    assert memory.opened == []


def test_a_blob_that_is_here_is_unpacked_again_without_the_source(store: Store, make_sink: Make) -> None:
    memory = Memory()
    target = make_image(memory, BASE, compression="gzip")
    copy(memory, make_sink(), target)
    store.layers.delete(Digest.of(BASE))
    memory.opened.clear()
    copy(memory, make_sink(), target)
    assert manifest_of(memory, target).layers[0].digest not in memory.opened
    assert tar_of(store, Digest.of(BASE)) == BASE


def test_a_layer_without_a_row_gets_it(store: Store, make_sink: Make) -> None:
    """A crash between the two leaves it so."""
    memory = Memory()
    target = make_image(memory, BASE)
    copy(memory, make_sink(), target)
    with closing(sqlite3.connect(store.root / "layerfs.db", isolation_level=None)) as database:
        database.execute("DELETE FROM layers WHERE diff_id = ?", (str(Digest.of(BASE)),))
    copy(memory, make_sink(), target)
    assert store.database.layer(Digest.of(BASE)) is not None


def with_layer(memory: Memory, tar: bytes, data: bytes, media_type: str = MEDIA_LAYER_GZIP) -> Descriptor:
    """An image of ``tar`` whose layer blob is ``data``."""
    plain = manifest_of(memory, make_image(memory, tar))
    layer = memory.add(data, media_type)
    return memory.add(encode(Manifest(media_type=MEDIA_MANIFEST, config=plain.config, layers=(layer,))), MEDIA_MANIFEST)


BAD: dict[str, tuple[bytes, str]] = {
    "another diff ID": (gzip.compress(TOP), "diff ID"),
    "cut short": (gzip.compress(BASE)[:-9], "cut short"),
    "cut in the middle": (gzip.compress(BASE)[:5000], "cut short"),
    "something behind": (gzip.compress(BASE) + b"\0\0junk", ""),
    "another member behind": (gzip.compress(BASE) + gzip.compress(b"x" * 600), "diff ID"),
    "no gzip at all": (b"\x1f\x8b" + noise(3000), ""),
    "no tar": (gzip.compress(noise(3000)), ""),
    "empty": (b"", ""),
}


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("case", BAD)
def test_wrong_layers_are_refused(store: Store, make_sink: Make, case: str, keep: bool) -> None:
    data, words = BAD[case]
    memory = Memory()
    target = with_layer(memory, BASE, data)
    for _ in range(2):  # nothing of the first try stands in the way of the second
        with pytest.raises(IntegrityError, match=words or None):
            copy(memory, make_sink(keep_blobs=keep), target, name=NAME)
        assert not store.layers.has(Digest.of(BASE))
        assert not store.layers.has(Digest.of(TOP))
        assert target.digest not in stored(store)
        with pytest.raises(NotFoundError):
            store.images.get(NAME)
    assert left(store) == []
    copy(memory, make_sink(keep_blobs=keep), make_image(memory, BASE, compression="gzip"), name=NAME)
    assert tar_of(store, Digest.of(BASE)) == BASE


def test_a_mislabelled_compression_is_looked_through(store: Store, make_sink: Make) -> None:
    memory = Memory()
    copy(memory, make_sink(), with_layer(memory, BASE, BASE, MEDIA_LAYER_GZIP))
    assert tar_of(store, Digest.of(BASE)) == BASE


@pytest.mark.parametrize("count", [0, 1, 3])
def test_another_number_of_diff_ids(store: Store, make_sink: Make, count: int) -> None:
    memory = Memory()
    config = manifest_of(memory, make_image(memory, *[BASE] * count)).config
    layers = manifest_of(memory, make_image(memory, BASE, TOP)).layers
    manifest = Manifest(media_type=MEDIA_MANIFEST, config=config, layers=layers)
    with pytest.raises(IntegrityError, match=f"2 layers, the configuration {count}"):
        copy(memory, make_sink(), memory.add(encode(manifest), MEDIA_MANIFEST), name=NAME)
    assert not list(store.layers.list())


def test_encrypted_layers_are_not_supported(make_sink: Make) -> None:
    memory = Memory()
    with pytest.raises(InvalidInputError, match="not supported"):
        copy(memory, make_sink(), with_layer(memory, BASE, BASE, MEDIA_LAYER_GZIP + "+encrypted"))


def test_attestations_and_artifacts_are_blobs(store: Store, make_sink: Make) -> None:
    memory = Memory()
    statement = memory.add(b'{"_type": "statement"}', "application/vnd.in-toto+json")
    config = manifest_of(memory, make_image(memory, b"")).config
    attestation = memory.add(
        encode(Manifest(media_type=MEDIA_MANIFEST, config=config, layers=(statement,))), MEDIA_MANIFEST
    )
    image = make_image(memory, BASE)
    index = make_index(memory, on(image, "linux/amd64"), on(attestation, "unknown/unknown"))
    copy(memory, make_sink(), index, name=NAME)
    assert statement.digest in stored(store)
    assert list(store.layers.list()) == [Digest.of(BASE)]
    assert store.images.get(NAME).manifest_descriptor.digest == image.digest


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_bombs_stop_at_the_limit(store: Store, make_sink: Make, compression: str) -> None:
    memory = Memory()
    bomb = tarbuild.archive(tarbuild.file("zeros", bytes(30 << 20)))
    trailing = layer_tar("a") + bytes(30 << 20)
    for tar in (bomb, trailing):
        target = make_image(memory, tar, compression=compression)
        with pytest.raises(LayerfsError) as caught:
            copy(memory, make_sink(max_bytes=10 << 20), target)
        assert isinstance(caught.value, IntegrityError | InvalidInputError)
    many = tarbuild.archive(*(tarbuild.file(f"f{number}") for number in range(200)))
    with pytest.raises(LayerfsError):
        copy(memory, make_sink(max_entries=100), make_image(memory, many, compression=compression))
    with pytest.raises(IntegrityError, match="bytes of names"):
        copy(memory, make_sink(max_metadata=500), make_image(memory, many, compression=compression))
    assert not list(store.layers.list())


def test_layers_that_came_are_kept_when_another_fails(store: Store, make_sink: Make) -> None:
    memory = Memory()
    target = make_image(memory, BASE, TOP, compression="gzip")
    lost = memory.blobs.pop(manifest_of(memory, target).layers[1].digest)
    with pytest.raises(NotFoundError):
        copy(memory, make_sink(), target, name=NAME, jobs=1)
    assert store.layers.has(Digest.of(BASE))
    memory.blobs[Digest.of(lost)] = lost
    memory.opened.clear()
    copy(memory, make_sink(), target, name=NAME)
    assert manifest_of(memory, target).layers[0].digest not in memory.opened


def test_two_copies_at_once_do_the_work_once(store: Store) -> None:
    memory = Memory()
    big = layer_tar("big", size=2_000_000)
    target = make_image(memory, big, compression="gzip")
    blob = manifest_of(memory, target).layers[0].digest

    class Source(Memory):
        def open(self, descriptor: Descriptor) -> AbstractContextManager[BlobReader]:
            self.opened.append(descriptor.digest)
            return _Reader(Slow(self.blobs[descriptor.digest], step=20_000))

    source = Source(memory.blobs.values())
    failures: list[BaseException] = []

    def bring() -> None:
        try:
            with Lease(store.database, store.parts.ingest) as lease:
                sink = UnpackingSink(store.content, store.layers, store.images, store.database, lease)
                copy(source, sink, target, name=NAME)
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=bring) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert source.opened.count(blob) == 1
    assert tar_of(store, Digest.of(big)) == big


class _Reader:
    def __init__(self, reader: BlobReader) -> None:
        self._reader = reader

    def __enter__(self) -> BlobReader:
        return self._reader

    def __exit__(self, *_: object) -> None:
        pass


# ---- the way back ----


def test_export_keeps_what_is_here_and_makes_plain_what_is_not(store: Store, make_sink: Make) -> None:
    memory = Memory()
    target = make_image(memory, BASE, TOP, compression="gzip")
    copy(memory, make_sink(), target, name=NAME)
    source = StoreSource(store.content, store.layers)
    assert source.exportable(target) == target
    plain = source.exportable(target, plain=True)
    manifest = parse_manifest(read_all(source, plain, 1 << 20))
    assert isinstance(manifest, Manifest)
    assert [layer.digest for layer in manifest.layers] == [Digest.of(BASE), Digest.of(TOP)]
    assert manifest.config.digest == manifest_of(memory, target).config.digest
    again = Memory()
    copy(source, again, plain)
    assert again.blobs[Digest.of(BASE)] == BASE
    store.content.delete(manifest_of(memory, target).layers[0].digest)
    assert source.exportable(target) == plain


def test_a_damaged_layer_is_noticed_on_the_way_out(store: Store, make_sink: Make, tmp_path: Path) -> None:
    memory = Memory()
    copy(memory, make_sink(), make_image(memory, BASE), name=NAME)
    path = store.layers.path(Digest.of(BASE))
    files = [path] if path.is_file() else [p for p in path.rglob("base") if p.is_file()]
    data = bytearray(files[0].read_bytes())
    at = data.index(BASE[2000:2100])
    data[at] ^= 1
    files[0].chmod(0o600)
    files[0].write_bytes(data)
    with pytest.raises(IntegrityError), create_archive(tmp_path / "out") as sink:
        copy(StoreSource(store.content, store.layers), sink, store.images.get(NAME).manifest_descriptor)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("format", ["docker-archive", "oci-archive", "oci-dir"])
def test_saved_and_loaded_it_is_the_same_image(store: Store, tmp_path: Path, format: str) -> None:
    memory = Memory()
    with Lease(store.database, store.parts.ingest) as lease:
        sink = UnpackingSink(store.content, store.layers, store.images, store.database, lease)
        copy(memory, sink, make_image(memory, BASE, TOP, compression="gzip"), name=NAME)
    before = store.images.get(NAME)
    store.save([NAME], tmp_path / "out", format=format)
    with Store.open(tmp_path / "second", tmp_path / "run2", layer_format="dir") as second:
        (loaded,) = second.load(tmp_path / "out")
        assert loaded.image.id == before.id
        assert loaded.image.diff_ids == before.diff_ids
        assert loaded.image.names == before.names
        if format != "docker-archive":
            assert loaded.image.target.digest == before.target.digest
        assert not [d for d in before.diff_ids if second.content.has(d)]  # plain tars are not kept twice


# ---- root file systems ----


@pytest.mark.parametrize("command", ["cat", "gzip -c", "bzip2 -c", "xz -1c", "zstd -qc"])
def test_import_of_a_tar_in_any_compression(store: Store, tmp_path: Path, command: str) -> None:
    path = tmp_path / "root.tar"
    path.write_bytes(BASE)
    try:
        data = subprocess.run([*command.split(), path], check=True, stdout=subprocess.PIPE).stdout
    except FileNotFoundError:
        pytest.skip(f"no {command.split()[0]} here")
    (tmp_path / "packed").write_bytes(data)
    assert import_rootfs(store.layers, tmp_path / "packed").diff_id == Digest.of(BASE)
    with open(tmp_path / "packed", "rb") as file:
        assert import_rootfs(store.layers, file).diff_id == Digest.of(BASE)
    with subprocess.Popen(["cat", tmp_path / "packed"], stdout=subprocess.PIPE) as process, ExitStack() as stack:
        assert process.stdout is not None
        stack.callback(process.wait)
        assert import_rootfs(store.layers, process.stdout).diff_id == Digest.of(BASE)  # type: ignore[arg-type]


def test_import_of_a_directory(store: Store, tmp_path: Path) -> None:
    root = tmp_path / "tree"
    (root / "etc").mkdir(parents=True)
    (root / "etc" / "name").write_text("content")
    (root / "link").symlink_to("etc/name")
    first = import_rootfs(store.layers, root)
    assert import_rootfs(store.layers, root) == first
    with store.layers.view([first.diff_id]) as view:
        assert b"".join(view.read(b"/etc/name")) == b"content"
        assert view.readlink(b"/link") == b"etc/name"
    clamped = import_rootfs(store.layers, root, clamp_mtime=1000)
    with store.layers.view([clamped.diff_id]) as view:
        assert view.stat(b"/etc/name").mtime_ns == 1000 * 10**9


def test_import_refuses(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "x"
    for data in (gzip.compress(BASE)[:-10], BASE[:5000]):
        path.write_bytes(data)
        with pytest.raises(IntegrityError, match=str(path)):
            import_rootfs(store.layers, path)
    path.write_bytes(BASE)
    with pytest.raises(LayerfsError):
        import_rootfs(store.layers, path, max_bytes=1000)
    with pytest.raises(NotFoundError):
        import_rootfs(store.layers, tmp_path / "none")
    assert not list(store.layers.list())
    assert left(store) == []


class Sluggish(BytesIO):
    """Gives as little as a network does, and perhaps breaks."""

    def __init__(self, data: bytes, breaks: int = 1 << 30) -> None:
        super().__init__(data)
        self.breaks = breaks

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() > self.breaks:
            raise ConnectionResetError(104, "Connection reset by peer")
        return super().read(min(size or 1, 700))


def test_import_of_any_stream(store: Store, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(BASE)
    wanted = import_rootfs(store.layers, tmp_path / "x").diff_id
    store.layers.delete(wanted)
    ours, theirs = socket.socketpair()

    def answer_and_end() -> None:
        with theirs:
            theirs.sendall(BASE)

    feed = threading.Thread(target=answer_and_end)
    feed.start()
    with ours, ours.makefile("rb") as answer:  # whose descriptor gives what its buffer does not have yet
        for stream in (BytesIO(BASE), BytesIO(gzip.compress(BASE)), Sluggish(BASE), answer):
            assert import_rootfs(store.layers, stream).diff_id == wanted
            store.layers.delete(wanted)
    feed.join()
    with pytest.raises(NativeError, match="read archive input: Connection reset by peer"):
        import_rootfs(store.layers, Sluggish(BASE, breaks=2000))
    closed = BytesIO(BASE)
    closed.close()
    for wrong in (object(), StringIO("text"), closed):
        with pytest.raises(InvalidInputError, match="read archive input"):
            import_rootfs(store.layers, wrong)  # type: ignore[arg-type]
    assert not list(store.layers.list())
    assert left(store) == []


def test_a_docker_archive_is_loaded_without_blobs(store: Store, make_sink: Make, tmp_path: Path) -> None:
    memory = Memory()
    target = make_image(memory, BASE, TOP)
    with create_archive(tmp_path / "a") as sink:
        copy(memory, sink, target, name=NAME)
    with open_archive(tmp_path / "a", tmp_path) as source:
        copy(source, make_sink(), source.resolve(NAME), name=NAME)
    assert stored(store) == {target.digest, manifest_of(memory, target).config.digest}


def test_an_index_that_names_the_same_often_is_looked_at_once(store: Store, make_sink: Make) -> None:
    """Each level names the one below 2,000 times: without memory of what was seen, 10^13 documents are read."""
    memory = Memory()
    index = make_image(memory, layer_tar("a"))
    for _ in range(4):
        index = make_index(memory, *[index] * 2000)
    sink = make_sink()
    assert copy(memory, sink, index, name=NAME) == index
    assert sink.has(index)
    assert store.images.get(NAME).target == index
