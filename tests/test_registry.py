"""The client below pull and push: configuration, TLS and schemes, proxies, headers, limits, ranges, imports."""

import io
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from fake_registry import FakeRegistry, Fault, digest_of
from hypothesis import given
from hypothesis import strategies as st
from registrykit import QUICK, access, make_image, noise, reach, registry, serve, server_context
from suites.blob_suite import BlobSuite, Place

from layerfs.digest import Digest
from layerfs.errors import IntegrityError, InvalidInputError, NotFoundError, RegistryError
from layerfs.oci import Descriptor
from layerfs.reference import Reference
from layerfs.registry.access import Access
from layerfs.registry.challenge import (
    next_link,
    parse_challenges,
    parse_content_range,
    parse_range_end,
    retry_after,
    warning_text,
)
from layerfs.registry.client import Client
from layerfs.registry.config import Endpoint, Mirror, RegistryConfig, Rule, Tls, find_tls, is_loopback
from layerfs.registry.connection import Timeouts
from layerfs.registry.credentials import Credentials
from layerfs.registry.download import BlobStream, Ranges
from layerfs.registry.retry import Retry, Throttled
from layerfs.registry.sink import RegistrySink
from layerfs.registry.source import RegistrySource
from layerfs.registry.transport import Transport, origin_of, redact

__all__ = ["reach", "registry", "server_context"]

IMAGE = make_image((2000,))


def client_of(reach: Access, registry: FakeRegistry, repository: str = "app") -> Client:
    return reach.client(Endpoint(registry.host, repository), "pull,push")


# ---- registries.toml ----

_TOML = """
[[registry]]
prefix = "docker.io"
location = "registry.lan/hub"
[[registry.mirror]]
location = "mirror.lan:5000/deep/er"
insecure = true
[[registry.mirror]]
location = "tags.lan"
pull-from = "tag-only"

[[registry]]
prefix = "docker.io/team"
blocked = true

[[registry]]
prefix = "*.corp.example"
insecure = true
"""


def config_of(tmp_path: Path, text: str) -> RegistryConfig:
    path = tmp_path / "registries.toml"
    path.write_text(text)
    return RegistryConfig.load({"LAYERFS_REGISTRIES": str(path)})


def test_rules(tmp_path: Path) -> None:
    config = config_of(tmp_path, _TOML)
    tagged = Reference.parse("debian:12")
    assert [str(endpoint) for endpoint in config.pull_endpoints(tagged)] == [
        "mirror.lan:5000/deep/er/library/debian",
        "tags.lan/library/debian",
        "registry.lan/hub/library/debian",
    ]
    assert [endpoint.insecure for endpoint in config.pull_endpoints(tagged)] == [True, False, False]
    assert str(config.push_endpoint(tagged)) == "registry.lan/hub/library/debian"
    by_digest = Reference.parse(f"{tagged.name}@{Digest.of(b'')}")
    assert len(config.pull_endpoints(by_digest)) == 2
    with pytest.raises(RegistryError, match="blocked") as caught:
        config.pull_endpoints(Reference.parse("team/app"))
    assert str(tmp_path) in str(caught.value.hint)
    assert config.pull_endpoints(Reference.parse("teams/app"))
    corporate = config.push_endpoint(Reference.parse("a.b.corp.example/app"))
    assert (corporate.host, corporate.schemes) == ("a.b.corp.example", ("https", "http"))
    plain = config.push_endpoint(Reference.parse("corp.example/app"))
    assert plain.schemes == ("https",)
    assert config.is_insecure("mirror.lan:5000")
    assert not config.is_insecure("tags.lan")


def test_without_rules() -> None:
    config = RegistryConfig()
    (hub,) = config.pull_endpoints(Reference.parse("debian"))
    assert (hub.host, hub.schemes) == ("registry-1.docker.io", ("https",))
    assert RegistryConfig(insecure=True).push_endpoint(Reference.parse("debian")).schemes == ("https", "http")


