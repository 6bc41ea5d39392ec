"""Images as people make them: built from packages of Debian, PyPI and npm and from C, run, and asked for an answer."""

import json
import re
import shutil
import socket
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cli.conftest import Layerfs
from debian import debian_tar, registry_secrets

pytestmark = [pytest.mark.root, pytest.mark.slow]

APPLICATIONS = Path(__file__).parent / "applications"
UNREACHABLE = re.compile(
    r"Temporary failure|Could not (resolve|connect)|Connection (failed|refused|timed out)|Failed to fetch"
    r"|No matching distribution|ENOTFOUND|ECONNREFUSED|ETIMEDOUT|E40[134]|SSLError"
)


@pytest.fixture(scope="module")
def debian(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Layerfs]:
    """The command, over a store that has the image ``debian:bookworm``."""
    archive = debian_tar(pytestconfig, "gcc", "libc6-dev", "make", "python3-venv")
    layerfs = Layerfs(tmp_path_factory.mktemp("applications"))
    layerfs("import", archive, "debian:bookworm")
    yield layerfs
    layerfs("unmount", "--all")


@pytest.fixture
def layerfs(debian: Layerfs) -> Iterator[Layerfs]:
    """The same; nothing of a build or container is left by a test."""
    yield debian
    ids = debian("ps", "-aq", "--no-trunc").split()
    if ids:
        debian("rm", "-f", "-v", *ids)
    for name in ("snapshots", "containers", "ingest"):
        left = [path for path in (debian.place / "root" / name).iterdir() if not path.name.startswith("lock-")]
        assert left == []


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def built(layerfs: Layerfs, name: str, *options: str) -> tuple[int, int]:
    """Build an application; how many steps were done and how many found. Skips where packages cannot be had."""
    done = layerfs.process("build", "-t", name, "--progress=plain", *options, code=None, timeout=600)
    said = done.stderr.decode()
    if done.returncode and UNREACHABLE.search(said):
        pytest.skip(f"packages cannot be reached: {said[-300:]}")
    assert done.returncode == 0, said[-3000:]
    return len(re.findall(r"^#\d+ DONE", said, re.M)), len(re.findall(r"^#\d+ CACHED", said, re.M))


@contextmanager
def serving(layerfs: Layerfs, *words: str) -> Iterator[str]:
    """A container in the background; it ends by its own stop signal with exit code 0."""
    id = layerfs("run", "-d", *words).strip()
    yield id
    begin = time.monotonic()
    layerfs("stop", id)
    assert time.monotonic() - begin < 9
    assert layerfs.json("inspect", id)[0]["State"]["ExitCode"] == 0, layerfs.process("logs", id).stderr


def asked(port: int, path: str = "/", data: object = None) -> str:
    """The answer of a server that may still be starting."""
    body = None if data is None else json.dumps(data).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", body, {"Content-Type": "application/json"} if body else {}
    )
    deadline = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return answer.read().decode()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def test_the_classic_first_dockerfile(layerfs, tmp_path):
    port = free_port()
    shutil.copytree(APPLICATIONS / "first", tmp_path / "context")
    site = tmp_path / "context/site.conf"
    site.write_text(site.read_text().replace("PORT", str(port)))
    built(layerfs, "first", str(tmp_path / "context"))
    assert built(layerfs, "first", str(tmp_path / "context"))[1] == 5
    entries = [json.loads(line) for line in layerfs.lines("history", "--no-trunc", "--format", "{{json .}}", "first")]
    shown = [entry["CreatedBy"] for entry in reversed(entries)]
    assert [text.split()[0] for text in shown[-9:]] == [
        "ENV", "RUN", "RUN", "RUN", "COPY", "COPY", "EXPOSE", "STOPSIGNAL", "CMD",
    ]  # fmt: skip
    with serving(layerfs, "--network", "host", "first"):
        assert asked(port) == "<h1>It works</h1>\n"
    ran = layerfs("run", "--rm", "first", "sh", "-c", "curl --version; dpkg --audit; ls /var/lib/apt/lists")
    assert ran.startswith("curl ")
    assert "lists" not in ran
    assert ran.splitlines()[-1].startswith("Features")


def test_a_service_in_python(layerfs, tmp_path):
    port = free_port()
    secrets = registry_secrets(tmp_path)
    context = tmp_path / "context"
    shutil.copytree(APPLICATIONS / "python", context)
    built(layerfs, "service", *secrets, str(context))
    mounts = layerfs("builder", "ls")
    assert "/root/.cache/pip" in mounts
    # The service changed, its packages did not: nothing is installed again.
    (context / "service.py").write_text((context / "service.py").read_text().replace("hello of", "greetings of"))
    assert built(layerfs, "service", *secrets, str(context)) == (3, 6)
    with serving(layerfs, "--network", "host", "-e", f"PORT={port}", "service") as id:
        assert asked(port) == "greetings of flask\n"
        assert json.loads(asked(port, "/sum", [1, 2, 39])) == {"sum": 42, "user": True}
        deadline = time.monotonic() + 20
        while layerfs.json("inspect", id)[0]["State"]["Health"]["Status"] != "healthy":
            assert time.monotonic() < deadline
            time.sleep(0.1)
    # What was given as a secret is nowhere.
    found = layerfs("run", "--rm", "-u", "root", "service", "sh", "-c", "ls -A /run/secrets /etc/pip.conf 2>&1", code=2)
    assert "No such file" in found
    # The file that a secret lay over is as the base has it.
    certificates = ["sh", "-c", "cat /etc/ssl/certs/ca-certificates.crt 2>/dev/null | cksum"]
    assert layerfs("run", "--rm", "service", *certificates) == layerfs("run", "--rm", "debian:bookworm", *certificates)


def test_a_service_in_node(layerfs, tmp_path):
    port = free_port()
    built(
        layerfs, "node", *registry_secrets(tmp_path), "--build-arg", "GREETING=good morning", str(APPLICATIONS / "node")
    )
    with serving(layerfs, "--network", "host", "-e", f"PORT={port}", "node"):
        assert asked(port) == "good morning of express\n"
        assert json.loads(asked(port, "/sum", [40, 2])) == {"sum": 42}
    files = layerfs("run", "--rm", "--entrypoint", "ls", "node", "-A", "/app").split()
    assert files == [".dockerignore", "keep.md", "node_modules", "package.json", "server.js"]


def test_c_into_scratch(layerfs):
    port = free_port()
    built(layerfs, "answer", str(APPLICATIONS / "c"))
    id = layerfs("run", "-d", "--network", "host", "answer", str(port)).strip()
    assert asked(port) == "hello of C\n"
    layerfs("kill", id)
    assert sorted(layerfs.lines("ls", "answer", "/")) == ["etc", "server"]
    assert layerfs.json("inspect", "--type", "image", "answer")[0]["Config"]["User"] == "1000:1000"
