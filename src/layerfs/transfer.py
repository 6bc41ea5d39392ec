"""The one copy of images: pull, push, load and save are this, with another source and sink.

    copy(source, sink, descriptor, name="docker.io/library/debian:latest")

Children come before what names them: the configuration, then the layers, several at once; the manifest; an index
after all its manifests; the name last. So whatever a sink shows is whole, at every instant. What the sink has is
skipped. Manifests are passed on as the bytes that they are. The first error stops all that is under way and is
raised; so does Ctrl-C, also where the other side is silent. What sinks have taken by then stays there for the next try.
"""

import base64
import binascii
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from io import BytesIO
from typing import Protocol, runtime_checkable

from layerfs.blobs import NO_PROGRESS, PIECE, BlobReader, BlobSink, BlobSource, Progress, read_all
from layerfs.digest import Digest
from layerfs.errors import IntegrityError, LayerfsError, NotFoundError
from layerfs.oci import (
    EMPTY_DESCRIPTOR,
    MANIFEST_LIMIT,
    Descriptor,
    Index,
    Manifest,
    Platform,
    is_foreign,
    is_index,
    is_manifest,
    parse_manifest,
    select,
)

__all__ = ["DEPTH_LIMIT", "MANIFESTS_LIMIT", "Interruptible", "LayerSink", "Mirrored", "copy"]

DEPTH_LIMIT = 8
"""Most indexes in one another."""
MANIFESTS_LIMIT = 10_000
"""Most manifests of one copy."""
_PATIENCE = 1.0
"""Seconds that a program which is being ended waits for its threads: one may be connecting, and cannot be woken."""


@runtime_checkable
class LayerSink(Protocol):
    """A sink that wants to know what the layers belong to before they come."""

    def expect(self, manifest: Manifest) -> None:
        """The configuration of ``manifest`` is there, its layers come next. IntegrityError when they cannot fit."""
        ...


@runtime_checkable
class Interruptible(Protocol):
    """A source or sink whose reads and writes may wait for another machine."""

    def interrupt(self) -> None:
        """End those of other threads at once; whatever is asked of it from now on fails."""
        ...


@runtime_checkable
class Mirrored(Protocol):
    """A source that may have a blob from several places, of which one may be wrong."""

    def reject(self, descriptor: Descriptor) -> bool:
        """What was read of a blob is not what it should be; whether another place is asked from now on."""
        ...


def copy(
    source: BlobSource,
    sink: BlobSink,
    descriptor: Descriptor,
    *,
    name: str | None = None,
    platforms: Sequence[Platform] | None = None,
    jobs: int = 4,
    progress: Progress = NO_PROGRESS,
) -> Descriptor:
    """Copy the manifest or index ``descriptor`` with all below it, then let ``name`` point at it.

    ``platforms``: of an index only the manifests for these; NotFoundError when there is none for one of them.
    Then the index itself is copied only when these are all it has, else the manifest of the first platform takes
    its place. ``jobs``: layers at a time; sinks with a true ``sequential`` get one after another. The key of the
    progress of a blob is its digest. Returns what was copied, which ``name`` points at.
    """
    if getattr(sink, "sequential", False):
        jobs = 1
    work = _Copy(source, sink, progress, jobs)
    target = work.run(descriptor, platforms)
    if name is not None:
        sink.tag(target, name)
    return target


class _Cancelled(Exception):
    """Another thread has failed; never leaves this module."""


