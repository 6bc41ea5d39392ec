"""Push: what is sent, how it goes on after a break, and that nothing wrong becomes a blob. Copies without a store."""

import io
import json
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_registry import FakeRegistry, Fault, digest_of
from registrykit import (
    INDEX_TYPE,
    MANIFEST_TYPE,
    Notes,
    access,
    descriptor,
    make_image,
    make_index,
    noise,
    reach,
    serve,
    store,
    tar_of,
)

from layerfs.compression import open_reader
from layerfs.digest import Digest
from layerfs.errors import (
    IntegrityError,
    InvalidInputError,
    LayerfsError,
    NotFoundError,
    RegistryError,
    UnauthorizedError,
)
from layerfs.exchange import copy_image, pull, push
from layerfs.oci import Descriptor
from layerfs.registry import upload
from layerfs.registry.access import Access
from layerfs.registry.config import Endpoint
from layerfs.registry.credentials import Credentials
from layerfs.registry.sink import RegistrySink
from layerfs.store import Store

__all__ = ["reach", "store"]

IMAGE = make_image((300_000, 3_000), seed=4)
LAYER = digest_of(IMAGE.layers[0])


@pytest.fixture
def source() -> Iterator[FakeRegistry]:
    with FakeRegistry() as registry:
        yield registry


@pytest.fixture
def target() -> Iterator[FakeRegistry]:
    with FakeRegistry() as registry:
        yield registry


@pytest.fixture
def pulled(source: FakeRegistry, store: Store, reach: Access) -> str:
    reference = serve(source, "team/app", "v1", IMAGE)
    pull(store.parts, reference, access=reach)
    return reference


@pytest.fixture
def made(store: Store, tmp_path: Path) -> str:
    """An image that was made here: no layer has a blob."""
    tar = tmp_path / "made.tar"
    tar.write_bytes(tar_of({"a": b"text " * 50_000, "b": noise(400_000, 8)}))
    store.import_image(tar, "made:v1")
    return "made:v1"


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(upload, "CHUNK", 64 << 10)
    monkeypatch.setattr(upload, "STREAMED", 64 << 10)
    return 64 << 10


def layers_of(registry: FakeRegistry, repository: str, tag: str) -> list[bytes]:
    document = json.loads(registry.manifests[repository, tag][1])
    return [registry.blobs[repository, layer["digest"]] for layer in document["layers"]]


def plain(data: bytes) -> bytes:
    reader = open_reader(io.BytesIO(data), "auto")
    return b"".join(iter(lambda: reader.read(1 << 20), b""))


# ---- what is sent ----


def test_pulled_image_goes_byte_for_byte(target: FakeRegistry, store: Store, reach: Access, pulled: str) -> None:
    pushed = push(store.parts, pulled, f"{target.host}/copy:v2", access=reach)
    assert pushed.target.digest == IMAGE.digest
    assert target.manifests["copy", "v2"] == (MANIFEST_TYPE, IMAGE.manifest)
    assert layers_of(target, "copy", "v2") == list(IMAGE.layers)


def test_second_push_sends_nothing(target: FakeRegistry, store: Store, reach: Access, pulled: str) -> None:
    push(store.parts, pulled, f"{target.host}/copy:v2", access=reach)
    target.log.clear()
    push(store.parts, pulled, f"{target.host}/copy:v2", access=reach)
    assert target.received("/blobs/") == 0
    assert target.count("POST") == 0


def test_same_registry_mounts(source: FakeRegistry, store: Store, reach: Access, pulled: str) -> None:
    source.log.clear()
    push(store.parts, pulled, f"{source.host}/other/name:v1", access=reach)
    assert source.received(LAYER) == 0
    assert source.count("POST", f"mount={LAYER}&from=team/app") == 1
    assert layers_of(source, "other/name", "v1") == list(IMAGE.layers)


