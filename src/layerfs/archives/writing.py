"""Writing archives: a tar that is docker-archive and OCI layout at once, an OCI archive, or a layout directory.

The tars are written front to back, so they can go through a pipe: sizes are known before the bytes. Members have
time 0, owner 0 and fixed modes; blobs stand in the order in which they came, the documents behind them. The same
images give the same bytes.
"""

import fcntl
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from layerfs.archives.catalog import Catalog
from layerfs.archives.files import DirectoryFiles
from layerfs.archives.oci_layout import CONTAINERD_NAME, REF_NAME, OciLayoutSource, blob_name
from layerfs.archives.opening import write_all
from layerfs.blobs import NO_PROGRESS, PIECE, BlobReader, BlobSink, Progress
from layerfs.digest import Digest, Verifier
from layerfs.errors import ExistsError, IntegrityError, InvalidInputError, LayerfsError, native_error
from layerfs.fsutil import Lock, sync_dir
from layerfs.oci import (
    MANIFEST_LIMIT,
    MEDIA_INDEX,
    Descriptor,
    Index,
    encode,
    is_index,
    is_manifest,
)

__all__ = ["FORMATS", "ArchiveSink", "OciLayoutSink", "create_archive"]

FORMATS = ("docker-archive", "oci-archive", "oci-dir")
_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_BLOCK = 512
_END = bytes(2 * _BLOCK)
_PARTIAL = ".layerfs-"
_RANDOM = re.compile(r"[0-9a-f]{16}")


def _header(name: str, size: int, kind: bytes = b"0", mode: int = 0o644) -> bytes:
    """A ustar header; the size in base-256 where octal digits do not reach, the name in PAX where it is too long."""
    before = b""
    if len(name) > 100:
        record = b" path=" + name.encode() + b"\n"  # of 100 to 900 bytes: its own length has three digits
        record = b"%d" % (len(record) + 3) + record
        before = _header("PaxHeaders", len(record), b"x") + record + bytes(-len(record) % _BLOCK)
    length = b"%011o\0" % size if size < 8**11 else b"\x80" + size.to_bytes(11, "big")
    fields = (
        name.encode()[:100].ljust(100, b"\0"),
        b"%07o\0" % mode,
        b"0000000\0" * 2,
        length,
        b"%011o\0" % 0,
        b" " * 8,
        kind,
        bytes(100),
        b"ustar\00000",
    )
    block = b"".join(fields).ljust(_BLOCK, b"\0")
    return before + block[:148] + b"%06o\0 " % sum(block) + block[156:]