@pytest.mark.parametrize(
    "text",
    [
        "[[registry]",
        "[[registry]]\n",
        '[[registry]]\nprefix = "h.x"\ninsecrue = true',
        '[[registry]]\nprefix = "h.x"\nlocation = "https://h.x"',
        '[[registry]]\nprefix = "h.x/UPPER"',
        '[[registry]]\nprefix = "h.x?a=b"',
        '[[registry]]\nprefix = "h.x"\n[[registry.mirror]]\nlocation = "user:pw@h"',
        '[[registry]]\nprefix = "h.x"\n[[registry.mirror]]\nlocation = "m.x"\npull-from = "never"',
        "x" * (2 << 20),
    ],
)
def test_wrong_files(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        config_of(tmp_path, text)
    assert "registries.toml" in str(caught.value)


def test_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="not found"):
        RegistryConfig.load({"LAYERFS_REGISTRIES": str(tmp_path / "absent")})
    RegistryConfig.load({"HOME": str(tmp_path)})


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("localhost:5000", True),
        ("127.0.0.1:5000", True),
        ("127.9.9.9", True),
        ("[::1]:5000", True),
        ("[::1]", True),
        ("localhost.example", False),
        ("127.0.0.1.example", False),
        ("10.0.0.1", False),
        ("[::2]", False),
        ("example", False),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_certificates_of_a_host(tmp_path: Path) -> None:
    place = tmp_path / "containers/certs.d/host:5000"
    place.mkdir(parents=True)
    environ = {"XDG_CONFIG_HOME": str(tmp_path)}
    assert find_tls("host:5000", environ) == Tls()
    (place / "ca.crt").touch()
    (place / "client.cert").touch()
    with pytest.raises(InvalidInputError, match=r"client\.key"):
        find_tls("host:5000", environ)
    (place / "client.key").touch()
    assert find_tls("host:5000", environ) == Tls(
        (str(place / "ca.crt"),), str(place / "client.cert"), str(place / "client.key")
    )
    assert find_tls("host", environ) == Tls()


@pytest.mark.parametrize("name", ["docker.io", "registry-1.docker.io"])
def test_certificates_of_docker_hub(tmp_path: Path, name: str) -> None:
    """They are put under the name that images have, too."""
    place = tmp_path / f"containers/certs.d/{name}"
    place.mkdir(parents=True)
    (place / "ca.crt").touch()
    assert find_tls("registry-1.docker.io", {"XDG_CONFIG_HOME": str(tmp_path)}).authorities == (f"{place}/ca.crt",)


# ---- TLS and schemes ----


def test_loopback_is_tried_with_tls_first(tmp_path: Path, server_context: ssl.SSLContext) -> None:
    with FakeRegistry(tls=server_context) as registry, access(tmp_path) as reach:
        serve(registry, "app", "v1", IMAGE)
        assert client_of(reach, registry).resolve("v1").digest == IMAGE.digest


def test_verified_where_it_is_not_this_machine(tmp_path: Path, server_context: ssl.SSLContext) -> None:
    """The same server under another name of this machine: neither its certificate nor plain HTTP will do."""
    name = socket.gethostname()
    try:
        if is_loopback(name) or not socket.gethostbyname(name).startswith("127."):
            pytest.skip("the name of this host is not an alias of loopback")
    except OSError:
        pytest.skip("the name of this host is not known")
    with FakeRegistry(tls=server_context) as registry, access(tmp_path) as reach:
        port = registry.host.partition(":")[2]
        with pytest.raises(RegistryError, match="not trusted"):
            reach.client(Endpoint(f"{name}:{port}", "app"), "pull").resolve("v1")
        insecure = reach.client(Endpoint(f"{name}:{port}", "app", insecure=True), "pull")
        assert insecure.session.endpoint.schemes == ("https", "http")


