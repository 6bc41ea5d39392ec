"""Registries as they are found: answers at the edge of the specifications and beyond, and what comes of them.

Each table is a peer's experience: what other clients meet in their tests and issues, tried here.
"""

import json
import ssl
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_registry import MANIFEST_TYPE, FakeRegistry, Fault, digest_of
from registrykit import (
    INDEX_TYPE,
    access,
    make_image,
    make_index,
    noise,
    reach,
    registry,
    serve,
    server_context,
    store,
    tar_of,
)

from layerfs.digest import Digest
from layerfs.errors import LayerfsError, RegistryError
from layerfs.exchange import copy_image, inspect_manifest, list_tags, pull, push
from layerfs.oci import Descriptor
from layerfs.registry import upload
from layerfs.registry.access import Access
from layerfs.registry.config import Endpoint
from layerfs.registry.credentials import Credentials
from layerfs.registry.download import Ranges
from layerfs.registry.sink import RegistrySink
from layerfs.registry.source import RegistrySource
from layerfs.store import Store

__all__ = ["reach", "registry", "server_context", "store"]

IMAGE = make_image((300_000, 2_000), seed=9)
LAYER = digest_of(IMAGE.layers[0])
PULL = "repository:team/app:pull"


@pytest.fixture
def bearer() -> Iterator[FakeRegistry]:
    with FakeRegistry(auth="bearer") as registry:
        serve(registry, "team/app", "v1", IMAGE)
        registry.tokens["t1"] = ({PULL}, float("inf"))
        yield registry


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(upload, "CHUNK", 64 << 10)
    monkeypatch.setattr(upload, "STREAMED", 64 << 10)
    return 64 << 10


@pytest.fixture
def made(store: Store, tmp_path: Path) -> str:
    """An image without blobs, so that its layer is sent while it is compressed."""
    tar = tmp_path / "made.tar"
    tar.write_bytes(tar_of({"b": noise(400_000, 8)}))
    store.import_image(tar, "made:v1")
    return "made:v1"


def tags(registry: FakeRegistry, reach: Access) -> list[str]:
    return list_tags(f"{registry.host}/team/app", access=reach)


def check_pushed(target: FakeRegistry, repository: str) -> None:
    """Whether all layers that the manifest names are there; the registry itself has checked their digests."""
    document = json.loads(target.manifests[repository, "v1"][1])
    assert all((repository, layer["digest"]) in target.blobs for layer in document["layers"])


# ---- tokens ----

TOKENS = {
    "token": {"token": "t1"},
    "access_token": {"access_token": "t1", "scope": "", "token_type": "Bearer"},
    "an empty token beside it": {"token": "", "access_token": "t1"},
    "both": {"token": "t1", "access_token": "t1", "expires_in": 300},
    "lives 0 seconds": {"token": "t1", "expires_in": 0},
    "lives no time that is said": {"token": "t1", "expires_in": None},
    "lives less than nothing": {"token": "t1", "expires_in": -5},
    "lives one second": {"token": "t1", "expires_in": 1},
    "a fraction": {"token": "t1", "expires_in": 299.5},
    "digits in quotes": {"token": "t1", "expires_in": "300"},
    "issued in the year 1": {"token": "t1", "expires_in": 300, "issued_at": "0001-01-01T00:00:00Z"},
    "issued in the future": {"token": "t1", "expires_in": 300, "issued_at": "2999-01-01T00:00:00Z"},
    "issued at no time": {"token": "t1", "expires_in": 300, "issued_at": "yesterday"},
    "issued at a number": {"token": "t1", "issued_at": 1514800802},
    "no refresh token": {"token": "t1", "refresh_token": None},
    "a refresh token that is none": {"token": "t1", "refresh_token": 5},
}


@pytest.mark.parametrize("what", TOKENS)
def test_tokens(bearer: FakeRegistry, reach: Access, what: str) -> None:
    bearer.faults.append(Fault("GET", "/token", status=200, body=json.dumps(TOKENS[what]).encode()))
    assert tags(bearer, reach) == ["v1"]
    assert bearer.count("GET", "/token") <= 2