def test_refused_mount_is_sent(source: FakeRegistry, store: Store, reach: Access, pulled: str) -> None:
    """The answer to a mount that is not possible is an upload already (202), or no (403)."""
    for name, fault in (("a", None), ("b", Fault("POST", "mount=", status=403))):
        source.blobs.pop(("team/app", LAYER), None)
        source.faults[:] = [fault] if fault else []
        source.log.clear()
        push(store.parts, pulled, f"{source.host}/{name}:v1", access=reach)
        assert layers_of(source, name, "v1") == list(IMAGE.layers)
        assert source.count("POST", f"/{name}/blobs/uploads/$") == (1 if fault is None else 3)


def test_made_image_is_compressed_the_same_way_each_time(
    target: FakeRegistry, store: Store, reach: Access, made: str
) -> None:
    notes = Notes()
    first = push(store.parts, made, f"{target.host}/made:v1", access=reach, progress=notes)
    image = store.images.get(made)
    document = json.loads(target.manifests["made", "v1"][1])
    assert document["config"]["digest"] == image.id
    assert document["layers"][0]["mediaType"].endswith("tar+gzip")
    (blob,) = layers_of(target, "made", "v1")
    assert digest_of(plain(blob)) == image.diff_ids[0]
    assert notes.bytes[image.diff_ids[0]] == len(plain(blob))
    with FakeRegistry() as another:
        assert push(store.parts, made, f"{another.host}/made:v1", access=reach).target == first.target
        assert layers_of(another, "made", "v1") == [blob]
    target.log.clear()
    assert push(store.parts, made, f"{target.host}/made:v1", access=reach).target == first.target
    assert target.received("/blobs/") == 0


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_compressions(target: FakeRegistry, store: Store, reach: Access, made: str, compression: str) -> None:
    push(store.parts, made, f"{target.host}/made:v1", compression=compression, access=reach)
    document = json.loads(target.manifests["made", "v1"][1])
    assert document["layers"][0]["mediaType"].partition("tar+")[2] == ("" if compression == "none" else compression)
    (blob,) = layers_of(target, "made", "v1")
    assert digest_of(plain(blob)) == store.images.get(made).diff_ids[0]


def test_level(target: FakeRegistry, store: Store, reach: Access, made: str) -> None:
    sizes = []
    for level in (1, 19):
        push(store.parts, made, f"{target.host}/l{level}:v1", compression="zstd", level=level, access=reach)
        sizes.append(len(layers_of(target, f"l{level}", "v1")[0]))
    assert sizes[1] < sizes[0]
    with pytest.raises(InvalidInputError):
        push(store.parts, made, f"{target.host}/x:v1", level=99, access=reach)
    with pytest.raises(InvalidInputError):
        push(store.parts, made, f"{target.host}/x:v1", compression="xz", access=reach)


def test_dropped_blob_is_left_when_the_registry_has_it(
    source: FakeRegistry, store: Store, reach: Access, pulled: str
) -> None:
    for layer in IMAGE.layers:
        store.content.delete(Digest(digest_of(layer)))
    source.log.clear()
    assert push(store.parts, pulled, f"{source.host}/team/app:v2", access=reach).target.digest == IMAGE.digest
    assert source.received("/blobs/") == 0


def test_what_the_registry_has_is_asked_at_once(
    target: FakeRegistry, source: FakeRegistry, store: Store, reach: Access
) -> None:
    """Each question is a journey there and back; those of all layers go together."""
    image = make_image([1000 + number for number in range(8)], seed=40)
    reference = serve(source, "app", "v1", image)
    serve(target, "copy", "other", image)
    pull(store.parts, reference, access=reach)
    for each in image.layers:
        store.content.delete(Digest(digest_of(each)))
    target.faults.append(Fault("HEAD", "blobs", delay=0.25))
    started = time.monotonic()
    push(store.parts, reference, f"{target.host}/copy:v1", access=reach)
    assert time.monotonic() - started < 0.25 * 8
    assert target.count("HEAD", "blobs") == 8
    assert layers_of(target, "copy", "v1") == list(image.layers)


