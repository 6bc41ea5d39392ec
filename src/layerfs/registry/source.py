"""A repository of a registry as a source of copying."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Self

from layerfs.blobs import PIECE, BlobReader
from layerfs.digest import Digest, Verifier
from layerfs.errors import IntegrityError, RegistryError
from layerfs.oci import MANIFEST_LIMIT, Descriptor, is_foreign
from layerfs.registry.client import Client, is_stored_as_manifest
from layerfs.registry.download import BlobStream, Ranges
from layerfs.registry.transport import Response

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

__all__ = ["RegistrySource"]

_WORKERS = 8
_MOST_URLS = 8


class RegistrySource:
    """What can be pulled from one repository, by the clients of its mirrors and itself, in the order to ask.

    A context manager, which ends all downloads. Any number of blobs may be open at once, each for one thread.
    """

    def __init__(self, clients: Sequence[Client], *, ranges: Ranges | None = None) -> None:
        self._clients = list(clients)
        self._all = tuple(clients)
        self._served: dict[Digest, set[Client]] = {}
        self._ranges = ranges or Ranges()
        self._pool: ThreadPoolExecutor | None = None
        self._guard = threading.Lock()

    def resolve(self, name: str) -> Descriptor:
        """What a tag, or the text of a digest, names; AbsentError (a NotFoundError) when no place has it."""
        for client in list(self._clients):
            try:
                found = client.resolve(name)
            except (RegistryError, IntegrityError) as exc:
                if client is self._clients[-1]:
                    raise
                _warn(client, exc)
                continue
            # Whoever knows the name is asked first for the content.
            self._clients.sort(key=lambda each: each is not client)
            return found
        raise AssertionError("a source without clients")

    @contextmanager
    def open(self, descriptor: Descriptor) -> Iterator[BlobReader]:
        """The bytes of a manifest or blob, not verified; nothing is asked before the first read."""
        if is_stored_as_manifest(descriptor.media_type):
            manifest = _Manifest(self._clients, descriptor)
            try:
                yield manifest
            finally:
                manifest.close()
            return
        clients = list(self._clients)
        if is_foreign(descriptor.media_type):
            urls = [url for url in descriptor.urls or () if url.startswith("https://")]
            clients += [_UrlClient(clients[-1], url) for url in urls[:_MOST_URLS]]
        stream = BlobStream(clients, descriptor, self._workers(), self._ranges)
        try:
            yield stream
        finally:
            stream.close()
            self._served.setdefault(descriptor.digest, set()).update(stream.served)

    def _workers(self) -> "ThreadPoolExecutor":
        with self._guard:
            if self._pool is None:
                from concurrent.futures import ThreadPoolExecutor  # for an image that is here no blob is fetched

                self._pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="range")
            return self._pool

    def reject(self, descriptor: Descriptor) -> bool:
        """What was read of a blob is not right: the mirrors that had a part in it are not asked for anything more.

        Whether there were such, so that another place can be asked.
        """
        served = self._served.pop(descriptor.digest, set())
        liars = [client for client in self._clients if client in served and client.session.endpoint.mirror]
        for client in liars:
            client.session.note(f"mirror {client}: blob {descriptor.digest} is not right there, it is asked no more")
        self._clients = [client for client in self._clients if client not in liars]
        return bool(liars)

    def interrupt(self) -> None:
        """End what other threads wait for; nothing more can be read."""
        for client in self._all:
            client.session.interrupt()

    def close(self) -> None:
        """End the threads of parallel ranges."""
        self.__exit__(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.interrupt()
        # One that is connecting cannot be woken, and a program that is being ended does not wait for it.
        ended = kind is not None and issubclass(kind, KeyboardInterrupt | SystemExit)
        if self._pool is not None:
            self._pool.shutdown(wait=not ended, cancel_futures=True)


class _Manifest:
    """A manifest as a reader. What a mirror gives is taken only if it is right; else the next place is asked."""

    def __init__(self, clients: Sequence[Client], descriptor: Descriptor) -> None:
        self._clients = clients
        self._descriptor = descriptor
        self._response: Response | None = None
        self._mirrored: BytesIO | None = None

    def read(self, size: int = PIECE, /) -> bytes:
        if self._response is None and self._mirrored is None:
            self._open()
        if self._mirrored is not None:
            return self._mirrored.read(size)
        assert self._response is not None
        return self._response.read_some(size)

    def close(self) -> None:
        if self._response is not None:
            self._response.close()

    def _open(self) -> None:
        for client in self._clients[:-1]:
            try:
                data = client.open_manifest(self._descriptor).read_all(MANIFEST_LIMIT)
                verifier = Verifier(self._descriptor.digest, self._descriptor.size)
                verifier.update(data)
                verifier.finish()
                self._mirrored = BytesIO(data)
                return
            except (RegistryError, IntegrityError) as exc:
                _warn(client, exc)
        self._response = self._clients[-1].open_manifest(self._descriptor)


def _warn(client: Client, failure: RegistryError | IntegrityError) -> None:
    """Trouble of a mirror is what there are others for; a lie is worth a word."""
    if isinstance(failure, IntegrityError):
        client.session.note(f"mirror {client}: {failure}")


class _UrlClient(Client):
    """A foreign layer at one of its own URLs, which the session asks without any credentials."""

    def __init__(self, client: Client, url: str) -> None:
        super().__init__(client.session)
        self._url = url

    def blob_path(self, digest: Digest) -> str:
        return self._url
