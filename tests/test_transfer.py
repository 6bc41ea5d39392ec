"""The copy: order, concurrency, what stops it, what it refuses; and every source into every sink."""

import base64
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import msgspec
import pytest
from suites.blob_suite import NAME, BlobSuite, Memory, Place, Slow, layer_tar, make_image, make_index, noise, on

from layerfs.archives import create_archive, open_archive
from layerfs.blobs import BlobReader, BlobSink, BlobSource
from layerfs.content import ContentStore
from layerfs.digest import Digest
from layerfs.errors import IntegrityError, LayerfsError, NotFoundError
from layerfs.oci import (
    EMPTY_DESCRIPTOR,
    MEDIA_INDEX,
    MEDIA_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    Platform,
    descriptor_of,
    encode,
    parse_manifest,
)
from layerfs.transfer import DEPTH_LIMIT, copy


def content_store(root: Path) -> ContentStore:
    for name in ("blobs/sha256", "blobs/sha512", "ingest"):
        (root / name).mkdir(parents=True)
    return ContentStore(root / "blobs", root / "ingest")


class _OpenStore:
    """A content store as a context manager, as ``Place`` wants it."""

    def __init__(self, store: ContentStore) -> None:
        self._store = store

    def __enter__(self) -> ContentStore:
        return self._store

    def __exit__(self, *_: object) -> None:
        pass


class TestContentStore(BlobSuite):
    names = False

    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        store = content_store(tmp_path)
        return Place(store, lambda: _OpenStore(store))


# ---- every source into every sink ----

Written = Callable[[Memory, Descriptor, Path], AbstractContextManager[BlobSource]]
FORMATS = ("memory", "content", "oci-dir", "oci-archive", "docker-archive")


@contextmanager
def sink_of(form: str, path: Path) -> Iterator[BlobSink]:
    if form == "memory":
        yield Memory()
    elif form == "content":
        yield content_store(path)
    else:
        with create_archive(path, form) as sink:
            yield sink


@contextmanager
def source_of(form: str, memory: Memory, target: Descriptor, path: Path) -> Iterator[BlobSource]:
    with sink_of(form, path) as sink:
        copy(memory, sink, target, name=NAME)
    if form in ("memory", "content"):
        yield sink  # type: ignore[misc]
    else:
        with open_archive(path, path.parent) as source:
            assert source.resolve(NAME).digest == target.digest
            yield source


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("form", FORMATS)
def test_every_source_into_every_sink(tmp_path: Path, form: str, to: str) -> None:
    memory = Memory()
    target = make_image(memory, layer_tar("a"), layer_tar("b", size=100_000), compression="zstd")
    with source_of(form, memory, target, tmp_path / "from") as source, sink_of(to, tmp_path / "to") as sink:
        assert copy(source, sink, target, name=NAME, jobs=3) == target
    again = Memory()
    if to in ("memory", "content"):
        copy(sink, again, target)  # type: ignore[arg-type]
    else:
        with open_archive(tmp_path / "to", tmp_path) as written:
            copy(written, again, written.resolve(NAME))
    assert again.blobs == memory.blobs


# ---- order ----


def test_children_come_first_and_the_name_last() -> None:
    memory, sink = Memory(), Memory()
    first, second = (make_image(memory, layer_tar(name), layer_tar(name * 2)) for name in "ab")
    index = make_index(memory, on(first, "linux/amd64"), on(second, "linux/arm64"))
    copy(memory, sink, index, name=NAME, jobs=1)
    where = {digest: position for position, digest in enumerate(sink.order)}
    for target in (first, second):
        manifest = parse_manifest(memory.blobs[target.digest])
        assert isinstance(manifest, Manifest)
        layers = [where[layer.digest] for layer in manifest.layers]
        assert where[manifest.config.digest] < min(layers) < max(layers) < where[target.digest]
    assert where[index.digest] == len(sink.order) - 1
    assert sink.names == {NAME: index}


def test_a_blob_is_copied_once() -> None:
    memory, sink = Memory(), Memory()
    layer = layer_tar("a")
    index = make_index(memory, *(make_image(memory, layer, layer, comment=str(n)) for n in range(3)))
    copy(memory, sink, index)
    assert sink.order.count(Digest.of(layer)) == 1
    assert len(sink.order) == len(set(sink.order)) == len(memory.blobs)


