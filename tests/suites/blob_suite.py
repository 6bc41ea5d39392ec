"""What every place of blobs must do, whether it is a store, a directory, an archive or a registry.

A subclass says how a place is made: ``place()`` gives a ``Place``, whose ``sink`` takes blobs, and whose ``source()``
reads back what was taken once ``complete`` was called. Also here: images made up by hand, to be carried about.
"""

import gzip
import hashlib
import json
import random
import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from io import BytesIO

import pytest
import tarbuild

from layerfs.blobs import BlobReader, BlobSink, BlobSource, read_all
from layerfs.compression import compress
from layerfs.digest import Digest
from layerfs.errors import IntegrityError, NotFoundError
from layerfs.oci import (
    MEDIA_CONFIG,
    MEDIA_INDEX,
    MEDIA_LAYER,
    MEDIA_LAYER_GZIP,
    MEDIA_LAYER_ZSTD,
    MEDIA_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    Platform,
    descriptor_of,
    encode,
)
from layerfs.transfer import copy

__all__ = ["BlobSuite", "Memory", "Place", "Slow", "blob", "layer_tar", "make_image", "make_index"]

NAME = "registry.example/some/thing:1.0"


def noise(count: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(count)


def blob(data: bytes, media_type: str = "application/octet-stream") -> Descriptor:
    return descriptor_of(data, media_type)


def layer_tar(*names: str, size: int = 3000) -> bytes:
    """A layer with files of ``size`` bytes that depend on their names."""
    return tarbuild.archive(
        tarbuild.directory("etc/"),
        *(tarbuild.file(f"etc/{name}", noise(size, seed=len(name) + ord(name[-1]))) for name in names),
    )


class Memory:
    """A source and sink in memory, which remembers in which order things came."""

    def __init__(self, blobs: Iterable[bytes] = ()) -> None:
        self.blobs = {Digest.of(data): data for data in blobs}
        self.names: dict[str, Descriptor] = {}
        self.order: list[Digest] = []
        self.opened: list[Digest] = []

    def add(self, data: bytes, media_type: str) -> Descriptor:
        descriptor = descriptor_of(data, media_type)
        self.blobs[descriptor.digest] = data
        return descriptor

    def resolve(self, name: str) -> Descriptor:
        if name not in self.names:
            raise NotFoundError(f"{name}: not here")
        return self.names[name]

    def open(self, descriptor: Descriptor) -> AbstractContextManager[BlobReader]:
        if descriptor.digest not in self.blobs:
            raise NotFoundError(f"{descriptor.digest}: not here")
        self.opened.append(descriptor.digest)
        return nullcontext(BytesIO(self.blobs[descriptor.digest]))

    def has(self, descriptor: Descriptor) -> bool:
        return descriptor.digest in self.blobs

    def put(self, descriptor: Descriptor, reader: BlobReader, *, progress: object = None) -> None:
        data = b"".join(iter(lambda: reader.read(1 << 20), b""))
        if Digest.of(data) != descriptor.digest or len(data) != descriptor.size:
            raise IntegrityError(f"{descriptor.digest}: not that")
        self.order.append(descriptor.digest)
        self.blobs[descriptor.digest] = data

    def tag(self, descriptor: Descriptor, name: str) -> None:
        assert self.has(descriptor)
        self.names[name] = descriptor


_COMPRESS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "none": (MEDIA_LAYER, lambda data: data),
    "gzip": (MEDIA_LAYER_GZIP, lambda data: gzip.compress(data, 1, mtime=0)),
    "zstd": (MEDIA_LAYER_ZSTD, lambda data: b"".join(compress([data], "zstd"))),
}


def make_image(
    memory: Memory, *tars: bytes, compression: str = "none", platform: str = "linux/amd64", comment: str = ""
) -> Descriptor:
    """Put an image of these layer tars into ``memory``."""
    media_type, encoder = _COMPRESS[compression]
    system, _, architecture = platform.partition("/")
    config = {
        "architecture": architecture,
        "os": system,
        "author": comment,
        "config": {"Cmd": ["/bin/true"]},
        "rootfs": {"type": "layers", "diff_ids": [Digest.of(tar) for tar in tars]},
        "history": [{"created_by": "made by hand"} for _ in tars],
    }
    manifest = Manifest(
        media_type=MEDIA_MANIFEST,
        config=memory.add(json.dumps(config, indent=1).encode(), MEDIA_CONFIG),
        layers=tuple(memory.add(encoder(tar), media_type) for tar in tars),
    )
    return memory.add(encode(manifest), MEDIA_MANIFEST)


def make_index(memory: Memory, *children: Descriptor) -> Descriptor:
    return memory.add(encode(Index(media_type=MEDIA_INDEX, manifests=children)), MEDIA_INDEX)


def on(descriptor: Descriptor, platform: str) -> Descriptor:
    """The descriptor with a platform."""
    return Descriptor(
        media_type=descriptor.media_type,
        digest=descriptor.digest,
        size=descriptor.size,
        platform=Platform.parse(platform),
    )


class Slow:
    """A reader that gives its bytes in small uneven pieces, and may fail or do something at an offset."""

    def __init__(
        self, data: bytes, *, step: int = 777, at: int | None = None, act: Callable[[], None] | None = None
    ) -> None:
        self._stream = BytesIO(data)
        self._step = step
        self._at = at
        self._act = act

    def read(self, size: int = 1 << 20, /) -> bytes:
        if self._at is not None and self._stream.tell() >= self._at and self._act is not None:
            act, self._act = self._act, None
            act()
        return self._stream.read(min(size, self._step))


