"""Logging in: flows, files, helpers, and that secrets go nowhere else."""

import base64
import json
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_registry import FakeRegistry, Fault
from registrykit import access, make_image, reach, serve

from layerfs.errors import InvalidInputError, RegistryError, UnauthorizedError
from layerfs.exchange import list_tags, log_in, log_out
from layerfs.exchange.remote import registry_host
from layerfs.registry import credentials as credentials_module
from layerfs.registry.access import Access
from layerfs.registry.challenge import parse_challenges
from layerfs.registry.config import Endpoint
from layerfs.registry.credentials import Credentials, CredentialStore

__all__ = ["reach"]

IMAGE = make_image((2000,))


@pytest.fixture(params=["basic", "bearer"])
def registry(request: pytest.FixtureRequest) -> Iterator[FakeRegistry]:
    with FakeRegistry(auth=request.param) as registry:
        serve(registry, "team/app", "v1", IMAGE)
        yield registry


@pytest.fixture
def bearer() -> Iterator[FakeRegistry]:
    with FakeRegistry(auth="bearer") as registry:
        serve(registry, "team/app", "v1", IMAGE)
        yield registry


def home(tmp_path: Path) -> Path:
    (tmp_path / "home/.docker").mkdir(parents=True, exist_ok=True)
    return tmp_path / "home/.docker/config.json"


def auth(user: str, password: str) -> str:
    return base64.b64encode(f"{user}:{password}".encode()).decode()


def tags(registry: FakeRegistry, reach: Access) -> list[str]:
    return list_tags(f"{registry.host}/team/app", access=reach)


# ---- flows ----


def test_log_in_use_log_out(registry: FakeRegistry, tmp_path: Path) -> None:
    with access(tmp_path) as reach, pytest.raises(UnauthorizedError) as caught:
        tags(registry, reach)
    assert caught.value.hint == f"layerfs login {registry.host}"
    with access(tmp_path) as reach:
        where = log_in(registry.host, "user", "secret", access=reach)
    assert where == str(home(tmp_path))
    assert stat.S_IMODE(os.stat(where).st_mode) == 0o600
    with access(tmp_path) as reach:
        assert tags(registry, reach) == ["v1"]
    with access(tmp_path) as reach:
        out = log_out(registry.host, access=reach)
        assert out.places == (where,)
        assert not out.remaining
        assert log_out(registry.host, access=reach).places == ()
    with access(tmp_path) as reach, pytest.raises(UnauthorizedError):
        tags(registry, reach)


def test_wrong_password_is_not_kept(registry: FakeRegistry, reach: Access, tmp_path: Path) -> None:
    with pytest.raises(UnauthorizedError) as caught:
        log_in(registry.host, "user", "hunter2", access=reach)
    assert "hunter2" not in str(caught.value) + repr(caught.value)
    assert registry.host in str(caught.value)
    assert not home(tmp_path).exists()


def test_identity_token_is_kept_instead_of_the_password(bearer: FakeRegistry, tmp_path: Path) -> None:
    with access(tmp_path) as reach:
        log_in(bearer.host, "user", "secret", access=reach)
    assert "secret" not in home(tmp_path).read_text()
    entry = json.loads(home(tmp_path).read_text())["auths"][bearer.host]
    assert entry["identitytoken"] == "refresh-1"
    bearer.log.clear()
    with access(tmp_path) as reach:
        assert tags(bearer, reach) == ["v1"]
    assert bearer.count("POST", "/token") == 1
    assert bearer.count("GET", "/token") == 0


def test_token_server_that_knows_only_oauth(bearer: FakeRegistry, reach: Access) -> None:
    bearer.get_tokens = False
    reach.credentials.put(bearer.host, Credentials("user", "secret"))
    assert tags(bearer, reach) == ["v1"]


def test_anonymous_token(bearer: FakeRegistry, reach: Access) -> None:
    bearer.anonymous_pull = True
    assert tags(bearer, reach) == ["v1"]
    assert all("authorization" not in request.headers for request in bearer.log if "/token" in request.path)


def test_one_token_serves_many_requests(bearer: FakeRegistry, reach: Access) -> None:
    bearer.anonymous_pull = True
    client = reach.client(Endpoint(bearer.host, "team/app"), "pull")
    for _ in range(5):
        client.resolve("v1")
    assert bearer.count("GET", "/token") == 1
    assert bearer.count("HEAD") == 6