class _Copy:
    """One run of ``copy``: what is done already, and the flag that stops everyone."""

    def __init__(self, source: BlobSource, sink: BlobSink, progress: Progress, jobs: int) -> None:
        self._source = source
        self._sink = sink
        self._progress = progress
        self._jobs = max(1, jobs)
        self._stop = threading.Event()
        self._done: set[Digest] = set()
        self._manifests = 0

    def run(self, descriptor: Descriptor, platforms: Sequence[Platform] | None) -> Descriptor:
        try:
            return self._tree(descriptor, platforms, ())
        except BaseException:
            self._stop.set()
            raise

    def _tree(
        self, descriptor: Descriptor, platforms: Sequence[Platform] | None, above: tuple[Digest, ...]
    ) -> Descriptor:
        """Copy a manifest or index with its children; what was copied in the end."""
        whole = platforms is None or is_manifest(descriptor.media_type)
        if descriptor.digest in self._done or (whole and self._sink.has(descriptor)):
            self._skip(descriptor)
            return descriptor
        self._check_place(descriptor, above)
        data = read_all(_Embedded(self._source), descriptor, MANIFEST_LIMIT)
        document = parse_manifest(data, descriptor.media_type)
        if isinstance(document, Index):
            target = self._index(descriptor, document, platforms, (*above, descriptor.digest))
            if target != descriptor:
                return target
        else:
            self._image(document)
        self._put(descriptor, lambda: _given(data))
        self._done.add(descriptor.digest)
        return descriptor

    def _check_place(self, descriptor: Descriptor, above: tuple[Digest, ...]) -> None:
        if descriptor.digest in above:
            raise IntegrityError(f"copy index {descriptor.digest}: it contains itself")
        if len(above) >= DEPTH_LIMIT:
            raise IntegrityError(f"copy index {above[0]}: indexes nested more than {DEPTH_LIMIT} deep")
        self._manifests += 1
        if self._manifests > MANIFESTS_LIMIT:
            raise IntegrityError(f"copy index {above[0]}: more than {MANIFESTS_LIMIT} manifests")

    def _index(
        self,
        descriptor: Descriptor,
        index: Index,
        platforms: Sequence[Platform] | None,
        above: tuple[Digest, ...],
    ) -> Descriptor:
        """Copy the children that are wanted; ``descriptor`` when those are all."""
        if platforms is None:
            for child in index.manifests:
                if is_manifest(child.media_type) or is_index(child.media_type):
                    self._tree(child, None, above)
                else:
                    self._blob(child)
            return descriptor
        copied: list[Descriptor] = []
        chosen: list[Descriptor] = []
        for platform in platforms:
            child = select(index, platform)
            if child not in chosen:
                chosen.append(child)
                copied.append(self._tree(child, [platform], above))
        if not copied:
            raise NotFoundError(f"copy index {descriptor.digest}: no platform is wanted")
        whole = {child.digest for child in chosen} == {child.digest for child in index.manifests}
        return descriptor if whole and copied == chosen else copied[0]

    def _image(self, manifest: Manifest) -> None:
        """Copy the configuration, then the layers, each blob once."""
        self._blob(manifest.config)
        if isinstance(self._sink, LayerSink):
            self._sink.expect(manifest)
        layers = {layer.digest: layer for layer in manifest.layers}
        if self._jobs == 1 or len(layers) < 2:
            for layer in layers.values():
                self._blob(layer)
        else:
            self._concurrently(layers.values())

    def _concurrently(self, layers: Iterable[Descriptor]) -> None:
        team = _Team(self._blob, layers, self._stop)
        try:
            team.run(self._jobs)
        except BaseException as exc:
            self._end()
            team.wait(_PATIENCE if isinstance(exc, KeyboardInterrupt | SystemExit) else None)
            raise
        if self._stop.is_set():
            self._end()
        team.wait()
        team.raise_first()

    def _end(self) -> None:
        """Nobody goes on, and nobody who waits for bytes waits any longer."""
        self._stop.set()
        for side in (self._source, self._sink):
            if isinstance(side, Interruptible):
                side.interrupt()

    def _blob(self, descriptor: Descriptor) -> None:
        """Copy one blob that is no manifest."""
        if self._stop.is_set():
            raise _Cancelled
        if descriptor.digest in self._done:
            return
        if self._sink.has(descriptor):
            self._skip(descriptor)
        else:
            self._fetch(descriptor)
        self._done.add(descriptor.digest)

    def _fetch(self, descriptor: Descriptor) -> None:
        """A foreign layer that the source has not may stay away, unless the sink must have it."""
        key = descriptor.digest
        self._progress.start(key, key.short, descriptor.size)
        try:
            self._put(descriptor, lambda: _Embedded(self._source).open(descriptor))
        except IntegrityError as exc:
            if exc.authentic or not isinstance(self._source, Mirrored) or not self._source.reject(descriptor):
                raise
            return self._fetch(descriptor)
        except NotFoundError:
            if not is_foreign(descriptor.media_type) or isinstance(self._sink, LayerSink):
                raise
            self._progress.finish(key, "left out")
            self._progress.note(f"layer {key.short} is not distributable and was left out")
            return
        self._progress.finish(key)

    def _put(self, descriptor: Descriptor, opener: "_Opener") -> None:
        with _Reader(opener, self._stop) as reader:
            self._sink.put(descriptor, reader, progress=self._progress)

    def _skip(self, descriptor: Descriptor) -> None:
        self._progress.start(descriptor.digest, descriptor.digest.short, descriptor.size)
        self._progress.finish(descriptor.digest, "already here")


