"""ADD of a URL: what comes, and what is said where it does not."""

import base64
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from layerfs.build import Secret
from layerfs.errors import IntegrityError, InvalidInputError, LayerfsError, NotFoundError, RegistryError


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.path.partition("?")[0].rpartition("/")[2]
        self.server.asked.append((self.path, self.headers.get("Authorization")))
        if name == "garbage":
            self.wfile.write(b"this is no HTTP\n")
        elif name == "loop":
            self.answer(302, b"", Location="/loop")
        elif name == "away":
            self.answer(302, b"", Location=self.server.other)
        elif name == "short":
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b"abc")
        elif name == "busy" and len(self.server.asked) == 1:
            self.answer(503, b"")
        elif name.isdecimal():
            self.answer(int(name), b"")
        else:
            self.answer(200, b"content", **{"Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"})

    def answer(self, status, body, **headers):
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def serve():
    servers = []

    def start():
        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.asked, server.url = [], f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        servers.append((server, thread))
        return server

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    ("path", "kind", "reason"),
    [
        ("404", NotFoundError, "download URL/404: the server has no such file (404)"),
        ("500", RegistryError, "download URL/500: the server says 500"),
        ("401", RegistryError, "download URL/401: the server lets nobody without credentials have it (401)"),
        ("garbage", RegistryError, "GET URL/garbage: the connection broke"),
        ("short", RegistryError, "read URL/short: the connection broke"),
        ("loop", RegistryError, "GET URL/loop: more than 10 redirects"),
    ],
)
def test_what_a_server_may_say(kit, serve, path, kind, reason):
    server = serve()
    with pytest.raises(kind) as caught:
        kit.build(f"FROM scratch\nADD {server.url}/{path}?token=abc /x")
    assert str(caught.value).endswith(reason.replace("URL", server.url))
    assert str(caught.value).startswith(f"{kit.place}/Dockerfile:2: ADD ")
    if path == "401":
        assert "HTTP_AUTH_TOKEN_127.0.0.1" in caught.value.hint


def test_nobody_is_there(kit, serve):
    server = serve()
    server.shutdown()
    server.server_close()
    with pytest.raises(RegistryError, match=r":2: ADD .*: GET http://127.*/f: it cannot be reached$") as caught:
        kit.build(f"FROM scratch\nADD {server.url}/f /x")
    assert "HTTP_PROXY" in caught.value.hint
    assert "urllib3" not in repr(caught.value)
    assert "Max retries" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://[::bad/x", "http://a:99999/x", "http:///x"])
def test_no_url(kit, url):
    with pytest.raises(LayerfsError, match=r":2: ADD .*not (a URL|one that can be followed)"):
        kit.build(f"FROM scratch\nADD {url} /x")


def test_a_server_that_is_busy_for_a_moment(kit, serve):
    server = serve()
    kit.build(f"FROM scratch\nADD {server.url}/busy /x")
    assert kit.read("/x") == "content"
    assert len(server.asked) == 2
    assert kit.stat("/x").mtime_ns == 1_704_067_200 * 10**9


def test_a_wrong_checksum_is_not_asked_for_again(kit, serve):
    server = serve()
    with pytest.raises(IntegrityError, match=":2: ADD "):
        kit.build(f"FROM scratch\nADD --checksum=sha256:{'0' * 64} {server.url}/f /x")
    assert len(server.asked) == 1


def test_credentials_stay_where_they_belong(kit, serve):
    server, other = serve(), serve()
    server.other = f"{other.url}/f"
    secrets = (Secret("HTTP_AUTH_TOKEN_127.0.0.1", env="T"),)
    kit.build(f"FROM scratch\nADD {server.url}/away /x", secrets=secrets, environment={"T": "tok"})
    assert (server.asked, other.asked) == ([("/away", "Bearer tok")], [("/f", None)])
    kit.build(f"FROM scratch\nADD {server.url.replace('//', '//me:pass%40word@')}/f?a=b /y")
    pair = base64.b64encode(b"me:pass@word").decode()
    assert server.asked[1:] == [("/f?a=b", f"Basic {pair}")]


def test_by_a_proxy(kit, serve, monkeypatch):
    proxy = serve()
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    kit.build("FROM scratch\nADD http://nowhere.invalid/f /x")
    assert kit.read("/x") == "content"
    assert [path for path, _ in proxy.asked] == ["http://nowhere.invalid/f"]


def test_a_name_that_must_be_written_another_way(kit, serve):
    server = serve()
    kit.build(f"FROM scratch\nADD {server.url}/ä%20b /d/")
    assert server.asked == [("/%C3%A4%20b", None)]
    assert kit.paths("/d") == ["ä b"]
    with pytest.raises(InvalidInputError, match="no name for a file"):
        kit.build(f"FROM scratch\nADD {server.url}/ /d/")
