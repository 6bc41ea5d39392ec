"""Credentials of registries, where docker and podman keep them: ``config.json``, ``auth.json``, helpers.

Read in this order: the file given; $REGISTRY_AUTH_FILE; the document in $DOCKER_AUTH_CONFIG;
$DOCKER_CONFIG/config.json or ~/.docker/config.json; podman's auth.json in $XDG_RUNTIME_DIR/containers, else
/run/containers/UID; its lasting one in ~/.config/containers. The first that knows the registry wins. In one file a
helper of the host (``credHelpers``) goes before the store of all (``credsStore``), and that before ``auths``; keys of
``auths`` may name a path (``host/team``), of which the longest is taken.

A helper is the program ``docker-credential-NAME``: called without a shell, its secrets by standard input alone.
A file that cannot be read or understood is an error: going on without it could send secrets to the wrong place.
Messages name files, hosts and helpers, never what they hold.
"""

import base64
import os
import re
import signal
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from layerfs.errors import InvalidInputError, NotFoundError, RegistryError, system_errors
from layerfs.fsutil import write_atomic
from layerfs.late import LateModule
from layerfs.reference import DEFAULT_REGISTRY
from layerfs.registry.config import config_home

if TYPE_CHECKING:
    import json
    import subprocess
else:  # many registries need no credentials, and few have a helper
    json, subprocess = LateModule("json"), LateModule("subprocess")

__all__ = ["CredentialStore", "Credentials"]

_HUB_KEY = "https://index.docker.io/v1/"
_HELPER_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_HELPER_SECONDS = 60.0
_FILE_SIZE = 4 << 20
_TOKEN_USER = "<token>"
_LINE_ENDS = {ord("\r"): None, ord("\n"): None}


class Credentials(msgspec.Struct, frozen=True):
    """What a registry is shown: user and password, or an identity token, or a ready bearer token."""

    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""

    def __repr__(self) -> str:
        return f"Credentials(username={self.username!r}, ...)"


class CredentialStore:
    """All places together; ``put`` and ``erase`` change the first file that may be written."""

    def __init__(self, auth_file: str | os.PathLike[str] | None = None, environ: Mapping[str, str] = os.environ):
        self._environ = environ
        self._auth_file = Path(auth_file) if auth_file is not None else None

    def get(self, registry: str, repository: str = "") -> Credentials | None:
        """The credentials for a registry (and a repository there); None: nobody has any.

        InvalidInputError for a broken file, RegistryError for a helper that fails.
        """
        for where, document in self._documents():
            if (found := self._from_document(where, document, registry, repository)) is not None:
                return found
        return None

    def put(self, registry: str, credentials: Credentials) -> str:
        """Keep credentials; says where: a file, or a helper."""
        path = self._home_file()
        document = _read_file(path) or {}
        if helper := _helper_of(document, registry):
            secret = credentials.identity_token or credentials.password
            user = _TOKEN_USER if credentials.identity_token else credentials.username
            request = {"ServerURL": _server_key(registry), "Username": user, "Secret": secret}
            _run_helper(helper, "store", json.dumps(request))
            _auths(document).pop(_server_key(registry), None)
            _auths(document)[_server_key(registry)] = {}
            _write_file(path, document)
            return f"docker-credential-{helper}"
        pair = f"{credentials.username}:{credentials.password if not credentials.identity_token else ''}"
        entry = {"auth": base64.b64encode(pair.encode()).decode()}
        if credentials.identity_token:
            entry["identitytoken"] = credentials.identity_token
        _auths(document)[_server_key(registry)] = entry
        _write_file(path, document)
        return str(path)

    def erase(self, registry: str) -> list[str]:
        """Forget the credentials that ``put`` would have written; the places that had some.

        Those of other programs' files stay: ``get`` may still find them.
        """
        path = self._home_file()
        document = _read_file(path)
        if document is None:
            return []
        places = []
        if helper := _helper_of(document, registry):
            with suppress(NotFoundError):
                _run_helper(helper, "get", _server_key(registry))
                _run_helper(helper, "erase", _server_key(registry))
                places.append(f"docker-credential-{helper}")
        auths = _auths(document)
        gone = [key for key in auths if _plain_key(key) == registry]
        for key in gone:
            if auths.pop(key):
                places.append(str(path))
        if gone:
            _write_file(path, document)
        return places

    def _home_file(self) -> Path:
        if self._auth_file is not None:
            return self._auth_file
        if named := self._environ.get("REGISTRY_AUTH_FILE"):
            return Path(named)
        return self._docker_file()

    def _docker_file(self) -> Path:
        home = self._environ.get("HOME") or os.path.expanduser("~")
        directory = self._environ.get("DOCKER_CONFIG") or os.path.join(home, ".docker")
        return Path(directory, "config.json")

    def _podman_file(self) -> Path:
        runtime = self._environ.get("XDG_RUNTIME_DIR")
        if runtime:
            return Path(runtime, "containers/auth.json")
        return Path(f"/run/containers/{os.getuid()}/auth.json")

    def _documents(self) -> Iterator[tuple[str, dict[str, Any]]]:
        home = self._home_file()
        if (document := _read_file(home)) is not None:
            yield str(home), document
        if text := self._environ.get("DOCKER_AUTH_CONFIG"):
            yield "$DOCKER_AUTH_CONFIG", _parse(text.encode(), "$DOCKER_AUTH_CONFIG")
        lasting = Path(config_home(self._environ), "containers/auth.json")
        for path in (self._docker_file(), self._podman_file(), lasting):
            if path != home and (document := _read_file(path)) is not None:
                yield str(path), document

    def _from_document(
        self, where: str, document: dict[str, Any], registry: str, repository: str
    ) -> Credentials | None:
        if helper := _helper_of(document, registry):
            with suppress(NotFoundError):
                found = _ask_helper(helper, registry)
                if found is not None:
                    return found
        auths = _auths(document)
        plain = {_plain_key(key): entry for key, entry in auths.items()}
        wanted = f"{registry}/{repository}".rstrip("/")
        while wanted:
            entry = plain.get(wanted)
            if isinstance(entry, dict) and (found := _from_entry(where, wanted, entry)) is not None:
                return found
            wanted = wanted.rpartition("/")[0]
        return None