def test_tokens_are_renewed_before_they_run_out(bearer: FakeRegistry, reach: Access) -> None:
    bearer.anonymous_pull = True
    bearer.token_seconds = 1
    client = reach.client(Endpoint(bearer.host, "team/app"), "pull")
    client.resolve("v1")
    time.sleep(0.8)
    bearer.log.clear()
    client.resolve("v1")
    assert [request.path.partition("?")[0] for request in bearer.log] == ["/token", "/v2/team/app/manifests/v1"]


def test_revoked_token_is_replaced_once(bearer: FakeRegistry, reach: Access) -> None:
    bearer.anonymous_pull = True
    client = reach.client(Endpoint(bearer.host, "team/app"), "pull")
    client.resolve("v1")
    bearer.tokens.clear()
    client.resolve("v1")
    challenge = f'Bearer realm="http://{bearer.host}/token"'
    bearer.faults.append(Fault("HEAD", "", status=401, headers={"WWW-Authenticate": challenge}))
    bearer.log.clear()
    with pytest.raises(UnauthorizedError):
        client.resolve("v1")
    assert len(bearer.log) <= 4, "it goes round in circles"


def test_registry_token(bearer: FakeRegistry, tmp_path: Path) -> None:
    bearer.tokens["ready-made"] = ({"repository:team/app:pull"}, time.monotonic() + 60)
    home(tmp_path).write_text(json.dumps({"auths": {bearer.host: {"registrytoken": "ready-made"}}}))
    with access(tmp_path) as reach:
        assert tags(bearer, reach) == ["v1"]
    assert bearer.count("GET", "/token") == 0


@pytest.mark.parametrize("answer", [b"", b"{}", b'{"token": 5}', b'{"token": "a\\nb"}', b"[" * 100000, b'{"token":"'])
def test_odd_token_answers(bearer: FakeRegistry, reach: Access, answer: bytes) -> None:
    bearer.faults.append(Fault("GET", "/token", status=200, body=answer))
    with pytest.raises(RegistryError, match="token"):
        tags(bearer, reach)


def test_endless_token(bearer: FakeRegistry, reach: Access) -> None:
    from layerfs.errors import IntegrityError

    bearer.faults.append(Fault("GET", "/token", endless=True, status=200))
    with pytest.raises(IntegrityError, match="more than"):
        tags(bearer, reach)


@pytest.mark.parametrize(
    "realm",
    ["http://example.invalid/token", "http://10.0.0.1/token", "ftp://127.0.0.1/", "//x", "", "http://u:p@127.0.0.1/"],
)
def test_realm_without_tls_gets_nothing(tmp_path: Path, realm: str) -> None:
    """The realm is the registry's word; a man in the middle could have said it (CVE-2019-10214, CVE-2026-33540)."""
    with FakeRegistry(auth="bearer") as registry, access(tmp_path) as reach:
        serve(registry, "team/app", "v1", IMAGE)
        registry.realm = realm
        reach.credentials.put(registry.host, Credentials("user", "secret"))
        with pytest.raises(RegistryError) as caught:
            tags(registry, reach)
        assert "secret" not in str(caught.value)


def test_token_server_that_redirects_elsewhere_passes_no_password_on(bearer: FakeRegistry, reach: Access) -> None:
    with FakeRegistry(auth="basic") as elsewhere:
        target = {"Location": f"http://{elsewhere.host}/v2/"}
        bearer.faults.append(Fault("GET", "/token", status=302, headers=target))
        reach.credentials.put(bearer.host, Credentials("user", "secret"))
        with pytest.raises(UnauthorizedError):
            tags(bearer, reach)
        assert elsewhere.log
        assert all("authorization" not in request.headers for request in elsewhere.log)


def test_credentials_are_not_shown() -> None:
    shown = repr(Credentials("user", "secret", "identity", "ready"))
    assert "user" in shown
    assert not any(word in shown for word in ("secret", "identity", "ready"))


# ---- challenges ----


def test_challenges() -> None:
    header = 'Bearer realm="https://a/t?x=1,2",service="s \\"q\\"",scope="repository:h:5000/a/b:pull,push"'
    header += ", Basic realm=x"
    first, second = parse_challenges([header])
    assert first.scheme == "bearer"
    assert first.parameters == {
        "realm": "https://a/t?x=1,2",
        "service": 's "q"',
        "scope": "repository:h:5000/a/b:pull,push",
    }
    assert (second.scheme, second.parameters) == ("basic", {"realm": "x"})
    assert [c.scheme for c in parse_challenges(["Negotiate", "Basic"])] == ["negotiate", "basic"]