CHALLENGES = {
    "Basic too": 'Basic realm="x", Bearer realm="{}",service="fake"',
    "Basic after it": 'Bearer realm="{}",service="fake", Basic realm="x"',
    "in two headers": 'Basic realm="x"\nBearer realm="{}",service="fake"',
    "others": 'Negotiate, NTLM, Bearer realm="{}",service="fake"',
    "lower case": 'bearer realm="{}",service="fake"',
    "upper case": 'BEARER REALM="{}",SERVICE="fake"',
    "no quotes": "Bearer realm={},service=fake",
    "spaces": 'Bearer  realm = "{}" , service = "fake"',
    "a comma at the end": 'Bearer realm="{}",service="fake",',
    "an error": 'Bearer realm="{}",service="fake",error="insufficient_scope"',
    "an empty scope": 'Bearer realm="{}",service="fake",scope=""',
    "no service": 'Bearer realm="{}"',
    "a service with commas": 'Bearer service="a, b = c",realm="{}"',
    "a realm with a query": 'Bearer realm="{}?a=b",service="fake"',
    "the realm twice": 'Bearer realm="{}",realm="http://127.0.0.1:1/",service="fake"',
}


@pytest.mark.parametrize("what", CHALLENGES)
def test_challenges(bearer: FakeRegistry, reach: Access, what: str) -> None:
    bearer.anonymous_pull = True
    header = CHALLENGES[what].format(f"http://{bearer.host}/token")
    bearer.faults.append(Fault("GET", "tags", times=1, status=401, headers={"WWW-Authenticate": header}))
    assert tags(bearer, reach) == ["v1"]


@pytest.mark.parametrize("header", ['Bearer service="x", Basic realm="y"', 'Bearer, Basic realm="y"'])
def test_bearer_without_realm_leaves_basic(reach: Access, header: str) -> None:
    with FakeRegistry(auth="basic") as registry:
        serve(registry, "team/app", "v1", IMAGE)
        reach.credentials.put(registry.host, Credentials("user", "secret"))
        registry.faults.append(Fault("GET", "tags", times=1, status=401, headers={"WWW-Authenticate": header}))
        assert tags(registry, reach) == ["v1"]


@pytest.mark.parametrize(
    ("wanted", "asked"),
    [
        ("aws", ["aws", PULL]),
        ("repository:library/app:pull", ["repository:library/app:pull", PULL]),
        ("repository:team/app:pull,delete", ["repository:team/app:pull,delete", PULL]),
        (PULL, [PULL]),
        ("repository:team/app:", [PULL]),
        ("repository:a:pull  repository:b:pull", ["repository:a:pull", "repository:b:pull", PULL]),
        ("repository:host:5000/a:pull", ["repository:host:5000/a:pull", PULL]),
        ("", [PULL]),
    ],
)
def test_scopes_that_the_registry_wants_are_asked_for(
    bearer: FakeRegistry, reach: Access, wanted: str, asked: list[str]
) -> None:
    """Behind a mirror that changes paths, or where rights have other names, ours alone would be refused."""
    bearer.anonymous_pull = True
    header = f'Bearer realm="http://{bearer.host}/token",service="fake",scope="{wanted}"'
    bearer.faults.append(Fault("GET", "tags", times=1, status=401, headers={"WWW-Authenticate": header}))
    assert tags(bearer, reach) == ["v1"]
    (request,) = [each for each in bearer.log if each.path.startswith("/token")]
    query = urllib.parse.parse_qs(urllib.parse.urlsplit(request.path).query)
    assert query["scope"] == sorted(asked)


def test_identity_token_where_only_passwords_are_known(bearer: FakeRegistry, reach: Access) -> None:
    """A token server without OAuth2 is shown the user and password that were kept beside the token."""
    bearer.faults.append(Fault("POST", "/token", status=404))
    reach.credentials.put(bearer.host, Credentials("user", "secret"))
    path = next(path for path in (reach.credentials._home_file(),) if path.exists())
    document = json.loads(path.read_text())
    document["auths"][bearer.host]["identitytoken"] = "old"
    path.write_text(json.dumps(document))
    assert tags(bearer, reach) == ["v1"]