def _server_key(registry: str) -> str:
    """What docker calls a registry in its files and to its helpers."""
    return _HUB_KEY if registry == DEFAULT_REGISTRY else registry


def _plain_key(key: str) -> str:
    """A key of ``auths`` as registry, or registry/path."""
    plain = re.sub(r"^https?://", "", key)
    plain = re.sub(r"/v[12]/?$", "", plain).rstrip("/")
    host, slash, path = plain.partition("/")
    if host in ("index.docker.io", "registry-1.docker.io"):
        host = DEFAULT_REGISTRY
    return host + slash + path


def _read_file(path: Path) -> dict[str, Any] | None:
    try:
        with open(path, "rb") as file:
            data = file.read(_FILE_SIZE + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        raise InvalidInputError(f"read {path}: {exc.strerror}", file=str(path)) from exc
    return _parse(data, str(path)) if data.strip() else {}


def _parse(data: bytes, where: str) -> dict[str, Any]:
    try:
        document = json.loads(data) if len(data) <= _FILE_SIZE else None
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or not all(
        isinstance(document.get(member, {}), dict | None) for member in ("auths", "credHelpers")
    ):
        # The parser's message could quote what stands in the file.
        raise InvalidInputError(f"read {where}: not a docker or podman credentials file", file=where)
    return document


def _auths(document: dict[str, Any]) -> dict[str, Any]:
    if document.get("auths") is None:
        document["auths"] = {}
    auths: dict[str, Any] = document["auths"]
    return auths


def _write_file(path: Path, document: dict[str, Any]) -> None:
    path = path.resolve()
    with system_errors(f"write {path}"):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomic(path, json.dumps(document, indent="\t").encode() + b"\n", 0o600)


def _from_entry(where: str, key: str, entry: dict[str, Any]) -> Credentials | None:
    members = ("username", "password", "identitytoken", "registrytoken", "auth")
    values = {name: entry.get(name) or "" for name in members}
    if not all(isinstance(value, str) for value in values.values()):
        raise InvalidInputError(f"read {where}: the entry of {key} is damaged", file=where)
    user, password = values["username"], values["password"]
    if values["auth"]:
        try:
            # Ends of lines are no part of it: `base64` makes them, and docker reads over them.
            pair = base64.b64decode(values["auth"].translate(_LINE_ENDS), validate=True).decode()
        except ValueError:
            raise InvalidInputError(f"read {where}: the entry of {key} is damaged", file=where) from None
        user, colon, password = pair.partition(":")
        if not colon:
            raise InvalidInputError(f"read {where}: the entry of {key} is damaged", file=where)
        password = password.strip("\0")
    found = Credentials(user, password, values["identitytoken"], values["registrytoken"])
    return found if any(msgspec.structs.astuple(found)) else None


def _helper_of(document: dict[str, Any], registry: str) -> str | None:
    helpers = document.get("credHelpers") or {}
    for key, name in helpers.items():
        if _plain_key(key) == registry and name:
            return str(name)
    store = document.get("credsStore")
    return str(store) if store else None


def _ask_helper(helper: str, registry: str) -> Credentials | None:
    answer = _run_helper(helper, "get", _server_key(registry))
    try:
        document = json.loads(answer)
        user, secret = document["Username"], document["Secret"]
        if not isinstance(user, str) or not isinstance(secret, str):
            raise TypeError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise RegistryError(f"credentials of {registry}: docker-credential-{helper} gave no usable answer") from None
    if user == _TOKEN_USER:
        return Credentials(identity_token=secret)
    return Credentials(user, secret) if user or secret else None


def _run_helper(helper: str, action: str, request: str) -> bytes:
    """Standard output of a helper. NotFoundError: it has nothing for that host. RegistryError: it failed."""
    if re.fullmatch(_HELPER_NAME, helper) is None:
        raise InvalidInputError(f"credential helper {helper!r}: not a name")
    program = f"docker-credential-{helper}"
    try:
        process = subprocess.Popen(
            [program, action],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as exc:
        raise RegistryError(f"run {program}: {exc.strerror}", hint="install it, or log in again without it") from None
    with process:
        try:
            output, noise = process.communicate(request.encode(), timeout=_HELPER_SECONDS)
        except subprocess.TimeoutExpired:
            # The whole group: a grandchild that holds the pipe would keep us waiting.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise RegistryError(f"run {program} {action}: no answer within {_HELPER_SECONDS:g} s") from None
    if process.returncode == 0:
        return output
    if b"credentials not found" in output + noise:
        raise NotFoundError(f"run {program} {action}: nothing for that host")
    raise RegistryError(f"run {program} {action}: it failed with code {process.returncode}")
