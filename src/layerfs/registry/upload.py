"""Blobs into a registry: in one request or in chunks, continued where a break left them.

A blob of known digest goes in one PUT, as every registry takes it. When that breaks, the upload is asked how much
it has, and the rest goes on from there in chunks (PATCH); an upload that is gone is begun again. A stream, whose
digest is known at its end, goes in chunks from the start, each sent while it is made, without its length, as docker
sends whole layers; a registry that wants lengths gets them. A chunk is held until the registry has it. Some registries
take no more than one chunk of an upload: a blob of known digest is then sent at once again, and a stream has to be
made once more, to go as a ``whole``.

The bytes are hashed as they are first taken, and the last of them is sent only when digest and size are right: what
is wrong never becomes a blob.
"""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from layerfs.blobs import PIECE, BlobReader
from layerfs.digest import Digest, Verifier, hasher
from layerfs.errors import RegistryError
from layerfs.registry.challenge import parse_range_end
from layerfs.registry.client import SUCCESS, Client
from layerfs.registry.session import AbsentError
from layerfs.registry.transport import Body, Response

__all__ = ["CHUNK", "STREAMED", "ChunksRefused", "Uploaded", "upload_blob", "upload_stream"]

CHUNK = 8 << 20
"""Bytes of a chunk, where the registry does not want larger ones."""
STREAMED = 32 << 20
"""The same of one that is sent while it is made."""
_LARGEST_CHUNK = 128 << 20
_BINARY = {"Content-Type": "application/octet-stream"}
_TOO_LARGE = 413
_WANTS_LENGTHS = frozenset({400, 405, 411, _TOO_LARGE, 501})
_OUT_OF_ORDER = 416
_REFUSALS = frozenset({400, 404, 405, 411, _OUT_OF_ORDER, 501})
"""What is said of a second chunk, or of the digest at the end, where only one chunk is taken."""


class ChunksRefused(RegistryError):
    """The registry took the first chunk of a stream, and not what came behind it, or lost it."""


class Uploaded(msgspec.Struct, frozen=True):
    """What a stream turned out to be."""

    digest: Digest
    size: int


def upload_blob(
    client: Client,
    digest: Digest,
    size: int,
    reader: BlobReader,
    advance: Callable[[int], None],
    begun: Response | None = None,
) -> None:
    """Send a blob; ``begun`` is the answer of an upload that was begun already.

    Raises IntegrityError when ``reader`` gives something else, RegistryError when the registry does not take it.
    """
    feed = _Feed(reader, advance, Verifier(digest, size))
    _Upload(client, f"push blob {client}@{digest}", feed, begun).run(digest, size)


def upload_stream(
    client: Client, what: str, reader: BlobReader, advance: Callable[[int], None], *, whole: bool = False
) -> Uploaded:
    """Send a blob whose digest nobody knows yet; what it is. ChunksRefused when it can only go as a ``whole``, in one
    request of any length, which is not gone on with when it breaks.
    """
    feed = _Feed(reader, advance, None)
    _Upload(client, f"push {what} to {client}", feed, None, whole=whole).run(None, None)
    return Uploaded(feed.digest, feed.count)


class _BodyFailed(Exception):
    """What the reader raised, past those who would take it for an error of the connection."""

    def __init__(self, reason: Exception) -> None:
        self.reason = reason