class ArchiveSink:
    """Writes an archive into a file object; complete once ``close`` has returned.

    Blobs go in one after another, whatever thread brings them. A blob that fails in the middle spoils the
    archive: every later call raises what happened. ``InvalidInputError`` for an unknown format.
    """

    sequential = True
    """Blobs are wanted in order, one at a time."""

    def __init__(self, file: BinaryIO, format: str = "docker-archive") -> None:
        if format not in FORMATS[:2]:
            raise InvalidInputError(f"archive format {format!r}: not one of {', '.join(FORMATS[:2])}")
        file.flush()
        self._fd = file.fileno()
        self._docker = format == "docker-archive"
        self._lock = threading.Lock()
        self._catalog = Catalog()
        self._written: set[Digest] = set()
        self._directories: set[str] = set()
        self._spoiled: BaseException | None = None

    def has(self, descriptor: Descriptor) -> bool:
        """Whether the blob is in the archive already."""
        return descriptor.digest in self._written

    def put(self, descriptor: Descriptor, reader: BlobReader, *, progress: Progress = NO_PROGRESS) -> None:
        """Append a blob; IntegrityError when it is not what ``descriptor`` says."""
        with self._lock:
            if self._spoiled is not None:
                raise LayerfsError(f"write archive: it failed before: {self._spoiled}")
            if descriptor.digest in self._written:
                return
            try:
                self._put(descriptor, reader, progress)
            except BaseException as exc:
                self._spoiled = exc
                raise

    def tag(self, descriptor: Descriptor, name: str) -> None:
        """Name an image; InvalidInputError for what is no reference."""
        self._catalog.tag(descriptor, name)

    def close(self) -> None:
        """Write the documents and the end of the archive."""
        for name, data in sorted(self._documents().items()):
            self._write(_header(name, len(data)) + data + bytes(-len(data) % _BLOCK))
        self._write(_END)

    def _put(self, descriptor: Descriptor, reader: BlobReader, progress: Progress) -> None:
        is_document = is_manifest(descriptor.media_type) or is_index(descriptor.media_type)
        if is_document:
            data = _document(descriptor, reader)
            self._catalog.add(descriptor, data)
            pieces: Iterator[bytes] = iter((data,))
        else:
            pieces = iter(lambda: reader.read(PIECE), b"")
        self._directory(f"blobs/{descriptor.digest.algorithm}")
        self._write(_header(blob_name(descriptor.digest), descriptor.size))
        verifier = Verifier(descriptor.digest, descriptor.size)
        for piece in pieces:
            verifier.update(piece)
            self._write(piece)
            progress.advance(descriptor.digest, len(piece))
        verifier.finish()
        self._write(bytes(-descriptor.size % _BLOCK))
        self._written.add(descriptor.digest)

    def _directory(self, name: str) -> None:
        for path in ("blobs", name):
            if path not in self._directories:
                self._directories.add(path)
                self._write(_header(path + "/", 0, b"5", 0o755))

    def _write(self, data: bytes) -> None:
        write_all(self._fd, data, "write archive")

    def _documents(self) -> dict[str, bytes]:
        index = Index(media_type=MEDIA_INDEX, manifests=tuple(self._catalog.entries()))
        documents = {"oci-layout": _LAYOUT, "index.json": encode(index)}
        if self._docker:
            entries, repositories = self._docker_documents()
            documents["manifest.json"] = encode(entries)
            if repositories:
                documents["repositories"] = encode(repositories)
        return documents

    def _docker_documents(self) -> tuple[list[dict[str, Any]], dict[str, dict[str, str]]]:
        """manifest.json, and the older ``repositories``: names to top layers.

        Names are whole: docker shortens them itself, podman would take a short one as its own (``localhost/``).
        """
        entries: list[dict[str, Any]] = []
        repositories: dict[str, dict[str, str]] = {}
        for manifest, names in self._catalog.images():
            tagged = [name for name in names if name.tag is not None and name.digest is None]
            entries.append(
                {
                    "Config": blob_name(manifest.config.digest),
                    "RepoTags": [str(name) for name in tagged] or None,
                    "Layers": [blob_name(layer.digest) for layer in manifest.layers],
                }
            )
            for name in tagged if manifest.layers else ():
                tags = repositories.setdefault(name.name, {})
                tags[str(name.tag)] = manifest.layers[-1].digest.hex
        return entries, {name: dict(sorted(tags.items())) for name, tags in sorted(repositories.items())}


def _document(descriptor: Descriptor, reader: BlobReader) -> bytes:
    """A manifest whole, verified."""
    if descriptor.size > MANIFEST_LIMIT:
        raise IntegrityError(f"read {descriptor.digest}: more than the {MANIFEST_LIMIT} bytes allowed")
    verifier = Verifier(descriptor.digest, descriptor.size)
    pieces = []
    while piece := reader.read(PIECE):
        verifier.update(piece)
        pieces.append(piece)
    verifier.finish()
    return b"".join(pieces)


class OciLayoutSink:
    """Writes into an image layout directory, made where it is missing, beside what is there.

    Blobs appear whole. The images put here appear in index.json when ``close`` is called.
    """

    def __init__(self, path: Path, *, sync: bool = True) -> None:
        self._root = path
        self._sync = sync
        self._catalog = Catalog()
        try:
            path.mkdir(exist_ok=True)
            (path / "blobs").mkdir(exist_ok=True)
            for directory in (path, *(path / "blobs").iterdir()):
                _remove_litter(directory, _PARTIAL)
            if not (path / "oci-layout").exists():
                if (path / "index.json").exists():
                    raise ExistsError(f"write {path}: there is an index.json, but no image layout")
                _write_document(path / "oci-layout", _LAYOUT, sync)
        except OSError as exc:
            raise native_error(exc, f"write image layout {path}") from exc

    def has(self, descriptor: Descriptor) -> bool:
        """Whether the blob is there. A manifest counts once it was put here, so that it is listed."""
        if is_manifest(descriptor.media_type) or is_index(descriptor.media_type):
            return descriptor.digest in self._catalog
        try:
            return os.stat(self._root / blob_name(descriptor.digest)).st_size == descriptor.size
        except FileNotFoundError:
            return False

    def put(self, descriptor: Descriptor, reader: BlobReader, *, progress: Progress = NO_PROGRESS) -> None:
        """Write a blob; IntegrityError when it is not what ``descriptor`` says."""
        target = self._root / blob_name(descriptor.digest)
        is_document = is_manifest(descriptor.media_type) or is_index(descriptor.media_type)
        if is_document:
            data = _document(descriptor, reader)
            self._catalog.add(descriptor, data)
            reader = BytesIO(data)
        with _new_file(target, self._sync) as file:
            verifier = Verifier(descriptor.digest, descriptor.size)
            while piece := reader.read(PIECE):
                verifier.update(piece)
                write_all(file.fileno(), piece, f"write {target}")
                progress.advance(descriptor.digest, len(piece))
            verifier.finish()

    def tag(self, descriptor: Descriptor, name: str) -> None:
        """Name an image; InvalidInputError for what is no reference."""
        self._catalog.tag(descriptor, name)

    def close(self) -> None:
        """List the images in index.json. A name that was there points at the new image."""
        entries = self._catalog.entries()
        with Lock(self._root / ".layerfs-lock"):
            old: tuple[Descriptor, ...] = ()
            if (self._root / "index.json").exists():
                old = OciLayoutSource(DirectoryFiles(self._root)).entries
            kept = [entry for entry in old if not any(_same_name(entry, new) for new in entries)]
            for directory in (self._root / "blobs").iterdir() if self._sync else ():
                sync_dir(directory)
            index = Index(media_type=MEDIA_INDEX, manifests=(*kept, *entries))
            _write_document(self._root / "index.json", encode(index), self._sync)


