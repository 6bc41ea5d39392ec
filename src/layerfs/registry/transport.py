"""HTTP through urllib3: one request and its answer, with what holds for every one of them.

- Connecting, each wait for bytes, the time to the end of the headers and the rate over a while are bounded
  (``connection``), so nothing that a server does hangs; and another thread can end what waits.
- Redirects are followed here, for reading alone: never with the Authorization once the origin (scheme, host and
  port) has changed, never from https to http, never more than ten.
- TLS is verified against the system's and the host's own authorities, unless the host was declared insecure.
- Proxies are those of the environment. URLs in errors have neither user nor query: queries of storage
  services are secrets.
"""

import ssl
import threading
import urllib.parse
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    InsecureRequestWarning,
    LocationParseError,
    NameResolutionError,
    NewConnectionError,
    ProxyError,
    SSLError,
)

from layerfs.errors import IntegrityError, RegistryError
from layerfs.registry.config import Tls
from layerfs.registry.connection import CURRENT, Call, Calls, Timeouts, TooSlow, pool_classes

__all__ = ["REDIRECTS", "Body", "ConnectError", "Origin", "Response", "Transport", "origin_of", "redact"]

REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MAX_REDIRECTS = 10
_READ = 256 << 10
_USER_AGENT = "layerfs"

Origin = tuple[str, str, int]
Body = bytes | memoryview | Iterable[bytes]


class ConnectError(RegistryError):
    """No connection came about: nothing was sent."""


class Response:
    """An answer whose body is still to be read; ``close`` it, or read it to its end."""

    def __init__(self, raw: urllib3.BaseHTTPResponse, url: str, call: Call) -> None:
        self._raw = raw
        self._call = call
        self.url = url
        self.status = raw.status
        self.headers = raw.headers

    @property
    def length(self) -> int | None:
        """Bytes of the body as announced; None: not announced."""
        text = self.headers.get("Content-Length", "")
        return int(text) if text.isascii() and text.isdecimal() and len(text) < 19 else None

    def read_some(self, size: int = _READ) -> bytes:
        """The next bytes of the body, ``size`` of them if there are so many; empty at its end.

        RegistryError, temporary, when the connection breaks or is too slow; what came before that is given first.
        """
        pieces: list[bytes] = []
        count = 0
        try:
            # Piece by piece as they arrive, to see how fast that is; handed on in bulk.
            while count < size and (piece := self._receive(size - count)):
                pieces.append(piece)
                count += len(piece)
        except RegistryError:
            if not pieces:
                raise
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _receive(self, size: int) -> bytes:
        try:
            return self._raw.read1(size, decode_content=False) or b""
        except (HTTPError, OSError, ValueError) as exc:
            raise _failure("read", self.url, exc) from None

    def read_all(self, limit: int) -> bytes:
        """The whole body; IntegrityError for one of more than ``limit`` bytes."""
        pieces, count = [], 0
        try:
            while data := self.read_some():
                count += len(data)
                if count > limit:
                    raise IntegrityError(f"read {redact(self.url)}: an answer of more than {limit} bytes")
                pieces.append(data)
        finally:
            self.close()
        return b"".join(pieces)

    def interrupt(self) -> None:
        """Let a read in another thread end at once."""
        with suppress(RuntimeError, OSError, ValueError):
            self._raw.shutdown()

    def close(self) -> None:
        """Give the connection back, or drop it when there is more to come."""
        if self.length == 0 or getattr(self._raw, "length_remaining", None) == 0:
            with suppress(HTTPError, OSError, ValueError):
                self._raw.read1(1, decode_content=False)
        self._call.end()
        self._raw.close()
        self._raw.release_conn()