def test_layers_are_copied_at_the_same_time() -> None:
    memory = Memory()
    target = make_image(memory, *(layer_tar(name) for name in "abcd"))
    meeting = threading.Barrier(3, timeout=20)
    together = {Digest.of(layer_tar(name)) for name in "abc"}

    class Sink(Memory):
        def put(self, descriptor: Descriptor, reader: BlobReader, *, progress: object = None) -> None:
            if descriptor.digest in together:
                meeting.wait()  # passes only when all three are here at once
            super().put(descriptor, reader, progress=progress)

    copy(memory, Sink(), target, jobs=3)


def test_a_sequential_sink_gets_layers_in_order() -> None:
    memory = Memory()
    tars = [layer_tar(name) for name in "abcdefgh"]
    target = make_image(memory, *tars)
    sink = Memory()
    sink.sequential = True  # type: ignore[attr-defined]
    copy(memory, sink, target, jobs=8)
    assert sink.order[1:-1] == [Digest.of(tar) for tar in tars]


def test_what_is_there_is_not_opened() -> None:
    memory, sink = Memory(), Memory()
    here, new = layer_tar("here"), layer_tar("new")
    target = make_image(memory, here, new)
    sink.blobs[Digest.of(here)] = here
    copy(memory, sink, target)
    assert Digest.of(here) not in memory.opened
    assert Digest.of(new) in memory.opened


# ---- failures ----


@pytest.mark.parametrize("jobs", [1, 4])
def test_the_first_error_stops_the_rest(jobs: int) -> None:
    memory = Memory()
    tars = [layer_tar(name) for name in "abcdefgh"]
    target = make_image(memory, *tars)
    bad = Digest.of(tars[1])
    endless = threading.Event()

    class Source(Memory):
        def open(self, descriptor: Descriptor) -> AbstractContextManager[BlobReader]:
            if descriptor.digest == bad:
                raise NotFoundError("the bad one")
            if descriptor.digest == Digest.of(tars[0]) and jobs > 1:
                return _Closing(Endless())
            return super().open(descriptor)

    class Endless:
        """Ends only because the copy stops reading."""

        def read(self, size: int = 0, /) -> bytes:
            assert not endless.wait(0.01)
            return b"x"

    class Sink(Memory):
        def put(self, descriptor: Descriptor, reader: BlobReader, *, progress: object = None) -> None:
            while descriptor.digest == Digest.of(tars[0]) and jobs > 1:
                reader.read(1)
            super().put(descriptor, reader, progress=progress)

    source = Source()
    source.blobs = memory.blobs
    sink = Sink()
    started = time.monotonic()
    with pytest.raises(NotFoundError, match="the bad one"):
        copy(source, sink, target, name=NAME, jobs=jobs)
    assert time.monotonic() - started < 10
    assert target.digest not in sink.blobs
    assert sink.names == {}
    assert _alone()
    if jobs == 1:
        assert Digest.of(tars[2]) not in sink.blobs


def _alone() -> bool:
    """Whether the threads of the copy end."""
    deadline = time.monotonic() + 5
    while threading.active_count() > 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    return threading.active_count() == 1


class _Closing:
    def __init__(self, reader: BlobReader) -> None:
        self._reader = reader

    def __enter__(self) -> BlobReader:
        return self._reader

    def __exit__(self, *_: object) -> None:
        pass


def test_after_a_failure_the_next_try_brings_the_rest() -> None:
    memory, sink = Memory(), Memory()
    tars = [layer_tar(name) for name in "abc"]
    target = make_image(memory, *tars)
    lost = memory.blobs.pop(Digest.of(tars[2]))
    with pytest.raises(NotFoundError):
        copy(memory, sink, target, jobs=1)
    memory.blobs[Digest.of(lost)] = lost
    memory.opened.clear()
    copy(memory, sink, target, jobs=1)
    assert set(memory.opened) == {target.digest, Digest.of(tars[2])}


