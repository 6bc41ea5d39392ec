"""What an archive being written holds: manifests, which of them are images of their own, and their names."""

import threading

from layerfs.archives.oci_layout import CONTAINERD_NAME, REF_NAME
from layerfs.digest import Digest
from layerfs.errors import NotFoundError
from layerfs.oci import Descriptor, Index, Manifest, Platform, parse_manifest, select
from layerfs.reference import Reference

__all__ = ["Catalog"]


class Catalog:
    """Manifests by digest in the order in which they came. Safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._documents: dict[Digest, tuple[Descriptor, Manifest | Index]] = {}
        self._names: dict[Digest, list[Reference]] = {}

    def __contains__(self, digest: Digest) -> bool:
        return digest in self._documents

    def add(self, descriptor: Descriptor, data: bytes) -> None:
        """Take note of a manifest or index; IntegrityError when it is none."""
        document = parse_manifest(data, descriptor.media_type)
        with self._lock:
            self._documents[descriptor.digest] = _bare(descriptor), document

    def tag(self, descriptor: Descriptor, name: str) -> None:
        """Give a manifest that is there a name, which any other loses; InvalidInputError, NotFoundError."""
        reference = Reference.parse(name, default_tag="latest")
        with self._lock:
            if descriptor.digest not in self._documents:
                raise NotFoundError(f"name {name}: the archive has no manifest {descriptor.digest}")
            for names in self._names.values():
                if reference in names:
                    names.remove(reference)
            self._names.setdefault(descriptor.digest, []).append(reference)

    def entries(self) -> list[Descriptor]:
        """The descriptors of index.json: one a name, and one for each nameless image that no index holds."""
        return [entry for digest in self._roots() for entry in self._entries_of(digest)]

    def images(self) -> list[tuple[Manifest, list[Reference]]]:
        """The images of manifest.json with their names: of an index, the host's manifest, else the first."""
        found: dict[Digest, tuple[Manifest, list[Reference]]] = {}
        for root in self._roots():
            chosen = self._single(root)
            if chosen is not None:
                digest, manifest = chosen
                found.setdefault(digest, (manifest, []))[1].extend(self._names.get(root, ()))
        return list(found.values())

    def _roots(self) -> list[Digest]:
        children = {
            child.digest
            for _, document in self._documents.values()
            if isinstance(document, Index)
            for child in document.manifests
        }
        return [digest for digest in self._documents if self._names.get(digest) or digest not in children]

    def _entries_of(self, digest: Digest) -> list[Descriptor]:
        descriptor = self._documents[digest][0]
        names = self._names.get(digest)
        if not names:
            return [descriptor]
        return [_annotated(descriptor, name) for name in names]

    def _single(self, digest: Digest) -> tuple[Digest, Manifest] | None:
        """The image that is meant where only one manifest can be named."""
        for _ in range(len(self._documents)):
            known = self._documents.get(digest)
            if known is None:
                return None
            document = known[1]
            if isinstance(document, Manifest):
                return digest, document
            here = tuple(child for child in document.manifests if child.digest in self._documents)
            if not here:
                return None
            try:
                digest = select(Index(manifests=here), Platform.host()).digest
            except NotFoundError:
                digest = here[0].digest
        return None


def _bare(descriptor: Descriptor) -> Descriptor:
    return Descriptor(
        media_type=descriptor.media_type,
        digest=descriptor.digest,
        size=descriptor.size,
        platform=descriptor.platform,
        artifact_type=descriptor.artifact_type,
    )


def _annotated(descriptor: Descriptor, name: Reference) -> Descriptor:
    annotations = {CONTAINERD_NAME: str(name)}
    if name.tag is not None:
        annotations[REF_NAME] = name.tag
    return Descriptor(
        media_type=descriptor.media_type,
        digest=descriptor.digest,
        size=descriptor.size,
        platform=descriptor.platform,
        annotations=annotations,
        artifact_type=descriptor.artifact_type,
    )