class Place:
    """Somewhere that blobs go to. ``needs_image``: it can be completed and read only with a whole image in it."""

    def __init__(
        self,
        sink: BlobSink,
        source: Callable[[], AbstractContextManager[BlobSource]],
        complete: Callable[[], None] = lambda: None,
    ) -> None:
        self.sink = sink
        self.source = source
        self.complete = complete


class BlobSuite:
    """Inherit, and give the fixture ``place``."""

    names = True
    """Whether names are kept."""
    survives_failure = True
    """Whether a blob that fails leaves the rest as good as before (a tar that is streamed cannot)."""

    @pytest.fixture
    def image(self) -> tuple[Memory, Descriptor]:
        memory = Memory()
        tars = layer_tar("a", "b"), layer_tar("c", size=2_500_000), layer_tar()
        return memory, make_image(memory, *tars, compression="gzip")

    def test_an_image_comes_back_byte_for_byte(self, place: Place, image: tuple[Memory, Descriptor]) -> None:
        memory, target = image
        assert copy(memory, place.sink, target, name=NAME) == target
        place.complete()
        with place.source() as source:
            again = Memory()
            copy(source, again, target)
        assert again.blobs == memory.blobs

    def test_a_name_leads_to_the_image(self, place: Place, image: tuple[Memory, Descriptor]) -> None:
        if not self.names:
            pytest.skip("keeps no names")
        memory, target = image
        copy(memory, place.sink, target, name=NAME)
        place.complete()
        with place.source() as source:
            found = source.resolve(NAME)
            assert (found.digest, found.size, found.media_type) == (
                target.digest,
                target.size,
                target.media_type,
            )
            with pytest.raises(NotFoundError):
                source.resolve("registry.example/other:1.0")

    def test_an_index_comes_back_whole(self, place: Place) -> None:
        memory = Memory()
        base = layer_tar("base")
        inner = make_index(memory, on(make_image(memory, base, comment="arm"), "linux/arm64"))
        target = make_index(memory, on(make_image(memory, base, layer_tar("top")), "linux/amd64"), inner)
        copy(memory, place.sink, target, name=NAME)
        place.complete()
        with place.source() as source:
            again = Memory()
            copy(source, again, target)
        assert again.blobs == memory.blobs

    def test_has_says_what_is_there(self, place: Place, image: tuple[Memory, Descriptor]) -> None:
        memory, target = image
        data = noise(5000)
        assert not place.sink.has(blob(data))
        place.sink.put(blob(data), BytesIO(data))
        assert place.sink.has(blob(data))
        copy(memory, place.sink, target)
        assert place.sink.has(target)
        memory.opened.clear()
        copy(memory, place.sink, target)
        assert memory.opened == []

    @pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 3 << 20])
    def test_any_size_in_any_pieces(self, place: Place, image: tuple[Memory, Descriptor], size: int) -> None:
        data = noise(size)
        place.sink.put(blob(data), Slow(data, step=max(1, size // 7)))
        copy(*image_into(image, place))
        place.complete()
        with place.source() as source:
            assert read_all(source, blob(data), 4 << 20) == data

    def test_the_same_blob_twice(self, place: Place) -> None:
        data = noise(70_000)
        for _ in range(2):
            place.sink.put(blob(data), BytesIO(data))
        assert place.sink.has(blob(data))

    def test_the_same_blob_at_the_same_time(self, place: Place, image: tuple[Memory, Descriptor]) -> None:
        data = noise(900_000)
        failures: list[BaseException] = []

        def bring() -> None:
            try:
                place.sink.put(blob(data), Slow(data, step=10_000))
            except BaseException as exc:
                failures.append(exc)

        threads = [threading.Thread(target=bring) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        copy(*image_into(image, place))
        place.complete()
        with place.source() as source:
            assert read_all(source, blob(data), 1 << 20) == data

    def test_sha512(self, place: Place, image: tuple[Memory, Descriptor]) -> None:
        data = noise(4000)
        digest = Digest("sha512:" + hashlib.sha512(data).hexdigest())
        descriptor = Descriptor(media_type="application/octet-stream", digest=digest, size=len(data))
        place.sink.put(descriptor, BytesIO(data))
        copy(*image_into(image, place))
        place.complete()
        with place.source() as source:
            assert read_all(source, descriptor, 1 << 20) == data

    @pytest.mark.parametrize("given", ["other", "shorter", "longer", "empty"])
    def test_what_is_not_the_blob_is_refused(self, place: Place, given: str) -> None:
        data = noise(100_000)
        wrong = {"other": noise(100_000, 1), "shorter": data[:-1], "longer": data + b"x", "empty": b""}[given]
        with pytest.raises(IntegrityError):
            place.sink.put(blob(data), BytesIO(wrong))
        assert not place.sink.has(blob(data))
        if self.survives_failure:
            place.sink.put(blob(data), BytesIO(data))
            assert place.sink.has(blob(data))

    def test_a_reader_that_fails_leaves_nothing(self, place: Place) -> None:
        data = noise(100_000)

        def fail() -> None:
            raise ConnectionError("gone")

        with pytest.raises(ConnectionError):
            place.sink.put(blob(data), Slow(data, at=50_000, act=fail))
        assert not place.sink.has(blob(data))

    def test_an_unknown_blob_is_not_found(self, place: Place, image: tuple[Memory, Descriptor]) -> None:
        copy(*image_into(image, place))
        place.complete()
        with place.source() as source, pytest.raises(NotFoundError), source.open(blob(b"never")) as reader:
            reader.read(1)


def image_into(image: tuple[Memory, Descriptor], place: Place) -> tuple[Memory, BlobSink, Descriptor]:
    """The arguments of ``copy`` for an image into a place, without which some places cannot be read."""
    return image[0], place.sink, image[1]