def _locked_file(path: Path) -> BinaryIO:
    """A new file, locked while its writer lives, by which others tell it from litter."""
    file = open(path, "xb", buffering=0)
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


def _remove_litter(directory: Path, prefix: str) -> None:
    """Remove the partial files that killed commands left: those that nobody has locked."""
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(directory) as entries:
        for entry in entries:
            random = entry.name.removeprefix(prefix)
            if random == entry.name or not _RANDOM.fullmatch(random):
                continue
            with suppress(OSError), open(entry.path, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(entry.path)


@contextmanager
def _new_file(target: Path, sync: bool) -> Iterator[BinaryIO]:
    """A file that has its name once the ``with`` has ended well."""
    temporary = target.with_name(f"{_PARTIAL}{os.urandom(8).hex()}")
    try:
        target.parent.mkdir(exist_ok=True)
        file = _locked_file(temporary)
    except OSError as exc:
        raise native_error(exc, f"write {target}") from exc
    try:
        with file:
            yield file
            _finish(file.fileno(), temporary, target, sync)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def _write_document(path: Path, data: bytes, sync: bool) -> None:
    with _new_file(path, sync) as file:
        write_all(file.fileno(), data, f"write {path}")
    if sync:
        sync_dir(path.parent)


def _finish(fd: int, temporary: Path, target: Path, sync: bool) -> None:
    try:
        if sync:
            os.fdatasync(fd)
        os.rename(temporary, target)
    except OSError as exc:
        raise native_error(exc, f"write {target}") from exc


def _same_name(old: Descriptor, new: Descriptor) -> bool:
    """Whether ``new`` takes the place of ``old`` in index.json."""
    had, has = old.annotations or {}, new.annotations or {}
    key = CONTAINERD_NAME if CONTAINERD_NAME in had and CONTAINERD_NAME in has else REF_NAME
    if had.get(key) is None and has.get(key) is None:
        return old.digest == new.digest
    return had.get(key) == has.get(key)


@contextmanager
def create_archive(
    target: Path | str | BinaryIO, format: str = "docker-archive", *, sync: bool = True
) -> Iterator[BlobSink]:
    """A sink that writes an archive of one of ``FORMATS`` to a path or, but ``oci-dir``, into a file object.

    At the end of the ``with`` the archive is completed. A file appears then under its name, whole; after an error
    nothing does, and what was there stays. With ``sync`` it is on the disk before it appears.
    """
    if format not in FORMATS:
        raise InvalidInputError(f"archive format {format!r}: not one of {', '.join(FORMATS)}")
    if format == "oci-dir":
        if not isinstance(target, Path | str):
            raise InvalidInputError("write oci-dir: a directory cannot go through a pipe")
        layout = OciLayoutSink(Path(target), sync=sync)
        yield layout
        layout.close()
        return
    with _output(target, sync) as file:
        sink = ArchiveSink(file, format)
        yield sink
        sink.close()


@contextmanager
def _output(target: Path | str | BinaryIO, sync: bool) -> Iterator[BinaryIO]:
    """The file to write into: the one given, a device or pipe by its path, or a new file beside ``target``."""
    if not isinstance(target, Path | str):
        yield target
        return
    path = Path(target)
    special = path.exists() and not path.is_file()
    written = path if special else path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    try:
        file: BinaryIO
        if special:
            file = open(written, "wb", buffering=0)
        else:
            _remove_litter(path.parent, f".{path.name}.")
            file = _locked_file(written)
    except OSError as exc:
        raise native_error(exc, f"write {path}") from exc
    try:
        with file:
            yield file
            if not special:
                _finish(file.fileno(), written, path, sync)
                if sync:
                    sync_dir(path.parent)
    except BaseException:
        if not special:
            with suppress(OSError):
                os.unlink(written)
        raise