class _Team:
    """Threads that take one layer after another, until there are none, one fails, or ``stop`` is set.

    An interrupt can strike anywhere in the thread that waits, also while it starts the others; so what counts is
    who works, not who was started. A thread that begins after the stop touches nothing.
    """

    def __init__(self, work: Callable[[Descriptor], None], layers: Iterable[Descriptor], stop: threading.Event) -> None:
        self._work = work
        self._waiting = deque(layers)
        self._stop = stop
        self._working = 0
        self._changed = threading.Condition()
        self._failures: list[BaseException] = []

    def run(self, jobs: int) -> None:
        """Start as many as ``jobs`` threads, and see all layers through."""
        for _ in range(min(jobs, len(self._waiting))):
            threading.Thread(target=self._member, name="copy", daemon=True).start()
        with self._changed:
            self._changed.wait_for(lambda: self._stop.is_set() or not (self._working or self._waiting))

    def wait(self, seconds: float | None = None) -> None:
        """Until nobody works any more, at most so long."""
        with self._changed:
            self._waiting.clear()
            self._changed.wait_for(lambda: not self._working, seconds)

    def raise_first(self) -> None:
        """The error that stopped the others, if there was one."""
        for failure in self._failures:
            if not isinstance(failure, _Cancelled):
                raise failure
        if self._failures:
            raise LayerfsError("copy: cancelled")

    def _member(self) -> None:
        while True:
            with self._changed:
                if self._stop.is_set() or not self._waiting:
                    return
                layer = self._waiting.popleft()
                self._working += 1
            try:
                self._work(layer)
            except BaseException as exc:
                self._failures.append(exc)
                self._stop.set()
            finally:
                with self._changed:
                    self._working -= 1
                    self._changed.notify_all()


_Opener = Callable[[], "contextlib.AbstractContextManager[BlobReader]"]


def _given(data: bytes) -> "contextlib.AbstractContextManager[BlobReader]":
    return contextlib.nullcontext(BytesIO(data))


class _Reader:
    """Opens its blob on the first read, so that what turns out to be there is not fetched; stops when told to."""

    def __init__(self, opener: _Opener, stop: threading.Event) -> None:
        self._opener = opener
        self._stop = stop
        self._stack = ExitStack()
        self._reader: BlobReader | None = None

    def __enter__(self) -> "_Reader":
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    def read(self, size: int = PIECE, /) -> bytes:
        """The next bytes of the blob."""
        if self._stop.is_set():
            raise _Cancelled
        if self._reader is None:
            self._reader = self._stack.enter_context(self._opener())
        return self._reader.read(size)

    def seek(self, offset: int, /) -> None:
        """Go on at ``offset``, for a sink that has what comes before, or has to send something again."""
        self._stack.close()
        self._reader = self._stack.enter_context(self._opener())
        if (seek := getattr(self._reader, "seek", None)) is not None:
            seek(offset)
            return
        while offset and (piece := self.read(min(offset, PIECE))):
            offset -= len(piece)


class _Embedded:
    """A source whose small blobs may be in their descriptors (``data``), or known to all (the empty one)."""

    def __init__(self, source: BlobSource) -> None:
        self._source = source

    def resolve(self, name: str) -> Descriptor:
        return self._source.resolve(name)

    @contextlib.contextmanager
    def open(self, descriptor: Descriptor) -> Iterator[BlobReader]:
        data = descriptor.data
        if descriptor.digest == EMPTY_DESCRIPTOR.digest:
            data = EMPTY_DESCRIPTOR.data
        if data is None:
            with self._source.open(descriptor) as reader:
                yield reader
            return
        try:
            yield BytesIO(base64.b64decode(data, validate=True))
        except (binascii.Error, ValueError):
            raise IntegrityError(f"read {descriptor.digest}: the data in its descriptor are no base64") from None