def test_no_plain_http_for_others(tmp_path: Path) -> None:
    assert Endpoint("registry.example:80", "app").schemes == ("https",)


def test_address_of_ipv6(tmp_path: Path) -> None:
    with FakeRegistry(auth="bearer", address="::1") as registry, access(tmp_path) as reach:
        reference = Reference.parse(serve(registry, "app", "v1", IMAGE))
        reach.credentials.put(registry.host, Credentials("user", "secret"))
        (client,) = reach.pull_clients(reference)
        assert client.resolve("v1").digest == IMAGE.digest


def test_scheme_is_found_once(registry: FakeRegistry, reach: Access) -> None:
    serve(registry, "app", "v1", IMAGE)
    client = client_of(reach, registry)
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(lambda _: client.resolve("v1").digest, range(8)))) == 1
    assert registry.count("HEAD") == 8


def test_https_does_not_redirect_to_http(tmp_path: Path, server_context: ssl.SSLContext) -> None:
    with FakeRegistry(tls=server_context) as registry, FakeRegistry() as plain, access(tmp_path) as reach:
        serve(registry, "app", "v1", IMAGE)
        registry.faults.append(Fault("HEAD", status=302, headers={"Location": f"http://{plain.host}/v2/"}))
        with pytest.raises(RegistryError, match="from https to http"):
            client_of(reach, registry).resolve("v1")
        assert plain.log == []


def test_nobody_there(tmp_path: Path) -> None:
    with access(tmp_path, retry=Retry(attempts=2, base=0.001)) as reach:
        with pytest.raises(RegistryError, match=r"127\.0\.0\.1:1/app:v1.*cannot be reached") as caught:
            reach.client(Endpoint("127.0.0.1:1", "app"), "pull").resolve("v1")
        assert caught.value.temporary
        with pytest.raises(RegistryError, match=r"nohost\.invalid.*not known"):
            reach.client(Endpoint("nohost.invalid", "app"), "pull").resolve("v1")


def test_proxies_of_the_environment(registry: FakeRegistry, tmp_path: Path) -> None:
    """A proxy gets the whole URL; hosts in NO_PROXY are asked directly."""
    with FakeRegistry() as proxy:
        for no_proxy, asked in (("", proxy), ("127.0.0.1", registry)):
            environ = {"http_proxy": f"http://user:secret@{proxy.host}", "no_proxy": no_proxy}
            transport = Transport(lambda host: Tls(), lambda host: True, environ, Timeouts())
            transport.send("GET", f"http://{registry.host}/v2/", {}).close()
            transport.close()
            assert asked.log[-1].path.endswith("/v2/")
        assert proxy.log[0].path == f"http://{registry.host}/v2/"
        assert proxy.log[0].headers["proxy-authorization"].startswith("Basic ")
    environ = {"http_proxy": "http://user:secret@127.0.0.1:1"}
    transport = Transport(lambda host: Tls(), lambda host: True, environ, Timeouts(connect=1))
    with pytest.raises(RegistryError, match="the proxy cannot be reached") as caught:
        transport.send("GET", f"http://{registry.host}/v2/", {})
    assert "secret" not in str(caught.value)
    environ = {"http_proxy": "socks5://127.0.0.1:1", "HTTP_PROXY": "ignored"}
    transport = Transport(lambda host: Tls(), lambda host: True, environ, Timeouts())
    with pytest.raises(RegistryError, match="not usable"):
        transport.send("GET", f"http://{registry.host}/v2/", {})


def test_urls_are_redacted() -> None:
    assert redact("https://user:pw@h:1/a/b?token=secret#x") == "https://h:1/a/b"
    assert redact("http://[::1") == "(not a URL)"
    assert "\x1b" not in redact("http://h/\x1b[31m")
    for wrong in ("ftp://h/", "http:///x", "http://u:p@h/", "http://h/a b", "http://h:99999/", "h/x", "http://h/\n"):
        with pytest.raises(RegistryError) as caught:
            origin_of(wrong)
        assert "u:p" not in str(caught.value)


