"""What a build is told and gives back."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from layerfs.build.progress import NO_BUILD_PROGRESS, BuildProgress
from layerfs.content import ContentStore
from layerfs.errors import InvalidInputError, NotFoundError
from layerfs.fsutil import Ingest
from layerfs.images import Image, ImageStore
from layerfs.layers import LayerStore
from layerfs.metadata import Database
from layerfs.snapshots import SnapshotStore

__all__ = ["BuildOptions", "BuildParts", "BuildResult", "Output", "Secret", "check_options", "manifest_annotations"]

_NETWORKS = ("default", "host", "none")
_ENTITLEMENTS = ("security.insecure", "network.host")
_LEVELS = ("index", "index-descriptor", "manifest-descriptor")


class BuildParts(msgspec.Struct, frozen=True):
    """The stores that a build works with."""

    root: Path
    run: Path
    database: Database
    content: ContentStore
    layers: LayerStore
    ingest: Ingest
    images: ImageStore
    snapshots: SnapshotStore
    keep_blobs: bool = True


class Secret(msgspec.Struct, frozen=True):
    """``--secret id=…,src=…`` or ``env=…``."""

    id: str
    source: str | None = None
    env: str | None = None


class Output(msgspec.Struct, frozen=True):
    """``-o type=…``; ``dest`` is a path, or a file object for what is one stream."""

    type: str
    dest: str | BinaryIO | None = None
    options: dict[str, str] = {}


class BuildOptions(msgspec.Struct, frozen=True, kw_only=True):
    """All that ``layerfs build`` is told. ``context`` is a directory, a URL, or ``-`` for ``stdin``."""

    context: str = "."
    file: str | None = None
    """The Dockerfile: a path, or ``-`` for ``stdin``; None: ``Dockerfile`` in the context."""
    stdin: BinaryIO | None = None
    contexts: dict[str, str] = {}
    tags: tuple[str, ...] = ()
    target: str | None = None
    build_args: dict[str, str | None] = {}
    """None: the value of the environment."""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    platform: str | None = None
    secrets: tuple[Secret, ...] = ()
    ssh: dict[str, str | None] = {}
    add_hosts: tuple[tuple[str, str], ...] = ()
    network: str = "default"
    allow: tuple[str, ...] = ()
    runtime: str = "builtin"
    no_cache: bool = False
    no_cache_filter: tuple[str, ...] = ()
    pull: bool = False
    cache_from: tuple[str, ...] = ()
    cache_to: tuple[str, ...] = ()
    jobs: int = 0
    """Stages at a time; 0: as many as processors, at most 4."""
    squash: bool = False
    format: str = "oci"
    outputs: tuple[Output, ...] = ()
    iidfile: str | None = None
    metadata_file: str | None = None
    ignore_file: str | None = None
    environment: dict[str, str] | None = None
    """What build arguments without a value and secrets by variable are taken from; None: this process's."""
    debug_shell: bool = False
    progress: BuildProgress = NO_BUILD_PROGRESS


class BuildResult(msgspec.Struct, frozen=True):
    """What came of a build. ``image`` is None when only files were asked for."""

    image: Image | None
    warnings: tuple[str, ...]
    ran: int
    cached: int
    metadata: dict[str, Any]


def check_options(options: BuildOptions, environment: Mapping[str, str]) -> None:
    """InvalidInputError and NotFoundError for what cannot be, before any work."""
    if options.network not in _NETWORKS:
        raise InvalidInputError(f"network {options.network!r}: not known", hint="there are " + ", ".join(_NETWORKS))
    for name in options.allow:
        if name not in _ENTITLEMENTS:
            raise InvalidInputError(f"--allow {name}: not known", hint="there are " + ", ".join(_ENTITLEMENTS))
    if options.platform and "," in options.platform:
        raise InvalidInputError(
            f"platform {options.platform!r}: one at a time", hint="build each with a name of its own"
        )
    manifest_annotations(options)
    for secret in options.secrets:
        if secret.env is not None or (secret.source is None and secret.id in environment):
            if (secret.env or secret.id) not in environment:
                raise NotFoundError(f"secret {secret.id}: the environment has no {secret.env}")
        elif not Path(secret.source or secret.id).is_file():
            raise NotFoundError(f"secret {secret.id}: there is no file {secret.source or secret.id}")


def manifest_annotations(options: BuildOptions) -> dict[str, str]:
    """Annotations by their names alone; a name may say where it belongs, as ``manifest:NAME``, and an image has no
    other place than its manifest."""
    found = {}
    for name, value in options.annotations.items():
        level, sign, rest = name.partition(":")
        level = level.partition("[")[0]
        if sign and level in _LEVELS:
            raise InvalidInputError(f"annotation {name}: an image of one platform has no {level}", hint="say manifest:")
        found[rest if sign and level == "manifest" else name] = value
    return found