_INTERRUPTED = """
import os, signal, sys, threading, time
from pathlib import Path
sys.path[:0] = {paths!r}
from suites.blob_suite import Memory, layer_tar, make_image
from test_transfer import _Closing, content_store
from layerfs.transfer import copy
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background inherits it ignored
memory = Memory()
target = make_image(memory, *(layer_tar(name) for name in "abcdef"))
class Endless:
    def read(self, size=0, /):
        time.sleep(0.01)
        return b"x"
class Source(Memory):
    def open(self, descriptor):
        if "layer" in descriptor.media_type:
            os.write(1, b"reading\\n")
            return _Closing(Endless())
        return super().open(descriptor)
source = Source()
source.blobs = memory.blobs
class Patient(type(content_store(Path(sys.argv[1])))):
    def put(self, descriptor, reader, *, progress=None):
        while "layer" in descriptor.media_type:
            reader.read(1)
        super().put(descriptor, reader)
try:
    copy(source, Patient(Path(sys.argv[1], "blobs"), Path(sys.argv[1], "ingest")), target, jobs=2)
except KeyboardInterrupt:
    time.sleep(0.1)  # the threads have done their work then, and end
    print("interrupted", threading.active_count(), flush=True)
"""


def test_ctrl_c_stops_it_at_once(tmp_path: Path) -> None:
    script = _INTERRUPTED.format(paths=[os.path.dirname(__file__)])
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "store")], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "reading\n"
        process.send_signal(signal.SIGINT)
        try:
            out = process.communicate(timeout=20)[0]
        finally:
            process.kill()
    assert out.splitlines()[-1] == "interrupted 1"
    blobs = [path for path in (tmp_path / "store" / "blobs").rglob("*") if path.is_file()]
    assert len(blobs) == 1  # the configuration, whole


# ---- platforms ----


@pytest.fixture
def several() -> tuple[Memory, Descriptor, dict[str, Descriptor]]:
    memory = Memory()
    platforms = ("linux/amd64", "linux/arm64", "linux/s390x")
    images = {
        platform: on(make_image(memory, layer_tar(platform[6:]), platform=platform), platform) for platform in platforms
    }
    return memory, make_index(memory, *images.values()), images


def wanted(*platforms: str) -> list[Platform]:
    return [Platform.parse(platform) for platform in platforms]


def test_one_platform_is_its_manifest(several: tuple[Memory, Descriptor, dict[str, Descriptor]]) -> None:
    memory, index, images = several
    sink = Memory()
    target = copy(memory, sink, index, name=NAME, platforms=wanted("linux/arm64"))
    assert target.digest == images["linux/arm64"].digest
    assert index.digest not in sink.blobs
    assert len(sink.blobs) == 3
    assert sink.names == {NAME: target}


def test_several_platforms_are_their_manifests(
    several: tuple[Memory, Descriptor, dict[str, Descriptor]],
) -> None:
    memory, index, images = several
    sink = Memory()
    target = copy(memory, sink, index, platforms=wanted("linux/arm64", "linux/amd64"))
    assert target.digest == images["linux/arm64"].digest
    assert images["linux/amd64"].digest in sink.blobs
    assert index.digest not in sink.blobs


def test_all_platforms_are_the_index(several: tuple[Memory, Descriptor, dict[str, Descriptor]]) -> None:
    memory, index, images = several
    sink = Memory()
    assert copy(memory, sink, index, platforms=wanted(*images)) == index
    assert sink.blobs == memory.blobs


def test_a_platform_that_is_not_there(several: tuple[Memory, Descriptor, dict[str, Descriptor]]) -> None:
    memory, index, _ = several
    sink = Memory()
    with pytest.raises(NotFoundError, match="riscv64"):
        copy(memory, sink, index, platforms=wanted("linux/riscv64"))
    assert sink.blobs == {}


def test_a_single_manifest_is_what_it_is_on_any_platform() -> None:
    memory, sink = Memory(), Memory()
    target = make_image(memory, layer_tar("a"))
    assert copy(memory, sink, target, platforms=wanted("linux/amd64")) == target


def test_platforms_in_nested_indexes(several: tuple[Memory, Descriptor, dict[str, Descriptor]]) -> None:
    memory, index, images = several
    outer = make_index(memory, on(index, "linux/arm64"))
    assert copy(memory, Memory(), outer, platforms=wanted("linux/arm64")).digest == images["linux/arm64"].digest