# ---- headers ----


def test_headers() -> None:
    assert next_link('</v2/x/tags/list?n=1&last=a>; rel="next"') == "/v2/x/tags/list?n=1&last=a"
    assert next_link("<a>; rel=prev, <b>; rel=next") == "b"
    assert next_link(None) is None
    assert warning_text('299 - "be \\"careful\\""') == 'be "careful"'
    assert warning_text('199 - "other"') is None
    assert warning_text('299 - "\x1b[31mred"') == "?[31mred"
    assert parse_content_range("bytes 0-9/10") == (0, 9, 10)
    assert parse_content_range("bytes 5-9/*") == (5, 9, None)
    assert parse_content_range("bytes */10") is None
    assert parse_range_end("0-99") == 100
    assert parse_range_end("bytes=0-99") == 100
    assert parse_range_end("0-0") == 0
    assert parse_range_end("5-9") is None
    assert retry_after("7") == 7
    assert retry_after("soon") is None
    assert retry_after(None) is None
    later = retry_after(format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True))
    assert later is not None
    assert 95 < later <= 100


@given(st.text(max_size=300))
def test_headers_never_fail(text: str) -> None:
    parse_challenges([text])
    next_link(text)
    warning_text(text)
    retry_after(text)
    parse_content_range(text)
    parse_range_end(text)


def test_pauses_that_the_registry_asks_for() -> None:
    asked = Throttled("x", 1.5, status=429, code=None, url=None)
    assert QUICK.pause(asked, 1) == 1.5
    too_long = Throttled("x", 4000, status=429, code=None, url=None)
    with pytest.raises(Throttled):
        QUICK.pause(too_long, 1)
    assert "4000" in str(too_long.hint)


# ---- calls ----


def test_errors_have_the_word_of_the_registry(registry: FakeRegistry, reach: Access) -> None:
    body = json.dumps({"errors": [{"code": "DENIED", "message": "no\x1b[31m " + "x" * 5000}]}).encode()
    registry.faults.append(Fault(status=400, body=body))
    with pytest.raises(RegistryError) as caught:
        list(client_of(reach, registry).tags())
    assert caught.value.status == 400
    assert caught.value.code == "DENIED"
    assert f"list tags of {registry.host}/app: 400 DENIED: no [31m xxx" in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_tags_in_a_circle(registry: FakeRegistry, reach: Access) -> None:
    serve(registry, "app", "v1", IMAGE)
    registry.faults.append(Fault("GET", "tags", headers={"Link": '</v2/app/tags/list>; rel="next"'}))
    with pytest.raises(RegistryError, match="circle"):
        list(client_of(reach, registry).tags())
    registry.faults[:] = [Fault("GET", "tags", body=b"[]")]
    with pytest.raises(RegistryError, match="not a list"):
        list(client_of(reach, registry).tags())


def test_tags_without_end(registry: FakeRegistry, reach: Access) -> None:
    """Who lists them holds them all: so many bytes and no more, however many pages there are."""
    serve(registry, "app", "v1", IMAGE)
    page = Fault("GET", "tags")

    def turn() -> None:
        page.headers.update(Link=f'</v2/app/tags/list?n={page.hits}>; rel="next"')
        page.body = json.dumps({"tags": [f"{page.hits:050}{number:050}" for number in range(30_000)]}).encode()

    page.action = turn
    registry.faults.append(page)
    count = 0
    with pytest.raises(IntegrityError, match="a list of more than"):
        for _ in client_of(reach, registry).tags():
            count += 1
    assert 30_000 * 15 < count < 30_000 * 25