def test_dropped_blob_is_made_again(target: FakeRegistry, store: Store, reach: Access, pulled: str) -> None:
    """The new manifest keeps all that it says beside the layers, and the image ID."""
    store.content.delete(Digest(LAYER))
    pushed = push(store.parts, pulled, f"{target.host}/copy:v1", access=reach)
    assert pushed.target.digest != IMAGE.digest
    before, after = json.loads(IMAGE.manifest), json.loads(target.manifests["copy", "v1"][1])
    assert after["layers"].pop(0)["digest"] != before["layers"].pop(0)["digest"]
    assert after == before
    assert [plain(blob) for blob in layers_of(target, "copy", "v1")] == list(IMAGE.tars)
    assert store.images.get(f"{target.host}/copy@{pushed.target.digest}").id == IMAGE.id


def test_index_goes_with_all_platforms(source: FakeRegistry, target: FakeRegistry, store: Store, reach: Access) -> None:
    arm = make_image((9_000,), seed=6, architecture="arm64")
    for image in (IMAGE, arm):
        serve(source, "app", "x", image)
    index = make_index((IMAGE, "linux/amd64"), (arm, "linux/arm64/v8"))
    source.put_manifest("app", "multi", index, INDEX_TYPE)
    reference = f"{source.host}/app:multi"
    pull(store.parts, reference, all_platforms=True, access=reach)
    push(store.parts, reference, f"{target.host}/app:multi", access=reach)
    assert target.manifests["app", "multi"] == (INDEX_TYPE, index)
    store.content.delete(Digest(digest_of(arm.layers[0])))
    push(store.parts, reference, f"{target.host}/again:multi", access=reach)
    document = json.loads(target.manifests["again", "multi"][1])
    assert document["manifests"][0] == json.loads(index)["manifests"][0]
    assert document["manifests"][1]["platform"]["variant"] == "v8"
    assert ("again", document["manifests"][1]["digest"]) in target.manifests


def test_what_cannot_be_pushed(target: FakeRegistry, store: Store, reach: Access, made: str) -> None:
    with pytest.raises(NotFoundError):
        push(store.parts, "absent:v1", access=reach)
    with pytest.raises(InvalidInputError):
        push(store.parts, made, f"{target.host}/x@{IMAGE.digest}", access=reach)


# ---- breaks and chunks ----

BREAKS = {
    "reset before the answer": Fault("PUT", "uploads", cut=-1, times=2),
    "reset in the middle": Fault("PUT", "uploads", swallow=100_000, times=2),
    "503": Fault("PUT", "uploads", status=503, times=2),
    "upload lost": Fault("PUT", "uploads", status=404, times=2),
    "too large at once": Fault("PUT", "uploads/1.*digest=sha256", status=413, times=1),
    "POST fails": Fault("POST", "uploads", status=502, times=2),
    "manifest 503": Fault("PUT", "manifests", status=503, times=2),
}


@pytest.mark.parametrize("what", BREAKS)
def test_breaks(target: FakeRegistry, store: Store, reach: Access, pulled: str, small_chunks: int, what: str) -> None:
    fault = BREAKS[what]
    fault.hits = 0
    target.faults.append(fault)
    push(store.parts, pulled, f"{target.host}/copy:v1", access=reach)
    assert fault.hits == fault.times
    assert target.manifests["copy", "v1"][1] == IMAGE.manifest
    assert layers_of(target, "copy", "v1") == list(IMAGE.layers)


STREAM_BREAKS = {
    "nothing": [],
    "reset in the middle of a chunk": [Fault("PATCH", "uploads", swallow=10_000, times=2, after=1)],
    "answer lost": [Fault("PATCH", "uploads", after=2, times=1, status=500, carried_out=True)],
    "out of order": [Fault("PATCH", "uploads", after=1, times=1, status=416)],
    "lengths are wanted": [Fault("PATCH", "uploads", times=1, status=411)],
    "lengths are wanted later": [Fault("PATCH", "uploads", after=2, times=1, status=413)],
    "last lost": [Fault("PUT", "uploads", times=1, cut=-1)],
    "last chunk takes, answer lost": [Fault("PUT", "uploads", times=1, status=502, carried_out=True)],
}


