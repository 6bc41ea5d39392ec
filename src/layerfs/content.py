"""The content store: blobs by digest, each a file ``blobs/<algorithm>/<hex>`` that never changes.

A blob is written in ``ingest/blob-<hex>`` under a lock, verified while it streams, made durable, and renamed into
its place. A partial file stays behind when its writer stops, so that the next one goes on from there; where nobody
could, it is called ``whole-<hex>``, and goes with the litter of those who were killed.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self

from layerfs.blobs import NO_PROGRESS, PIECE, BlobReader, Progress
from layerfs.digest import Digest, Verifier
from layerfs.errors import IntegrityError, NotFoundError, native_error
from layerfs.fsutil import digests_below, disk_usage, sync_dir
from layerfs.oci import Descriptor

if TYPE_CHECKING:
    from layerfs.syncing import SyncAhead

__all__ = ["BlobWriter", "ContentStore"]

_BAD = "bad"
_WRITE_BACK = 8 << 20
"""The disk is given so many bytes at a time while more come; else the sync at the end would wait for all of them."""


class ContentStore:
    """Blobs below ``root``; ``ingest`` lies on the same file system. Safe for any number of processes.

    With ``sync`` a blob that has appeared is on the disk.
    """

    def __init__(self, root: Path, ingest: Path, *, sync: bool = True) -> None:
        self.root = root
        self.sync = sync
        self._ingest = ingest

    def path(self, digest: Digest) -> Path:
        """Where a blob is, or would be."""
        return self.root / digest.algorithm / digest.hex

    def _place(self, digest: Digest) -> str:
        """The same as text: lists ask for thousands, and a Path takes longer than the file."""
        return f"{self.root}/{digest.replace(':', '/', 1)}"

    def has(self, what: Digest | Descriptor) -> bool:
        """Whether a blob is here."""
        digest = what if isinstance(what, Digest) else what.digest
        return os.path.exists(self._place(digest))

    def size(self, digest: Digest) -> int:
        """Bytes of a blob; NotFoundError."""
        try:
            return os.stat(self.path(digest)).st_size
        except FileNotFoundError:
            raise NotFoundError(f"blob {digest}: not in the store") from None

    def disk(self, digest: Digest) -> int:
        """Bytes that a blob takes on disk; NotFoundError."""
        try:
            return os.stat(self._place(digest)).st_blocks * 512
        except FileNotFoundError:
            raise NotFoundError(f"blob {digest}: not in the store") from None

    def open(self, what: Digest | Descriptor) -> BinaryIO:
        """A blob's bytes, not verified again; NotFoundError."""
        digest = what if isinstance(what, Digest) else what.digest
        try:
            return open(self._place(digest), "rb", buffering=0)
        except FileNotFoundError:
            raise NotFoundError(f"blob {digest}: not in the store") from None
        except OSError as exc:
            raise native_error(exc, f"read blob {digest}") from exc

    def resolve(self, name: str) -> Descriptor:
        """The content store knows no names."""
        raise NotFoundError(f"{name}: the content store has blobs, not names")

    def read(self, digest: Digest, limit: int) -> bytes:
        """A small blob whole, verified; IntegrityError when it is damaged or larger than ``limit``."""
        with self.open(digest) as file:
            # A buffer of what is there: one for the limit would be megabytes.
            data = file.read(min(os.fstat(file.fileno()).st_size, limit) + 1)
        if len(data) > limit:
            raise IntegrityError(f"read blob {digest}: more than the {limit} bytes allowed")
        verifier = Verifier(digest, len(data))
        verifier.update(data)
        verifier.finish()
        return data

    def write(self, data: bytes) -> Digest:
        """Store a small blob; its digest."""
        digest = Digest.of(data)
        if not self.has(digest):
            with self.writer(digest, len(data), resume=False) as writer:
                if not writer.present:
                    writer.write(data)
                    writer.commit()
        return digest

    def put(self, descriptor: Descriptor, reader: BlobReader, *, progress: Progress = NO_PROGRESS) -> None:
        """Store what ``reader`` gives as the blob that ``descriptor`` names; IntegrityError if it is not that."""
        with self.writer(descriptor.digest, descriptor.size, resume=False) as writer:
            if writer.present:
                return
            while piece := reader.read(PIECE):
                writer.write(piece)
                progress.advance(descriptor.digest, len(piece))
            writer.commit()

    def tag(self, descriptor: Descriptor, name: str) -> None:
        """Names are the image store's; here there is nothing to do."""

    def writer(self, digest: Digest, size: int | None, *, resume: bool = True) -> "BlobWriter":
        """A writer of the blob ``digest``, to be used in a ``with``; waits while another one writes it."""
        name = f"{'blob' if resume else 'whole'}-{digest.algorithm}-{digest.hex}"
        return BlobWriter(self, self._ingest / name, digest, size, resume)

    def delete(self, digest: Digest) -> int:
        """Remove a blob; the bytes that were freed (0: it was not there)."""
        path = self.path(digest)
        try:
            freed = os.stat(path).st_blocks * 512
            os.unlink(path)
        except FileNotFoundError:
            return 0
        except OSError as exc:
            raise native_error(exc, f"remove blob {digest}") from exc
        return freed

    def put_away(self, digest: Digest) -> None:
        """Take a damaged blob out of use. It is kept: perhaps there is no better one."""
        bad = self.root / _BAD
        try:
            bad.mkdir(mode=0o700, exist_ok=True)
            os.rename(self.path(digest), bad / f"{digest.hex}.{os.urandom(4).hex()}")
        except FileNotFoundError:
            return
        except OSError as exc:
            raise native_error(exc, f"put blob {digest} away") from exc

    def damaged(self) -> list[tuple[Path, int]]:
        """What was put away: (path, bytes on disk)."""
        try:
            return [(path, disk_usage(path)) for path in sorted((self.root / _BAD).iterdir())]
        except FileNotFoundError:
            return []

    def digests(self) -> Iterator[Digest]:
        """All blobs, sorted."""
        yield from digests_below(self.root)[0]

    def strays(self) -> list[Path]:
        """What lies among the blobs and is none."""
        return digests_below(self.root)[1]

    def partials(self) -> Iterator[tuple[Path, os.stat_result]]:
        """Partial downloads that nobody is at: (file, what stat says); each is locked while it is looked at."""
        with os.scandir(self._ingest) as entries:
            paths = [Path(entry.path) for entry in entries if entry.name.startswith("blob-")]
        for path in paths:
            with suppress(FileNotFoundError, BlockingIOError), open(path, "rb", buffering=0) as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield path, os.fstat(file.fileno())


