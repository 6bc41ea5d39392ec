"""Opening an archive of images, whichever form it has."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from layerfs.archives.docker_archive import DockerArchiveSource
from layerfs.archives.files import ArchiveSource, TarFiles
from layerfs.archives.oci_layout import OciLayoutSource, open_layout
from layerfs.archives.opening import SPOOL_LIMIT, open_plain_tar
from layerfs.errors import IntegrityError
from layerfs.oci import MAX_LAYER_BYTES

__all__ = ["open_archive"]


@contextmanager
def open_archive(
    source: Path | str | BinaryIO,
    spool: Path,
    *,
    max_bytes: int = SPOOL_LIMIT,
    max_layer_bytes: int = MAX_LAYER_BYTES,
) -> Iterator[ArchiveSource]:
    """The images in an archive (docker-archive, OCI archive; in any compression), or in a layout directory.

    A plain tar file is read in place; what is compressed or comes through a pipe goes through an unnamed file in
    the directory ``spool`` first, of at most ``max_bytes`` bytes. Layers of a docker-archive in compressions that
    manifests do not know are decompressed to learn their size, ``max_layer_bytes`` at most. Raises NotFoundError,
    IntegrityError, NativeError.
    """
    if isinstance(source, Path | str) and Path(source).is_dir():
        yield open_layout(Path(source))
        return
    with open_plain_tar(source, spool, max_bytes=max_bytes) as (fd, what):
        yield _source(TarFiles(fd, what), max_layer_bytes)


def _source(files: TarFiles, max_layer_bytes: int) -> ArchiveSource:
    """What docker writes today is both forms at once; then the layout counts, which has real manifests."""
    if files.has("oci-layout") and files.has("index.json"):
        layout = OciLayoutSource(files)
        if layout.images() or not files.has("manifest.json"):
            return layout
    if files.has("manifest.json"):
        return DockerArchiveSource(files, max_layer_bytes)
    if files.has("repositories"):
        raise IntegrityError(
            f"read {files.what}: an archive of docker before 1.10, which has no manifest.json",
            hint="load and save it with a docker from 1.10 to 24",
        )
    raise IntegrityError(
        f"read {files.what}: no archive of images, it has neither manifest.json nor index.json",
        hint="a root file system is taken by: layerfs import",
    )
