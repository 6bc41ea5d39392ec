"""Pull: what comes, what it costs, and every way in which a registry can misbehave."""

import gzip
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from fake_registry import MANIFEST_TYPE, FakeRegistry, Fault, digest_of
from registrykit import (
    CONFIG_TYPE,
    INDEX_TYPE,
    LAYER_TYPE,
    QUICK,
    MadeImage,
    Notes,
    access,
    descriptor,
    make_image,
    make_index,
    noise,
    reach,
    registry,
    serve,
    store,
)

from layerfs.digest import Digest
from layerfs.errors import (
    IntegrityError,
    InvalidInputError,
    LayerfsError,
    NotFoundError,
    RegistryError,
    UnauthorizedError,
)
from layerfs.exchange import inspect_manifest, list_tags, pull, pull_all_tags, pulling
from layerfs.oci import Platform
from layerfs.registry.access import Access
from layerfs.registry.config import Mirror, RegistryConfig, Rule
from layerfs.registry.connection import Timeouts
from layerfs.registry.retry import Retry
from layerfs.store import Store

__all__ = ["reach", "registry", "store"]

IMAGE = make_image()
AMD64 = Platform(os="linux", architecture="amd64")


def check_whole(store: Store, reference: str, made: MadeImage) -> None:
    image = store.images.get(reference)
    assert image.id == made.id
    assert [store.layers.has(diff_id) for diff_id in image.diff_ids] == [True] * len(made.layers)
    for diff_id, tar in zip(image.diff_ids, made.tars, strict=True):
        with store.layers.open_tar(diff_id) as reader:
            assert b"".join(iter(lambda: reader.read(1 << 20), b"")) == tar
    for layer in made.layers:
        assert store.content.read(Digest(digest_of(layer)), 1 << 30) == layer


def check_nothing(store: Store, made: MadeImage) -> None:
    assert store.images.list() == []
    assert store.database.names() == []
    assert not store.content.has(Digest(made.digest))


def check_named(error: LayerfsError, registry: FakeRegistry, reference: str) -> None:
    """Registry, repository and reference are in the message, and no secret is."""
    assert reference in str(error)
    assert registry.host in str(error)
    assert "secret" not in repr(error)


# ---- what comes ----


def test_pull_brings_the_image_byte_for_byte(registry: FakeRegistry, store: Store, reach: Access) -> None:
    reference = serve(registry, "team/app", "v1", IMAGE)
    notes = Notes()
    pulled = pull(store.parts, reference, access=reach, progress=notes)
    assert pulled.digest == pulled.target.digest == IMAGE.digest
    assert pulled.image is not None
    assert pulled.image.id == IMAGE.id
    assert pulled.new
    check_whole(store, reference, IMAGE)
    assert store.content.read(Digest(IMAGE.digest), 1 << 20) == IMAGE.manifest
    assert {notes.bytes[digest_of(layer)] for layer in IMAGE.layers} == {len(layer) for layer in IMAGE.layers}
    assert store.images.get(f"{registry.host}/team/app@{IMAGE.digest}").id == IMAGE.id


def test_pull_of_what_is_here_costs_one_request(registry: FakeRegistry, store: Store, reach: Access) -> None:
    reference = serve(registry, "app", "v1", IMAGE)
    pull(store.parts, reference, access=reach)
    registry.log.clear()
    pulled = pull(store.parts, reference, access=reach)
    assert not pulled.new
    assert [request.method for request in registry.log] == ["HEAD"]


def test_index_costs_one_request_too(registry: FakeRegistry, store: Store, reach: Access) -> None:
    serve(registry, "app", "v1", IMAGE)
    registry.put_manifest("app", "v1", make_index((IMAGE, "linux/amd64")), INDEX_TYPE)
    other = make_image((5000,), seed=2, architecture="arm64")
    serve(registry, "app", "other", other)
    registry.put_manifest("app", "v2", make_index((other, "linux/arm64"), (IMAGE, "linux/amd64")), INDEX_TYPE)
    for tag in ("v1", "v2"):
        reference = f"{registry.host}/app:{tag}"
        pull(store.parts, reference, platform=AMD64, access=reach)
        registry.log.clear()
        assert pull(store.parts, reference, platform=AMD64, access=reach).image.id == IMAGE.id  # type: ignore[union-attr]
        assert [request.method for request in registry.log] == ["HEAD"]


def test_shared_layers_are_not_fetched_again(registry: FakeRegistry, store: Store, reach: Access) -> None:
    first = make_image((40_000, 1000))
    more = make_image((40_000, 1000, 500))
    pull(store.parts, serve(registry, "app", "v1", first), access=reach)
    registry.log.clear()
    pull(store.parts, serve(registry, "app", "v2", more), access=reach)
    assert registry.count("GET", "/blobs/") == 2
    check_whole(store, f"{registry.host}/app:v2", more)


def test_moved_tag_moves_the_name(registry: FakeRegistry, store: Store, reach: Access) -> None:
    reference = serve(registry, "app", "latest", IMAGE)
    pull(store.parts, reference, access=reach)
    serve(registry, "app", "latest", make_image((1000,), seed=9))
    assert pull(store.parts, reference, access=reach).new
    assert store.images.get(reference).id == make_image((1000,), seed=9).id


