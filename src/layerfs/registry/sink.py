"""A repository of a registry as a sink of copying."""

import threading
from collections.abc import Callable, Iterable

from layerfs.blobs import NO_PROGRESS, PIECE, BlobReader, Progress
from layerfs.digest import Digest, Verifier
from layerfs.errors import IntegrityError, RegistryError
from layerfs.oci import MANIFEST_LIMIT, Descriptor, is_foreign
from layerfs.reference import Reference
from layerfs.registry.client import Client, is_stored_as_manifest
from layerfs.registry.transport import Response
from layerfs.registry.upload import Uploaded, upload_blob, upload_stream

__all__ = ["RegistrySink"]

_MOST_MOUNTS = 3


def _nowhere(digest: Digest) -> Iterable[str]:
    return ()


class RegistrySink:
    """Takes images into one repository.

    ``mount_from`` names repositories of the same registry that may have a blob, which is then mounted from there
    instead of sent. What is in the repository already is not sent, nor is a foreign layer that says where it can be
    had.
    """

    def __init__(self, client: Client, *, mount_from: Callable[[Digest], Iterable[str]] = _nowhere) -> None:
        self._client = client
        self._mount_from = mount_from
        self._begun: dict[Digest, Response] = {}
        self._manifests: dict[Digest, bytes] = {}
        self._there: set[Digest] = set()
        self._lock = threading.Lock()

    def has(self, descriptor: Descriptor) -> bool:
        """Whether it is there, or could be mounted from elsewhere just now."""
        if is_stored_as_manifest(descriptor.media_type):
            return self._client.has_manifest(descriptor)
        if descriptor.digest in self._there or self._client.has_blob(descriptor.digest):
            self._there.add(descriptor.digest)
            return True
        if is_foreign(descriptor.media_type):
            return bool(descriptor.urls)
        return self._mount(descriptor.digest)

    def put(self, descriptor: Descriptor, reader: BlobReader, *, progress: Progress = NO_PROGRESS) -> None:
        """Send a blob or manifest. IntegrityError when ``reader`` gives something else; then nothing is stored."""

        def advance(count: int) -> None:
            progress.advance(descriptor.digest, count)

        if is_stored_as_manifest(descriptor.media_type):
            data = _read_manifest(descriptor, reader)
            self._client.put_manifest(descriptor.digest, descriptor.media_type, data)
            self._manifests[descriptor.digest] = data
            return
        with self._lock:
            begun = self._begun.pop(descriptor.digest, None)
        upload_blob(self._client, descriptor.digest, descriptor.size, reader, advance, begun)
        self._there.add(descriptor.digest)

    def put_stream(
        self, what: str, reader: BlobReader, advance: Callable[[int], None], *, whole: bool = False
    ) -> Uploaded:
        """Send a blob that is being made; what it turned out to be. ``what`` names it in errors.

        ChunksRefused when the registry takes it only as a ``whole``: it has to be made once more.
        """
        uploaded = upload_stream(self._client, what, reader, advance, whole=whole)
        self._there.add(uploaded.digest)
        return uploaded

    def tag(self, descriptor: Descriptor, name: str) -> None:
        """Let a tag, or the tag of a whole reference, point at a manifest that is there."""
        tag = Reference.parse(name).tag if "/" in name or ":" in name else name
        if tag is None:
            return
        data = self._manifests.get(descriptor.digest)
        if data is None:
            data = self._client.open_manifest(descriptor).read_all(MANIFEST_LIMIT)
            verifier = Verifier(descriptor.digest, descriptor.size, "manifest")
            verifier.update(data)
            verifier.finish()
        self._client.put_manifest(tag, descriptor.media_type, data)

    def interrupt(self) -> None:
        """End what other threads wait for; nothing more can be sent."""
        self._client.session.interrupt()

    def _mount(self, digest: Digest) -> bool:
        repository = self._client.session.endpoint.repository
        candidates = [each for each in self._mount_from(digest) if each != repository][:_MOST_MOUNTS]
        for candidate in candidates:
            query = f"?mount={digest}&from={candidate}"
            scopes = frozenset({f"repository:{candidate}:pull"})
            try:
                response = self._client.begin_upload(f"push blob {self._client}@{digest}", query, scopes)
            except RegistryError:
                # Not allowed to read there, say. It will be sent.
                continue
            response.close()
            if response.status == 201:
                self._there.add(digest)
                return True
            with self._lock:
                self._begun[digest] = response
        return False


def _read_manifest(descriptor: Descriptor, reader: BlobReader) -> bytes:
    if descriptor.size > MANIFEST_LIMIT:
        raise IntegrityError(
            f"push manifest {descriptor.digest}: {descriptor.size} bytes, more than the {MANIFEST_LIMIT} allowed"
        )
    verifier = Verifier(descriptor.digest, descriptor.size, "manifest")
    pieces = []
    while piece := reader.read(PIECE):
        verifier.update(piece)
        pieces.append(piece)
    verifier.finish()
    return b"".join(pieces)
