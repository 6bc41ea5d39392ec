"""All images at once: what the database says of them is asked for together, and of the documents one is read."""

from layerfs.content import ContentStore
from layerfs.digest import Digest
from layerfs.errors import NotFoundError
from layerfs.images._values import ImageSummary
from layerfs.metadata import Database, ImageRow
from layerfs.oci import CONFIG_LIMIT, is_manifest, parse_config

__all__ = ["Facts"]


class Facts:
    """What the database says of all images at one moment."""

    def __init__(self, content: ContentStore, database: Database) -> None:
        self._content = content
        self._bytes = database.layer_data_bytes()
        self._names: dict[Digest, list[str]] = {}
        for name, target in database.names():
            self._names.setdefault(target, []).append(name)
        self._repo_digests: dict[Digest, list[str]] = {}
        for repository, digest, target in database.all_repo_digests():
            self._repo_digests.setdefault(target, []).append(f"{repository}@{digest}")

    def summary(self, row: ImageRow, image_id: Digest) -> ImageSummary | None:
        """An image by its configuration alone; None for one of which a manifest has to be read, too.

        NotFoundError and IntegrityError as for one whose documents are all read, but that its manifest is there
        is all that is seen of it.
        """
        if not is_manifest(row.target.media_type):
            return None  # an index leads to one of several
        if not self._content.has(row.target):
            raise NotFoundError(f"blob {row.target.digest}: not in the store")
        config = parse_config(self._content.read(image_id, CONFIG_LIMIT))
        try:
            size = sum([self._bytes[diff_id] for diff_id in config.diff_ids])
        except KeyError:
            return None  # a layer is not here, and only the manifest says how large it is
        return ImageSummary(
            id=image_id,
            target=row.target,
            config=config,
            names=tuple(self._names.get(row.target.digest, ())),
            repo_digests=tuple(self._repo_digests.get(row.target.digest, ())),
            added=row.added,
            size=size,
        )