@pytest.mark.parametrize("what", STREAM_BREAKS)
def test_stream_breaks(
    target: FakeRegistry, store: Store, reach: Access, made: str, small_chunks: int, what: str
) -> None:
    for fault in STREAM_BREAKS[what]:
        fault.hits = 0
    target.faults += STREAM_BREAKS[what]
    push(store.parts, made, f"{target.host}/made:v1", access=reach)
    (blob,) = layers_of(target, "made", "v1")
    assert digest_of(plain(blob)) == store.images.get(made).diff_ids[0]
    assert target.count("PATCH") >= len(blob) // small_chunks
    assert target.received("uploads") < len(blob) * 2
    counted = [each for each in target.log if each.method == "PATCH" and "content-length" in each.headers]
    assert bool(counted) == ("wanted" in what), "lengths are sent to those alone that want them"


def test_minimum_of_chunks(store: Store, reach: Access, made: str, small_chunks: int) -> None:
    with FakeRegistry(chunk_min=150_000) as target:
        push(store.parts, made, f"{target.host}/made:v1", access=reach)
        sizes = [request.received for request in target.log if request.method == "PATCH"]
        assert sizes
        assert min(sizes) >= 150_000
        target.chunk_min = 1 << 40
        with pytest.raises(RegistryError, match="chunks"):
            push(store.parts, made, f"{target.host}/again:v1", access=reach)


def test_token_that_ends_in_the_middle(store: Store, tmp_path: Path, made: str, small_chunks: int) -> None:
    with FakeRegistry(auth="bearer") as target, access(tmp_path) as reach:
        reach.credentials.put(target.host, Credentials("user", "secret"))
        target.faults.append(Fault("PATCH", after=2, times=1, action=target.tokens.clear))
        target.faults.append(Fault("PUT", "manifests", times=1, action=target.tokens.clear))
        push(store.parts, made, f"{target.host}/made:v1", access=reach)
        (blob,) = layers_of(target, "made", "v1")
        assert digest_of(plain(blob)) == store.images.get(made).diff_ids[0]
        assert 3 <= target.count("GET", "/token") <= 4


def test_token_that_ends_before_a_blob_is_sent(store: Store, tmp_path: Path, pulled: str) -> None:
    with FakeRegistry(auth="bearer") as target, access(tmp_path) as reach:
        reach.credentials.put(target.host, Credentials("user", "secret"))
        target.faults.append(Fault("PUT", "uploads", times=1, action=target.tokens.clear))
        push(store.parts, pulled, f"{target.host}/copy:v1", access=reach)
        assert layers_of(target, "copy", "v1") == list(IMAGE.layers)


