"""Real registries and real clients: Debian's docker-registry, skopeo and podman, with the same images as we."""

import base64
import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest
from fake_registry import digest_of
from peerkit import Run, containerd, docker, podman
from registrykit import MadeImage, access, make_image, open_store, tar_of

from layerfs.digest import Digest
from layerfs.errors import NotFoundError, RegistryError, UnauthorizedError
from layerfs.exchange import copy_image, inspect_manifest, list_tags, log_in, pull, push
from layerfs.registry import upload
from layerfs.registry.access import Access
from layerfs.registry.config import RegistryConfig, Rule

REGISTRY = shutil.which("docker-registry")
pytestmark = pytest.mark.skipif(REGISTRY is None, reason="needs Debian's docker-registry")
IMAGE = make_image((2_000_000, 10_000), seed=11)
USER, PASSWORD = "tester", "pass word"
HTPASSWD = USER + ":$2b$05$0dVKZQaO41HDS8Ejfqf/qus/fxU7B2KCn0YL.0nsTsUWKgenusWte"  # htpasswd -B -C 5


@dataclass
class Served:
    host: str
    directory: Path

    def log_text(self) -> str:
        return (self.directory / "log").read_text()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


Start = Callable[..., Served]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts docker-registry, with htpasswd and TLS as asked."""
    processes = []

    def run(*, htpasswd: str | None = None, tls: tuple[Path, Path] | None = None) -> Served:
        directory = tmp_path / f"registry-{len(processes)}"
        directory.mkdir()
        port = free_port()
        config = f"version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {directory}/data\n"
        config += f"http:\n  addr: 127.0.0.1:{port}\n"
        if tls is not None:
            config += f"  tls:\n    certificate: {tls[0]}\n    key: {tls[1]}\n"
        if htpasswd is not None:
            (directory / "htpasswd").write_text(htpasswd + "\n")
            config += f"auth:\n  htpasswd:\n    realm: test\n    path: {directory}/htpasswd\n"
        (directory / "config.yml").write_text(config)
        with open(directory / "log", "wb") as log:
            command = [str(REGISTRY), "serve", str(directory / "config.yml")]
            processes.append(subprocess.Popen(command, stdout=log, stderr=log))
        wait_for(port)
        return Served(f"127.0.0.1:{port}", directory)

    yield run
    for process in processes:
        process.terminate()
        process.wait()


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            assert time.monotonic() < deadline, "the registry did not start"
            time.sleep(0.02)


@pytest.fixture
def reach(tmp_path: Path) -> Iterator[Access]:
    with access(tmp_path) as reach:
        yield reach


def layout(path: Path, image: MadeImage) -> Path:
    """The image as an OCI layout, for tools to read."""
    blobs = path / "blobs/sha256"
    blobs.mkdir(parents=True)
    for data in (*image.layers, image.config, image.manifest):
        (blobs / digest_of(data).partition(":")[2]).write_bytes(data)
    entry = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": image.digest,
        "size": len(image.manifest),
        "annotations": {"org.opencontainers.image.ref.name": "v1"},
    }
    (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return path


def tool(*command: str, **environ: str) -> str:
    program = shutil.which(command[0])
    if program is None:
        pytest.skip(f"needs {command[0]}")
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, env={**os.environ, **environ}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_skopeo_to_us_to_skopeo(start: Start, reach: Access, tmp_path: Path) -> None:
    """skopeo -> registry -> layerfs -> registry -> skopeo: equal bytes."""
    served = start()
    source = layout(tmp_path / "layout", IMAGE)
    tool("skopeo", "copy", "--dest-tls-verify=false", f"oci:{source}:v1", f"docker://{served.host}/app:v1")
    with open_store(tmp_path) as store:
        pulled = pull(store.parts, f"{served.host}/app:v1", access=reach)
        assert pulled.digest == IMAGE.digest
        push(store.parts, f"{served.host}/app:v1", f"{served.host}/deep/er/copy:v2", access=reach)
    assert list_tags(f"{served.host}/deep/er/copy", access=reach) == ["v2"]
    back = tmp_path / "back"
    tool("skopeo", "copy", "--src-tls-verify=false", f"docker://{served.host}/deep/er/copy:v2", f"oci:{back}:v2")
    for data in (*IMAGE.layers, IMAGE.config, IMAGE.manifest):
        assert (back / "blobs/sha256" / digest_of(data).partition(":")[2]).read_bytes() == data
    assert inspect_manifest(f"{served.host}/deep/er/copy:v2", access=reach).data == IMAGE.manifest


def test_recompressed_push_is_read_by_skopeo(
    start: Start, reach: Access, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In chunks, as a layer goes whose blob is not here; and skopeo finds the same image ID."""
    monkeypatch.setattr(upload, "CHUNK", 300_000)
    monkeypatch.setattr(upload, "STREAMED", 700_000)
    served = start()
    with open_store(tmp_path) as store:
        store.load(layout(tmp_path / "layout", IMAGE))
        image = store.images.get(IMAGE.id)
        for layer in IMAGE.layers:
            store.content.delete(Digest(digest_of(layer)))
        pushed = push(store.parts, image.id, f"{served.host}/app:v1", access=reach)
        again = push(store.parts, image.id, f"{served.host}/app:v2", access=reach)
    assert again.target == pushed.target
    back = tmp_path / "back"
    tool("skopeo", "copy", "--src-tls-verify=false", f"docker://{served.host}/app:v2", f"oci:{back}:v2")
    manifest = json.loads((back / "blobs/sha256" / pushed.target.digest.hex).read_bytes())
    assert manifest["config"]["digest"] == IMAGE.id


