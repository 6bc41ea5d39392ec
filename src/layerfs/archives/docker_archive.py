"""Reading docker-archive: manifest.json, configurations, and layers as tars.

Such an archive has no manifests in the sense of the image specification, so one is made for each image: its
configuration as it is (so the image ID stays), and over each layer a descriptor with the diff ID that the
configuration names and the size of the member, to be verified like any other. A layer that is compressed in spite
of its name (as some builders write) is described as what it is.

All forms since docker 1.10 are read: ``<id>/layer.tar`` and ``<hex>.json``, links between layers, and today's
``blobs/sha256/<hex>``.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from io import BytesIO

import msgspec

from layerfs.archives.files import ArchiveImage, TarFiles, canonical, pick
from layerfs.archives.tarindex import Member
from layerfs.blobs import PIECE, BlobReader
from layerfs.compression import detect, open_reader
from layerfs.digest import Digest, hasher
from layerfs.errors import IntegrityError, NotFoundError
from layerfs.oci import (
    CONFIG_LIMIT,
    MAX_LAYER_BYTES,
    MEDIA_CONFIG,
    MEDIA_LAYER,
    MEDIA_LAYER_GZIP,
    MEDIA_LAYER_ZSTD,
    MEDIA_MANIFEST,
    Descriptor,
    Manifest,
    descriptor_of,
    encode,
    parse_config,
)

__all__ = ["DockerArchiveSource"]

_MANIFEST_LIMIT = 16 << 20
_COMPRESSED = {"gzip": MEDIA_LAYER_GZIP, "zstd": MEDIA_LAYER_ZSTD}


class _Entry(msgspec.Struct, rename="pascal"):
    config: str
    repo_tags: tuple[str, ...] | None = None
    layers: tuple[str, ...] | None = None


class DockerArchiveSource:
    """A docker-archive as a source of copying. IntegrityError when it is damaged, NotFoundError names what lacks."""

    def __init__(self, files: TarFiles, max_layer_bytes: int = MAX_LAYER_BYTES) -> None:
        self._tar = files.index
        self._max_layer_bytes = max_layer_bytes
        self.what = files.what
        self._documents: dict[Digest, bytes] = {}
        self._layers: dict[Digest, tuple[Member, str]] = {}
        self._described: dict[tuple[int, Digest], Descriptor] = {}
        self._configs: dict[str, tuple[Descriptor, tuple[Digest, ...]]] = {}
        self._images = [self._image(entry) for entry in self._entries(files)]

    def images(self) -> list[ArchiveImage]:
        """All images, in the order of manifest.json."""
        return self._images

    def resolve(self, name: str) -> Descriptor:
        """The image of that name; see ``files.pick``."""
        return pick(self._images, name, self.what).descriptor

    def has(self, descriptor: Descriptor) -> bool:
        """Whether the blob is here."""
        return descriptor.digest in self._documents or descriptor.digest in self._layers

    def open(self, descriptor: Descriptor) -> AbstractContextManager[BlobReader]:
        """The bytes of a manifest that was made here, a configuration or a layer; NotFoundError."""
        document = self._documents.get(descriptor.digest)
        if document is not None:
            return nullcontext(BytesIO(document))
        if descriptor.digest not in self._layers:
            raise NotFoundError(f"read {self.what}: there is no {descriptor.digest}")
        return self._open_layer(*self._layers[descriptor.digest])

    @contextmanager
    def _open_layer(self, member: Member, kind: str) -> Iterator[BlobReader]:
        yield open_reader(self._tar.open(member), kind)

    def _entries(self, files: TarFiles) -> list[_Entry]:
        try:
            return msgspec.json.decode(files.read("manifest.json", _MANIFEST_LIMIT), type=list[_Entry])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
            raise IntegrityError(f"read {self.what}, manifest.json: {str(exc)[:200]}") from None

    def _image(self, entry: _Entry) -> ArchiveImage:
        if entry.config not in self._configs:  # entries may be many, and one configuration large
            self._configs[entry.config] = self._config(entry.config)
        config, diff_ids = self._configs[entry.config]
        layers = entry.layers or ()
        if len(layers) != len(diff_ids):
            raise IntegrityError(
                f"read {self.what}: manifest.json has {len(layers)} layers, "
                f"the configuration {entry.config:.200} {len(diff_ids)}"
            )
        manifest = Manifest(
            media_type=MEDIA_MANIFEST,
            config=config,
            layers=tuple(self._layer(name, diff_id) for name, diff_id in zip(layers, diff_ids, strict=True)),
        )
        data = encode(manifest)
        descriptor = descriptor_of(data, MEDIA_MANIFEST)
        self._documents[descriptor.digest] = data
        names = (canonical(tag, f"{self.what}, manifest.json") for tag in entry.repo_tags or ())
        return ArchiveImage(descriptor, tuple(dict.fromkeys(names)))

    def _config(self, name: str) -> tuple[Descriptor, tuple[Digest, ...]]:
        """A configuration's descriptor and diff IDs. A name that is a digest must be the content's."""
        data = self._tar.read(name, CONFIG_LIMIT)
        try:
            config = parse_config(data)
        except IntegrityError as exc:
            raise IntegrityError(f"read {self.what}, {name:.200}: {exc}") from None
        descriptor = descriptor_of(data, MEDIA_CONFIG)
        named = name.rpartition("/")[2].removeprefix("sha256:").removesuffix(".json")
        if len(named) == 64 and not named.strip("0123456789abcdef") and named != descriptor.digest.hex:
            raise IntegrityError(f"read {self.what}: the content of {name:.200} has digest {descriptor.digest}")
        self._documents[descriptor.digest] = data
        return descriptor, config.diff_ids

    def _layer(self, name: str, diff_id: Digest) -> Descriptor:
        """The descriptor of a layer: plain, or compressed in the two ways that manifests know.

        Of other compressions only the plain bytes can be described, so their length is found by a first pass.
        """
        member = self._tar.find(name)
        known = self._described.get((member.offset, diff_id))
        if known is None:
            known = self._described[member.offset, diff_id] = self._describe(member, diff_id)
        return known

    def _describe(self, member: Member, diff_id: Digest) -> Descriptor:
        kind = detect(self._tar.open(member).read(6))
        if kind in _COMPRESSED:
            digest = self._digest(member)
            self._layers[digest] = member, "none"
            return Descriptor(media_type=_COMPRESSED[kind], digest=digest, size=member.size)
        self._layers[diff_id] = member, kind
        size = member.size if kind == "none" else self._plain_size(member, kind)
        return Descriptor(media_type=MEDIA_LAYER, digest=diff_id, size=size)

    def _digest(self, member: Member) -> Digest:
        state, section = hasher(), self._tar.open(member)
        while piece := section.read(PIECE):
            state.update(piece)
        return Digest.from_hash(state)

    def _plain_size(self, member: Member, kind: str) -> int:
        try:
            reader = open_reader(self._tar.open(member), kind)
            count = 0
            while piece := reader.read(PIECE):
                count += len(piece)
                if count > self._max_layer_bytes:
                    raise IntegrityError(
                        f"more than the {self._max_layer_bytes} bytes allowed",
                        hint="if it is meant to be so large, allow more by --max-layer-bytes",
                    )
            return count
        except IntegrityError as exc:
            raise IntegrityError(f"read {self.what}, {member.name:.200}: {exc}", hint=exc.hint) from None