class _Feed:
    """The bytes to send. Those taken last are held; what lies further back needs a reader that seeks."""

    def __init__(self, reader: BlobReader, advance: Callable[[int], None], verifier: Verifier | None) -> None:
        self._reader = reader
        self._advance = advance
        self._verifier = verifier
        self._hash: Any = hasher()
        self._held: list[bytes] = []
        self._held_from = 0
        self._again: list[bytes] = []
        self.finished = False
        """Whether all was taken, and is right."""
        self.count = 0
        """Bytes that were taken so far, at the most."""
        self.position = 0
        """Of the next byte."""

    @property
    def digest(self) -> Digest:
        return Digest.from_hash(self._hash)

    def hold(self) -> None:
        """What was taken so far has arrived; hold what comes from here on."""
        if self._held_from < self.position:
            self._held, self._held_from = [], self.position

    def take(self, size: int) -> bytes:
        """Some bytes, at most ``size``; empty at the end. IntegrityError when they are not what they should be."""
        piece = self._next(size)
        start, self.position = self.position, self.position + len(piece)
        fresh = self.position - max(start, self.count)
        if fresh > 0 or not piece:
            self._check(piece[len(piece) - fresh :] if fresh > 0 else b"")
        if fresh > 0:
            self._advance(fresh)
            self.count += fresh
        return piece

    def streamed(self, size: int) -> Iterator[bytes]:
        """So many bytes, fewer only at the end, held as they come."""
        self.hold()
        count = 0
        while count < size and (piece := self.take(size - count)):
            self._held.append(piece)
            count += len(piece)
            yield piece

    def held(self, size: int) -> bytes:
        """The same, in one piece."""
        for _ in self.streamed(size):
            pass
        return b"".join(self._held) if len(self._held) != 1 else self._held[0]

    def rewind(self, offset: int, what: str) -> None:
        """Let ``offset`` be the next; ChunksRefused when those bytes are gone."""
        if offset == self.position:
            return
        known = [*self._held, *self._again]
        if self._held_from <= offset < self._held_from + sum(map(len, known)):
            self._again = [b"".join(known)[offset - self._held_from :]]
            self._held = []
        elif (seek := getattr(self._reader, "seek", None)) is not None and offset <= self.count:
            seek(offset)
            self._again, self._held = [], []
        else:
            raise ChunksRefused(f"{what}: the registry lost what it had, and it cannot be sent again from here")
        self.position = self._held_from = offset

    def _next(self, size: int) -> bytes:
        if not self._again:
            return self._reader.read(size)
        piece = self._again.pop()
        if len(piece) > size:
            self._again.append(piece[size:])
        return piece[:size]

    def _check(self, fresh: bytes) -> None:
        """Hash new bytes. All of them are checked before the last leave here."""
        if self._verifier is None:
            self._hash.update(fresh)
            self.finished = not fresh
            return
        self._verifier.update(fresh)
        if not self.finished and (not fresh or self._verifier.count == self._verifier.size):
            self._verifier.update(self._reader.read(1))
            self._verifier.finish()
            self.finished = True