# ---- odd and hostile graphs ----


def test_nesting_has_a_limit() -> None:
    memory = Memory()
    target = make_image(memory, layer_tar("a"))
    for _ in range(DEPTH_LIMIT - 1):
        target = make_index(memory, target)
    copy(memory, Memory(), target)
    deeper = make_index(memory, make_index(memory, target))
    sink = Memory()
    with pytest.raises(IntegrityError, match="nested"):
        copy(memory, sink, deeper, name=NAME)
    assert deeper.digest not in sink.blobs


def test_a_cycle_is_refused() -> None:
    """A true cycle would need a broken hash; so the content is not what the digest says."""
    memory = Memory()
    fake = Descriptor(media_type=MEDIA_INDEX, digest=Digest.of(b"self"), size=4)
    data = encode(Index(media_type=MEDIA_INDEX, manifests=(fake,)))
    memory.blobs[fake.digest] = data
    outer = memory.add(data, MEDIA_INDEX)
    with pytest.raises(IntegrityError):
        copy(memory, Memory(), outer)


def test_wide_indexes_of_indexes_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("layerfs.transfer.MANIFESTS_LIMIT", 10)
    memory = Memory()
    images = [make_image(memory, layer_tar("a"), comment=str(number)) for number in range(12)]
    with pytest.raises(IntegrityError, match="more than 10 manifests"):
        copy(memory, Memory(), make_index(memory, *images))


def test_manifests_are_copied_as_they_are() -> None:
    memory, sink = Memory(), Memory()
    plain = make_image(memory, layer_tar("a"))
    odd = b'{\n\t"unknown": {"b": 1, "a": 2},' + memory.blobs[plain.digest].lstrip()[1:] + b"\n\n"
    target = memory.add(odd, MEDIA_MANIFEST)
    copy(memory, sink, target)
    assert sink.blobs[target.digest] == odd


def test_an_artifact_with_an_empty_configuration_that_the_source_lacks() -> None:
    memory, sink = Memory(), Memory()
    thing = memory.add(b"signature", "application/vnd.example")
    target = memory.add(
        encode(
            Manifest(
                media_type=MEDIA_MANIFEST,
                artifact_type="application/vnd.example",
                config=EMPTY_DESCRIPTOR,
                layers=(thing,),
                subject=descriptor_of(b"elsewhere", MEDIA_MANIFEST),
            )
        ),
        MEDIA_MANIFEST,
    )
    copy(memory, sink, target)
    assert sink.blobs == memory.blobs | {EMPTY_DESCRIPTOR.digest: b"{}"}


def embedded(data: bytes, text: str) -> Descriptor:
    plain = descriptor_of(data, "application/vnd.example")
    return Descriptor(media_type=plain.media_type, digest=plain.digest, size=plain.size, data=text)


def test_data_in_a_descriptor() -> None:
    memory, sink = Memory(), Memory()
    layer = embedded(b"hello", base64.b64encode(b"hello").decode())
    manifest = Manifest(media_type=MEDIA_MANIFEST, config=EMPTY_DESCRIPTOR, layers=(layer,))
    copy(memory, sink, memory.add(encode(manifest), MEDIA_MANIFEST))
    assert sink.blobs[layer.digest] == b"hello"


@pytest.mark.parametrize("text", [base64.b64encode(b"other").decode(), "*not base64*", ""])
def test_wrong_data_in_a_descriptor(text: str) -> None:
    memory, sink = Memory(), Memory()
    manifest = Manifest(media_type=MEDIA_MANIFEST, config=EMPTY_DESCRIPTOR, layers=(embedded(b"hello", text),))
    target = memory.add(encode(manifest), MEDIA_MANIFEST)
    with pytest.raises(IntegrityError):
        copy(memory, sink, target)
    assert target.digest not in sink.blobs