class BlobWriter:
    """Writes one blob. ``present``: it is here already, so write nothing. ``offset``: go on from there."""

    def __init__(self, store: ContentStore, path: Path, digest: Digest, size: int | None, resume: bool) -> None:
        self.digest = digest
        self.size = size
        self.present = False
        self.offset = 0
        self._store = store
        self._path = path
        self._resume = resume
        self._fd = -1
        self._verifier = Verifier(digest, size)
        self._begun = 0  # up to here the disk was asked to write
        self._ahead: SyncAhead | None = None

    def __enter__(self) -> Self:
        try:
            self._fd = self._open_locked()
            self.present = self._store.has(self.digest)
            if not self.present:
                self._pick_up()
        except OSError as exc:
            self._close()
            raise native_error(exc, f"write blob {self.digest}") from exc
        if self.present:
            self._discard()
        return self

    def _open_locked(self) -> int:
        """The partial file under its lock. A file that was renamed away while we waited is not it any more."""
        while True:
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
            fcntl.flock(fd, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(fd), os.stat(self._path, follow_symlinks=False)):
                    return fd
            os.close(fd)

    def _pick_up(self) -> None:
        """Hash what an earlier try left; start over when that cannot be the beginning."""
        there = os.fstat(self._fd).st_size
        if not self._resume or (self.size is not None and there > self.size):
            os.ftruncate(self._fd, 0)
            return
        while piece := os.pread(self._fd, PIECE, self.offset):
            self._verifier.update(piece)
            self.offset += len(piece)

    def written(self) -> BlobReader:
        """What is there so far, from its beginning: for whoever has to see those bytes again to go on."""
        return _Written(self._fd, self.offset)

    def restart(self) -> None:
        """Forget what is there: the other side cannot go on from ``offset``."""
        os.ftruncate(self._fd, 0)
        self.offset = self._begun = 0
        self._verifier = Verifier(self.digest, self.size)

    def write(self, chunk: bytes | bytearray | memoryview) -> None:
        """Take the next bytes; IntegrityError when there are more than announced, which starts it over."""
        try:
            self._verifier.update(chunk)
        except IntegrityError:
            self.restart()
            raise
        view = memoryview(chunk)
        try:
            while view:
                done = os.pwrite(self._fd, view, self.offset)
                self.offset += done
                view = view[done:]
            if self._store.sync and self.offset - self._begun >= _WRITE_BACK:
                self._write_back()
        except OSError as exc:
            raise native_error(exc, f"write blob {self.digest}") from exc

    def _write_back(self) -> None:
        from layerfs.native import write_back  # late: most commands write no large blob
        from layerfs.syncing import SyncAhead

        write_back(self._fd, self._begun, self.offset - self._begun)
        if self._ahead is None:
            self._ahead = SyncAhead(self._fd)
        self._ahead.grow(self.offset - self._begun)
        self._begun = self.offset

    def commit(self) -> None:
        """Verify, make durable, and let the blob appear. After an IntegrityError the next try starts over."""
        try:
            self._verifier.finish()
        except IntegrityError:
            self.restart()
            raise
        target = self._store.path(self.digest)
        try:
            os.fchmod(self._fd, 0o444)
            if self._ahead is not None:
                self._ahead.end()
            if self._store.sync:
                os.fdatasync(self._fd)
            os.rename(self._path, target)
            if self._store.sync:
                sync_dir(target.parent)
        except OSError as exc:
            raise native_error(exc, f"write blob {self.digest}") from exc
        self._close()

    def _discard(self) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self._path)
        self._close()

    def _close(self) -> None:
        if self._ahead is not None:
            self._ahead.stop()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0 and (not self._resume or not self.offset):
            self._discard()
        self._close()


class _Written:
    """The bytes of a partial blob up to ``end``; good while its writer is open."""

    def __init__(self, fd: int, end: int) -> None:
        self._fd = fd
        self._end = end
        self._position = 0

    def read(self, size: int = PIECE, /) -> bytes:
        piece = os.pread(self._fd, min(size, self._end - self._position), self._position)
        self._position += len(piece)
        return piece