class _Upload:
    """One upload with its breaks."""

    def __init__(self, client: Client, what: str, feed: _Feed, begun: Response | None, *, whole: bool = False) -> None:
        self._client = client
        self._whole = whole
        self._patches = 0
        self._what = what
        self._feed = feed
        self._begun = begun
        self._location = ""
        self._chunk = CHUNK
        self._lengths = False
        """Whether the length of a chunk goes before it."""
        self._arrived = 0

    def run(self, digest: Digest | None, size: int | None) -> None:
        """Send all; ``digest`` and ``size`` where they are known."""
        at_once = self._lengths = digest is not None
        tries, last = 0, -1
        while True:
            try:
                self._begin()
                if at_once and size is not None and self._feed.position == 0:
                    return self._put_all(str(digest), size)
                last_chunk = self._patch_all() if self._lengths else self._stream_all()
                return self._finish(str(digest or self._feed.digest), last_chunk)
            except RegistryError as exc:
                if self._whole:
                    raise
                if exc.status == _TOO_LARGE and at_once:
                    at_once, self._location = False, ""
                    self._feed.rewind(0, self._what)
                    continue
                again = at_once and self._feed.position > 0 and self._patches > 0 and exc.status in _REFUSALS
                tries = 1 if self._arrived > last and not again else tries + 1
                last = self._arrived
                self._pause(exc, tries, again)
                if again:
                    self._location, self._patches, self._arrived = "", 0, 0
                    self._feed.rewind(0, self._what)
                elif self._recover(digest):
                    return

    def _pause(self, failure: RegistryError, tries: int, again: bool) -> None:
        """Wait, where another try makes sense. An upload that the registry does not know any more is begun again."""
        if again or (self._location and (isinstance(failure, AbsentError) or failure.status == _OUT_OF_ORDER)):
            failure.temporary = True
        try:
            self._client.session.pause(failure, tries)
        except RegistryError as exc:
            if self._patches > 1 and exc.status in _REFUSALS:
                raise ChunksRefused(str(exc), status=exc.status, code=exc.code, url=exc.url) from exc
            raise

    def _begin(self) -> None:
        if self._location:
            return
        response = self._begun or self._client.begin_upload(self._what)
        response.close()
        self._begun = None
        self._keep_location(response)
        minimum = response.headers.get("OCI-Chunk-Min-Length", "")
        if minimum.isascii() and minimum.isdecimal() and len(minimum) < 20:
            if int(minimum) > _LARGEST_CHUNK:
                raise RegistryError(f"{self._what}: the registry wants chunks of {minimum} bytes at least")
            self._chunk = max(CHUNK, int(minimum))

    def _keep_location(self, response: Response) -> None:
        location = response.headers.get("Location")
        if location:
            self._location = self._client.session.absolute(location, response.url)
        elif not self._location:
            raise RegistryError(f"{self._what}: the registry does not say where to send it")

    def _put_all(self, digest: str, size: int) -> None:
        headers = {**_BINARY, "Content-Length": str(size)}
        # What is small is held, so that no reader has to go back.
        body = self._feed.held(size) if size <= CHUNK else self._body(0, self._all)
        self._request("PUT", self._with_digest(digest), headers, body).close()

    def _body(self, start: int, pieces: Callable[[], Iterator[bytes]]) -> Callable[[], Iterator[bytes]]:
        """A body that can be made again: what ``pieces`` takes, from ``start`` on."""

        def body() -> Iterator[bytes]:
            try:
                self._feed.rewind(start, self._what)
                yield from pieces()
            except Exception as exc:
                raise _BodyFailed(exc) from exc

        return body

    def _stream_all(self) -> bytes:
        """Send chunk after chunk while they are made; what comes back is the last, short one, perhaps of all."""
        while True:
            start = self._feed.position
            least = min(PIECE, self._chunk)
            if len(data := self._feed.held(least)) < least:
                return data
            pieces = self._all if self._whole else lambda: self._feed.streamed(max(STREAMED, self._chunk))
            try:
                self._patch(start, _BINARY, self._body(start, pieces))
            except RegistryError as exc:
                if self._whole or exc.status not in _WANTS_LENGTHS:
                    raise
                self._lengths = True
                self._feed.rewind(start, self._what)
                return self._patch_all()

    def _patch_all(self) -> bytes:
        """Send chunk after chunk; what comes back is the last one, which is shorter and goes with the digest."""
        while len(data := self._feed.held(self._chunk)) == self._chunk:
            self._patch(self._feed.position - len(data), self._chunk_headers(data), data)
        return data

    def _all(self) -> Iterator[bytes]:
        """What there is, which nobody holds."""
        return iter(lambda: self._feed.take(PIECE), b"")

    def _patch(self, start: int, headers: dict[str, str], body: Body | Callable[[], Body]) -> None:
        """Send a chunk, and go on with what the registry has not got of it."""
        self._patches += 1
        response = self._request("PATCH", self._location, headers, body)
        response.close()
        self._keep_location(response)
        arrived = parse_range_end(response.headers.get("Range"))
        # Few clients look at it, and some registries go on saying what they said of the first chunk.
        known = arrived is not None and start < arrived < self._feed.position
        self._arrived = arrived if known and arrived is not None else self._feed.position
        self._feed.rewind(self._arrived, self._what)

    def _finish(self, digest: str, data: bytes) -> None:
        headers = self._chunk_headers(data) if data else {**_BINARY, "Content-Length": "0"}
        self._request("PUT", self._with_digest(digest), headers, data).close()

    def _chunk_headers(self, data: bytes) -> dict[str, str]:
        end = self._feed.position
        where = f"{end - len(data)}-{end - 1}"
        return {**_BINARY, "Content-Length": str(len(data)), "Content-Range": where}

    def _recover(self, digest: Digest | None) -> bool:
        """Find out how much arrived, and go on from there; from the beginning of a new upload if need be.

        True when the blob is whole there: only the answer to the last request was lost.
        """
        arrived = None
        if self._location:
            try:
                response = self._client.session.request("GET", self._location, self._what, ok=(200, 204))
                response.close()
                self._keep_location(response)
                arrived = parse_range_end(response.headers.get("Range"))
            except RegistryError as exc:
                if exc.status is None:
                    raise
        if arrived is None and self._feed.finished and self._client.has_blob(digest or self._feed.digest):
            return True
        if arrived is None or arrived > self._feed.count:
            self._location = ""
            arrived = 0
        self._arrived = arrived
        self._feed.rewind(arrived, self._what)
        return False

    def _with_digest(self, digest: str) -> str:
        return f"{self._location}{'&' if '?' in self._location else '?'}digest={digest}"

    def _request(self, method: str, url: str, headers: dict[str, str], body: Body | Callable[[], Body]) -> Response:
        request = self._client.session.request
        try:
            return request(method, url, self._what, ok=SUCCESS, headers=headers, body=body, retry=False)
        except _BodyFailed as exc:
            raise exc.reason from None
