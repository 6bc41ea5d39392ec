"""The Authorization of requests to one repository: Basic, Bearer tokens, OAuth2 refresh.

Sources: distribution's auth specifications (token.md, oauth.md, scope.md). Credentials are looked up when a
registry asks for them and no sooner, and they go to a token server (the realm, which the registry names) only over
https; over http only for a registry that is this machine or was declared insecure, and then only to the same host,
this machine, or a host declared insecure as well.
"""

import base64
import threading
import time
import urllib.parse
from collections.abc import Callable
from typing import Any

import msgspec

from layerfs.errors import RegistryError, UnauthorizedError
from layerfs.registry.challenge import Challenge, retry_after
from layerfs.registry.config import Endpoint, host_name, is_loopback
from layerfs.registry.connection import Calls
from layerfs.registry.credentials import Credentials
from layerfs.registry.retry import TEMPORARY_STATUS, Throttled
from layerfs.registry.transport import Response, Transport, origin_of, redact

__all__ = ["Authenticator"]

_CLIENT_ID = "layerfs"
_TOKEN_SIZE = 1 << 20
_LIFETIME = 60.0
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class _Token(msgspec.Struct, frozen=True):
    value: str
    expires: float

    def __repr__(self) -> str:
        return "_Token(...)"


class Authenticator:
    """Answers the challenges of one repository; keeps tokens by scope until they run out. Usable from threads."""

    def __init__(
        self,
        endpoint: Endpoint,
        transport: Transport,
        credentials: Callable[[], Credentials | None],
        insecure: Callable[[str], bool],
        calls: Calls | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._transport = transport
        self._calls = calls
        self._look_up = credentials
        self._looked_up = False
        self._known: Credentials | None = None
        self._insecure = insecure
        self._challenge: Challenge | None = None
        self._tokens: dict[frozenset[str], _Token] = {}
        self._lock = threading.Lock()
        self.refresh_token = ""
        """What the token server gave to be kept instead of the password, if anything."""

    def authorization(self, scopes: frozenset[str]) -> str | None:
        """What to send with a request that needs ``scopes``; None before the first challenge."""
        with self._lock:
            return self._authorization(scopes) if self._challenge is not None else None

    def answer(self, challenges: list[Challenge], scopes: frozenset[str], rejected: str | None) -> str:
        """What to send instead of ``rejected``, which got a 401. UnauthorizedError when there is nothing better."""
        with self._lock:
            offered = {challenge.scheme: challenge for challenge in reversed(challenges)}
            challenge = offered.get("bearer") or offered.get("basic")
            if challenge is not None and "realm" not in challenge.parameters:
                challenge = offered.get("basic", challenge)
            if challenge is None:
                raise self._unauthorized("the registry refuses without saying how to log in")
            self._challenge = challenge
            token = self._tokens.get(scopes)
            if token is not None and rejected == f"Bearer {token.value}":
                del self._tokens[scopes]
            answer = self._authorization(scopes)
            if answer == rejected:
                raise self._unauthorized("the registry does not accept the credentials")
            return answer

    def _authorization(self, scopes: frozenset[str]) -> str:
        assert self._challenge is not None
        if self._challenge.scheme == "basic":
            credentials = self._credentials()
            if credentials is None or not credentials.username:
                raise self._unauthorized("the registry wants a user and a password")
            return _basic(credentials)
        token = self._tokens.get(scopes)
        if token is None or token.expires <= time.monotonic():
            token = self._tokens[scopes] = self._fetch(self._challenge, scopes)
        return f"Bearer {token.value}"

    def _credentials(self) -> Credentials | None:
        if not self._looked_up:
            self._known = self._look_up()
            self._looked_up = True
        return self._known

    def _fetch(self, challenge: Challenge, scopes: frozenset[str]) -> _Token:
        credentials = self._credentials() or Credentials()
        if credentials.registry_token:
            return _Token(credentials.registry_token, time.monotonic() + _LIFETIME)
        realm = challenge.parameters.get("realm", "")
        self._check_realm(realm)
        asked = {*scopes, *_wanted(challenge, scopes)}
        service = challenge.parameters.get("service", "")
        if credentials.identity_token:
            form = {"grant_type": "refresh_token", "refresh_token": credentials.identity_token}
            response = self._post(realm, form, service, asked)
            if response.status not in (404, 405) or not credentials.password:
                return self._read(response)
            response.close()  # a token server without OAuth2
        response = self._get(realm, credentials, service, asked)
        if response.status in (404, 405) and credentials.username:
            response.close()
            form = {"grant_type": "password", "username": credentials.username, "password": credentials.password}
            response = self._post(realm, {**form, "access_type": "offline"}, service, asked)
        return self._read(response)

    def _get(self, realm: str, credentials: Credentials, service: str, scopes: set[str]) -> Response:
        query = [("client_id", _CLIENT_ID)] + ([("service", service)] if service else [])
        query += [("scope", scope) for scope in sorted(scopes)]
        if credentials.username:
            query += [("account", credentials.username), ("offline_token", "true")]
        separator = "&" if "?" in realm else "?"
        url = realm + separator + urllib.parse.urlencode(query)
        basic = _basic(credentials) if credentials.username else None
        return self._transport.send("GET", url, {}, authorization=basic, calls=self._calls)

    def _post(self, realm: str, form: dict[str, str], service: str, scopes: set[str]) -> Response:
        fields = {**form, "client_id": _CLIENT_ID, "service": service, "scope": " ".join(sorted(scopes))}
        body = urllib.parse.urlencode(fields).encode()
        return self._transport.send("POST", realm, _FORM, body=body, calls=self._calls)

    def _read(self, response: Response) -> _Token:
        """The token of an answer of the token server."""
        shown = redact(response.url)
        data = response.read_all(_TOKEN_SIZE)
        if response.status in (400, 401, 403):
            raise self._unauthorized(f"{shown} answers {response.status}")
        if response.status != 200:
            what, temporary = f"log in to {self._endpoint.registry}", response.status in TEMPORARY_STATUS
            text = f"{what}: {shown} answers {response.status}"
            wait = retry_after(response.headers.get("Retry-After"))
            if temporary and wait is not None:
                raise Throttled(text, wait, status=response.status, code=None, url=shown)
            raise RegistryError(text, status=response.status, url=shown, temporary=temporary)
        try:
            document: dict[str, Any] = msgspec.json.decode(data, type=dict[str, Any])
            value = document.get("token") or document.get("access_token")
            lifetime = float(document.get("expires_in") or _LIFETIME)
            if not isinstance(value, str) or not all("!" <= c <= "~" for c in value):
                raise TypeError
        except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError):
            raise RegistryError(
                f"log in to {self._endpoint.registry}: {shown} gives no token that can be used", url=shown
            ) from None
        refresh = document.get("refresh_token")
        if isinstance(refresh, str):
            self.refresh_token = refresh
        # A little less than it lives, for what is on its way when it ends.
        return _Token(value, time.monotonic() + lifetime - min(10.0, lifetime / 4))

    def _check_realm(self, realm: str) -> None:
        scheme, host, port = origin_of(realm)
        if scheme == "https":
            return
        registry = self._endpoint.host
        lenient = self._endpoint.insecure or is_loopback(registry)
        if lenient and (is_loopback(host) or host == host_name(registry) or self._insecure(f"{host}:{port}")):
            return
        raise self._unauthorized(f"its token server {redact(realm)} has no TLS, so it is not shown credentials")

    def _unauthorized(self, reason: str) -> UnauthorizedError:
        registry = self._endpoint.registry
        return UnauthorizedError(
            f"log in to {registry}: {reason} (401)", status=401, code="UNAUTHORIZED", hint=f"layerfs login {registry}"
        )


def _wanted(challenge: Challenge, scopes: frozenset[str]) -> set[str]:
    """The scopes of a challenge that ``scopes`` does not cover: names and actions can be other ones than ours."""
    known = {scope.rpartition(":")[0]: set(scope.rpartition(":")[2].split(",")) for scope in scopes}
    found = set()
    for scope in challenge.parameters.get("scope", "").split():
        name, _, actions = scope.rpartition(":")
        if not set(actions.split(",")) - {""} <= known.get(name, set()):
            found.add(scope)
    return found


def _basic(credentials: Credentials) -> str:
    pair = f"{credentials.username}:{credentials.password}".encode()
    return "Basic " + base64.b64encode(pair).decode()