REFUSALS = {
    "forbidden": (Fault("POST", "uploads", status=403), UnauthorizedError),
    "no such repository": (Fault("POST", "uploads", status=404), NotFoundError),
    "blob refused": (
        Fault("PUT", "uploads", status=400, body=b'{"errors":[{"code":"DIGEST_INVALID"}]}'),
        RegistryError,
    ),
    "manifest refused": (Fault("PUT", "manifests", status=400), RegistryError),
    "always broken": (Fault("PUT", "uploads", status=500), RegistryError),
    "upload nowhere": (Fault("POST", "uploads", headers={"Location": None}), RegistryError),
    "stored as something else": (
        Fault("PUT", "manifests", headers={"Docker-Content-Digest": digest_of(b"")}),
        IntegrityError,
    ),
    "401 loop": (
        Fault("POST", "uploads", status=401, headers={"WWW-Authenticate": "Basic realm=x"}),
        UnauthorizedError,
    ),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_refusals(target: FakeRegistry, store: Store, reach: Access, pulled: str, what: str) -> None:
    fault, expected = REFUSALS[what]
    fault.hits = 0
    target.faults.append(fault)
    with pytest.raises(expected) as caught:
        push(store.parts, pulled, f"{target.host}/copy:v1", access=reach)
    assert f"{target.host}/copy:v1" in str(caught.value)
    assert fault.status is None or str(fault.status) in str(caught.value)
    assert ("copy", "v1") not in target.manifests or "else" in what
    target.faults.clear()
    push(store.parts, pulled, f"{target.host}/copy:v1", access=reach)
    assert layers_of(target, "copy", "v1") == list(IMAGE.layers)


def test_upload_on_another_host_gets_no_authorization(store: Store, tmp_path: Path, pulled: str) -> None:
    with FakeRegistry(auth="basic") as target, FakeRegistry() as storage, access(tmp_path) as reach:
        reach.credentials.put(target.host, Credentials("user", "secret"))
        where = {"Location": f"http://{storage.host}/v2/copy/blobs/uploads/9?signature=secret"}
        target.faults.append(Fault("POST", "uploads", headers=where))
        with pytest.raises(RegistryError) as caught:
            push(store.parts, pulled, f"{target.host}/copy:v1", access=reach)
        assert "secret" not in str(caught.value)
        assert storage.log
        assert all("authorization" not in request.headers for request in storage.log)


class Lying(io.BytesIO):
    """A reader without a way back."""

    seek = None  # type: ignore[assignment]


@pytest.mark.parametrize("size", [1000, 200_000])
@pytest.mark.parametrize("wrong", ["digest", "short", "long"])
def test_wrong_bytes_never_become_a_blob(
    target: FakeRegistry, reach: Access, small_chunks: int, size: int, wrong: str
) -> None:
    data = noise(size)
    named = Descriptor(media_type="x", digest=Digest(digest_of(data)), size=size)
    given = {"digest": data[:-1] + b"?", "short": data[:-1], "long": data + b"!"}[wrong]
    sink = RegistrySink(reach.client(Endpoint(target.host, "app"), "pull,push"))
    with pytest.raises(IntegrityError):
        sink.put(named, io.BytesIO(given))
    assert target.blobs == {}


def test_reader_without_a_way_back(target: FakeRegistry, reach: Access, small_chunks: int) -> None:
    """What is small is held, so a break costs nothing; of a large one, what is lost is lost, and is said."""
    sink = RegistrySink(reach.client(Endpoint(target.host, "app"), "pull,push"))
    for size, fits in ((50_000, True), (500_000, False)):
        data = noise(size)
        named = Descriptor(media_type="x", digest=Digest(digest_of(data)), size=size)
        target.faults[:] = [Fault("PUT", "uploads", cut=-1, times=1)]
        if fits:
            sink.put(named, Lying(data))
            assert ("app", named.digest) in target.blobs
        else:
            with pytest.raises(RegistryError, match="again"):
                sink.put(named, Lying(data))


def test_damaged_layer_is_not_sent(target: FakeRegistry, store: Store, reach: Access, made: str) -> None:
    """The exact tar is checked against its diff ID while it is compressed."""
    diff_id = store.images.get(made).diff_ids[0]
    real = store.layers.open_tar

    class Damaged:
        def __init__(self) -> None:
            self.inner = real(diff_id)

        def __enter__(self) -> "Damaged":
            self.reader = self.inner.__enter__()
            return self

        def __exit__(self, *exc: object) -> None:
            self.inner.__exit__(*exc)  # type: ignore[arg-type]

        def read(self, size: int = 1 << 20, /) -> bytes:
            piece = self.reader.read(size)
            return piece.replace(b"text", b"tent")

    store.layers.open_tar = lambda digest: Damaged()  # type: ignore[method-assign,assignment,return-value]
    with pytest.raises(IntegrityError, match=diff_id):
        push(store.parts, made, f"{target.host}/made:v1", access=reach)
    assert target.blobs == {}
    assert not [thread for thread in threading.enumerate() if thread.name == "compress"]


# ---- copies without a store ----


def test_copy_between_registries(source: FakeRegistry, target: FakeRegistry, reach: Access) -> None:
    reference = serve(source, "app", "v1", IMAGE)
    copied = copy_image(reference, f"{target.host}/mirror/app:v2", access=reach)
    assert copied.digest == IMAGE.digest
    assert target.manifests["mirror/app", "v2"] == (MANIFEST_TYPE, IMAGE.manifest)
    assert layers_of(target, "mirror/app", "v2") == list(IMAGE.layers)


def test_copy_survives_breaks_on_both_sides(
    source: FakeRegistry, target: FakeRegistry, reach: Access, small_chunks: int
) -> None:
    reference = serve(source, "app", "v1", IMAGE)
    source.faults.append(Fault("GET", LAYER, times=3, cut=50_000))
    target.faults.append(Fault("PUT", "uploads", times=2, swallow=100_000))
    copy_image(reference, f"{target.host}/app:v1", access=reach)
    assert layers_of(target, "app", "v1") == list(IMAGE.layers)


def test_copy_on_one_registry_mounts(source: FakeRegistry, reach: Access) -> None:
    reference = serve(source, "app", "v1", IMAGE)
    copy_image(reference, f"{source.host}/else:v1", access=reach)
    assert source.sent("/blobs/") == 0
    assert layers_of(source, "else", "v1") == list(IMAGE.layers)


def test_copy_of_a_damaged_layer(source: FakeRegistry, target: FakeRegistry, reach: Access) -> None:
    reference = serve(source, "app", "v1", IMAGE)
    source.faults.append(Fault("GET", LAYER, body=IMAGE.layers[0][:-1] + b"?"))
    with pytest.raises(IntegrityError):
        copy_image(reference, f"{target.host}/app:v1", access=reach)
    assert ("app", LAYER) not in target.blobs
    assert ("app", "v1") not in target.manifests


@pytest.mark.parametrize("transport", ["docker-archive", "oci-archive", "oci"])
def test_copy_through_archives(
    source: FakeRegistry, target: FakeRegistry, reach: Access, tmp_path: Path, transport: str
) -> None:
    reference = serve(source, "app", "v1", IMAGE)
    place = tmp_path / "image"
    copy_image(reference, f"{transport}:{place}", access=reach)
    copy_image(f"{transport}:{place}", f"{target.host}/back:v1", access=reach)
    document = json.loads(target.manifests["back", "v1"][1])
    assert document["config"]["digest"] == IMAGE.id
    assert [plain(blob) for blob in layers_of(target, "back", "v1")] == list(IMAGE.tars)
    if transport == "oci-archive":
        assert tarfile.is_tarfile(place)
    if transport != "docker-archive":
        assert target.manifests["back", "v1"][1] == IMAGE.manifest


def test_foreign_layer_is_not_sent(source: FakeRegistry, target: FakeRegistry, reach: Access) -> None:
    foreign = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
    document = json.loads(IMAGE.manifest)
    document["layers"][0] = descriptor(IMAGE.layers[0], foreign, urls=["https://example.invalid/layer"])
    data = json.dumps(document).encode()
    serve(source, "app", "v1", IMAGE)
    source.put_manifest("app", "foreign", data)
    copy_image(f"{source.host}/app:foreign", f"{target.host}/app:v1", access=reach)
    assert target.manifests["app", "v1"][1] == data
    assert ("app", LAYER) not in target.blobs


def test_copy_says_what_it_did_not_understand(reach: Access, target: FakeRegistry, tmp_path: Path) -> None:
    for wrong in ("oci:", "a b", f"{target.host}/x@{IMAGE.digest}"):
        with pytest.raises(LayerfsError):
            copy_image(f"{target.host}/app:v1", wrong, access=reach)