@pytest.mark.root
def test_podman_and_us(start: Start, reach: Access, tmp_path: Path) -> None:
    """podman's docker-format images come and go; ours run there as they are."""
    served = start()
    run = tempfile.mkdtemp(prefix="lfs-")  # podman takes no run directory of more than 50 characters
    podman = ["podman", "--root", str(tmp_path / "podman"), "--runroot", run, "--storage-driver", "vfs"]
    source = layout(tmp_path / "layout", IMAGE)
    tool(*podman, "pull", "-q", f"oci:{source}:v1")
    image_id = tool(*podman, "images", "-q", "--no-trunc").split()[0]
    for format in ("oci", "v2s2"):
        name = f"{served.host}/podman:{format}"
        tool(*podman, "push", "-q", "--tls-verify=false", "--format", format, image_id, f"docker://{name}")
        with open_store(tmp_path) as store:
            pulled = pull(store.parts, name, access=reach)
            assert pulled.image is not None
            pushed = push(store.parts, name, f"{served.host}/ours:{format}", access=reach)
            assert pushed.target.digest == pulled.digest
        tool(*podman, "pull", "-q", "--tls-verify=false", f"{served.host}/ours:{format}")
        listed = tool(*podman, "image", "inspect", "--format", "{{.Id}}", f"{served.host}/ours:{format}")
        assert listed.strip() == pulled.image.id.hex
    tool(*podman, "rmi", "-a", "-f")
    shutil.rmtree(run)


class Peer(Protocol):
    """An engine that pulls an image and pushes what it made of it."""

    keeps = True
    """Whether the bytes of manifests and layers go through it unchanged."""

    def pull(self, name: str) -> tuple[str, list[str]] | None:
        """The image ID and the diff IDs as it has them; None: it does not say."""

    def push(self, name: str, target: str) -> None:
        """Send what it has under a name to another."""


class Docker:
    keeps = False

    def __init__(self, run: Run) -> None:
        self.run = run

    def pull(self, name: str) -> tuple[str, list[str]]:
        self.run("pull", "-q", name)
        (told,) = json.loads(self.run("image", "inspect", name))
        return told["Id"], told["RootFS"]["Layers"]

    def push(self, name: str, target: str) -> None:
        self.run("tag", name, target)
        self.run("push", "-q", target)


class Podman:
    keeps = False

    def __init__(self, run: Run) -> None:
        self.run = run

    def pull(self, name: str) -> tuple[str, list[str]]:
        self.run("pull", "-q", "--tls-verify=false", name)
        (told,) = json.loads(self.run("image", "inspect", name))
        return f"sha256:{told['Id']}", told["RootFS"]["Layers"]

    def push(self, name: str, target: str) -> None:
        self.run("push", "-q", "--tls-verify=false", name, f"docker://{target}")


class Containerd:
    keeps = True

    def __init__(self, run: Run) -> None:
        self.run = run

    def pull(self, name: str) -> tuple[str, list[str]] | None:
        self.run("images", "pull", "--plain-http", "--snapshotter", "native", name)
        return None

    def push(self, name: str, target: str) -> None:
        self.run("images", "push", "--plain-http", target, name)