@pytest.mark.parametrize(
    "header", ["", ",,,", '"', "Bearer realm=", 'Bearer realm="x', "=" * 100_000, "a b c=" * 20_000]
)
def test_challenges_that_make_no_sense(header: str) -> None:
    started = time.monotonic()
    parse_challenges([header])
    assert time.monotonic() - started < 1


# ---- files ----


def stored(tmp_path: Path, document: object, **environ: str) -> CredentialStore:
    home(tmp_path).write_text(json.dumps(document))
    return CredentialStore(environ={"HOME": str(tmp_path / "home"), "XDG_RUNTIME_DIR": str(tmp_path), **environ})


@pytest.mark.parametrize(
    "key", ["https://index.docker.io/v1/", "index.docker.io", "docker.io", "https://registry-1.docker.io/v2/"]
)
def test_names_of_docker_hub(tmp_path: Path, key: str) -> None:
    assert stored(tmp_path, {"auths": {key: {"auth": auth("a", "b:c")}}}).get("docker.io") == Credentials("a", "b:c")


def test_longest_path_wins(tmp_path: Path) -> None:
    auths = {
        "host:5000": {"auth": auth("all", "1")},
        "host:5000/team": {"auth": auth("team", "2")},
        "https://other/v1/": {"username": "u", "password": "p"},
        "empty": {},
    }
    store = stored(tmp_path, {"auths": auths})
    assert store.get("host:5000", "team/app") == Credentials("team", "2")
    assert store.get("host:5000", "teams/app") == Credentials("all", "1")
    assert store.get("other", "x") == Credentials("u", "p")
    assert store.get("empty", "x") is None
    assert store.get("host") is None


def test_places_in_order(tmp_path: Path) -> None:
    (tmp_path / "containers").mkdir()
    podman = tmp_path / "containers/auth.json"
    podman.write_text(json.dumps({"auths": {"a": {"auth": auth("podman", "1")}, "b": {"auth": auth("podman", "2")}}}))
    store = stored(tmp_path, {"auths": {"a": {"auth": auth("docker", "1")}}})
    assert store.get("a") == Credentials("docker", "1")
    assert store.get("b") == Credentials("podman", "2")
    inline = json.dumps({"auths": {"b": {"auth": auth("inline", "3")}}})
    assert stored(tmp_path, {}, DOCKER_AUTH_CONFIG=inline).get("b") == Credentials("inline", "3")
    named = tmp_path / "named.json"
    named.write_text(json.dumps({"auths": {"b": {"auth": auth("named", "4")}}}))
    assert stored(tmp_path, {}, REGISTRY_AUTH_FILE=str(named)).get("b") == Credentials("named", "4")


def test_log_in_keeps_the_rest_of_the_file(tmp_path: Path) -> None:
    store = stored(tmp_path, {"psFormat": "x", "auths": {"other": {"auth": auth("a", "b")}}, "HttpHeaders": {"X": "1"}})
    store.put("host", Credentials("user", "secret"))
    document = json.loads(home(tmp_path).read_text())
    assert document["psFormat"] == "x"
    assert set(document["auths"]) == {"other", "host"}
    store.erase("host")
    assert set(json.loads(home(tmp_path).read_text())["auths"]) == {"other"}


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"auths": []}',
        '{"auths": {"h": {"auth": "secret!"}}}',
        '{"auths": {"h": {"auth": 5}}}',
        '{"auths": {"h": {"auth": "s\u00e9cret"}}}',
        '{"auths": {"h": {"auth": "c2VjcmV0"}}}',
    ],
)
def test_broken_file_is_an_error(tmp_path: Path, text: str) -> None:
    """CVE-2021-41092: to go on without it could send secrets to the default place. Nor is its content shown."""
    home(tmp_path).write_text(text)
    with pytest.raises(InvalidInputError) as caught:
        CredentialStore(environ={"HOME": str(tmp_path / "home")}).get("h")
    assert str(home(tmp_path)) in str(caught.value)
    assert "secret" not in str(caught.value)


