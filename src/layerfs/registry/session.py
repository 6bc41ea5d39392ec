"""Requests to one repository: the scheme, the Authorization, another try, and errors that name what was asked."""

import threading
import urllib.parse
from collections.abc import Callable, Collection, Mapping

import msgspec

from layerfs.errors import IntegrityError, NotFoundError, RegistryError, UnauthorizedError
from layerfs.registry.auth import Authenticator
from layerfs.registry.challenge import parse_challenges, retry_after, warning_text
from layerfs.registry.config import Endpoint
from layerfs.registry.connection import Calls
from layerfs.registry.retry import TEMPORARY_STATUS, Retry, Throttled
from layerfs.registry.transport import Body, ConnectError, Response, Transport, origin_of, redact

__all__ = ["AbsentError", "Session"]

_ERROR_SIZE = 64 << 10


class AbsentError(RegistryError, NotFoundError):
    """The registry has no such repository, manifest or blob (404)."""


class _Detail(msgspec.Struct):
    code: str | int = ""
    message: str = ""


class _Errors(msgspec.Struct):
    """As the specification has them; else the words of other servers, and of those that give tokens."""

    errors: list[_Detail] = []
    message: str = ""
    details: str = ""


class Session:
    """Speaks to the host of one endpoint with the scopes that ``actions`` ("pull" or "pull,push") need."""

    def __init__(
        self,
        endpoint: Endpoint,
        actions: str,
        transport: Transport,
        authenticator: Authenticator,
        retry: Retry,
        note: Callable[[str], None],
        calls: Calls,
    ) -> None:
        self.endpoint = endpoint
        self.authenticator = authenticator
        self.note = note
        self._retry = retry
        self._calls = calls
        self._scopes = frozenset({f"repository:{endpoint.repository}:{actions}"} if endpoint.repository else ())
        self._transport = transport
        self._base: str | None = endpoint.schemes[0] if len(endpoint.schemes) == 1 else None
        if self._base is not None:
            self._base += f"://{endpoint.host}"
        self._lock = threading.Lock()

    def request(
        self,
        method: str,
        target: str,
        what: str,
        *,
        ok: Collection[int] = (200,),
        headers: Mapping[str, str] | None = None,
        body: Body | Callable[[], Body] | None = None,
        scopes: frozenset[str] = frozenset(),
        retry: bool = True,
    ) -> Response:
        """An answer with a status of ``ok``; ``target`` is a path, or a URL that the registry gave.

        ``what`` says operation and object in errors; a callable makes the body anew for each try; ``scopes`` come on
        top of the repository's own. Raises AbsentError for 404, UnauthorizedError for 401 and 403, else RegistryError.
        """

        def once() -> Response:
            return self._once(method, target, what, ok, headers or {}, body, self._scopes | scopes)

        attempt = 0
        while True:
            attempt += 1
            try:
                return once()
            except RegistryError as exc:
                if not retry:
                    raise
                self.pause(exc, attempt)

    def pause(self, failure: RegistryError, attempt: int) -> None:
        """Wait before the next try; raises ``failure`` when there is to be none after ``attempt`` of them."""
        if self._calls.pause(self._retry.pause(failure, attempt)):
            raise failure

    def interrupt(self) -> None:
        """End what other threads wait for; every request from now on fails."""
        self._calls.interrupt()

    def absolute(self, target: str, base: str | None = None) -> str:
        """A URL for a path, or for a Location relative to ``base``. What came over TLS is not left in clear: a
        registry whose TLS a proxy ends calls itself http; RegistryError for another host without it.
        """
        base = base or self._base or ""
        url = urllib.parse.urljoin(base, target)
        here, there = urllib.parse.urlsplit(base), urllib.parse.urlsplit(url)
        if (here.scheme, there.scheme) != ("https", "http"):
            return url
        if here.hostname != there.hostname:
            raise RegistryError(f"upload to {redact(base)}: it leads from https to http, at {redact(url)}")
        return urllib.parse.urlunsplit(there._replace(scheme=here.scheme, netloc=here.netloc))

    def _once(
        self,
        method: str,
        target: str,
        what: str,
        ok: Collection[int],
        headers: Mapping[str, str],
        body: Body | Callable[[], Body] | None,
        scopes: frozenset[str],
    ) -> Response:
        try:
            sent = self.authenticator.authorization(scopes)
            response = self._send(method, target, headers, sent, body)
            if response.status == 401:
                challenges = parse_challenges(response.headers.getlist("WWW-Authenticate"))
                response.close()
                # A challenge of another host is none of ours: it would collect our credentials (CVE-2020-15157).
                if origin_of(response.url) != origin_of(self._base or ""):
                    raise self._refusal(response.status, "", "refused by another host", response.url)
                sent = self.authenticator.answer(challenges, scopes, sent)
                response = self._send(method, target, headers, sent, body)
        except RegistryError as exc:
            exc.args = (f"{what}: {exc}",)
            raise
        for header in response.headers.getlist("Warning"):
            if text := warning_text(header):
                self.note(f"{self.endpoint.registry}: {text}")
        if response.status in ok:
            return response
        raise self._error(response, what)

    def _send(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        authorization: str | None,
        body: Body | Callable[[], Body] | None,
    ) -> Response:
        def send(base: str) -> Response:
            url = target if "://" in target else base + target
            own = origin_of(url) == origin_of(base)
            made = body() if callable(body) else body
            sent = authorization if own else None
            return self._transport.send(method, url, headers, authorization=sent, body=made, calls=self._calls)

        if self._base is not None:
            return send(self._base)
        with self._lock:
            if self._base is None:
                return self._find_scheme(send)
            base = self._base
        return send(base)

    def _find_scheme(self, send: Callable[[str], Response]) -> Response:
        """The first request decides whether there is TLS, where plain HTTP is allowed at all."""
        failure: ConnectError | None = None
        for scheme in self.endpoint.schemes:
            base = f"{scheme}://{self.endpoint.host}"
            try:
                response = send(base)
            except ConnectError as exc:
                failure = failure or exc
                continue
            self._base = base
            return response
        assert failure is not None
        raise failure

    def _error(self, response: Response, what: str) -> RegistryError:
        """The error in an answer; its text is a stranger's, so it is cut and cleaned."""
        wait = retry_after(response.headers.get("Retry-After"))
        code, message = "", ""
        try:
            answer = msgspec.json.decode(response.read_all(_ERROR_SIZE), type=_Errors)
            first = answer.errors[0] if answer.errors else _Detail(message=answer.message or answer.details)
            code, message = _clean(str(first.code)), _clean(first.message)
        except (msgspec.MsgspecError, RecursionError, RegistryError, IntegrityError):
            pass
        failure = self._refusal(response.status, code, message, response.url)
        failure.args = (f"{what}: {failure}",)
        if failure.temporary and wait is not None:
            return Throttled(str(failure), wait, status=response.status, code=code or None, url=failure.url)
        return failure

    def _refusal(self, status: int, code: str, message: str, url: str) -> RegistryError:
        text = " ".join(part for part in (str(status), code) if part) + (f": {message}" if message else "")
        registry = self.endpoint.registry
        shown = redact(url)
        if status == 404:
            return AbsentError(text, status=status, code=code or None, url=shown)
        if status in (401, 403):
            return UnauthorizedError(
                text, status=status, code=code or None, url=shown, hint=f"layerfs login {registry}"
            )
        return RegistryError(text, status=status, code=code or None, url=shown, temporary=status in TEMPORARY_STATUS)


def _clean(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)[:300].strip()