def test_platforms(registry: FakeRegistry, store: Store, reach: Access) -> None:
    arm = make_image((2000,), seed=3, architecture="arm64")
    serve(registry, "app", "a", IMAGE)
    serve(registry, "app", "b", arm)
    inner = make_index((arm, "linux/arm64"))
    registry.put_manifest("app", "inner", inner, INDEX_TYPE)
    document = json.loads(make_index((IMAGE, "linux/amd64")))
    platform = {"os": "linux", "architecture": "arm64"}
    document["manifests"].append(descriptor(inner, INDEX_TYPE, platform=platform))
    registry.put_manifest("app", "multi", json.dumps(document).encode(), INDEX_TYPE)
    reference = f"{registry.host}/app:multi"
    assert pull(store.parts, reference, platform=AMD64, access=reach).image.id == IMAGE.id  # type: ignore[union-attr]
    got = pull(store.parts, reference, platform=Platform.parse("linux/arm64"), access=reach)
    assert got.image.id == arm.id  # type: ignore[union-attr]
    whole = pull(store.parts, reference, all_platforms=True, access=reach)
    assert whole.target.digest == digest_of(json.dumps(document).encode())
    assert store.content.has(Digest(arm.digest))
    with pytest.raises(NotFoundError, match="s390x"):
        pull(store.parts, reference, platform=Platform.parse("linux/s390x"), access=reach)


def test_all_tags(registry: FakeRegistry, store: Store, reach: Access) -> None:
    for number in range(5):
        serve(registry, "app", f"v{number}", IMAGE)
    pulled = list(pull_all_tags(store.parts, f"{registry.host}/app", access=reach))
    assert [each.reference.tag for each in pulled] == [f"v{number}" for number in range(5)]
    assert registry.count("GET", "/tags/list") == 2
    assert list_tags(f"{registry.host}/app", access=reach) == [f"v{number}" for number in range(5)]


def test_image_for_another_machine_is_said_to_be(registry: FakeRegistry, store: Store, reach: Access) -> None:
    notes = Notes()
    reference = serve(registry, "app", "v1", make_image((100,), architecture="s390x"))
    pull(store.parts, reference, platform=AMD64, access=reach, progress=notes)
    assert any("s390x" in text for text in notes.texts)


def test_pull_by_digest(registry: FakeRegistry, store: Store, reach: Access) -> None:
    serve(registry, "app", "v1", IMAGE)
    pulled = pull(store.parts, f"{registry.host}/app@{IMAGE.digest}", access=reach)
    assert pulled.digest == IMAGE.digest
    assert store.database.names() == []
    assert store.images.get(f"{registry.host}/app@{IMAGE.digest}").id == IMAGE.id


def test_artifact(registry: FakeRegistry, store: Store, reach: Access) -> None:
    data = b'{"bom": 1}'
    registry.put_blob("app", data)
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "artifactType": "application/spdx+json",
            "config": {**descriptor(b"{}", "application/vnd.oci.empty.v1+json"), "data": "e30="},
            "layers": [descriptor(data, "application/spdx+json")],
        }
    ).encode()
    registry.put_manifest("app", "sbom", manifest)
    pulled = pull(store.parts, f"{registry.host}/app:sbom", access=reach)
    assert pulled.image is None
    assert store.content.read(Digest(digest_of(data)), 1000) == data


def test_inspect_gives_the_exact_bytes(registry: FakeRegistry, reach: Access) -> None:
    reference = serve(registry, "app", "v1", IMAGE)
    assert inspect_manifest(reference, access=reach).data == IMAGE.manifest
    registry.put_manifest("app", "multi", make_index((IMAGE, "linux/amd64")), INDEX_TYPE)
    inspected = inspect_manifest(f"{registry.host}/app:multi", platform=AMD64, access=reach)
    assert inspected.data == IMAGE.manifest


def test_registry_that_answers_no_head(registry: FakeRegistry, store: Store, reach: Access) -> None:
    reference = serve(registry, "app", "v1", IMAGE)
    registry.faults.append(Fault("HEAD", status=405))
    assert pull(store.parts, reference, access=reach).digest == IMAGE.digest


def test_warnings_are_shown_once(registry: FakeRegistry, store: Store, tmp_path: Path) -> None:
    reference = serve(registry, "app", "v1", IMAGE)
    warning = '299 - "this repository \\"moves\\"\x1b[31m"'
    registry.faults.append(Fault("GET", headers={"Warning": warning.replace("\x1b", "~")}))
    texts: list[str] = []
    with access(tmp_path, note=texts.append) as reach:
        pull(store.parts, reference, access=reach)
    assert texts == [f'{registry.host}: this repository "moves"~[31m']


# ---- ranges, breaks, resuming ----

BIG = make_image((3_000_000,), seed=5)
BIG_BLOB = f"/blobs/{digest_of(BIG.layers[0])}"


def ranges_of(monkeypatch: pytest.MonkeyPatch, least: int, size: int) -> None:
    from layerfs.registry import source
    from layerfs.registry.download import Ranges

    monkeypatch.setattr(source, "Ranges", lambda: Ranges(least=least, size=size, ahead=3, fast=float("inf")))


