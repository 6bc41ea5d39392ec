"""Archives of images, read and written: OCI layout directories, OCI archives, and docker-archive in all its forms.

with open_archive(path, spool) as source:                      # a BlobSource with images()
    for image in source.images(): ...
with create_archive(path, "docker-archive") as sink:           # a BlobSink
    transfer.copy(source, sink, descriptor, name=name)
"""

from layerfs.archives.archive import open_archive
from layerfs.archives.files import ArchiveImage, ArchiveSource
from layerfs.archives.oci_layout import OciLayoutSource, open_layout
from layerfs.archives.opening import SPOOL_LIMIT, open_input
from layerfs.archives.writing import FORMATS, ArchiveSink, OciLayoutSink, create_archive

__all__ = [
    "FORMATS",
    "SPOOL_LIMIT",
    "ArchiveImage",
    "ArchiveSink",
    "ArchiveSource",
    "OciLayoutSink",
    "OciLayoutSource",
    "create_archive",
    "open_archive",
    "open_input",
    "open_layout",
]
