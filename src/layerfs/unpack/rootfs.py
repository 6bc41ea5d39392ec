"""A layer of a root file system that is no image yet."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from layerfs.blobs import BlobReader
from layerfs.digest import Digest
from layerfs.errors import IntegrityError, native_error
from layerfs.layers import Layer, LayerStore
from layerfs.native import Differ
from layerfs.oci import MAX_LAYER_BYTES, MAX_LAYER_ENTRIES, MAX_LAYER_METADATA
from layerfs.unpack.pouring import pour

__all__ = ["import_rootfs"]


def import_rootfs(
    layers: LayerStore,
    source: Path | str | BinaryIO,
    *,
    protect: Callable[[Iterable[Digest]], None] | None = None,
    max_bytes: int = MAX_LAYER_BYTES,
    max_entries: int = MAX_LAYER_ENTRIES,
    max_metadata: int = MAX_LAYER_METADATA,
    clamp_mtime: int | None = None,
) -> Layer:
    """A layer of a whole root file system: a tar in any compression (a path, an open file or a stream), or a directory.

    Of a directory, times after ``clamp_mtime`` (seconds since 1970) are set back to it. Raises IntegrityError for a
    damaged archive and beyond the limits, NotFoundError and NativeError. The layer is not recorded yet; ``protect`` of
    a lease keeps it until then.
    """
    directory = isinstance(source, Path | str) and os.path.isdir(source)
    opened = _open_tree(source, clamp_mtime) if directory else _open_tar(source)  # type: ignore[arg-type]
    with (
        opened as (reader, what),
        layers.writer(
            protect=protect, max_bytes=max_bytes, max_entries=max_entries, max_metadata=max_metadata
        ) as writer,
    ):
        try:
            pour(reader, writer, max_bytes)
            return writer.commit()
        except IntegrityError as exc:
            raise IntegrityError(f"import {what}: {exc}", hint=exc.hint) from None


@contextmanager
def _open_tree(path: Path | str, clamp_mtime: int | None) -> Iterator[tuple[BlobReader, str]]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as exc:
        raise native_error(exc, f"import {path}") from exc
    try:
        with Differ(fd, tree=True, clamp_mtime=clamp_mtime) as differ:
            yield differ, f"directory {path}"
    finally:
        os.close(fd)


@contextmanager
def _open_tar(source: Path | str | BinaryIO) -> Iterator[tuple[BlobReader, str]]:
    from layerfs.archives import open_input  # commit and run need this package too, and no archives

    with open_input(source) as (reader, _, what):
        yield reader, what
