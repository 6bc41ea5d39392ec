"""A registry in this process that can be told to misbehave.

    with FakeRegistry() as registry:
        registry.faults.append(Fault("GET", "/blobs/", cut=1000, times=3))
        ... http requests to registry.host ...
        assert registry.count("GET", "/blobs/") == 4

It keeps blobs and manifests in memory, and every request in ``log``. Faults change what it would have answered, the
first that fits each time, ``times`` times. Sends as much as the client takes; nothing here verifies more than a
real registry does.
"""

import base64
import hashlib
import json
import re
import socket
import ssl
import struct
import threading
import time
import urllib.parse
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    sent: int = 0
    received: int = 0


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass
class Fault:
    """``status``, ``headers`` and ``body`` replace those of the answer (a header of None goes). ``cut``: bytes of the
    body, then the connection is reset (negative: before any answer). ``carried_out``: what is answered with an error
    was done all the same. ``drip``: seconds between single bytes; ``drip_headers``: lines of header that
    never end, so far apart.
    ``stall``: bytes of the body, then nothing until ``gate`` is set or the registry ends (negative: before any answer).
    ``endless``: the body goes on for ever, chunked. ``swallow``: bytes of the request's body, then a reset.
    """

    method: str = "GET|HEAD|POST|PUT|PATCH"
    path: str = ""
    times: float = float("inf")
    after: int = 0
    status: int | None = None
    headers: dict[str, str | None] = field(default_factory=dict)
    body: bytes | None = None
    cut: int | None = None
    drip: float = 0.0
    drip_headers: float = 0.0
    stall: int | None = None
    gate: threading.Event = field(default_factory=threading.Event)
    endless: bool = False
    swallow: int | None = None
    delay: float = 0.0
    action: Callable[[], None] | None = None
    carried_out: bool = False
    hits: int = 0

    def fits(self, request: Request) -> bool:
        if self.hits >= self.times or not re.fullmatch(self.method, request.method):
            return False
        if re.search(self.path, request.path) is None:
            return False
        if self.after > 0:
            self.after -= 1
            return False
        self.hits += 1
        return True

    def change(self, answer: Answer) -> Answer:
        headers = {**answer.headers, **{k: v for k, v in self.headers.items() if v is not None}}
        for name in [name for name, value in self.headers.items() if value is None]:
            headers.pop(name, None)
        failed = self.status is not None and not 200 <= self.status < 300
        body = b"" if failed and self.body is None else answer.body if self.body is None else self.body
        if body is not answer.body and "Content-Length" in answer.headers and "Content-Length" not in self.headers:
            headers["Content-Length"] = str(len(body))
        return replace(answer, status=self.status or answer.status, headers=headers, body=body)


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


