"""``pull``, ``push``, ``login``, ``logout``, ``copy``, ``tags``, ``manifest inspect`` against a fake registry."""

import base64
import json

import pytest
from fake_registry import FakeRegistry, Fault

from .conftest import tar_of


@pytest.fixture
def registry():
    with FakeRegistry() as server:
        yield server


@pytest.fixture
def pushed(layerfs, small, registry):
    """The name of an image that the registry has and the store has not."""
    name = f"{registry.host}/team/small:1"
    layerfs("push", "-q", "small:1", name)
    layerfs("rmi", "small:1")
    return name


def test_push_and_pull_print_what_docker_prints(layerfs, small, registry):
    name = f"{registry.host}/team/small"
    layerfs("tag", "small:1", name)
    lines = layerfs.lines("push", name)
    assert lines[0] == f"The push refers to repository [{name}]"
    assert lines[1].startswith("latest: digest: sha256:")
    digest = lines[1].split()[2]
    assert layerfs.lines("images", "--digests", "--format", "{{.Digest}}", name) == [digest]
    layerfs("rmi", "-f", small)
    lines = layerfs.lines("pull", name)
    assert lines == [
        "Using default tag: latest",
        f"Digest: {digest}",
        f"Status: Downloaded newer image for {name}:latest",
        f"{name}:latest",
    ]
    assert layerfs.lines("pull", f"{name}:latest")[1] == f"Status: Image is up to date for {name}:latest"
    assert layerfs("pull", "-q", name) == f"{name}:latest\n"
    assert layerfs.json("inspect", name)[0]["Id"] == small
    layerfs("rmi", name)
    assert layerfs.lines("pull", f"{name}@{digest}")[-1] == f"{name}@{digest}"


def test_progress_is_lines_when_piped_and_silent_when_asked(layerfs, pushed):
    result = layerfs.process("pull", pushed)
    assert b": done, " in result.stderr
    assert b"\x1b" not in result.stderr
    layerfs("rmi", pushed)
    result = layerfs.process("pull", "-q", pushed)
    assert (result.stdout.decode(), result.stderr) == (f"{pushed}\n", b"")


def test_a_layer_that_is_here_is_said_to_be_here(layerfs, small, registry):
    layerfs("tag", "small:1", f"{registry.host}/a:1")
    layerfs("push", f"{registry.host}/a:1")
    assert b"already here" in layerfs.process("push", f"{registry.host}/a:1").stderr


def test_all_tags(layerfs, small, registry):
    repository = f"{registry.host}/many"
    other = layerfs("import", "-", f"{repository}:b", data=tar_of({"b": b"1"})).strip()
    layerfs("tag", small, f"{repository}:a")
    assert sum("digest: " in line for line in layerfs.lines("push", "-a", repository)) == 2
    assert layerfs.lines("tags", repository) == ["a", "b"]
    assert json.loads(layerfs("tags", "--format", "json", repository)) == ["a", "b"]
    layerfs("rmi", "-f", small, other)
    output = layerfs("pull", "-a", repository)
    assert output.count("Status: Downloaded newer image") == 2
    assert len(layerfs.lines("images", "-q")) == 2
    assert "a repository alone" in layerfs.error("push", "-a", f"{repository}:a", code=2)
    assert "no tag of it" in layerfs.error("push", "-a", "nothing", code=1)


def test_copy_and_manifest_inspect(layerfs, pushed, registry, tmp_path):
    raw = layerfs.process("manifest", "inspect", "--raw", pushed).stdout
    assert json.loads(raw) == layerfs.json("manifest", "inspect", pushed)
    digest = layerfs("copy", pushed, f"{registry.host}/copy:2").strip()
    assert layerfs.process("manifest", "inspect", "--raw", f"{registry.host}/copy@{digest}").stdout == raw
    layerfs("copy", "-q", pushed, f"oci:{tmp_path}/layout:x")
    assert layerfs("load", "-i", tmp_path / "layout").startswith("Loaded image")
    layerfs("copy", "--platform", "linux/amd64", f"oci:{tmp_path}/layout", f"docker-archive:{tmp_path}/a.tar:y")
    assert layerfs("load", "-i", tmp_path / "a.tar") == "Loaded image: y:latest\n"


