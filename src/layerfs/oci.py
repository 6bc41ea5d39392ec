"""Models of the image specification: descriptors, manifests, indexes, configurations, platforms.

Documents are read here and never written back: what is copied keeps its bytes. ``encode`` is for documents that
are made new. Members that these models do not know are ignored, as the specification asks.
Sources: image-spec media-types.md, descriptor.md, manifest.md, image-index.md, config.md; Docker's manifest v2.
"""

from typing import Any, TypeVar

import msgspec

from layerfs.digest import Digest, chain_id
from layerfs.errors import IntegrityError, InvalidInputError, NotFoundError
from layerfs.platforms import Platform, plain_variant, variant_number

__all__ = [
    "CONFIG_LIMIT",
    "DOCKER_CONFIG",
    "DOCKER_LAYER",
    "DOCKER_LAYER_GZIP",
    "DOCKER_LAYER_ZSTD",
    "DOCKER_LIST",
    "DOCKER_MANIFEST",
    "EMPTY_DESCRIPTOR",
    "MANIFEST_LIMIT",
    "MAX_LAYER_BYTES",
    "MAX_LAYER_ENTRIES",
    "MAX_LAYER_METADATA",
    "MEDIA_CONFIG",
    "MEDIA_EMPTY",
    "MEDIA_INDEX",
    "MEDIA_LAYER",
    "MEDIA_LAYER_GZIP",
    "MEDIA_LAYER_ZSTD",
    "MEDIA_MANIFEST",
    "Descriptor",
    "History",
    "ImageConfig",
    "Index",
    "Manifest",
    "Platform",
    "RootFS",
    "RunConfig",
    "descriptor_of",
    "encode",
    "is_config",
    "is_foreign",
    "is_image",
    "is_index",
    "is_layer",
    "is_manifest",
    "layer_compression",
    "parse_config",
    "parse_manifest",
    "select",
]

MANIFEST_LIMIT = 4 << 20
"""Most bytes of a manifest or index; what distribution-spec obliges registries to take."""
CONFIG_LIMIT = 16 << 20
"""Most bytes of an image configuration."""
MAX_LAYER_BYTES = 1 << 40
"""Most bytes of a layer's tar, unless told otherwise."""
MAX_LAYER_ENTRIES = 20_000_000
"""Most members of a layer's tar, unless told otherwise."""
MAX_LAYER_METADATA = 1 << 30
"""Most bytes of names, link targets and attributes in a layer's tar, unless told otherwise: they are held in memory."""
_LAYERS_LIMIT = 10_000

MEDIA_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
MEDIA_INDEX = "application/vnd.oci.image.index.v1+json"
MEDIA_CONFIG = "application/vnd.oci.image.config.v1+json"
MEDIA_LAYER = "application/vnd.oci.image.layer.v1.tar"
MEDIA_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
MEDIA_LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
MEDIA_EMPTY = "application/vnd.oci.empty.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_LAYER_ZSTD = "application/vnd.docker.image.rootfs.diff.tar.zstd"
_SCHEMA1 = (
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
)
_NONDISTRIBUTABLE = "application/vnd.oci.image.layer.nondistributable.v1.tar"
_FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar"


