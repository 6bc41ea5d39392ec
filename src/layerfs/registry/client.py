"""The calls of distribution-spec for one repository (its "Endpoints", numbers in the comments)."""

import re
import urllib.parse
from collections.abc import Iterator
from typing import Any

import msgspec

from layerfs.digest import Digest, Verifier
from layerfs.errors import IntegrityError, InvalidInputError, RegistryError
from layerfs.oci import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    MANIFEST_LIMIT,
    MEDIA_INDEX,
    MEDIA_MANIFEST,
    Descriptor,
    descriptor_of,
    parse_manifest,
)
from layerfs.registry.challenge import next_link
from layerfs.registry.session import AbsentError, Session
from layerfs.registry.transport import Response

__all__ = ["SUCCESS", "Client", "is_stored_as_manifest"]

_ACCEPT = ", ".join((MEDIA_INDEX, MEDIA_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST))
_TAGS_SIZE = 4 << 20
_LIST_SIZE = 64 << 20
_PAGES = 10_000
_MEDIA_TYPE = r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]*/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]*"


SUCCESS = frozenset({200, 201, 202, 204})
"""What registries say when something was taken; not all keep to the one that the specification names."""
_NO_HEAD = (400, 403, 404, 405, 501)
_NO_TYPES = ("", "application/json", "application/octet-stream", "binary/octet-stream", "text/plain")
"""What servers of plain files call everything."""


class _Tags(msgspec.Struct):
    tags: list[str] | None = None


class _Typed(msgspec.Struct, rename="camel"):
    media_type: str = ""
    manifests: list[Any] | None = None
    layers: list[Any] | None = None
    config: dict[str, Any] | None = None


def is_stored_as_manifest(media_type: str) -> bool:
    """Whether a registry keeps it among manifests: those this program knows, and others that are called so."""
    return "manifest" in media_type or "index" in media_type