def test_connections_are_kept(registry: FakeRegistry, reach: Access) -> None:
    """Requests one after another need one connection, those with errors and those without a body too."""
    accepted: list[object] = []
    real = registry._server.get_request
    registry._server.get_request = lambda: accepted.append(1) or real()  # type: ignore[method-assign,func-returns-value]
    serve(registry, "app", "v1", IMAGE)
    client = client_of(reach, registry)
    client.resolve("v1")
    before = len(accepted)
    for _ in range(5):
        client.resolve("v1")
        client.manifest("v1")
        assert not client.has_blob(Digest.of(b"absent"))
        list(client.tags())
    assert len(accepted) == before


# ---- the reader of blobs ----


def stream(registry: FakeRegistry, reach: Access, data: bytes, ranges: Ranges) -> tuple[BlobStream, ThreadPoolExecutor]:
    digest = registry.put_blob("app", data)
    pool = ThreadPoolExecutor(4)
    named = Descriptor(media_type="x", digest=Digest(digest), size=len(data))
    return BlobStream([client_of(reach, registry)], named, pool, ranges), pool


@pytest.mark.parametrize("known", [True, False])
def test_seek_and_read_anywhere(registry: FakeRegistry, reach: Access, known: bool) -> None:
    registry.ranges = known
    data = noise(300_000)
    blob, pool = stream(registry, reach, data, Ranges(least=100_000, size=40_000, ahead=3, fast=float("inf")))
    with pool:
        for start in (0, 1, 39_999, 40_000, 150_000, 299_999, 300_000, 0):
            blob.seek(start)
            assert blob.read(10) == data[start : start + 10]
        blob.seek(123_456)
        assert b"".join(iter(lambda: blob.read(7777), b"")) == data[123_456:]
        assert blob.read() == b""
        blob.close()


def test_empty_blob(registry: FakeRegistry, reach: Access) -> None:
    blob, pool = stream(registry, reach, b"", Ranges())
    with pool:
        assert blob.read() == b""
    assert registry.log == []


def test_ranges_after_a_redirect_go_straight_to_the_place(registry: FakeRegistry, reach: Access) -> None:
    data = noise(200_000)
    with FakeRegistry() as storage:
        storage.put_blob("place", data)
        where = {"Location": f"http://{storage.host}/v2/place/blobs/{digest_of(data)}"}
        registry.faults.append(Fault("GET", "blobs", status=307, headers=where))
        blob, pool = stream(registry, reach, data, Ranges(least=1000, size=20_000, ahead=2, fast=float("inf")))
        storage.faults.append(Fault("GET", "blobs", after=5, times=1, status=403))
        with pool:
            assert b"".join(iter(blob.read, b"")) == data
        assert storage.count("GET") >= 10
        # Once to learn the place, and again when that was good no longer.
        assert registry.count("GET") in (2, 3)


def test_closing_ends_what_is_under_way(registry: FakeRegistry, tmp_path: Path) -> None:
    data = noise(200_000)
    digest = registry.put_blob("app", data)
    registry.faults.append(Fault("GET", "blobs", after=2, drip=5))
    named = Descriptor(media_type="x", digest=Digest(digest), size=len(data))
    ranges = Ranges(least=1000, size=20_000, ahead=3, fast=float("inf"))
    with access(tmp_path, timeouts=Timeouts(read=30, stretch=30)) as reach:
        with RegistrySource([client_of(reach, registry)], ranges=ranges) as source, source.open(named) as reader:
            count = 0
            while count <= 20_000:
                count += len(reader.read(10_000))
            deadline = time.monotonic() + 5
            while registry.count("GET") < 5 and time.monotonic() < deadline:
                time.sleep(0.01)
            assert registry.count("GET") == 5
            time.sleep(0.1)
            started = time.monotonic()
        assert time.monotonic() - started < 2