class _Model(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """What the documents have in common: camelCase members, defaults left out."""


class Descriptor(_Model, frozen=True, kw_only=True):
    """Names bytes: what they are, their digest and their size."""

    media_type: str
    digest: Digest
    size: int
    platform: Platform | None = None
    annotations: dict[str, str] | None = None
    urls: tuple[str, ...] | None = None
    artifact_type: str | None = None
    data: str | None = None


EMPTY_DESCRIPTOR = Descriptor(
    media_type=MEDIA_EMPTY,
    digest=Digest("sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"),  # of b"{}"
    size=2,
    data="e30=",
)
"""The descriptor of ``{}``, the configuration of artifacts that have none."""


class Manifest(_Model, frozen=True, kw_only=True):
    """An image or artifact: a configuration and layers, base first."""

    schema_version: int = msgspec.field(default_factory=lambda: 2)  # a factory's value is written out, too
    media_type: str | None = None
    artifact_type: str | None = None
    config: Descriptor
    layers: tuple[Descriptor, ...] = msgspec.field(default_factory=lambda: ())
    subject: Descriptor | None = None
    annotations: dict[str, str] | None = None


class Index(_Model, frozen=True, kw_only=True):
    """Manifests, as a rule one a platform."""

    schema_version: int = msgspec.field(default_factory=lambda: 2)  # a factory's value is written out, too
    media_type: str | None = None
    artifact_type: str | None = None
    manifests: tuple[Descriptor, ...] = msgspec.field(default_factory=lambda: ())
    subject: Descriptor | None = None
    annotations: dict[str, str] | None = None


class RootFS(msgspec.Struct, frozen=True):
    """The layers by diff ID, base first."""

    type: str
    diff_ids: tuple[Digest, ...] = msgspec.field(default_factory=lambda: ())


class History(msgspec.Struct, frozen=True, omit_defaults=True):
    """How one layer, or one edit without a layer, came to be."""

    created: str | None = None
    created_by: str | None = None
    author: str | None = None
    comment: str | None = None
    empty_layer: bool = False


class RunConfig(msgspec.Struct, frozen=True, rename="pascal", omit_defaults=True):
    """How a container of the image runs by default."""

    user: str | None = None
    exposed_ports: dict[str, Any] | None = None
    env: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    cmd: tuple[str, ...] | None = None
    volumes: dict[str, Any] | None = None
    working_dir: str | None = None
    labels: dict[str, str] | None = None
    stop_signal: str | None = None
    healthcheck: dict[str, Any] | None = None
    shell: tuple[str, ...] | None = None
    on_build: tuple[str, ...] | None = None
    args_escaped: bool | None = None


class ImageConfig(msgspec.Struct, frozen=True, omit_defaults=True):
    """An image configuration; its digest is the image ID."""

    architecture: str
    os: str
    rootfs: RootFS
    variant: str | None = None
    os_version: str | None = msgspec.field(default=None, name="os.version")
    created: str | None = None
    author: str | None = None
    config: RunConfig | None = None
    history: tuple[History, ...] | None = None

    @property
    def diff_ids(self) -> tuple[Digest, ...]:
        """The layers, base first."""
        return self.rootfs.diff_ids

    @property
    def run(self) -> RunConfig:
        """``config``, empty where the image has none."""
        return self.config or RunConfig()

    @property
    def created_seconds(self) -> float:
        """When it says it was made, in seconds since 1970; 0 where it does not say."""
        from datetime import datetime  # who runs an image does not ask

        try:
            return datetime.fromisoformat(_whole_microseconds(self.created or "")).timestamp()
        except ValueError:
            return 0.0

    @property
    def platform(self) -> Platform:
        """What the image is for."""
        return Platform(os=self.os, architecture=self.architecture, variant=self.variant)

    @property
    def chain_id(self) -> Digest | None:
        """The identity of the whole stack; None without layers."""
        return chain_id(self.diff_ids) if self.diff_ids else None


def _whole_microseconds(text: str) -> str:
    """RFC 3339 text without the digits of a fraction that datetime does not take."""
    head, dot, tail = text.partition(".")
    if not dot:
        return text
    digits = len(tail) - len(tail.lstrip("0123456789"))
    return f"{head}.{tail[: min(digits, 6)]:0<6}{tail[digits:]}"


_T = TypeVar("_T")
_Document = TypeVar("_Document", Manifest, Index)


def _digest_hook(kind: type, value: Any) -> Any:
    if kind is Digest:
        return Digest(value)
    raise NotImplementedError(kind)


def _decode(data: bytes, kind: type[_T], what: str) -> _T:
    try:
        try:
            return msgspec.json.decode(data, type=kind, dec_hook=_digest_hook)
        except msgspec.ValidationError:
            return msgspec.convert(_without_nulls(msgspec.json.decode(data)), kind, dec_hook=_digest_hook)
    except (msgspec.MsgspecError, InvalidInputError, RecursionError, UnicodeDecodeError) as exc:
        raise IntegrityError(f"read {what}: {str(exc)[:200]}") from None


def _without_nulls(value: Any) -> Any:
    """A document without members that are null: so programs in Go write a list that is empty, as of an image
    without layers."""
    if isinstance(value, dict):
        return {key: _without_nulls(member) for key, member in value.items() if member is not None}
    return [_without_nulls(member) for member in value] if isinstance(value, list) else value


_FOLDED = {name.lower(): name for name in ("schemaVersion", "mediaType", "manifests", "layers", "config", "fsLayers")}
"""The members that say what a document is. Programs in Go take them in any case of letters."""


def _member(members: dict[str, msgspec.Raw], name: str) -> Any:
    return _decode(bytes(members[name]), Any, f"manifest, {name}") if name in members else None


def _shown(value: Any) -> str:
    """A value from outside in a message: it may be long."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


def parse_manifest(data: bytes, media_type: str | None = None) -> Manifest | Index:
    """The manifest or index in ``data``; ``media_type`` is what its descriptor calls it.

    IntegrityError for what is none, for schema 1, and for a document that could be read as either
    (image-spec CVE-2021-41190), or by others as another one.
    """
    if len(data) > MANIFEST_LIMIT:
        raise IntegrityError(f"read manifest: {len(data)} bytes, more than the {MANIFEST_LIMIT} allowed")
    members = _decode(data, dict[str, msgspec.Raw], "manifest")
    for name in members:
        if _FOLDED.get(name.lower(), name) != name:
            raise IntegrityError(f"read manifest: {name!r} is taken for {_FOLDED[name.lower()]!r} by some, not by all")
    there = {name for name, value in members.items() if bytes(value) != b"null"}
    version, own_type = _member(members, "schemaVersion"), _member(members, "mediaType")
    if (version == 1 and version is not True) or "fsLayers" in there or media_type in _SCHEMA1:
        raise IntegrityError("read manifest: schema 1, which is not supported any more")
    if version != 2:
        raise IntegrityError(f"read manifest: schemaVersion is {_shown(version)}, not 2")
    is_list = "manifests" in there
    if is_list and there & {"layers", "config"}:
        raise IntegrityError("read manifest: it has manifests and layers at once")
    named = own_type if own_type is not None else media_type
    if media_type is not None and own_type not in (None, media_type):
        raise IntegrityError(f"read manifest: it calls itself {_shown(own_type)}, its descriptor {_shown(media_type)}")
    if named is not None and (is_index(str(named)) if not is_list else is_manifest(str(named))):
        raise IntegrityError(f"read manifest: the content does not fit the media type {named}")
    if is_list:
        return _checked(_decode(data, Index, "index"))
    return _checked(_decode(data, Manifest, "manifest"))


def _checked(document: _Document) -> _Document:
    descriptors = document.manifests if isinstance(document, Index) else (document.config, *document.layers)
    if len(descriptors) > _LAYERS_LIMIT:
        raise IntegrityError(f"read manifest: more than {_LAYERS_LIMIT} descriptors")
    if not all(0 <= descriptor.size < 1 << 63 for descriptor in descriptors):
        raise IntegrityError("read manifest: a size that none can be")
    return document


def parse_config(data: bytes) -> ImageConfig:
    """The image configuration in ``data``; IntegrityError."""
    if len(data) > CONFIG_LIMIT:
        raise IntegrityError(f"read image config: {len(data)} bytes, more than the {CONFIG_LIMIT} allowed")
    config = _decode(data, ImageConfig, "image config")
    if config.rootfs.type != "layers":
        raise IntegrityError(f"read image config: rootfs of type {config.rootfs.type!r}")
    return config


def encode(document: Any) -> bytes:
    """A new document as JSON, compact, in the order of its members."""
    return msgspec.json.encode(document, enc_hook=str)


def descriptor_of(data: bytes, media_type: str) -> Descriptor:
    """The descriptor of ``data``."""
    return Descriptor(media_type=media_type, digest=Digest.of(data), size=len(data))


def is_manifest(media_type: str) -> bool:
    """Whether it is an image manifest."""
    return media_type in (MEDIA_MANIFEST, DOCKER_MANIFEST)


def is_index(media_type: str) -> bool:
    """Whether it is an index or manifest list."""
    return media_type in (MEDIA_INDEX, DOCKER_LIST)


def is_config(media_type: str) -> bool:
    """Whether it is an image configuration."""
    return media_type in (MEDIA_CONFIG, DOCKER_CONFIG)


def is_image(manifest: Manifest) -> bool:
    """Whether it is an image; else it is an artifact, as a signature, or as an attestation, which has a configuration
    like an image's but other things than layers."""
    layers = manifest.layers
    return is_config(manifest.config.media_type) and (not layers or any(is_layer(each.media_type) for each in layers))


def is_foreign(media_type: str) -> bool:
    """Whether a layer's bytes may be kept from registries."""
    return media_type.startswith((_NONDISTRIBUTABLE, _FOREIGN))


def is_layer(media_type: str) -> bool:
    """Whether it is a file system layer, in any compression."""
    return media_type.startswith((MEDIA_LAYER, DOCKER_LAYER)) or is_foreign(media_type)


def layer_compression(media_type: str) -> str:
    """``none``, ``gzip`` or ``zstd``; InvalidInputError for another, as an encrypted layer."""
    for base in (MEDIA_LAYER, DOCKER_LAYER, _NONDISTRIBUTABLE, _FOREIGN):
        suffix = media_type.removeprefix(base)
        if suffix == media_type:
            continue
        if suffix == "":
            return "none"
        if suffix in ("+gzip", ".gzip"):
            return "gzip"
        if suffix in ("+zstd", ".zstd"):
            return "zstd"
    raise InvalidInputError(f"layer of media type {media_type:.100}: not supported")


def select(index: Index, platform: Platform) -> Descriptor:
    """The manifest for a platform: an exact match first, else the best that runs there.

    NotFoundError names the platforms that there are. A manifest without platform matches nothing but alone.
    """
    offers = [d for d in index.manifests if d.platform is not None and platform.matches(d.platform)]
    if offers:
        exact = plain_variant(platform.architecture, platform.variant)
        return min(
            offers,
            key=lambda d: (
                plain_variant(d.platform.architecture, d.platform.variant) != exact,  # type: ignore[union-attr]
                -variant_number(d.platform.variant or "v0"),  # type: ignore[union-attr]
            ),
        )
    plain = [d for d in index.manifests if d.platform is None and (is_manifest(d.media_type) or is_index(d.media_type))]
    if len(plain) == 1 and len(index.manifests) == 1:
        return plain[0]
    there = sorted({f"{d.platform!s:.60}" for d in index.manifests if d.platform is not None})[:20]
    raise NotFoundError(
        f"platform {platform}: the image has none for it", hint=f"there are: {', '.join(there) or 'none'}"
    )