class Client:
    """One repository on one host."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._prefix = f"/v2/{session.endpoint.repository}"

    def __str__(self) -> str:
        return str(self.session.endpoint)

    def ping(self) -> None:
        """Whether there is a registry that lets us in (end-1)."""
        self.session.request("GET", "/v2/", f"reach {self.session.endpoint.registry}").read_all(_TAGS_SIZE)

    def resolve(self, reference: str) -> Descriptor:
        """The descriptor of what a tag or digest names (end-3); AbsentError. The content is not fetched where the
        registry says digest, size and type of it. IntegrityError when a digest gets the answer of another.
        """
        what = f"resolve {self._named(reference)}"
        headers = {"Accept": _ACCEPT}
        response = self.session.request("HEAD", self._manifest(reference), what, headers=headers, ok=(200, *_NO_HEAD))
        response.close()
        digest, size = response.headers.get("Docker-Content-Digest"), response.length
        media_type = _media_type(response)
        # Some refuse HEAD, or leave the headers out; a GET decides, and has the words of a refusal.
        if response.status != 200 or digest is None or not size or not _fits(media_type):
            media_type, data = self.manifest(reference)
            if ":" not in reference:
                return descriptor_of(data, media_type)
            verifier = Verifier(Digest(reference), None, f"{what}: manifest")
            verifier.update(data)
            verifier.finish()
            return Descriptor(media_type=media_type, digest=verifier.digest, size=len(data))
        try:
            found = Digest(digest)
        except InvalidInputError:
            raise IntegrityError(f"{what}: the registry names it {digest[:100]!r}, which is not a digest") from None
        if ":" in reference and found != reference:
            raise IntegrityError(f"{what}: the registry answers with {found}")
        if size > MANIFEST_LIMIT:
            raise IntegrityError(f"{what}: a manifest of {size} bytes, more than the {MANIFEST_LIMIT} allowed")
        return Descriptor(media_type=media_type, digest=found, size=size)

    def manifest(self, reference: str) -> tuple[str, bytes]:
        """Media type and exact bytes of a manifest by tag (end-3), checked to be one."""
        what = f"fetch manifest {self._named(reference)}"
        response = self.session.request("GET", self._manifest(reference), what, headers={"Accept": _ACCEPT})
        media_type, named = _media_type(response), response.headers.get("Docker-Content-Digest")
        try:
            data = response.read_all(MANIFEST_LIMIT)
            if media_type in _NO_TYPES:
                media_type = _type_of(data) or media_type
            parse_manifest(data, media_type)
        except IntegrityError as exc:
            raise IntegrityError(f"{what}: {exc}") from None
        if not _fits(media_type):
            raise IntegrityError(f"{what}: the registry sends it as {media_type[:100]!r}, which is no manifest")
        found = Digest.of(data)
        if named is not None and named.startswith("sha256:") and named != found:
            raise IntegrityError(f"{what}: the registry names it {named[:80]}, but it is {found}")
        return media_type, data

    def open_manifest(self, descriptor: Descriptor) -> Response:
        """The bytes of a manifest by digest, unverified (end-3)."""
        what = f"fetch manifest {self._named(descriptor.digest)}"
        accept = f"{_ACCEPT}, {descriptor.media_type}"
        return self.session.request("GET", self._manifest(descriptor.digest), what, headers={"Accept": accept})

    def put_manifest(self, reference: str, media_type: str, data: bytes) -> None:
        """Store a manifest under a tag or its digest (end-7a)."""
        what = f"push manifest {self._named(reference)}"
        headers = {"Content-Type": media_type}
        response = self.session.request("PUT", self._manifest(reference), what, ok=SUCCESS, headers=headers, body=data)
        named = response.headers.get("Docker-Content-Digest")
        response.close()
        expected = Digest.of(data)
        if named is not None and named.startswith("sha256:") and named != expected:
            raise IntegrityError(f"{what}: the registry stored {named[:80]}, not {expected}")

    def has_manifest(self, descriptor: Descriptor) -> bool:
        """Whether the repository has a manifest, by digest (end-3)."""
        what = f"look for manifest {self._named(descriptor.digest)}"
        headers = {"Accept": f"{_ACCEPT}, {descriptor.media_type}"}
        path = self._manifest(descriptor.digest)
        response = self.session.request("HEAD", path, what, headers=headers, ok=(200, *_NO_HEAD))
        response.close()
        return response.status == 200

    def has_blob(self, digest: Digest) -> bool:
        """Whether the repository has a blob (end-2), as far as it says so."""
        what = f"look for blob {self._named(digest)}"
        response = self.session.request("HEAD", self.blob_path(digest), what, ok=(200, *_NO_HEAD))
        response.close()
        return response.status == 200

    def blob_path(self, digest: Digest) -> str:
        """Where a blob is fetched (end-2)."""
        return f"{self._prefix}/blobs/{digest}"

    def begin_upload(self, what: str, query: str = "", scopes: frozenset[str] = frozenset()) -> Response:
        """Begin an upload or ask for a mount (end-4a, end-11): 202 with a Location, or 201."""
        path = f"{self._prefix}/blobs/uploads/{query}"
        # Without its length some servers answer 411.
        return self.session.request("POST", path, what, ok=SUCCESS, headers={"Content-Length": "0"}, scopes=scopes)

    def tags(self) -> Iterator[str]:
        """All tags, page by page (end-8); AbsentError when there is no such repository."""
        what = f"list tags of {self}"
        target = f"{self._prefix}/tags/list"
        seen: set[str] = set()
        given: set[str] = set()
        size = 0
        for _ in range(_PAGES):
            if target in seen:
                raise RegistryError(f"{what}: the pages of the list go in a circle")
            seen.add(target)
            response = self.session.request("GET", target, what)
            link = next_link(response.headers.get("Link"))
            data = response.read_all(_TAGS_SIZE)
            # Whoever asks for all tags holds them, and we hold where the pages were.
            size += len(data) + len(target)
            if size > _LIST_SIZE:
                raise IntegrityError(f"{what}: a list of more than {_LIST_SIZE} bytes")
            try:
                tags = msgspec.json.decode(data, type=_Tags).tags or []
            except (msgspec.MsgspecError, RecursionError):
                raise RegistryError(f"{what}: the answer is not a list of tags") from None
            yield from (tag for tag in dict.fromkeys(tags) if tag not in given)
            given.update(tags)
            if link is None:
                return
            # Whatever host it names: behind a proxy a registry may know itself by another name.
            where = urllib.parse.urlsplit(urllib.parse.urljoin(response.url, link))
            target = f"{where.path}?{where.query}" if where.query else where.path
        raise RegistryError(f"{what}: more than {_PAGES} pages")

    def missing(self, what: str) -> AbsentError:
        """The error for something that is not in the repository."""
        return AbsentError(f"{what}: not in {self}", status=404)

    def _manifest(self, reference: str) -> str:
        return f"{self._prefix}/manifests/{reference}"

    def _named(self, reference: str) -> str:
        return f"{self}{'@' if ':' in reference else ':'}{reference}"


def _media_type(response: Response) -> str:
    return str(response.headers.get("Content-Type", "")).partition(";")[0].strip()


def _type_of(data: bytes) -> str | None:
    """What a manifest of no type says that it is; where it says nothing, what it can only be."""
    try:
        document = msgspec.json.decode(data, type=_Typed)
    except (msgspec.MsgspecError, RecursionError):
        return None
    if document.media_type:
        return document.media_type
    index, image = document.manifests is not None, document.layers is not None or document.config is not None
    return None if index == image else MEDIA_INDEX if index else MEDIA_MANIFEST


def _fits(media_type: str) -> bool:
    return re.fullmatch(_MEDIA_TYPE, media_type) is not None and is_stored_as_manifest(media_type)
