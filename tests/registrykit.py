"""What the tests of registries share: images made by hand, stores, and access without the user's files."""

import gzip
import hashlib
import io
import json
import random
import ssl
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fake_registry import MANIFEST_TYPE, FakeRegistry, digest_of

from layerfs.registry.access import Access
from layerfs.registry.config import RegistryConfig
from layerfs.registry.connection import Timeouts
from layerfs.registry.credentials import CredentialStore
from layerfs.registry.retry import Retry
from layerfs.store import Store

INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
QUICK = Retry(attempts=4, base=0.001, longest=0.01, patience=2.0)


@dataclass(frozen=True)
class MadeImage:
    layers: tuple[bytes, ...]
    tars: tuple[bytes, ...]
    config: bytes
    manifest: bytes

    @property
    def digest(self) -> str:
        return digest_of(self.manifest)

    @property
    def id(self) -> str:
        return digest_of(self.config)


def tar_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.mtime = len(data), 0o644, 1_700_000_000
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def descriptor(data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest_of(data), "size": len(data), **more}


def make_image(sizes: Sequence[int] = (50_000, 3_000), *, seed: int = 1, architecture: str = "amd64") -> MadeImage:
    """An image with a layer of incompressible bytes of each size."""
    tars = [tar_of({f"file-{n}": noise(size, seed * 100 + n), "note": b"same\n"}) for n, size in enumerate(sizes)]
    layers = [gzip.compress(tar, 1, mtime=0) for tar in tars]
    config = json.dumps(
        {
            "architecture": architecture,
            "os": "linux",
            "config": {"Cmd": ["/bin/sh"], "Labels": {"seed": str(seed)}},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(tar) for tar in tars]},
        }
    ).encode()
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": descriptor(config, CONFIG_TYPE),
            "layers": [descriptor(layer, LAYER_TYPE) for layer in layers],
            "annotations": {"unknown to us": "stays"},
            "x-unknown": [1, 2],
        },
        indent=3,
    ).encode()
    return MadeImage(tuple(layers), tuple(tars), config, manifest)


def serve(registry: FakeRegistry, repository: str, tag: str, image: MadeImage) -> str:
    """Put an image into a registry; its reference."""
    for data in (*image.layers, image.config):
        registry.put_blob(repository, data)
    registry.put_manifest(repository, tag, image.manifest)
    return f"{registry.host}/{repository}:{tag}"


def make_index(*images: tuple[MadeImage, str]) -> bytes:
    """An index of images by platform."""
    manifests = []
    for image, platform in images:
        os, architecture, *variant = platform.split("/")
        where = {"os": os, "architecture": architecture, **({"variant": variant[0]} if variant else {})}
        manifests.append(descriptor(image.manifest, MANIFEST_TYPE, platform=where))
    return json.dumps({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": manifests}).encode()


def access(
    tmp_path: Path,
    config: RegistryConfig | None = None,
    *,
    timeouts: Timeouts | None = None,
    retry: Retry = QUICK,
    environ: dict[str, str] | None = None,
    note: Any = None,
) -> Access:
    """Access with files below ``tmp_path`` alone, and without waiting."""
    environ = {"HOME": str(tmp_path / "home"), "XDG_RUNTIME_DIR": str(tmp_path / "runtime"), **(environ or {})}
    return Access(
        config or RegistryConfig(),
        CredentialStore(environ=environ),
        timeouts=timeouts or Timeouts(connect=5, read=5, stretch=5),
        retry=retry,
        environ=environ,
        note=note,
    )


def open_store(path: Path) -> Store:
    return Store.open(path / "root", path / "run")


def snapshot(path: Path) -> dict[str, str]:
    """All files below a path with their digests."""
    return {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(path.rglob("*"))
        if file.is_file()
    }


class Notes:
    """A progress that remembers."""

    def __init__(self) -> None:
        self.started: dict[str, int | None] = {}
        self.bytes: dict[str, int] = {}
        self.finished: dict[str, str] = {}
        self.texts: list[str] = []

    def start(self, key: str, label: str, total: int | None) -> None:
        self.started[key] = total
        self.bytes.setdefault(key, 0)

    def advance(self, key: str, count: int) -> None:
        self.bytes[key] = self.bytes.get(key, 0) + count

    def finish(self, key: str, note: str = "") -> None:
        self.finished[key] = note

    def note(self, text: str) -> None:
        self.texts.append(text)


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with FakeRegistry() as registry:
        yield registry


@pytest.fixture
def reach(tmp_path: Path) -> Iterator[Access]:
    with access(tmp_path) as reach:
        yield reach


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(tmp_path) as store:
        yield store


@pytest.fixture
def server_context(tmp_path: Path) -> ssl.SSLContext:
    """Of a server with a certificate for 127.0.0.1 that nobody trusts."""
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-subj", "/CN=x", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    subprocess.run([*command, *names, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context