@pytest.mark.parametrize("tls", [False, True])
def test_interrupting_ends_reads_of_other_threads(tmp_path: Path, server_context: ssl.SSLContext, tls: bool) -> None:
    """Of headers and of a body; afterwards nothing is asked any more."""
    data = noise(200_000)
    with FakeRegistry(tls=server_context if tls else None) as registry, access(tmp_path) as reach:
        named = Descriptor(media_type="x", digest=Digest(registry.put_blob("app", data)), size=len(data))
        registry.faults += [Fault("GET", "blobs", times=1, stall=100_000), Fault("GET", "blobs", stall=-1)]
        failures: list[Exception] = []

        def read() -> None:
            try:
                with source.open(named) as reader:
                    while reader.read():
                        pass
            except RegistryError as exc:
                failures.append(exc)

        with RegistrySource([client_of(reach, registry)]) as source:
            threads = [threading.Thread(target=read) for _ in range(2)]
            for thread in threads:
                thread.start()
            deadline = time.monotonic() + 5
            while registry.count("GET") < 2 and time.monotonic() < deadline:
                time.sleep(0.01)
            time.sleep(0.2)
            started = time.monotonic()
            source.interrupt()
            for thread in threads:
                thread.join(5)
            assert time.monotonic() - started < 1
            assert len(failures) == 2
            read()
            assert registry.count("GET") == 2
            assert "given up" in str(failures[2])


def test_memory_is_bounded(tmp_path: Path) -> None:
    """A reader that is slow holds a few ranges, not the blob."""
    data = bytes(64 << 20)
    with FakeRegistry() as registry, access(tmp_path) as reach:
        blob, pool = stream(registry, reach, data, Ranges(least=1 << 20, size=1 << 20, ahead=3, fast=float("inf")))
        with pool:
            blob.read(10)
            time.sleep(0.5)
            assert registry.sent("blobs") <= 5 << 20
            blob.close()


def test_source_and_sink_are_each_others(registry: FakeRegistry, reach: Access) -> None:
    data = noise(5000)
    named = Descriptor(media_type="x", digest=Digest(digest_of(data)), size=len(data))
    sink = RegistrySink(client_of(reach, registry))
    assert not sink.has(named)
    sink.put(named, io.BytesIO(data))
    assert sink.has(named)
    with RegistrySource([client_of(reach, registry)]) as source:
        with source.open(named) as reader:
            assert b"".join(iter(reader.read, b"")) == data
        absent = Descriptor(media_type="x", digest=Digest.of(b"absent"), size=6)
        with pytest.raises(NotFoundError), source.open(absent) as reader:
            reader.read()
        with pytest.raises(NotFoundError):
            source.resolve("absent")


class TestRegistryAsPlace(BlobSuite):
    """A repository is a place of blobs like any other; its tags are looked up without their repository."""

    names = False

    @pytest.fixture
    def place(self, registry: FakeRegistry, reach: Access) -> Place:
        def source() -> RegistrySource:
            return RegistrySource([client_of(reach, registry)])

        return Place(RegistrySink(client_of(reach, registry)), source)


def test_headers_without_end(tmp_path: Path) -> None:
    """Lines and lines: the limits of http.client hold."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, suppress(OSError):
                    connection.recv(65536)
                    connection.sendall(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000)

    thread = threading.Thread(target=answer)
    thread.start()
    host = f"127.0.0.1:{listener.getsockname()[1]}"
    with access(tmp_path, retry=Retry(attempts=1)) as reach, pytest.raises((RegistryError, IntegrityError)):
        reach.client(Endpoint(host, "app"), "pull").resolve("v1")
    listener.shutdown(socket.SHUT_RDWR)
    thread.join()
    listener.close()


def test_mirrors_are_values() -> None:
    assert Rule("a.b", mirror=(Mirror("c.d"),)).mirror[0].pull_from == "all"


def test_light_parts_do_without_urllib3() -> None:
    code = (
        "import sys, layerfs.registry, layerfs.registry.config, layerfs.registry.credentials, layerfs.store\n"
        "assert 'urllib3' not in sys.modules and 'ssl' not in sys.modules, 'slow start'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