def test_token_server_that_wants_a_pause(bearer: FakeRegistry, reach: Access) -> None:
    bearer.anonymous_pull = True
    bearer.faults.append(Fault("GET", "/token", status=429, headers={"Retry-After": "3600"}))
    with pytest.raises(RegistryError) as caught:
        tags(bearer, reach)
    assert "3600" in str(caught.value.hint)
    assert bearer.count("GET", "/token") == 1


# ---- redirects ----


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("where", ["relative", "path", "elsewhere"])
def test_redirects(registry: FakeRegistry, store: Store, reach: Access, status: int, where: str) -> None:
    reference = serve(registry, "team/app", "v1", IMAGE)
    with FakeRegistry() as elsewhere:
        serve(elsewhere, "real", "v1", IMAGE)
        serve(registry, "real", "v1", IMAGE)
        target = {
            "relative": f"../../../real/blobs/{LAYER}?X-Sig=a%2Bb",
            "path": f"/v2/real/blobs/{LAYER}?X-Sig=a%2Bb",
            "elsewhere": f"http://{elsewhere.host}/v2/real/blobs/{LAYER}?X-Sig=a%2Bb",
        }[where]
        registry.faults.append(Fault("GET", f"team/app/blobs/{LAYER}", status=status, headers={"Location": target}))
        pull(store.parts, reference, access=reach)
        there = elsewhere if where == "elsewhere" else registry
        assert there.count("GET", r"real/blobs/.*X-Sig=a%2Bb") == 1


# ---- uploads ----

PLACES: dict[str, Callable[[str, str], str]] = {
    "path": lambda path, host: path,
    "absolute": lambda path, host: f"http://{host}{path}",
    "without a scheme": lambda path, host: f"//{host}{path}",
    "relative": lambda path, host: path.rpartition("/")[2],
    "more of a query": lambda path, host: f"{path}&_state=a%2Fb%3D&x=a+b",
    "no query": lambda path, host: path.partition("?")[0],
    "signs of base64": lambda path, host: f"{path}&_state=abc==",
}


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("what", PLACES)
def test_places_of_uploads(
    registry: FakeRegistry, store: Store, reach: Access, made: str, small_chunks: int, what: str, known: bool
) -> None:
    locate = PLACES[what]
    with FakeRegistry() as target:
        target.locate = lambda path: locate(path, target.host)
        if known:
            copy_image(serve(registry, "team/app", "v1", IMAGE), f"{target.host}/app:v1", access=reach)
        else:
            push(store.parts, made, f"{target.host}/app:v1", access=reach)
        check_pushed(target, "app")


def _stuck() -> Callable[[int], str | None]:
    """The first that it said, for ever."""
    said: list[int] = []

    def report(size: int) -> str | None:
        if size and not said:
            said.append(size)
        return f"0-{said[0] - 1 if said else 0}"

    return report


REPORTS: dict[str, Callable[[], Callable[[int], str | None]]] = {
    "as it should": lambda: lambda size: f"0-{max(0, size - 1)}",
    "with bytes": lambda: lambda size: f"bytes=0-{max(0, size - 1)}",
    "none": lambda: lambda size: None,
    "empty": lambda: lambda size: "",
    "one too many": lambda: lambda size: f"0-{size}",
    "always nothing": lambda: lambda size: "0-0",
    "stuck at the first": _stuck,
    "no number": lambda: lambda size: "all",
    "a length": lambda: lambda size: str(size),
}


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("what", REPORTS)
def test_what_an_upload_is_said_to_have(
    registry: FakeRegistry, store: Store, reach: Access, made: str, small_chunks: int, what: str, known: bool
) -> None:
    """Most clients never look at it, so it is wrong on some registries; a chunk that was accepted has arrived."""
    with FakeRegistry() as target:
        target.report = REPORTS[what]()
        if known:  # it goes in chunks when it is too large at once
            target.faults.append(Fault("PUT", "uploads/1.*digest", status=413, times=1))
            copy_image(serve(registry, "team/app", "v1", IMAGE), f"{target.host}/app:v1", access=reach)
        else:
            push(store.parts, made, f"{target.host}/app:v1", access=reach)
        check_pushed(target, "app")
        size = sum(len(data) for data in target.blobs.values())
        assert target.received("uploads") < 2 * size