class Transport:
    """Connections to any hosts, kept open between requests; usable from several threads."""

    def __init__(
        self,
        tls: Callable[[str], Tls],
        insecure: Callable[[str], bool],
        environ: Mapping[str, str],
        timeouts: Timeouts,
    ) -> None:
        self._tls = tls
        self._insecure = insecure
        self._proxies = _proxies(environ)
        self._timeouts = timeouts
        self._managers: dict[Origin, urllib3.PoolManager] = {}
        self._lock = threading.Lock()

    def send(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        *,
        authorization: str | None = None,
        body: Body | None = None,
        calls: Calls | None = None,
    ) -> Response:
        """One request; GET and HEAD go after redirects. RegistryError when no answer comes.

        ``calls``: those that it can be ended with.
        """
        calls = calls or Calls()
        first = origin_of(url)
        for _ in range(_MAX_REDIRECTS):
            sent = {"User-Agent": _USER_AGENT, "Accept-Encoding": "identity", **headers}
            if authorization is not None:
                sent["Authorization"] = authorization
            response = self._send_one(method, url, sent, body, Call(calls))
            location = response.headers.get("Location")
            if method not in ("GET", "HEAD") or response.status not in REDIRECTS or not location:
                return response
            response.close()
            url = self._follow(url, location)
            if origin_of(url) != first:
                # For good: whoever is asked next could send us back to collect it.
                authorization = None
        raise RegistryError(f"{method} {redact(url)}: more than {_MAX_REDIRECTS} redirects", url=redact(url))

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            managers, self._managers = list(self._managers.values()), {}
        for manager in managers:
            # Its own clear() leaves that to the garbage collector.
            for key in manager.pools.keys():  # noqa: SIM118 -- no mapping: it cannot be iterated over
                manager.pools[key].close()
            manager.clear()

    def _follow(self, url: str, location: str) -> str:
        target = urllib.parse.urljoin(url, location)
        if origin_of(url)[0] == "https" and origin_of(target)[0] != "https":
            raise RegistryError(f"GET {redact(url)}: it redirects from https to {redact(target)}", url=redact(url))
        return target

    def _send_one(self, method: str, url: str, headers: dict[str, str], body: Body | None, call: Call) -> Response:
        token = CURRENT.set(call)
        timeout = urllib3.Timeout(connect=self._timeouts.connect, read=self._timeouts.read)
        try:
            raw = self._manager(origin_of(url)).urlopen(
                method,
                url,
                body=body,
                headers=headers,
                redirect=False,
                retries=False,
                preload_content=False,
                decode_content=False,
                timeout=timeout,
            )
        except (HTTPError, OSError, ValueError) as exc:
            call.end()
            raise _failure(method, url, exc) from None
        except BaseException:
            call.end()
            raise
        finally:
            CURRENT.reset(token)
        return Response(raw, url, call)

    def _manager(self, origin: Origin) -> urllib3.PoolManager:
        with self._lock:
            manager = self._managers.get(origin)
            if manager is None:
                manager = self._managers[origin] = self._new_manager(origin)
            return manager

    def _new_manager(self, origin: Origin) -> urllib3.PoolManager:
        manager = self._plain_manager(origin)
        manager.pool_classes_by_scheme = pool_classes(self._timeouts)
        return manager

    def _plain_manager(self, origin: Origin) -> urllib3.PoolManager:
        scheme, host, port = origin
        options: dict[str, Any] = {"num_pools": 2, "maxsize": 16}
        if scheme == "https":
            options["ssl_context"] = self._context(origin)
        proxy = self._proxies.get(scheme)
        if proxy is None or _bypassed(f"{host}:{port}", self._proxies):
            return urllib3.PoolManager(**options)
        try:
            return urllib3.ProxyManager(proxy, **options, **_proxy_auth(proxy))
        except (ValueError, HTTPError):
            raise RegistryError(f"proxy {redact(proxy)}: not usable", hint="http:// and https:// are") from None

    def _context(self, origin: Origin) -> ssl.SSLContext:
        _, host, port = origin
        name = f"[{host}]" if ":" in host else host
        tls = self._tls(f"{name}:{port}")
        if port == 443 and tls == Tls():
            tls = self._tls(name)
        unverified = any(self._insecure(place) for place in (f"{name}:{port}", name)) and not tls.authorities
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if unverified else ssl.create_default_context()
        if unverified:
            # It would warn on standard error of what the user has asked for.
            urllib3.disable_warnings(InsecureRequestWarning)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        try:
            for authority in tls.authorities:
                context.load_verify_locations(authority)
            if tls.certificate is not None:
                context.load_cert_chain(tls.certificate, tls.key)
        except OSError as exc:
            raise RegistryError(f"certificates of {name}:{port}: {exc.strerror or exc}", hint="see certs.d") from None
        return context


