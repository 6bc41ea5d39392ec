"""The OCI image layout (image-spec image-layout.md): ``oci-layout``, ``index.json``, ``blobs/<algorithm>/<hex>``.

One reader serves directories and archives. Names stand as annotations in index.json: containerd and docker write
the whole name (``io.containerd.image.name``), all write at least the tag (``org.opencontainers.image.ref.name``).
"""

from contextlib import AbstractContextManager
from pathlib import Path

import msgspec

from layerfs.archives.files import ArchiveImage, DirectoryFiles, Files, canonical, pick
from layerfs.blobs import BlobReader
from layerfs.digest import Digest, Verifier
from layerfs.errors import IntegrityError, NotFoundError
from layerfs.oci import (
    MANIFEST_LIMIT,
    Descriptor,
    Index,
    Manifest,
    Platform,
    is_index,
    is_manifest,
    parse_manifest,
    select,
)

__all__ = ["CONTAINERD_NAME", "REF_NAME", "OciLayoutSource", "blob_name", "open_layout"]

CONTAINERD_NAME = "io.containerd.image.name"
REF_NAME = "org.opencontainers.image.ref.name"
_VERSION_LIMIT = 1 << 16
_DEPTH_LIMIT = 8


def blob_name(digest: Digest) -> str:
    """Where a layout has a blob."""
    return f"blobs/{digest.algorithm}/{digest.hex}"


class _Version(msgspec.Struct, rename="camel"):
    image_layout_version: str


class OciLayoutSource:
    """An image layout as a source of copying. IntegrityError when its documents are not those of one."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self.what = files.what
        self._index = self._read_index()
        self._standing: dict[Digest, Descriptor] = {}
        """What stands for an index of which manifests are missing; the index itself where none is."""

    def _read_index(self) -> Index:
        try:
            version = msgspec.json.decode(self._files.read("oci-layout", _VERSION_LIMIT), type=_Version)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as exc:
            raise IntegrityError(f"read {self.what}, oci-layout: {exc}") from None
        if not version.image_layout_version.startswith("1."):
            raise IntegrityError(f"read {self.what}: image layout version {version.image_layout_version[:100]!r}")
        try:
            index = parse_manifest(self._files.read("index.json", MANIFEST_LIMIT))
        except IntegrityError as exc:
            raise IntegrityError(f"read {self.what}, index.json: {exc}") from None
        if not isinstance(index, Index):
            raise IntegrityError(f"read {self.what}: index.json is no index")
        return index

    @property
    def entries(self) -> tuple[Descriptor, ...]:
        """The descriptors of index.json."""
        return self._index.manifests

    def images(self) -> list[ArchiveImage]:
        """All images, in the order of index.json; one that has several names is there once.

        An index that lacks some of its manifests here (docker saves one platform of many so) stands for the
        manifest that is here: the host's where it has it, else the first.
        """
        found: dict[Digest, tuple[Descriptor, dict[str, None], dict[str, None]]] = {}
        for entry in self._index.manifests:
            if not (is_manifest(entry.media_type) or is_index(entry.media_type)):
                continue
            if not self.has(entry):
                raise NotFoundError(f"read {self.what}: index.json names {entry.digest}, which is missing")
            target = self._present(entry, _DEPTH_LIMIT)
            _, names, tags = found.setdefault(target.digest, (target, {}, {}))
            for known, more in zip((names, tags), self._names(entry), strict=True):
                known.update(dict.fromkeys(more))
        return [ArchiveImage(target, tuple(names), tuple(tags)) for target, names, tags in found.values()]

    def resolve(self, name: str) -> Descriptor:
        """The image of that name; see ``files.pick``."""
        return pick(self.images(), name, self.what).descriptor

    def has(self, descriptor: Descriptor) -> bool:
        """Whether the blob is here."""
        return self._files.has(blob_name(descriptor.digest))

    def open(self, descriptor: Descriptor) -> AbstractContextManager[BlobReader]:
        """The bytes of a blob; NotFoundError."""
        return self._files.open(blob_name(descriptor.digest))

    def _names(self, entry: Descriptor) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The canonical names of an entry, and its tag as it stands there.

        A tag alone is no name: which repository it belongs to the layout does not say.
        """
        annotations = entry.annotations or {}
        whole, tag = annotations.get(CONTAINERD_NAME), annotations.get(REF_NAME)
        tags = () if tag is None else (tag,)
        if whole is None and tag is not None and ("/" in tag or ":" in tag):
            whole = tag
        return (() if whole is None else (canonical(whole, self.what),)), tags

    def _document(self, descriptor: Descriptor) -> Manifest | Index:
        data = self._files.read(blob_name(descriptor.digest), MANIFEST_LIMIT)
        verifier = Verifier(descriptor.digest, descriptor.size)
        try:
            verifier.update(data)
            verifier.finish()
            return parse_manifest(data, descriptor.media_type)
        except IntegrityError as exc:
            raise IntegrityError(f"read {self.what}: {exc}") from None

    def _present(self, descriptor: Descriptor, depth: int) -> Descriptor:
        """``descriptor``, or what stands for it where manifests of an index are missing.

        Many entries may name one index, and it may be large: it is read once.
        """
        if not is_index(descriptor.media_type):
            return descriptor
        known = self._standing.get(descriptor.digest)
        if known is None:
            known = self._standing[descriptor.digest] = self._stand_in(descriptor, depth)
        return descriptor if known.digest == descriptor.digest else known

    def _stand_in(self, descriptor: Descriptor, depth: int) -> Descriptor:
        if not depth:
            raise IntegrityError(f"read {self.what}: indexes nested more than {_DEPTH_LIMIT} deep")
        index = self._document(descriptor)
        children = index.manifests if isinstance(index, Index) else ()
        here = [child for child in children if self.has(child)]
        if len(here) == len(children):
            return descriptor
        if not here:
            raise NotFoundError(f"read {self.what}: no manifest of the index {descriptor.digest} is there")
        try:
            chosen = select(Index(manifests=tuple(here)), Platform.host())
        except NotFoundError:
            chosen = here[0]
        return self._present(chosen, depth - 1)


def open_layout(path: Path) -> OciLayoutSource:
    """The image layout in the directory ``path``; NotFoundError when there is none."""
    return OciLayoutSource(DirectoryFiles(path))