SUCCESSES = {
    "POST 200": Fault("POST", "uploads", status=200),
    "POST 204": Fault("POST", "uploads", status=204),
    "PATCH 201": Fault("PATCH", "uploads", status=201),
    "PATCH 200": Fault("PATCH", "uploads", status=200),
    "PUT 200": Fault("PUT", "uploads", status=200),
    "PUT 202": Fault("PUT", "uploads", status=202),
    "PUT 204": Fault("PUT", "uploads", status=204),
    "manifest 200": Fault("PUT", "manifests", status=200),
    "manifest 204": Fault("PUT", "manifests", status=204),
    "HEAD 405": Fault("HEAD", status=405),
    "HEAD 501": Fault("HEAD", status=501),
    "HEAD 400": Fault("HEAD", status=400),
    "HEAD 403": Fault("HEAD", status=403),
    "a UUID alone": Fault("POST", "uploads", headers={"Docker-Upload-UUID": "1"}),
    "no digest for the manifest": Fault("PUT", "manifests", headers={"Docker-Content-Digest": None}),
}


@pytest.mark.parametrize("what", SUCCESSES)
def test_other_words_for_yes(store: Store, reach: Access, made: str, small_chunks: int, what: str) -> None:
    with FakeRegistry() as target:
        target.faults.append(SUCCESSES[what])
        push(store.parts, made, f"{target.host}/app:v1", access=reach)
        check_pushed(target, "app")


@pytest.mark.parametrize("refusal", [400, 404, 405, 411, 416, 501])
def test_registry_that_takes_no_second_chunk(
    store: Store, reach: Access, made: str, small_chunks: int, refusal: int
) -> None:
    """Some take one PATCH, as docker sends it, and no more: the layer is compressed once more, into a single one."""
    with FakeRegistry() as target:
        refused = Fault("PATCH", r"state=[1-9]", status=refusal)
        target.faults.append(refused)
        push(store.parts, made, f"{target.host}/app:v1", access=reach)
        check_pushed(target, "app")
        assert refused.hits


def test_registry_that_keeps_the_last_chunk_only(store: Store, reach: Access, made: str, small_chunks: int) -> None:
    with FakeRegistry() as target:
        target.faults.append(Fault("PATCH", r"state=[1-9]", action=lambda: target.uploads["1"][1].clear()))
        push(store.parts, made, f"{target.host}/app:v1", access=reach)
        check_pushed(target, "app")


def test_broken_upload_that_takes_no_chunk_is_sent_at_once_again(
    registry: FakeRegistry, reach: Access, small_chunks: int
) -> None:
    reference = serve(registry, "team/app", "v1", IMAGE)
    with FakeRegistry() as target:

        def arrive() -> None:
            ((_, data),) = target.uploads.values()
            data.extend(IMAGE.layers[0][:100_000])

        broken = Fault("PUT", f"uploads.*{LAYER}", swallow=100_000, times=1, action=arrive)
        target.faults += [broken, Fault("PATCH", status=405)]
        copy_image(reference, f"{target.host}/app:v1", jobs=1, access=reach)
        assert broken.hits == target.count("PATCH") == 1
        check_pushed(target, "app")


def test_upload_over_tls_stays_there(tmp_path: Path, server_context: ssl.SSLContext) -> None:
    """A proxy in front of the registry ends TLS, and the registry names itself as http; or it wants bytes in clear."""
    with FakeRegistry(tls=server_context) as target, FakeRegistry() as plain, access(tmp_path) as reach:
        sink = RegistrySink(reach.client(Endpoint(target.host, "app"), "pull,push"))
        data = noise(1000)
        descriptor = Descriptor(media_type="application/octet-stream", digest=Digest.of(data), size=len(data))
        target.locate = lambda path: f"http://127.0.0.1{path}"
        with RegistrySource([reach.client(Endpoint(plain.host, "app"), "pull")]) as source:
            plain.put_blob("app", data)
            with source.open(descriptor) as reader:
                sink.put(descriptor, reader)
            assert target.blobs["app", descriptor.digest] == data
            del target.blobs["app", descriptor.digest]
            target.locate = lambda path: f"http://localhost:{plain.host.partition(':')[2]}{path}"
            plain.log.clear()
            with source.open(descriptor) as reader, pytest.raises(RegistryError, match="from https to http"):
                sink.put(descriptor, reader)
            assert plain.count("PUT|PATCH") == 0