class Skopeo:
    keeps = True

    def pull(self, name: str) -> tuple[str, list[str]]:
        raw = tool("skopeo", "inspect", "--config", "--raw", "--tls-verify=false", f"docker://{name}")
        return digest_of(raw.encode()), json.loads(raw)["rootfs"]["diff_ids"]

    def push(self, name: str, target: str) -> None:
        ends = ["--src-tls-verify=false", "--dest-tls-verify=false", f"docker://{name}", f"docker://{target}"]
        tool("skopeo", "copy", "-q", *ends)


@pytest.fixture
def peer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    place = tmp_path_factory.mktemp("p")
    if request.param == "docker":
        with docker(place) as run:
            yield Docker(run)
    elif request.param == "containerd":
        with containerd(place) as run:
            yield Containerd(run)
    elif request.param == "podman":
        with podman() as run:
            yield Podman(run)
    else:
        yield Skopeo()


@pytest.mark.root
@pytest.mark.parametrize("peer", ["docker", "containerd", "podman", "skopeo"], indirect=True)
def test_round_trip(start: Start, reach: Access, tmp_path: Path, peer: Peer) -> None:
    """layerfs -> registry -> peer -> another registry -> layerfs, of images pulled, made and changed here."""
    ours, theirs = start(), start()
    with open_store(tmp_path) as store, open_store(tmp_path / "other") as other:
        store.load(layout(tmp_path / "layout", IMAGE))
        (tmp_path / "made.tar").write_bytes(tar_of({"made": b"here\n" * 90_000, "by": b"us"}))
        made = store.import_image(tmp_path / "made.tar", "made:v1", changes=["ENV A=b", "CMD echo hello"])
        for number, (id, diff_ids) in enumerate([(IMAGE.id, [*map(digest_of, IMAGE.tars)]), (made.id, made.diff_ids)]):
            name, target = f"{ours.host}/ours:{number}", f"{theirs.host}/deep/theirs:{number}"
            pushed = push(store.parts, id, name, access=reach)
            assert peer.pull(name) in (None, (id, [*diff_ids]))
            peer.push(name, target)
            back = pull(other.parts, target, access=reach)
            assert back.image is not None
            assert back.image.id == id
            assert [*back.image.diff_ids] == [*diff_ids]
            if peer.keeps:
                assert back.digest == pushed.target.digest
            # And what came back goes to the peer once more, as the bytes that it made.
            again = push(other.parts, target, f"{ours.host}/again:{number}", access=reach)
            assert again.target.digest == back.digest
            assert peer.pull(f"{ours.host}/again:{number}") in (None, (id, [*diff_ids]))