def test_login_keeps_credentials_and_logout_forgets_them(layerfs, small, tmp_path):
    with FakeRegistry(auth="basic") as registry:
        name = f"{registry.host}/private:1"
        file = ["--authfile", tmp_path / "auth.json"]
        error = layerfs.error("push", *file, "small:1", name, code=5)
        assert "401" in error or "credentials" in error
        error = layerfs.error("login", *file, "-u", "user", "--password-stdin", registry.host, data=b"wrong", code=5)
        assert "wrong" not in error
        assert layerfs(*("login", *file, "-u", "user", "--password-stdin", registry.host), data=b"secret\n") == (
            "Login Succeeded\n"
        )
        assert base64.b64encode(b"user:secret").decode() in (tmp_path / "auth.json").read_text()
        layerfs("push", *file, "small:1", name)
        assert layerfs("logout", *file, registry.host).startswith(f"Removing login credentials for {registry.host}")
        assert layerfs("logout", *file, registry.host) == f"Not logged in to {registry.host}\n"
        layerfs.error("pull", *file, name, code=5)
        result = layerfs.process("login", *file, "-u", "user", "-p", "secret", registry.host)
        assert b"safer" in result.stderr


@pytest.mark.parametrize(
    ("words", "data", "message"),
    [
        (["--password-stdin"], b"x", "needs --username"),
        (["-u", "x"], b"", "no terminal to ask"),
        (["-p", "x"], b"", "no terminal to ask"),
        (["-u", "x", "-p", "y", "--password-stdin"], b"", "cannot be given together"),
        (["-u", "x", "--password-stdin"], b"\n", "a user and a password are wanted"),
    ],
)
def test_login_asks_only_at_a_terminal(layerfs, words, data, message):
    assert message in layerfs.process("login", *words, "127.0.0.1:1", data=data, code=2).stderr.decode()


def test_run_pulls_what_is_missing(layerfs, pushed, registry):
    assert "not in the store" in layerfs.error("create", "--pull", "never", pushed, code=125)
    layerfs("create", "--name", "one", pushed)
    requests = len(registry.log)
    layerfs("create", "--name", "two", pushed)
    assert len(registry.log) == requests
    layerfs("create", "--name", "three", "--pull=always", "-q", pushed)
    assert len(registry.log) > requests
    error = layerfs.process("create", f"{registry.host}/none:1", code=125).stderr.decode()
    assert error.splitlines()[-1].startswith(f"layerfs create: pull {registry.host}/none:1: ")


def test_bad_registries_get_one_line(layerfs, pushed, registry):
    assert layerfs.error("pull", f"{registry.host}/nothing:1", code=5).startswith(
        f"layerfs pull: {registry.host}/nothing:1: "
    )
    assert "404" in layerfs.error("tags", f"{registry.host}/nothing", code=5)
    assert layerfs.error("pull", "UPPER", code=2).startswith("layerfs pull: reference")
    assert "not a platform" in layerfs.error("pull", "--platform", "a/b/c/d", pushed, code=2)
    registry.faults.append(Fault("GET", "/blobs/", body=b"x" * 100))
    assert layerfs.process("pull", pushed, code=3).stderr.decode().splitlines()[-1].startswith("layerfs pull: ")
    assert layerfs("images", "-q") == ""


def test_limits_of_a_pull(layerfs, pushed):
    result = layerfs.process("pull", "--max-layer-bytes", "1k", pushed, code=3)
    assert b"--max-layer-bytes" in result.stderr
    result = layerfs.process("pull", "--max-layer-entries", "1", pushed, code=3)
    assert b"--max-layer-entries" in result.stderr
    layerfs("pull", "--max-layer-bytes", "1m", pushed)