# ---- manifests ----

CONTENT_TYPES = {
    "a parameter": f"{MANIFEST_TYPE}; charset=utf-8",
    "two parameters": f'{MANIFEST_TYPE};charset="utf-8";q=1',
    "JSON": "application/json",
    "JSON with a charset": "application/json; charset=utf-8",
    "text": "text/plain; charset=utf-8",
    "bytes": "application/octet-stream",
    "binary bytes": "binary/octet-stream",
    "nothing": "",
    "none": None,
}


@pytest.mark.parametrize("said", [True, False])
@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize("what", CONTENT_TYPES)
def test_content_types(registry: FakeRegistry, store: Store, reach: Access, what: str, index: bool, said: bool) -> None:
    """A server of plain files says no type of its own: then the document's word counts, or else its form."""
    document = json.loads(make_index((IMAGE, "linux/amd64")) if index else IMAGE.manifest)
    if not said:
        del document["mediaType"]
    data = json.dumps(document).encode()
    serve(registry, "team/app", "v1", IMAGE)
    registry.put_manifest("team/app", "v1", data, INDEX_TYPE if index else MANIFEST_TYPE)
    header = CONTENT_TYPES[what]
    if header is not None and index:
        header = header.replace(MANIFEST_TYPE, INDEX_TYPE)
    registry.faults.append(Fault(path="manifests", headers={"Content-Type": header}))
    pull(store.parts, f"{registry.host}/team/app:v1", access=reach)
    found = inspect_manifest(f"{registry.host}/team/app:v1", access=reach)
    assert found.data == data
    assert found.descriptor.media_type == (INDEX_TYPE if index else MANIFEST_TYPE)


@pytest.mark.parametrize(
    "document",
    [
        {"schemaVersion": 2, "manifests": [], "layers": [], "config": {}},
        {"schemaVersion": 2, "mediaType": "application/vnd.example+json", "layers": [], "config": {}},
        {"schemaVersion": 1, "fsLayers": []},
        {"schemaVersion": 2},
        [],
    ],
)
@pytest.mark.parametrize("header", ["application/json", "text/html"])
def test_documents_that_could_be_anything(registry: FakeRegistry, reach: Access, header: str, document: object) -> None:
    """What could be read as one or the other is neither (CVE-2021-41190)."""
    registry.put_manifest("team/app", "v1", json.dumps(document).encode(), header)
    with pytest.raises(LayerfsError):
        inspect_manifest(f"{registry.host}/team/app:v1", access=reach)


@pytest.mark.parametrize("status", [400, 403, 404, 405, 501])
def test_registry_that_refuses_head(registry: FakeRegistry, store: Store, reach: Access, status: int) -> None:
    reference = serve(registry, "team/app", "v1", IMAGE)
    registry.faults.append(Fault("HEAD", status=status))
    pull(store.parts, reference, access=reach)
    assert store.images.get(reference).id == IMAGE.id


@pytest.mark.parametrize("status", [403, 404])
def test_words_of_a_refusal_reach_the_user(registry: FakeRegistry, reach: Access, status: int) -> None:
    """An answer to HEAD has no body, so a GET is made for what the registry has to say."""
    body = b'{"errors":[{"code":"DENIED","message":"ask the owners"}]}'
    registry.faults.append(Fault("HEAD|GET", status=status, body=body))
    with pytest.raises(RegistryError, match="ask the owners"):
        inspect_manifest(f"{registry.host}/team/app:v1", access=reach)


# ---- errors ----