def test_foreign_layers_stay_away_where_the_source_has_none(tmp_path: Path) -> None:
    memory = Memory()
    plain = make_image(memory, layer_tar("a"))
    manifest = parse_manifest(memory.blobs[plain.digest])
    assert isinstance(manifest, Manifest)
    foreign = Descriptor(
        media_type="application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        digest=Digest.of(b"foreign"),
        size=7,
        urls=("https://example.org/layer",),
    )
    target = memory.add(
        encode(Manifest(media_type=MEDIA_MANIFEST, config=manifest.config, layers=(*manifest.layers, foreign))),
        MEDIA_MANIFEST,
    )
    notes: list[str] = []

    class Progress:
        def start(self, key: str, label: str, total: int | None) -> None: ...
        def advance(self, key: str, count: int) -> None: ...
        def finish(self, key: str, note: str = "") -> None: ...
        def note(self, text: str) -> None:
            notes.append(text)

    sink = Memory()
    copy(memory, sink, target, progress=Progress())
    assert foreign.digest not in sink.blobs
    assert target.digest in sink.blobs
    assert len(notes) == 1
    memory.blobs[foreign.digest] = b"foreign"
    other = Memory()
    copy(memory, other, target)
    assert other.blobs[foreign.digest] == b"foreign"


def test_schema_1_is_refused() -> None:
    memory = Memory()
    data = b'{"schemaVersion": 1, "name": "x", "fsLayers": []}'
    target = memory.add(data, "application/vnd.docker.distribution.manifest.v1+prettyjws")
    with pytest.raises(LayerfsError, match="schema 1"):
        copy(memory, Memory(), target)


def test_progress_counts_every_byte_once(tmp_path: Path) -> None:
    memory = Memory()
    target = make_image(memory, layer_tar("a", size=3_000_000), layer_tar("b"))
    counts: dict[str, int] = {}
    ends: dict[str, str] = {}

    class Progress:
        def start(self, key: str, label: str, total: int | None) -> None:
            counts[key] = 0

        def advance(self, key: str, count: int) -> None:
            counts[key] = counts.get(key, 0) + count

        def finish(self, key: str, note: str = "") -> None:
            ends[key] = note

        def note(self, text: str) -> None: ...

    store = content_store(tmp_path)
    copy(memory, store, target, progress=Progress())
    sizes = {digest: len(data) for digest, data in memory.blobs.items()}
    assert {key: counts[key] for key in counts if counts[key]} == sizes
    copy(memory, Memory(memory.blobs.values()), make_index(memory, target), progress=Progress())
    assert ends[target.digest] == "already here"


def test_a_reader_is_opened_when_it_is_read(tmp_path: Path) -> None:
    """What a sink turns out to have, after waiting for another process, is not fetched."""
    memory = Memory()
    target = make_image(memory, layer_tar("a"))

    class Knowing(Memory):
        def put(self, descriptor: Descriptor, reader: BlobReader, *, progress: object = None) -> None:
            if "layer" not in descriptor.media_type:
                super().put(descriptor, reader, progress=progress)

    copy(memory, Knowing(), target)
    assert Digest.of(layer_tar("a")) not in memory.opened


def test_small_pieces_make_no_difference(tmp_path: Path) -> None:
    memory = Memory()
    target = make_image(memory, noise(50_000))

    class Source(Memory):
        def open(self, descriptor: Descriptor) -> AbstractContextManager[BlobReader]:
            return _Closing(Slow(self.blobs[descriptor.digest], step=100))

    source = Source(memory.blobs.values())
    store = content_store(tmp_path)
    copy(source, store, target)
    assert {digest: store.read(digest, 1 << 20) for digest in store.digests()} == memory.blobs


def test_one_platform_of_an_index_with_annotations() -> None:
    """As builders write it who add attestations: descriptors with annotations cannot be hashed."""
    memory, sink = Memory(), Memory()
    image = on(make_image(memory, layer_tar("a")), "linux/amd64")
    other = on(make_image(memory, layer_tar("b"), comment="attestation"), "unknown/unknown")
    noted = msgspec.structs.replace(other, annotations={"vnd.docker.reference.digest": str(image.digest)})
    index = make_index(memory, image, noted)
    assert copy(memory, sink, index, platforms=[Platform.parse("linux/amd64")]).digest == image.digest
    alone = make_index(memory, msgspec.structs.replace(image, annotations={"x": "y"}))
    assert copy(memory, sink, alone, platforms=[Platform.parse("linux/amd64")]) == alone