def test_podmans_lasting_file(tmp_path: Path) -> None:
    """What `podman login` wrote until the next boot goes before what an administrator put there for good."""
    lasting, runtime = tmp_path / "config/containers/auth.json", tmp_path / "run/containers/auth.json"
    environ = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run"), "XDG_CONFIG_HOME": f"{tmp_path}/config"}
    lasting.parent.mkdir(parents=True)
    lasting.write_text(json.dumps({"auths": {"host": {"auth": auth("lasting", "x")}}}))
    assert CredentialStore(environ=environ).get("host") == Credentials("lasting", "x")
    runtime.parent.mkdir(parents=True)
    runtime.write_text(json.dumps({"auths": {"host": {"auth": auth("runtime", "x")}}}))
    assert CredentialStore(environ=environ).get("host") == Credentials("runtime", "x")
    default = tmp_path / ".config/containers/auth.json"
    default.parent.mkdir(parents=True)
    default.write_text(json.dumps({"auths": {"host": {"auth": auth("default", "x")}}}))
    assert CredentialStore(environ={"HOME": str(tmp_path)}).get("host") == Credentials("default", "x")


ENTRIES = {
    "lines of base64": ({"auth": base64.encodebytes(b"user:" + b"x" * 100).decode()}, Credentials("user", "x" * 100)),
    "ends of lines of DOS": ({"auth": "dXNl\r\ncjp4\r\n"}, Credentials("user", "x")),
    "no password": ({"auth": auth("user", "")}, Credentials("user", "")),
    "colons": ({"auth": auth("user", "a:b:c")}, Credentials("user", "a:b:c")),
    "zeros behind it": ({"auth": auth("user", "x\0\0")}, Credentials("user", "x")),
    "not ASCII": ({"auth": auth("üser", "pässword")}, Credentials("üser", "pässword")),
    "in clear": ({"username": "user", "password": "x"}, Credentials("user", "x")),
    "an address": ({"auth": auth("user", "x"), "email": "a@b.c"}, Credentials("user", "x")),
    "a key of Google": ({"auth": auth("_json_key", '{"a":\n"b"}')}, Credentials("_json_key", '{"a":\n"b"}')),
    "an identity token": (
        {"auth": auth("0-0-0", ""), "identitytoken": "t"},
        Credentials("0-0-0", "", identity_token="t"),
    ),
    "nothing": ({}, None),
    "null": (None, None),
    "empty": ({"auth": ""}, None),
}


@pytest.mark.parametrize("key", ["[::1]:5000", "https://[::1]:5000", "http://[::1]:5000/v2/", "[::1]:5000/"])
@pytest.mark.parametrize("what", ENTRIES)
def test_entries(tmp_path: Path, what: str, key: str) -> None:
    entry, expected = ENTRIES[what]
    assert stored(tmp_path, {"auths": {key: entry}}).get("[::1]:5000", "team/app") == expected


# ---- helpers ----

_HELPER = """#!/bin/sh
echo "$0 $@" >> "{log}"
case "$1" in
get) read -r server; file="{dir}/$(echo "$server" | tr / _)"
     [ -e "$file" ] || {{ echo "credentials not found in native keychain"; exit 1; }}
     cat "$file";;
store) cat > "{dir}/stored.json"; cp "{dir}/stored.json" "{dir}/host_5000";;
erase) read -r server; rm "{dir}/$server";;
esac
"""


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "helper"
    directory.mkdir()
    program = directory / "docker-credential-test"
    program.write_text(_HELPER.format(log=directory / "log", dir=directory))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
    return directory


def answer(directory: Path, server: str, user: str, secret: str) -> None:
    document = {"ServerURL": server, "Username": user, "Secret": secret}
    (directory / server.replace("/", "_")).write_text(json.dumps(document))


def test_helper_gives(tmp_path: Path, helper: Path) -> None:
    answer(helper, "host", "user", "secret")
    answer(helper, "https://index.docker.io/v1/", "<token>", "identity")
    store = stored(tmp_path, {"credsStore": "test", "auths": {"file": {"auth": auth("a", "b")}}})
    assert store.get("host", "any/thing") == Credentials("user", "secret")
    assert store.get("docker.io") == Credentials(identity_token="identity")
    assert store.get("file") == Credentials("a", "b")
    assert store.get("nobody") is None
    assert "secret" not in (helper / "log").read_text()


def test_helper_of_one_host(tmp_path: Path, helper: Path) -> None:
    answer(helper, "host", "user", "secret")
    store = stored(tmp_path, {"credHelpers": {"host": "test"}, "auths": {"other": {"auth": auth("a", "b")}}})
    assert store.get("host") == Credentials("user", "secret")
    assert store.get("other") == Credentials("a", "b")
    assert (helper / "log").read_text().count("get") == 1