class FakeRegistry:
    """``auth``: None, "basic" or "bearer" (with its token server under /token); ``users``: name to password."""

    def __init__(
        self,
        *,
        auth: str | None = None,
        ranges: bool = True,
        chunk_min: int = 0,
        token_seconds: int = 300,
        tls: ssl.SSLContext | None = None,
        address: str = "127.0.0.1",
    ) -> None:
        self.auth = auth
        self.users = {"user": "secret"}
        self.refresh_tokens = {"refresh-1"}
        self.anonymous_pull = False
        self.get_tokens = True
        self.ranges = ranges
        self.chunk_min = chunk_min
        self.token_seconds = token_seconds
        self.realm: str | None = None
        self.blobs: dict[tuple[str, str], bytes] = {}
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}
        self.uploads: dict[str, tuple[str, bytearray]] = {}
        self.tokens: dict[str, tuple[set[str], float]] = {}
        self.faults: list[Fault] = []
        self.log: list[Request] = []
        self.page = 3
        self.locate: Callable[[str], str] = lambda path: path
        """The Location of an upload, made of its path."""
        self.report: Callable[[int], str | None] = lambda size: f"0-{max(0, size - 1)}"
        """The Range of an upload that has so many bytes; None: no such header."""
        self._serial = 0
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self._server = (_Server6 if ":" in address else _Server)((address, 0), _Handler)
        self._server.registry = self
        self.scheme = "http"
        if tls is not None:
            self.scheme = "https"
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        name = f"[{address}]" if ":" in address else address
        self.host = f"{name}:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self.stopping.set()
        for connection in list(self._server.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._server.server_close()

    # ---- what tests put in and ask ----

    def put_blob(self, repository: str, data: bytes) -> str:
        self.blobs[repository, digest_of(data)] = data
        return digest_of(data)

    def put_manifest(self, repository: str, tag: str, data: bytes, media_type: str = MANIFEST_TYPE) -> str:
        self.manifests[repository, digest_of(data)] = (media_type, data)
        self.manifests[repository, tag] = (media_type, data)
        return digest_of(data)

    def count(self, method: str, path: str = "") -> int:
        return sum(re.fullmatch(method, r.method) is not None and re.search(path, r.path) is not None for r in self.log)

    def sent(self, path: str) -> int:
        return sum(request.sent for request in self.log if re.search(path, request.path))

    def received(self, path: str = "") -> int:
        return sum(request.received for request in self.log if re.search(path, request.path))

    def serial(self) -> str:
        with self.lock:
            self._serial += 1
            return str(self._serial)

    # ---- authorization ----

    def refusal(self, request: Request, repository: str, action: str) -> Answer | None:
        if self.auth is None:
            return None
        given = request.headers.get("authorization", "")
        if self.auth == "basic":
            if given.startswith("Basic ") and self._basic_user(given):
                return None
            return Answer(401, {"WWW-Authenticate": 'Basic realm="fake"'}, b'{"errors":[{"code":"UNAUTHORIZED"}]}')
        token = self.tokens.get(given.removeprefix("Bearer "))
        scope = f"repository:{repository}:{action}"
        if token is not None and token[1] > time.monotonic() and (not repository or scope in token[0]):
            return None
        realm = f"{self.scheme}://{self.host}/token" if self.realm is None else self.realm
        wanted = f',scope="{scope}"' if repository else ""
        headers = {"WWW-Authenticate": f'Bearer realm="{realm}",service="fake"{wanted}'}
        return Answer(401, headers, b'{"errors":[{"code":"UNAUTHORIZED","message":"no"}]}')

    def _basic_user(self, header: str) -> str | None:
        user, _, password = base64.b64decode(header.removeprefix("Basic ")).decode().partition(":")
        return user if self.users.get(user) == password else None

    def token(self, request: Request, body: bytes) -> Answer:
        url = urllib.parse.urlsplit(request.path)
        if request.method == "POST":
            form = urllib.parse.parse_qs(body.decode())
            grant = form.get("grant_type", [""])[0]
            good = form.get("refresh_token", [""])[0] in self.refresh_tokens if grant == "refresh_token" else (
                self.users.get(form.get("username", [""])[0]) == form.get("password", [""])[0]
            )  # fmt: skip
            scopes = " ".join(form.get("scope", [])).split()
        else:
            if not self.get_tokens:
                return Answer(404)
            query = urllib.parse.parse_qs(url.query)
            scopes = query.get("scope", [])
            header = request.headers.get("authorization")
            good = self._basic_user(header) is not None if header else self.anonymous_pull
        if not good:
            return Answer(401, {}, b'{"details":"bad"}')
        granted = set()
        for scope in scopes:
            kind, _, rest = scope.partition(":")
            name, _, actions = rest.rpartition(":")
            granted |= {f"{kind}:{name}:{action}" for action in actions.split(",")}
        token = f"token-{self.serial()}"
        self.tokens[token] = (granted, time.monotonic() + self.token_seconds)
        document: dict[str, Any] = {"token": token, "expires_in": self.token_seconds}
        if "offline_token=true" in request.path:
            document["refresh_token"] = "refresh-1"
        return Answer(200, {}, json.dumps(document).encode())


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # so that the end waits for them
    request_queue_size = 64
    registry: FakeRegistry

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.connections: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Broken connections are what this is for."""


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: object) -> None:
        pass

    def _any(self) -> None:
        registry = self.server.registry
        self.note = Request(self.command, self.path, {k.lower(): v for k, v in self.headers.items()})
        with registry.lock:
            registry.log.append(self.note)
            fault = next((fault for fault in registry.faults if fault.fits(self.note)), None)
        if fault is not None and fault.action is not None:
            fault.action()
        if fault is not None and fault.swallow is not None:
            self._read(min(fault.swallow, int(self.headers.get("Content-Length") or 0)))
            return self._reset()
        body = self._body()
        if fault is not None and fault.cut is not None and fault.cut < 0:
            return self._reset()
        if fault is not None and fault.stall is not None and fault.stall < 0:
            self._wait(fault)
        refused = fault is not None and fault.status is not None and fault.status >= 300 and not fault.carried_out
        answer = Answer(500) if refused else self._answer(body)
        if fault is not None:
            time.sleep(fault.delay)
            answer = fault.change(answer)
        self._reply(answer, fault)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _any

    def _read(self, size: int) -> bytes:
        data = self.rfile.read(size)
        self.note.received += len(data)
        return data

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            pieces = []
            while size := int(self.rfile.readline(), 16):
                pieces.append(self._read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(pieces)
        return self._read(int(self.headers.get("Content-Length") or 0))

    def _reset(self) -> None:
        """An end without goodbye."""
        self.wfile.flush()
        with_linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, with_linger)
        self.close_connection = True
        # Files made of the socket keep it open past a close.
        self.connection.shutdown(socket.SHUT_RDWR)
        self.connection.close()

    def _reply(self, answer: Answer, fault: Fault | None) -> None:
        headers = {"Content-Length": str(len(answer.body)), **answer.headers}
        if "Transfer-Encoding" in headers:
            del headers["Content-Length"]
        endless = fault is not None and fault.endless
        if endless:
            headers.pop("Content-Length")
            headers["Transfer-Encoding"] = "chunked"
        self.send_response(answer.status)
        while fault is not None and fault.drip_headers:
            self.flush_headers()
            self.wfile.write(b"X-Slow: y\r\n")
            if self.server.registry.stopping.wait(fault.drip_headers):
                return
        for name, value in headers.items():
            for line in value.split("\n"):
                self.send_header(name, line)
        self.end_headers()
        if self.command == "HEAD":
            return
        if endless:
            piece = answer.body or b"x" * 1000
            while True:
                self._send(b"%x\r\n%s\r\n" % (len(piece), piece))
        if fault is not None and fault.drip:
            for byte in answer.body:
                self._send(bytes([byte]))
                if self.server.registry.stopping.wait(fault.drip):
                    return
            return
        if fault is not None and fault.cut is not None and fault.cut < len(answer.body):
            self._send(answer.body[: fault.cut])
            # Let what was sent arrive: a reset throws away what the other side has not read.
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if fault is not None and fault.stall is not None and fault.stall >= 0:
            self._send(answer.body[: fault.stall])
            self._wait(fault)
            return self._send(answer.body[fault.stall :])
        self._send(answer.body)

    def _wait(self, fault: Fault) -> None:
        while not fault.gate.wait(0.02) and not self.server.registry.stopping.is_set():
            pass

    def _send(self, data: bytes) -> None:
        for start in range(0, len(data), 1 << 16):
            self.wfile.write(data[start : start + (1 << 16)])
            self.note.sent += len(data[start : start + (1 << 16)])

    # ---- the calls ----

    def _answer(self, body: bytes) -> Answer:
        registry = self.server.registry
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        if url.path == "/token":
            return registry.token(self.note, body)
        if url.path == "/v2/":
            return registry.refusal(self.note, "", "pull") or Answer(200, {}, b"{}")
        match = re.fullmatch(r"/v2/(.+)/(manifests|blobs/uploads|blobs|tags)/(.*)", url.path)
        if match is None:
            return _error(404, "NOT_FOUND")
        repository, kind, rest = match.groups()
        reading = self.command in ("GET", "HEAD") and kind != "blobs/uploads"
        refused = registry.refusal(self.note, repository, "pull" if reading else "push")
        if refused is not None:
            return refused
        if kind == "tags":
            return self._tags(repository, query)
        if kind == "manifests":
            return self._manifest(repository, rest, body)
        if kind == "blobs/uploads":
            return self._upload(repository, rest, query, body)
        return self._blob(repository, rest)

    def _tags(self, repository: str, query: dict[str, str]) -> Answer:
        registry = self.server.registry
        tags = sorted(ref for name, ref in registry.manifests if name == repository and ":" not in ref)
        if not tags:
            return _error(404, "NAME_UNKNOWN")
        start = tags.index(query["last"]) + 1 if "last" in query else 0
        page = tags[start : start + registry.page]
        headers = {}
        if start + registry.page < len(tags):
            headers["Link"] = f'</v2/{repository}/tags/list?n={registry.page}&last={page[-1]}>; rel="next"'
        return Answer(200, headers, json.dumps({"name": repository, "tags": page}).encode())

    def _manifest(self, repository: str, reference: str, body: bytes) -> Answer:
        registry = self.server.registry
        if self.command == "PUT":
            digest = digest_of(body)
            for descriptor in _children(body):
                kind = descriptor["mediaType"]
                there = registry.manifests if "manifest" in kind or "index" in kind else registry.blobs
                if (repository, descriptor["digest"]) not in there and not descriptor.get("urls"):
                    return _error(400, "MANIFEST_BLOB_UNKNOWN")
            if ":" in reference and reference != digest:
                return _error(400, "DIGEST_INVALID")
            found = (self.headers["Content-Type"], body)
            registry.manifests[repository, reference] = registry.manifests[repository, digest] = found
            return Answer(201, {"Docker-Content-Digest": digest, "Location": self.path})
        there = registry.manifests.get((repository, reference))
        if there is None:
            return _error(404, "MANIFEST_UNKNOWN")
        media_type, data = there
        return Answer(200, {"Content-Type": media_type, "Docker-Content-Digest": digest_of(data)}, data)

    def _blob(self, repository: str, digest: str) -> Answer:
        registry = self.server.registry
        data = registry.blobs.get((repository, digest))
        if data is None:
            return _error(404, "BLOB_UNKNOWN")
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted is None or not registry.ranges:
            return Answer(200, {"Docker-Content-Digest": digest}, data)
        first, last = int(wanted[1]), min(len(data) - 1, int(wanted[2] or len(data)))
        if first >= len(data):
            return _error(416, "RANGE")
        return Answer(206, {"Content-Range": f"bytes {first}-{last}/{len(data)}"}, data[first : last + 1])

    def _upload(self, repository: str, key: str, query: dict[str, str], body: bytes) -> Answer:
        registry = self.server.registry
        if self.command == "POST":
            mounted = registry.blobs.get((query.get("from", ""), query.get("mount", "")))
            if mounted is not None:
                registry.blobs[repository, query["mount"]] = mounted
                return Answer(201, {"Location": f"/v2/{repository}/blobs/{query['mount']}"})
            key = registry.serial()
            registry.uploads[key] = (repository, bytearray())
            minimum = {"OCI-Chunk-Min-Length": str(registry.chunk_min)} if registry.chunk_min else {}
            return self._state(202, repository, key, 0, minimum)
        if key not in registry.uploads:
            return _error(404, "BLOB_UPLOAD_UNKNOWN")
        data = registry.uploads[key][1]
        if self.command == "GET":
            return self._state(204, repository, key, len(data), {})
        if self.command == "PATCH" or body:
            start = self.headers.get("Content-Range", f"{len(data)}-").partition("-")[0]
            if int(start) != len(data):
                return _error(416, "RANGE")
            data += body
        if self.command == "PATCH":
            return self._state(202, repository, key, len(data), {})
        del registry.uploads[key]
        if query.get("digest") not in (digest_of(bytes(data)), "sha512:" + hashlib.sha512(data).hexdigest()):
            return _error(400, "DIGEST_INVALID")
        registry.blobs[repository, query["digest"]] = bytes(data)
        return Answer(201, {"Location": f"/v2/{repository}/blobs/{query['digest']}"})

    def _state(self, status: int, repository: str, key: str, size: int, extra: dict[str, str]) -> Answer:
        registry = self.server.registry
        location = registry.locate(f"/v2/{repository}/blobs/uploads/{key}?state={size}")
        reported = registry.report(size)
        extra = extra if reported is None else {"Range": reported, **extra}
        return Answer(status, {"Location": location, **extra})


def _children(body: bytes) -> list[dict[str, Any]]:
    document = json.loads(body)
    return [*document.get("manifests", []), *document.get("layers", []), *filter(None, [document.get("config")])]


def _error(status: int, code: str) -> Answer:
    return Answer(status, {}, json.dumps({"errors": [{"code": code, "message": code.lower()}]}).encode())