def test_large_layer_comes_in_parallel_ranges(
    registry: FakeRegistry, store: Store, reach: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranges_of(monkeypatch, 1 << 20, 256 << 10)
    reference = serve(registry, "app", "v1", BIG)
    barrier = threading.Barrier(3, timeout=5)
    # Three requests must be under way at once, or the barrier breaks and the answer never comes.
    registry.faults.append(Fault("GET", BIG_BLOB, after=1, times=3, action=lambda: barrier.wait() and None))
    pull(store.parts, reference, access=reach)
    check_whole(store, reference, BIG)
    assert registry.count("GET", BIG_BLOB) == -(-len(BIG.layers[0]) // (256 << 10))
    assert registry.sent(BIG_BLOB) == len(BIG.layers[0])


def test_fast_server_is_asked_twice(
    registry: FakeRegistry, store: Store, reach: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the first range, and for the rest."""
    from layerfs.registry import source
    from layerfs.registry.download import Ranges

    monkeypatch.setattr(source, "Ranges", lambda: Ranges(least=1 << 20, size=256 << 10, fast=1.0))
    reference = serve(registry, "app", "v1", BIG)
    pull(store.parts, reference, access=reach)
    check_whole(store, reference, BIG)
    assert registry.count("GET", BIG_BLOB) == 2
    assert registry.sent(BIG_BLOB) == len(BIG.layers[0])


def test_server_without_ranges(
    registry: FakeRegistry, store: Store, reach: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranges_of(monkeypatch, 1 << 20, 256 << 10)
    registry.ranges = False
    reference = serve(registry, "app", "v1", BIG)
    registry.faults.append(Fault("GET", BIG_BLOB, times=2, cut=1_500_000))
    pull(store.parts, reference, access=reach)
    check_whole(store, reference, BIG)
    assert registry.count("GET", BIG_BLOB) == 3


def test_broken_ranges_are_gone_on_with(
    registry: FakeRegistry, store: Store, reach: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranges_of(monkeypatch, 1 << 20, 256 << 10)
    reference = serve(registry, "app", "v1", BIG)
    registry.faults.append(Fault("GET", BIG_BLOB, times=7, cut=100_000))
    pull(store.parts, reference, access=reach)
    check_whole(store, reference, BIG)
    assert registry.sent(BIG_BLOB) <= len(BIG.layers[0]) + 7 * 70_000


@pytest.mark.parametrize("percent", range(0, 100, 5))
def test_connection_dropped(registry: FakeRegistry, store: Store, reach: Access, percent: int) -> None:
    """At every 5 % of the stream: what has come is not fetched again."""
    reference = serve(registry, "app", "v1", BIG)
    registry.faults.append(Fault("GET", BIG_BLOB, times=1, cut=len(BIG.layers[0]) * percent // 100))
    pull(store.parts, reference, access=reach)
    check_whole(store, reference, BIG)
    assert registry.sent(BIG_BLOB) == len(BIG.layers[0])


def test_connection_dropped_again_and_again(registry: FakeRegistry, store: Store, reach: Access) -> None:
    """As long as each try brings something, it goes on."""
    reference = serve(registry, "app", "v1", BIG)
    registry.faults.append(Fault("GET", BIG_BLOB, cut=len(BIG.layers[0]) // 20))
    pull(store.parts, reference, access=reach)
    check_whole(store, reference, BIG)
    assert registry.sent(BIG_BLOB) == len(BIG.layers[0])


def test_next_pull_goes_on_where_this_one_failed(registry: FakeRegistry, store: Store, reach: Access) -> None:
    reference = serve(registry, "app", "v1", BIG)
    registry.faults.append(Fault("GET", BIG_BLOB, times=1, cut=2_000_000))
    registry.faults.append(Fault("GET", BIG_BLOB, times=20, status=503))
    with pytest.raises(RegistryError, match="503"):
        pull(store.parts, reference, access=reach)
    check_nothing(store, BIG)
    registry.faults.clear()
    pull(store.parts, reference, access=reach)
    check_whole(store, reference, BIG)
    assert registry.sent(BIG_BLOB) == len(BIG.layers[0])


def test_damaged_partial_is_fetched_again(registry: FakeRegistry, store: Store, reach: Access) -> None:
    """What a power cut left may be anything."""
    reference = serve(registry, "app", "v1", BIG)
    partial = store.root / "ingest" / f"blob-sha256-{digest_of(BIG.layers[0]).partition(':')[2]}"
    partial.write_bytes(BIG.layers[0][:500_000] + bytes(100_000))
    pull(store.parts, reference, access=reach)
    check_whole(store, reference, BIG)


_PULLER = """
import sys
sys.path[:0] = [sys.argv[1]]
from pathlib import Path
from registrykit import access, open_store
from layerfs.exchange import pull
path = Path(sys.argv[2])
with open_store(path) as store, access(path) as reach:
    pull(store.parts, sys.argv[3], access=reach)
"""


def puller(tmp_path: Path, reference: str) -> "subprocess.Popen[bytes]":
    tests = str(Path(__file__).parent)
    return subprocess.Popen([sys.executable, "-c", _PULLER, tests, str(tmp_path), reference])


def test_pull_after_kill_fetches_the_rest_only(
    registry: FakeRegistry, store: Store, reach: Access, tmp_path: Path
) -> None:
    reference = serve(registry, "app", "v1", BIG)
    half = len(BIG.layers[0]) // 2
    registry.faults.append(Fault("GET", BIG_BLOB, times=1, body=BIG.layers[0][:half], headers={
        "Content-Length": str(len(BIG.layers[0]))
    }))  # fmt: skip
    partial = store.root / "ingest" / f"blob-sha256-{digest_of(BIG.layers[0]).partition(':')[2]}"
    process = puller(tmp_path, reference)
    try:
        deadline = time.monotonic() + 20
        # Bytes are handed on in pieces of a quarter MiB.
        while not (partial.exists() and partial.stat().st_size > half - (256 << 10)):
            assert time.monotonic() < deadline, "the first half did not come"
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    check_nothing(store, BIG)
    kept = partial.stat().st_size
    registry.log.clear()
    pull(store.parts, reference, access=reach)
    check_whole(store, reference, BIG)
    assert registry.sent(BIG_BLOB) == len(BIG.layers[0]) - kept


def test_two_pulls_at_once_do_the_work_once(registry: FakeRegistry, store: Store, tmp_path: Path) -> None:
    reference = serve(registry, "app", "v1", BIG)
    registry.faults.append(Fault("GET", BIG_BLOB, times=1, delay=0.5))
    processes = [puller(tmp_path, reference) for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    check_whole(store, reference, BIG)
    assert registry.sent(BIG_BLOB) == len(BIG.layers[0])


# ---- misbehaviour ----


def corrupted(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


LAYER = f"/blobs/{digest_of(IMAGE.layers[0])}"
CONFIG = f"/blobs/{digest_of(IMAGE.config)}"
MANIFEST = "/manifests/"
LONGER = IMAGE.layers[0] + b"x" * 4000

FINAL = {
    "wrong digest of a layer": (Fault("GET", LAYER, body=corrupted(IMAGE.layers[0])), IntegrityError),
    "wrong digest of a config": (Fault("GET", CONFIG, body=corrupted(IMAGE.config)), IntegrityError),
    "wrong digest of a manifest": (Fault("GET", MANIFEST, body=corrupted(IMAGE.manifest)), IntegrityError),
    "too short": (Fault("GET", LAYER, body=IMAGE.layers[0][:-5]), IntegrityError),
    "too long": (Fault("GET", LAYER, body=LONGER), IntegrityError),
    "endless layer": (Fault("GET", LAYER, endless=True), IntegrityError),
    "endless manifest": (Fault("GET|HEAD", MANIFEST, endless=True, headers={"Docker-Content-Digest": None}),
                         IntegrityError),
    "longer, chunked": (Fault("GET", LAYER, body=b"%x\r\n%s\r\n0\r\n\r\n" % (len(LONGER), LONGER),
                              headers={"Content-Length": None, "Transfer-Encoding": "chunked"}), IntegrityError),
    "truncated always": (Fault("GET", LAYER, cut=0), RegistryError),
    "reset always": (Fault("GET", LAYER, cut=-1), RegistryError),
    "forbidden": (Fault("GET", LAYER, status=403), UnauthorizedError),
    "manifest forbidden": (Fault("HEAD|GET", MANIFEST, status=403), UnauthorizedError),
    "401 loop": (Fault("HEAD|GET", "", status=401, headers={"WWW-Authenticate": 'Basic realm="x"'}),
                 UnauthorizedError),
    "401 without a way": (Fault("HEAD|GET", "", status=401), UnauthorizedError),
    "no such tag": (Fault("HEAD|GET", MANIFEST, status=404), NotFoundError),
    "no such blob": (Fault("GET", LAYER, status=404), NotFoundError),
    "too many requests": (Fault("GET", LAYER, status=429), RegistryError),
    "come back tomorrow": (Fault("GET", LAYER, status=429, headers={"Retry-After": "86400"}), RegistryError),
    "server error": (Fault("GET", LAYER, status=500), RegistryError),
    "bad gateway": (Fault("GET", LAYER, status=502, body=b"<html>" + b"x" * 200_000), RegistryError),
    "teapot": (Fault("GET", LAYER, status=418), RegistryError),
    "redirect without end": (Fault("GET", LAYER, status=307, headers={"Location": LAYER}), RegistryError),
    "redirect nowhere": (Fault("GET", LAYER, status=307, headers={"Location": "ftp://host/x"}), RegistryError),
    "redirect to a secret": (Fault("GET", LAYER, status=307, headers={"Location": "http://a:secret@127.0.0.1:1/"}),
                             RegistryError),
    "redirect to a closed port": (Fault("GET", LAYER, status=302, headers={"Location": "http://127.0.0.1:1/?secret"}),
                                  RegistryError),
    "wrong content type": (Fault("GET|HEAD", MANIFEST, headers={"Content-Type": "text/html"}), IntegrityError),
    "another manifest type": (Fault("GET|HEAD", MANIFEST, headers={"Content-Type": INDEX_TYPE}), IntegrityError),
    "manifest not JSON": (Fault("GET|HEAD", MANIFEST, body=b"<html>", headers={"Docker-Content-Digest": None}),
                          IntegrityError),
    "manifest announced too large": (Fault("HEAD", MANIFEST, headers={"Content-Length": "99999999"}), IntegrityError),
    "digest of nothing": (Fault("HEAD", MANIFEST, headers={"Docker-Content-Digest": "sha256:../../x"}),
                          IntegrityError),
    "digest of another": (Fault("GET", MANIFEST, headers={"Docker-Content-Digest": digest_of(b"")}), None),
    "range of another place": (Fault("GET", LAYER, status=206, headers={"Content-Range": "bytes 5-9/10"}),
                               RegistryError),
    "garbage instead of HTTP": (Fault("GET", LAYER, status=1), RegistryError),
}  # fmt: skip


@pytest.mark.parametrize("what", FINAL)
def test_misbehaviour(registry: FakeRegistry, store: Store, reach: Access, what: str) -> None:
    """A clear error, soon; nothing half-visible; and when the registry behaves again, a pull that works."""
    fault, expected = FINAL[what]
    reference = serve(registry, "team/app", "v1", IMAGE)
    fault.hits = 0
    registry.faults.append(fault)
    if expected is None:
        pull(store.parts, reference, access=reach)
        return
    started = time.monotonic()
    with pytest.raises(expected) as caught:
        pull(store.parts, reference, access=reach)
    assert isinstance(caught.value, RegistryError | IntegrityError)
    assert time.monotonic() - started < 10
    check_named(caught.value, registry, "team/app:v1")
    assert fault.status is None or fault.status in (302, 307, 206, 1) or str(fault.status) in str(caught.value)
    check_nothing(store, IMAGE)
    registry.faults.clear()
    pull(store.parts, reference, access=reach)
    check_whole(store, reference, IMAGE)


PASSING = {
    "503 twice": Fault("GET", LAYER, status=503, times=2),
    "503 for the manifest": Fault("HEAD", MANIFEST, status=503, times=2),
    "429 with a pause": Fault("GET", LAYER, status=429, times=1, headers={"Retry-After": "1"}),
    "reset before the answer": Fault("GET", LAYER, cut=-1, times=3),
    "truncated once": Fault("GET", LAYER, cut=10_000, times=1),
    "config truncated": Fault("GET", CONFIG, cut=10, times=2),
}


@pytest.mark.parametrize("what", PASSING)
def test_what_passes(registry: FakeRegistry, store: Store, reach: Access, what: str) -> None:
    fault = PASSING[what]
    reference = serve(registry, "app", "v1", IMAGE)
    fault.hits = 0
    registry.faults.append(fault)
    started = time.monotonic()
    pull(store.parts, reference, access=reach)
    check_whole(store, reference, IMAGE)
    assert fault.hits == fault.times
    assert time.monotonic() - started >= (1.0 if fault.headers else 0.0)


def test_slow_drip(registry: FakeRegistry, store: Store, tmp_path: Path) -> None:
    """Bytes that come too slowly to be meant seriously are no reason to wait for ever."""
    reference = serve(registry, "app", "v1", IMAGE)
    registry.faults.append(Fault("GET", LAYER, drip=0.05))
    hurried = Timeouts(connect=2, read=2, stretch=0.3)
    started = time.monotonic()
    with access(tmp_path, timeouts=hurried, retry=Retry(attempts=2, base=0.001)) as reach:
        thread_errors: list[BaseException] = []

        def run() -> None:
            try:
                pull(store.parts, reference, access=reach)
            except LayerfsError as exc:
                thread_errors.append(exc)

        thread = threading.Thread(target=run)
        thread.start()
        time.sleep(2.0)
        # It keeps what came and asks again; from now on nothing comes at all.
        registry.faults[:] = [Fault("GET", LAYER, status=503)]
        thread.join(20)
    assert not thread.is_alive()
    assert thread_errors
    assert registry.count("GET", LAYER) >= 3
    assert time.monotonic() - started < 15


def test_silence(registry: FakeRegistry, store: Store, tmp_path: Path) -> None:
    reference = serve(registry, "app", "v1", IMAGE)
    registry.faults.append(Fault("GET", LAYER, delay=1.5))
    hurried = Timeouts(connect=2, read=0.2, stretch=5)
    with (
        access(tmp_path, timeouts=hurried, retry=Retry(attempts=2, base=0.001)) as reach,
        pytest.raises(RegistryError, match="in time"),
    ):
        pull(store.parts, reference, access=reach)
    check_nothing(store, IMAGE)


def test_index_that_contains_itself(registry: FakeRegistry, store: Store, reach: Access) -> None:
    """A digest cannot be in what it is of; a registry can still say so for a name, and lie about the content."""
    digest = digest_of(b"anything")
    looping = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": INDEX_TYPE,
            "manifests": [{"mediaType": INDEX_TYPE, "digest": digest, "size": 300}],
        }
    ).encode()
    registry.put_manifest("app", "v1", looping, INDEX_TYPE)
    registry.manifests["app", digest] = (INDEX_TYPE, looping)
    with pytest.raises(IntegrityError):
        pull(store.parts, f"{registry.host}/app:v1", all_platforms=True, access=reach)


def test_index_nested_without_end(registry: FakeRegistry, store: Store, reach: Access) -> None:
    inner = make_index((IMAGE, "linux/amd64"))
    registry.put_manifest("app", "l", inner, INDEX_TYPE)
    for _ in range(20):
        document = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [descriptor(inner, INDEX_TYPE)]}
        inner = json.dumps(document).encode()
        registry.put_manifest("app", "l", inner, INDEX_TYPE)
    with pytest.raises(IntegrityError, match="nested"):
        pull(store.parts, f"{registry.host}/app:l", all_platforms=True, access=reach)


def manifest_with(**changes: object) -> bytes:
    return json.dumps({**json.loads(IMAGE.manifest), **changes}).encode()


ODD_MANIFESTS = {
    "schema 1": (json.dumps({"schemaVersion": 1, "name": "x", "fsLayers": []}).encode(), "schema 1"),
    "manifests and layers": (manifest_with(manifests=[]), "at once"),
    "layer of unknown type": (
        manifest_with(layers=[descriptor(data, LAYER_TYPE + "+encrypted") for data in IMAGE.layers]), "media type"
    ),
    "too few layers": (manifest_with(layers=[descriptor(IMAGE.layers[0], LAYER_TYPE)]), "layers"),
    "wrong size": (manifest_with(layers=[{**descriptor(data, LAYER_TYPE), "size": len(data) + 1}
                                         for data in IMAGE.layers]), "announced"),
    "negative size": (manifest_with(layers=[{**descriptor(IMAGE.layers[0], LAYER_TYPE), "size": -1}]), "size"),
    "path as digest": (manifest_with(config={"mediaType": CONFIG_TYPE, "size": 1, "digest": "sha256:../../etc/x"}),
                       "digest"),
    "swapped layers": (manifest_with(layers=[descriptor(data, LAYER_TYPE) for data in reversed(IMAGE.layers)]),
                       "diff ID"),
}  # fmt: skip


@pytest.mark.parametrize("what", ODD_MANIFESTS)
def test_odd_manifests(registry: FakeRegistry, store: Store, reach: Access, what: str) -> None:
    data, reason = ODD_MANIFESTS[what]
    serve(registry, "app", "v1", IMAGE)
    registry.put_manifest("app", "odd", data)
    with pytest.raises((IntegrityError, InvalidInputError), match=reason) as caught:
        pull(store.parts, f"{registry.host}/app:odd", access=reach)
    assert registry.host in str(caught.value) or isinstance(caught.value, InvalidInputError)
    assert store.images.list() == []


def test_huge_manifest(registry: FakeRegistry, store: Store, reach: Access) -> None:
    data = manifest_with(annotations={"x": "y" * (40 << 20)})
    serve(registry, "app", "v1", IMAGE)
    registry.put_manifest("app", "huge", data)
    for fault in ([], [Fault("HEAD", MANIFEST, status=404)]):
        registry.faults[:] = fault
        with pytest.raises(IntegrityError, match="more than"):
            pull(store.parts, f"{registry.host}/app:huge", access=reach)
    assert registry.sent(MANIFEST) < 20 << 20


def test_foreign_layer_comes_without_credentials(registry: FakeRegistry, store: Store, reach: Access) -> None:
    """CVE-2020-15157: the host of such a URL must not get the registry's credentials, nor be asked by plain HTTP."""
    registry.auth = "basic"
    foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    with FakeRegistry(auth="basic") as elsewhere:
        layers = [
            descriptor(IMAGE.layers[0], foreign, urls=[f"http://{elsewhere.host}/v2/x/blobs/y"]),
            descriptor(IMAGE.layers[1], LAYER_TYPE),
        ]
        registry.put_blob("app", IMAGE.config)
        registry.put_blob("app", IMAGE.layers[1])
        registry.put_manifest("app", "v1", manifest_with(layers=layers))
        reach.credentials.put(registry.host, _CREDENTIALS)
        with pytest.raises(NotFoundError):
            pull(store.parts, f"{registry.host}/app:v1", access=reach)
        assert elsewhere.log == []


def _credentials() -> "object":
    from layerfs.registry.credentials import Credentials

    return Credentials("user", "secret")


_CREDENTIALS = _credentials()


def test_redirect_to_another_host_carries_no_authorization(registry: FakeRegistry, store: Store, reach: Access) -> None:
    registry.auth = "basic"
    reference = serve(registry, "app", "v1", IMAGE)
    with FakeRegistry() as storage:
        for layer in IMAGE.layers:
            storage.put_blob("elsewhere", layer)
            where = f"http://{storage.host}/v2/elsewhere/blobs/{digest_of(layer)}?signature=secret"
            path = f"/blobs/{digest_of(layer)}"
            registry.faults.append(Fault("GET", path, after=0, status=307, headers={"Location": where}))
        reach.credentials.put(registry.host, _CREDENTIALS)
        pull(store.parts, reference, access=reach)
        check_whole(store, reference, IMAGE)
        assert storage.count("GET") == len(IMAGE.layers)
        assert all("authorization" not in request.headers for request in storage.log)
        assert all("cookie" not in request.headers for request in storage.log)


def test_challenge_of_another_host_is_not_answered(registry: FakeRegistry, store: Store, reach: Access) -> None:
    registry.auth = "basic"
    reference = serve(registry, "app", "v1", IMAGE)
    with FakeRegistry(auth="basic") as storage:
        where = f"http://{storage.host}/v2/x/blobs/{digest_of(IMAGE.layers[0])}"
        registry.faults.append(Fault("GET", LAYER, status=307, headers={"Location": where}))
        reach.credentials.put(registry.host, _CREDENTIALS)
        with pytest.raises(UnauthorizedError):
            pull(store.parts, reference, access=reach)
        assert all("authorization" not in request.headers for request in storage.log)


_SMALL_DISK = """
import subprocess, sys
sys.path[:0] = [sys.argv[1]]
from pathlib import Path
from registrykit import access
from layerfs.errors import NativeError
from layerfs.exchange import pull
from layerfs.store import Store
path = Path(sys.argv[2])
small = path / "small"
small.mkdir()
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(small)], check=True)
with Store.open(small / "root", path / "run", layer_format="dir") as store, access(path) as reach:
    try:
        pull(store.parts, sys.argv[3], access=reach)
    except NativeError as exc:
        assert "No space left" in str(exc) and exc.hint, exc
    else:
        raise AssertionError("it fitted")
    assert store.images.list() == [] and store.database.names() == []
    subprocess.run(["mount", "-o", "remount,size=64m", str(small)], check=True)
    print("more room", flush=True)
    pull(store.parts, sys.argv[3], access=reach)
    print(store.images.get(sys.argv[3]).id)
"""


@pytest.mark.root
def test_disk_that_fills(registry: FakeRegistry, tmp_path: Path) -> None:
    """In a mount namespace of its own, so that nothing stays mounted."""
    made = make_image((6_000_000,), seed=7)
    reference = serve(registry, "app", "v1", made)
    command = ["unshare", "-m", sys.executable, "-c", _SMALL_DISK, str(Path(__file__).parent), str(tmp_path), reference]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["more room", made.id]
    sent = [request.sent for request in registry.log if digest_of(made.layers[0]) in request.path]
    # The second time the rest came, if not all had come the first time, before the layer found no room.
    assert len(sent) == 1 or sent[-1] < len(made.layers[0]), "what had come was not kept"


# ---- mirrors and blocked registries ----


def ruled(rule: Rule) -> RegistryConfig:
    return RegistryConfig((rule,), origin="registries.toml")


def test_mirror_is_asked_first(registry: FakeRegistry, store: Store, tmp_path: Path) -> None:
    serve(registry, "hub/team/app", "v1", IMAGE)
    rule = Rule("example.invalid", mirror=(Mirror(f"{registry.host}/hub"),))
    with access(tmp_path, ruled(rule)) as reach:
        pulled = pull(store.parts, "example.invalid/team/app:v1", access=reach)
    assert str(pulled.reference) == "example.invalid/team/app:v1"
    check_whole(store, "example.invalid/team/app:v1", IMAGE)


@pytest.mark.parametrize("trouble", ["absent", "broken", "stops", "unauthorized", "lies"])
def test_mirror_in_trouble(registry: FakeRegistry, store: Store, tmp_path: Path, trouble: str) -> None:
    reference = serve(registry, "team/app", "v1", IMAGE)
    with FakeRegistry(auth="basic" if trouble == "unauthorized" else None) as mirror:
        if trouble != "absent":
            serve(mirror, "team/app", "v1", IMAGE)
        if trouble == "broken":
            mirror.faults.append(Fault(status=500))
        if trouble == "lies":
            mirror.faults.append(Fault("GET", MANIFEST, body=IMAGE.manifest + b" "))
        if trouble == "stops":
            mirror.faults.append(Fault("GET", LAYER, cut=20_000, times=1))
            mirror.faults.append(Fault("GET", LAYER, status=500))
        rule = Rule(registry.host, mirror=(Mirror(mirror.host),))
        with access(tmp_path, ruled(rule)) as reach:
            pull(store.parts, reference, access=reach)
        check_whole(store, reference, IMAGE)
        if trouble == "stops":
            assert registry.sent(LAYER) == len(IMAGE.layers[0]) - 20_000


LIES = {
    "wrong bytes": Fault("GET", LAYER, body=corrupted(IMAGE.layers[0])),
    "too short": Fault("GET", LAYER, body=IMAGE.layers[0][:-5]),
    "too long": Fault("GET", LAYER, body=LONGER),
    "wrong configuration": Fault("GET", CONFIG, body=corrupted(IMAGE.config)),
    "wrong manifest": Fault("GET", MANIFEST, body=corrupted(IMAGE.manifest)),
}


@pytest.mark.parametrize("what", LIES)
def test_mirror_with_wrong_bytes_is_left(registry: FakeRegistry, store: Store, tmp_path: Path, what: str) -> None:
    """The image comes from the next place, and the user hears which mirror it was."""
    reference = serve(registry, "team/app", "v1", IMAGE)
    texts: list[str] = []
    with FakeRegistry() as mirror:
        serve(mirror, "team/app", "v1", IMAGE)
        LIES[what].hits = 0
        mirror.faults.append(LIES[what])
        rule = Rule(registry.host, mirror=(Mirror(mirror.host),))
        with access(tmp_path, ruled(rule), note=texts.append) as reach:
            pull(store.parts, reference, access=reach)
        assert mirror.count("GET", LIES[what].path) == 1
        assert len(texts) == 1
        assert mirror.host in texts[0]
    check_whole(store, reference, IMAGE)


def test_wrong_bytes_of_mirror_and_origin(registry: FakeRegistry, store: Store, tmp_path: Path) -> None:
    reference = serve(registry, "team/app", "v1", IMAGE)
    with FakeRegistry() as mirror:
        serve(mirror, "team/app", "v1", IMAGE)
        for each in (mirror, registry):
            each.faults.append(Fault("GET", LAYER, body=corrupted(IMAGE.layers[0])))
        rule = Rule(registry.host, mirror=(Mirror(mirror.host),))
        with access(tmp_path, ruled(rule)) as reach, pytest.raises(IntegrityError):
            pull(store.parts, reference, access=reach)
        assert registry.count("GET", LAYER) == 1
    check_nothing(store, IMAGE)


@pytest.mark.parametrize("keep_blobs", [True, False])
def test_mirror_is_not_blamed_for_what_the_image_says(
    registry: FakeRegistry, store: Store, tmp_path: Path, keep_blobs: bool
) -> None:
    """A blob that has its digest is right, whatever diff ID the configuration gives it: nobody has a better one."""
    config = IMAGE.config.replace(digest_of(IMAGE.tars[1]).encode(), b"sha256:" + b"0" * 64)
    manifest = IMAGE.manifest.replace(digest_of(IMAGE.config).encode(), digest_of(config).encode())
    wrong = replace(IMAGE, config=config, manifest=manifest)
    reference = serve(registry, "team/app", "v1", wrong)
    texts: list[str] = []
    parts = msgspec.structs.replace(store.parts, keep_blobs=keep_blobs)
    with FakeRegistry() as mirror:
        serve(mirror, "team/app", "v1", wrong)
        with access(tmp_path, ruled(Rule(registry.host, mirror=(Mirror(mirror.host),))), note=texts.append) as reach:
            for count in (1, 1 if keep_blobs else 2):  # the blob that was kept is not fetched again
                with pytest.raises(IntegrityError, match="diff ID"):
                    pull(parts, reference, access=reach)
                assert mirror.count("GET", digest_of(IMAGE.layers[1])) == count
        assert registry.count("GET", "/blobs/") == 0
        assert texts == []
        assert store.images.list() == []


MALFORMED = {
    "no tar": gzip.compress(noise(300_000, 3), 1, mtime=0),
    "stream cut short": IMAGE.layers[0][:-20_000],
    "bytes behind it": IMAGE.layers[0] + b"more" * 10_000,
}


@pytest.mark.parametrize("keep_blobs", [True, False])
@pytest.mark.parametrize("what", MALFORMED)
def test_what_is_malformed_and_has_its_digest_is_fetched_once(
    registry: FakeRegistry, store: Store, tmp_path: Path, what: str, keep_blobs: bool
) -> None:
    layer = MALFORMED[what]
    before, after = (descriptor(data, LAYER_TYPE) for data in (IMAGE.layers[0], layer))
    document = json.loads(IMAGE.manifest)
    document["layers"][document["layers"].index(before)] = after
    wrong = replace(IMAGE, layers=(layer, *IMAGE.layers[1:]), manifest=json.dumps(document).encode())
    reference = serve(registry, "team/app", "v1", wrong)
    texts: list[str] = []
    parts = msgspec.structs.replace(store.parts, keep_blobs=keep_blobs)
    with FakeRegistry() as mirror:
        serve(mirror, "team/app", "v1", wrong)
        with (
            access(tmp_path, ruled(Rule(registry.host, mirror=(Mirror(mirror.host),))), note=texts.append) as reach,
            pytest.raises(IntegrityError, match="unpack layer"),
        ):
            pull(parts, reference, access=reach)
        assert mirror.count("GET", digest_of(layer)) == 1
        assert mirror.sent(digest_of(layer)) == len(layer)
        assert registry.count("GET", "/blobs/") == 0
        assert texts == []
        assert store.images.list() == []


@pytest.mark.parametrize("head", [True, False])
def test_digest_that_is_asked_for_is_the_one_that_comes(
    registry: FakeRegistry, store: Store, tmp_path: Path, head: bool
) -> None:
    """A mirror that answers with another image, and calls that by its right digest, is no place for this one."""
    other = make_image((700,), seed=31)
    serve(registry, "app", "v1", IMAGE)
    wanted = f"{registry.host}/app@{IMAGE.digest}"
    with FakeRegistry() as mirror:
        serve(mirror, "app", "v1", other)
        mirror.manifests["app", IMAGE.digest] = mirror.manifests["app", "v1"]
        if not head:
            mirror.faults.append(Fault("HEAD", status=405))
        with access(tmp_path) as reach, pytest.raises(IntegrityError):
            pull(store.parts, f"{mirror.host}/app@{IMAGE.digest}", access=reach)
        assert store.images.list() == []
        rule = Rule(registry.host, mirror=(Mirror(mirror.host),))
        with access(tmp_path, ruled(rule)) as reach:
            assert pull(store.parts, wanted, access=reach).digest == IMAGE.digest
    assert store.images.get(wanted).id == IMAGE.id


def test_blocked_registry(registry: FakeRegistry, store: Store, tmp_path: Path) -> None:
    reference = serve(registry, "team/app", "v1", IMAGE)
    rule = Rule(f"{registry.host}/team", blocked=True)
    with access(tmp_path, ruled(rule)) as reach, pytest.raises(RegistryError, match="blocked"):
        pull(store.parts, reference, access=reach)
    assert registry.log == []


def test_retry_pauses_grow() -> None:
    failure = RegistryError("x", temporary=True)
    pauses = [Retry(attempts=6, base=1.0, longest=5.0).pause(failure, attempt) for attempt in range(1, 6)]
    assert [0.5 * limit <= pause <= limit for pause, limit in zip(pauses, (1, 2, 4, 5, 5), strict=True)] == [True] * 5
    with pytest.raises(RegistryError):
        QUICK.pause(failure, QUICK.attempts)


def test_noise_is_stable() -> None:
    assert noise(8, 1) == noise(8, 1) != noise(8, 2)


def test_what_is_removed_the_moment_it_is_there_was_pulled(
    registry: FakeRegistry, store: Store, reach: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By another command, which takes its chance when this one has let go."""
    reference = serve(registry, "team/app", "v1", IMAGE)

    class Removed(pulling.Lease):
        def __exit__(self, *ended: object) -> None:
            super().__exit__(*ended)
            store.remove_image(reference)

    monkeypatch.setattr(pulling, "Lease", Removed)
    pulled = pull(store.parts, reference, access=reach)
    assert pulled.image is not None
    assert pulled.image.id == IMAGE.id
    assert not store.images.list()


def test_pull_of_what_is_up_to_date_only_reads(
    registry: FakeRegistry, store: Store, reach: Access, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No lease, no transaction: each would wait for the disk."""
    reference = serve(registry, "team/app", "v1", IMAGE)
    registry.put_manifest("team/app", "v2", IMAGE.manifest)
    first = pull(store.parts, reference, access=reach)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("it was to be read only")

    for digest in ("", f"@{IMAGE.digest}"):
        with monkeypatch.context() as patch:
            patch.setattr(pulling, "Lease", refuse)
            patch.setattr(store.parts.database, "transaction", refuse)
            again = pull(store.parts, reference + digest, access=reach)
        assert (again.target, again.image, again.new) == (first.target, first.image, False)
    other = pull(store.parts, f"{registry.host}/team/app:v2", access=reach)
    assert (other.target, other.new) == (first.target, True)
    assert registry.count("GET", LAYER) == 1