def origin_of(url: str) -> Origin:
    """Scheme, host and port; RegistryError for what is no http or https URL."""
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise ValueError(url)
        if any(not " " < c < "\x7f" for c in url):
            raise ValueError(url)
    except ValueError:
        raise RegistryError(f"URL {redact(url)}: not one that can be followed", url=redact(url)) from None
    return parts.scheme, parts.hostname, port or {"http": 80, "https": 443}[parts.scheme]


def redact(url: str) -> str:
    """A URL fit for errors: without user, query and fragment, and not too long."""
    try:
        parts = urllib.parse.urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return "(not a URL)"
    shown = urllib.parse.urlunsplit((parts.scheme, host, parts.path, "", ""))
    return "".join(c if c.isprintable() else "?" for c in shown)[:300]


def _proxies(environ: Mapping[str, str]) -> dict[str, str]:
    """``*_PROXY`` of the environment by scheme, and ``no``; as curl, lower case wins, and HTTP_PROXY is not
    believed where a web server could have set it (CGI).
    """
    found: dict[str, str] = {}
    for name in ("http", "https", "no", "all"):
        upper = "" if name == "http" and "REQUEST_METHOD" in environ else environ.get(f"{name.upper()}_PROXY", "")
        if value := environ.get(f"{name}_proxy", upper):
            found[name] = value if "://" in value or name == "no" else f"http://{value}"
    if "all" in found:
        every = found.pop("all")
        found = {"http": every, "https": every, **found}
    return found


def _bypassed(host: str, proxies: Mapping[str, str]) -> bool:
    """Whether NO_PROXY names a host."""
    # Imported here: it takes milliseconds, and few have a proxy.
    from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]

    return bool(proxy_bypass_environment(host, proxies))


def _proxy_auth(proxy: str) -> dict[str, Any]:
    parts = urllib.parse.urlsplit(proxy)
    if parts.username is None:
        return {}
    pair = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
    return {"proxy_headers": urllib3.make_headers(proxy_basic_auth=pair)}


def _failure(action: str, url: str, exc: Exception) -> RegistryError:
    """The RegistryError for what urllib3, ssl or the system said; texts that could quote a URL are not passed on."""
    shown = redact(url)
    reason: object = exc
    while isinstance(reason, ProxyError) and isinstance(reason.original_error, Exception):
        reason = reason.original_error
    if isinstance(reason, SSLError):
        reason = reason.args[0] if reason.args else reason
    text = f"{action} {shown}: "
    if (slow := _slowness(reason)) is not None:
        return RegistryError(f"{text}{slow}", url=shown, temporary=True)
    if isinstance(reason, ssl.SSLCertVerificationError):
        # No ConnectError: there is TLS, so plain HTTP is no way out.
        return RegistryError(
            f"{text}the certificate is not trusted ({reason.verify_message})",
            url=shown,
            hint="put the authority into certs.d/HOST/ca.crt",
        )
    if isinstance(reason, ssl.SSLError | SSLError):
        return ConnectError(f"{text}TLS failed ({getattr(reason, 'reason', None) or 'no TLS there'})", url=shown)
    if isinstance(reason, NameResolutionError):
        return ConnectError(f"{text}the host is not known", url=shown, temporary=True)
    if isinstance(reason, NewConnectionError | ProxyError):
        where = "the proxy" if isinstance(exc, ProxyError) else "it"
        return ConnectError(f"{text}{where} cannot be reached", url=shown, temporary=True)
    if isinstance(reason, ConnectTimeoutError):
        return ConnectError(f"{text}no connection in time", url=shown, temporary=True)
    if isinstance(reason, LocationParseError | ValueError | UnicodeError):
        return RegistryError(f"{text}the request or its answer is not HTTP", url=shown)
    if isinstance(reason, TimeoutError | urllib3.exceptions.TimeoutError):
        return RegistryError(f"{text}no bytes came in time", url=shown, temporary=True)
    return RegistryError(f"{text}the connection broke", url=shown, temporary=True)


def _slowness(reason: object) -> TooSlow | None:
    """Our own word, which urllib3 wraps in one way or another."""
    for _ in range(5):
        if isinstance(reason, TooSlow):
            return reason
        if not isinstance(reason, BaseException):
            return None
        reason = reason.__cause__ or (reason.args[-1] if reason.args else None)
    return None
