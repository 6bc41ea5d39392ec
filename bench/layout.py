"""Images as OCI layouts and as archives that docker, podman, containerd and skopeo all load, written from layer tars.

The compression is zlib's at level 6, as most images of registries have it, and not what layerfs itself would write.
"""

import hashlib
import json
import tarfile
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["TAG", "Layout", "write_layout"]

TAG = "1"
PIECE = 1 << 20
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_INDEX = "application/vnd.oci.image.index.v1+json"


@dataclass(frozen=True)
class Layout:
    """An image made: ``directory`` holds an OCI layout (tag ``1``) and beside it ``archive``, the same as one tar."""

    name: str
    directory: Path
    image_id: str
    diff_ids: tuple[str, ...]
    blobs: tuple[Path, ...]
    plain_bytes: int
    entries: int

    @property
    def archive(self) -> Path:
        """OCI archive and docker-archive at once."""
        return self.directory.parent / "archive.tar"

    @property
    def reference(self) -> str:
        """The name that the archive gives the image."""
        return f"localhost/bench/{self.name}:{TAG}"

    @property
    def repository(self) -> str:
        """Where a registry keeps it."""
        return f"bench/{self.name}"


def write_layout(name: str, layers: Sequence[Path], into: Path, command: Sequence[str], level: int = 6) -> Layout:
    """Write the plain tars ``layers``, base first, as image ``name``: ``into/oci`` and ``into/archive.tar``."""
    blobs = into / "oci" / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    with ThreadPoolExecutor(2) as pool:
        written = list(pool.map(lambda tar: _compress(tar, blobs, level), layers))
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": list(command), "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [diff_id for diff_id, _, _ in written]},
        "history": [{"created_by": f"layer {n}"} for n in range(len(written))],
    }
    config_blob = _blob(blobs, config, _CONFIG)
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "config": config_blob,
        "layers": [{"mediaType": _LAYER, "digest": digest, "size": size} for _, digest, size in written],
    }
    reference = f"localhost/bench/{name}:{TAG}"
    named = _blob(blobs, manifest, _MANIFEST) | {
        "annotations": {"org.opencontainers.image.ref.name": TAG, "io.containerd.image.name": reference}
    }
    _json(into / "oci" / "index.json", {"schemaVersion": 2, "mediaType": _INDEX, "manifests": [named]})
    _json(into / "oci" / "oci-layout", {"imageLayoutVersion": "1.0.0"})
    paths = [f"blobs/sha256/{digest[7:]}" for _, digest, _ in written]
    config_path = f"blobs/sha256/{config_blob['digest'][7:]}"
    _json(into / "manifest.json", [{"Config": config_path, "RepoTags": [reference], "Layers": paths}])
    _archive(into)
    return Layout(
        name,
        into / "oci",
        config_blob["digest"],
        tuple(diff_id for diff_id, _, _ in written),
        tuple(into / "oci" / path for path in paths),
        sum(tar.stat().st_size for tar in layers),
        sum(_entries(tar) for tar in layers),
    )


def _compress(tar: Path, blobs: Path, level: int) -> tuple[str, str, int]:
    """(diff ID, digest, size) of the gzip blob written of ``tar``."""
    plain, packed, deflate = hashlib.sha256(), hashlib.sha256(), zlib.compressobj(level, zlib.DEFLATED, 31)
    partial = blobs / f"{tar.name}.partial"
    with tar.open("rb") as source, partial.open("wb") as sink:
        while piece := source.read(PIECE):
            plain.update(piece)
            out = deflate.compress(piece)
            packed.update(out)
            sink.write(out)
        out = deflate.flush()
        packed.update(out)
        sink.write(out)
    size = partial.stat().st_size
    partial.rename(blobs / packed.hexdigest())
    return f"sha256:{plain.hexdigest()}", f"sha256:{packed.hexdigest()}", size


def _blob(blobs: Path, document: Any, media_type: str) -> dict[str, Any]:
    data = json.dumps(document, separators=(",", ":")).encode()
    digest = hashlib.sha256(data).hexdigest()
    (blobs / digest).write_bytes(data)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}


def _json(path: Path, document: Any) -> None:
    path.write_text(json.dumps(document))


def _archive(into: Path) -> None:
    with tarfile.open(into / "archive.tar", "w", format=tarfile.GNU_FORMAT) as archive:
        archive.add(into / "manifest.json", "manifest.json")
        for path in sorted((into / "oci").rglob("*")):
            if path.is_file():
                archive.add(path, str(path.relative_to(into / "oci")))


def _entries(tar: Path) -> int:
    with tarfile.open(tar) as archive:
        return sum(1 for _ in archive)