def test_helper_keeps_and_erases(tmp_path: Path, helper: Path) -> None:
    store = stored(tmp_path, {"credsStore": "test"})
    assert store.put("host_5000", Credentials("user", "secret")) == "docker-credential-test"
    assert json.loads((helper / "stored.json").read_text()) == {
        "ServerURL": "host_5000", "Username": "user", "Secret": "secret"
    }  # fmt: skip
    assert "secret" not in home(tmp_path).read_text()
    assert store.erase("host_5000") == ["docker-credential-test"]
    assert store.get("host_5000") is None


@pytest.mark.parametrize(
    ("says", "expected"),
    [
        ('echo noise >&2; echo \'{"ServerURL":"","Username":"u","Secret":"s","More":1}\'', Credentials("u", "s")),
        ('printf \'{"Username":"u","Secret":"s"}\'', Credentials("u", "s")),
        ('echo \'{"Username":"","Secret":"s"}\'', Credentials("", "s")),
        ('echo \'{"ServerURL":"","Username":"","Secret":""}\'', Credentials("file", "x")),
        ("echo credentials not found in native keychain; exit 1", Credentials("file", "x")),
        ("echo credentials not found in native keychain >&2; exit 1", Credentials("file", "x")),
        ("echo 'Error: credentials not found for host'; exit 2", Credentials("file", "x")),
    ],
)
def test_what_helpers_say(tmp_path: Path, helper: Path, says: str, expected: Credentials) -> None:
    """Some say on the wrong channel that they have nothing, or give nothing; then the file counts."""
    (helper / "docker-credential-test").write_text(f"#!/bin/sh\n{says}\n")
    store = stored(tmp_path, {"credsStore": "test", "auths": {"host": {"auth": auth("file", "x")}}})
    assert store.get("host") == expected


@pytest.mark.parametrize("name", ["../../bin/sh", "a b", "-x", ""])
def test_helper_names_are_checked(tmp_path: Path, name: str) -> None:
    store = stored(tmp_path, {"credHelpers": {"host": name or "/"}})
    with pytest.raises(InvalidInputError, match="not a name"):
        store.get("host")


def test_helper_that_is_missing_fails_or_hangs(tmp_path: Path, helper: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RegistryError, match="docker-credential-none"):
        stored(tmp_path, {"credsStore": "none"}).get("host")
    program = helper / "docker-credential-test"
    store = stored(tmp_path, {"credsStore": "test"})
    scripts = {"exit 3": "code 3", "echo '{}'": "no usable answer", "echo nothing": "no usable answer"}
    for script, reason in scripts.items():
        program.write_text(f"#!/bin/sh\n{script}\n")
        with pytest.raises(RegistryError, match=reason):
            store.get("host")
    monkeypatch.setattr(credentials_module, "_HELPER_SECONDS", 0.3)
    program.write_text("#!/bin/sh\nsleep 60 &\nsleep 60\n")
    started = time.monotonic()
    with pytest.raises(RegistryError, match="no answer"):
        store.get("host")
    assert time.monotonic() - started < 5


def test_registry_with_a_helper(registry: FakeRegistry, tmp_path: Path, helper: Path) -> None:
    answer(helper, registry.host, "user", "secret")
    home(tmp_path).write_text(json.dumps({"credHelpers": {registry.host: "test"}}))
    with access(tmp_path) as reach:
        assert tags(registry, reach) == ["v1"]


def test_registry_names() -> None:
    assert {registry_host(name) for name in ("", "https://index.docker.io/v1/", "docker.io")} == {"docker.io"}
    assert registry_host("https://host:5000/v2/") == "host:5000"
    assert registry_host("localhost") == "localhost"
    for text in ("host", "a b.c", "http://", "-x.y", "u:p@h.example"):
        with pytest.raises(InvalidInputError):
            registry_host(text)


def test_token_that_lives_longer_than_numbers_reach(tmp_path: Path) -> None:
    class Answer:
        url, status = "http://127.0.0.1/token", 200

        def read_all(self, limit: int) -> bytes:
            return b'{"token": "x", "expires_in": ' + b"9" * 400 + b"}"

    with access(tmp_path) as reach:
        client = reach.client(Endpoint("127.0.0.1", "app"), "pull")
        with pytest.raises(RegistryError, match="no token that can be used"):
            client.session.authenticator._read(Answer())  # type: ignore[arg-type]