BODIES = {
    "HTML": (b"<html><h1>502 Bad Gateway</h1></html>", ""),
    "nothing": (b"", ""),
    "text": (b"Not found\n", ""),
    "a code of digits": (b'{"errors":[{"code":"404","message":"Not Found"}]}', "Not Found"),
    "a code that is a number": (b'{"errors":[{"code":404,"message":"gone away"}]}', "gone away"),
    "no code": (b'{"errors":[{"status":404,"message":"File not found."}]}', "File not found"),
    "no message": (b'{"errors":[{"code":"NAME_UNKNOWN","detail":{"name":"x"}}]}', "NAME_UNKNOWN"),
    "null": (b'{"errors":null}', ""),
    "one error": (b'{"errors":{"code":"X"}}', ""),
    "another form": (b'{"message":"no such project"}', "no such project"),
    "details": (b'{"details":"no such project"}', "no such project"),
}


@pytest.mark.parametrize("what", BODIES)
def test_bodies_of_errors(registry: FakeRegistry, reach: Access, what: str) -> None:
    body, words = BODIES[what]
    registry.faults.append(Fault("GET", "tags", status=404, body=body))
    with pytest.raises(RegistryError, match="404") as caught:
        tags(registry, reach)
    assert words in str(caught.value)


# ---- lists of tags ----


def test_pages_behind_a_proxy(registry: FakeRegistry, reach: Access) -> None:
    """The next page is asked for where this one was, under whatever name the registry knows itself."""
    for number in range(5):
        serve(registry, "team/app", f"v{number}", IMAGE)
    link = '<http://registry.internal:8080/v2/team/app/tags/list?n=3&last=v2>; rel="next"'
    registry.faults.append(Fault("GET", "list$", headers={"Link": link}))
    assert tags(registry, reach) == [f"v{number}" for number in range(5)]


LINKS = {
    "no quotes": "</v2/team/app/tags/list?n=3&last=v2>; rel=next",
    "relative": '<list?n=3&last=v2>; rel="next"',
    "a query alone": '<?n=3&last=v2>; rel="next"',
    "several": '</v2/>; rel="first", </v2/team/app/tags/list?n=3&last=v2>; rel="next"',
    "more attributes": '</v2/team/app/tags/list?n=3&last=v2>; title="a, b"; rel="next"',
}


@pytest.mark.parametrize("what", LINKS)
def test_links(registry: FakeRegistry, reach: Access, what: str) -> None:
    for number in range(5):
        serve(registry, "team/app", f"v{number}", IMAGE)
    registry.faults.append(Fault("GET", "list$", headers={"Link": LINKS[what]}))
    assert tags(registry, reach) == [f"v{number}" for number in range(5)]


def test_tags_that_come_twice(registry: FakeRegistry, reach: Access) -> None:
    body = json.dumps({"name": "team/app", "tags": ["v1", "v2", "v1"]}).encode()
    registry.faults.append(Fault("GET", "tags", status=200, body=body))
    assert tags(registry, reach) == ["v1", "v2"]


# ---- ranges ----

RANGES = {
    "as it should": {},
    "no size": {"Content-Range": "bytes {0}-{1}/*"},
    "none": {"Content-Range": None},
    "an equals sign": {"Content-Range": "bytes={0}-{1}/{2}"},
    "no unit": {"Content-Range": "{0}-{1}/{2}"},
    "upper case": {"Content-Range": "Bytes {0}-{1}/{2}"},
    "another range": {"Content-Range": "bytes 0-{1}/{2}"},
}


@pytest.mark.parametrize("what", RANGES)
def test_ranges_that_are_wrongly_named(registry: FakeRegistry, reach: Access, what: str) -> None:
    """Then the blob is asked for as a whole, and what is here already is passed over."""
    data = noise(100_000)
    registry.put_blob("app", data)
    cut = Fault("GET", "/blobs/", cut=40_000, times=1)
    headers = {name: value and value.format(40_000, 99_999, 100_000) for name, value in RANGES[what].items()}
    registry.faults += [cut, Fault("GET", "/blobs/", times=1, headers=headers)]
    descriptor = Descriptor(media_type="application/octet-stream", digest=Digest.of(data), size=len(data))
    client = reach.client(Endpoint(registry.host, "app"), "pull")
    with RegistrySource([client], ranges=Ranges()) as source, source.open(descriptor) as reader:
        assert b"".join(iter(lambda: reader.read(1 << 20), b"")) == data