@pytest.fixture
def certificates(tmp_path: Path) -> tuple[Path, Path, Path]:
    """An authority, and a certificate of it with its key."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=tmp_path, check=True, capture_output=True)

    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=test"]
    openssl("req", "-x509", *new, "-keyout", "ca.key", "-out", "ca.crt", "-days", "2")
    openssl("req", *new, "-keyout", "server.key", "-out", "server.csr")
    (tmp_path / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost")
    signing = ["-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names", "-days", "2"]
    openssl("x509", "-req", "-in", "server.csr", *signing, "-out", "server.crt")
    return tmp_path / "ca.crt", tmp_path / "server.crt", tmp_path / "server.key"


def test_private_registry_with_tls_and_helper(
    start: Start, tmp_path: Path, certificates: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    authority, certificate, key = certificates
    served = start(htpasswd=HTPASSWD, tls=(certificate, key))
    trusted = tmp_path / "home/.config/containers/certs.d" / served.host
    trusted.mkdir(parents=True)
    shutil.copy(authority, trusted / "ca.crt")
    reference = f"{served.host}/secret/app:v1"
    with open_store(tmp_path) as store:
        store.load(layout(tmp_path / "layout", IMAGE))
        with access(tmp_path) as reach, pytest.raises(UnauthorizedError):
            push(store.parts, IMAGE.id, reference, access=reach)
        with access(tmp_path) as reach, pytest.raises(UnauthorizedError):
            log_in(served.host, USER, "wrong", access=reach)
        helper = tmp_path / "bin/docker-credential-fixed"
        helper.parent.mkdir()
        answer = json.dumps({"ServerURL": served.host, "Username": USER, "Secret": PASSWORD})
        helper.write_text(f"#!/bin/sh\necho '{answer}'\n")
        helper.chmod(0o755)
        monkeypatch.setenv("PATH", f"{helper.parent}:{os.environ['PATH']}")
        config = tmp_path / "home/.docker/config.json"
        config.parent.mkdir(parents=True)
        config.write_text(json.dumps({"credHelpers": {served.host: "fixed"}}))
        with access(tmp_path) as reach:
            assert push(store.parts, IMAGE.id, reference, access=reach).target.digest == IMAGE.digest
    with open_store(tmp_path / "other") as other, access(tmp_path) as reach:
        assert pull(other.parts, reference, access=reach).digest == IMAGE.digest
    assert PASSWORD not in served.log_text()


def test_log_in_to_a_real_registry(start: Start, tmp_path: Path) -> None:
    served = start(htpasswd=HTPASSWD)
    with access(tmp_path) as reach:
        log_in(served.host, USER, PASSWORD, access=reach)
    entry = json.loads((tmp_path / "home/.docker/config.json").read_text())["auths"][served.host]
    assert base64.b64decode(entry["auth"]).decode() == f"{USER}:{PASSWORD}"
    with access(tmp_path) as reach, pytest.raises(NotFoundError):
        list_tags(f"{served.host}/nothing", access=reach)


def test_certificates_are_verified(start: Start, tmp_path: Path, certificates: tuple[Path, Path, Path]) -> None:
    """Where an authority is named, that one alone will do: no other, and no plain HTTP instead."""
    authority, certificate, key = certificates
    served = start(tls=(certificate, key))
    trusted = tmp_path / "home/.config/containers/certs.d" / served.host
    trusted.mkdir(parents=True)
    other = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=other", "-days", "2"]
    subprocess.run([*other, "-keyout", "/dev/null", "-out", trusted / "ca.crt"], check=True, capture_output=True)
    with access(tmp_path) as reach, pytest.raises(RegistryError, match="not trusted"):
        list_tags(f"{served.host}/app", access=reach)
    shutil.copy(authority, trusted / "ca.crt")
    with access(tmp_path) as reach, pytest.raises(NotFoundError):
        list_tags(f"{served.host}/app", access=reach)


def test_copy_from_one_real_registry_to_another(start: Start, reach: Access, tmp_path: Path) -> None:
    first, second = start(), start()
    copy_image(f"oci:{layout(tmp_path / 'layout', IMAGE)}:v1", f"{first.host}/app:v1", access=reach)
    copied = copy_image(f"{first.host}/app:v1", f"{second.host}/mirror:v1", access=reach)
    assert copied.digest == IMAGE.digest
    with pytest.raises(RegistryError):
        copy_image(f"{first.host}/app:absent", f"{second.host}/mirror:v1", access=reach)


def test_mirror_for_a_name_that_does_not_exist(start: Start, tmp_path: Path, reach: Access) -> None:
    served = start()
    copy_image(f"oci:{layout(tmp_path / 'layout', IMAGE)}:v1", f"{served.host}/hub/library/app:v1", access=reach)
    config = RegistryConfig((Rule("docker.io", location=f"{served.host}/hub"),))
    with access(tmp_path, config) as moved, open_store(tmp_path) as store:
        pulled = pull(store.parts, "app:v1", access=moved)
    assert str(pulled.reference) == "docker.io/library/app:v1"


def test_upload_broken_in_the_middle_goes_on(
    start: Start, reach: Access, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through a relay that cuts the connection: what the registry keeps of a broken upload is real."""
    served = start()
    cuts = [700_000, 1_200_000]
    with relay(int(served.host.partition(":")[2]), cuts) as port, open_store(tmp_path) as store:
        monkeypatch.setattr(upload, "CHUNK", 300_000)
        store.load(layout(tmp_path / "layout", IMAGE))
        push(store.parts, IMAGE.id, f"127.0.0.1:{port}/app:v1", access=reach)
        assert cuts == [], "nothing was cut"
    with open_store(tmp_path / "other") as other:
        assert pull(other.parts, f"{served.host}/app:v1", access=reach).digest == IMAGE.digest


class relay:
    """Passes connections on to a port; the first ones that send so many bytes are cut there."""

    def __init__(self, port: int, cuts: list[int]) -> None:
        self.port, self.cuts = port, cuts
        self.listener = socket.create_server(("127.0.0.1", 0))

    def __enter__(self) -> int:
        self.thread = threading.Thread(target=self.accept)
        self.thread.start()
        return int(self.listener.getsockname()[1])

    def __exit__(self, *_: object) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.listener.close()

    def accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.port))
            threading.Thread(target=self.pump, args=(client, server, True), daemon=True).start()
            threading.Thread(target=self.pump, args=(server, client, False), daemon=True).start()

    def pump(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        passed = 0
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
                passed += len(data)
                if counted and self.cuts and passed >= self.cuts[0]:
                    self.cuts.pop(0)
                    break
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        # The other direction's thread closes the other one.
        source.close()
