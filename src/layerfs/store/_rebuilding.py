"""A new database for a store whose old one is damaged: from what can be read of that, and from what lies on disk.

Layers say in their headers what they are, manifests and configurations what images consist of. Containers have their
record beside them. What only the database knew is which names point where: of those what can be read is kept. The old
file stays, as ``layerfs.db.damaged``.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec

from layerfs.containers.record import State, decode_config
from layerfs.content import ContentStore
from layerfs.digest import Digest
from layerfs.errors import ExistsError, InvalidInputError, LayerfsError, NotFoundError
from layerfs.fsutil import Ingest, sync_dir
from layerfs.images import ImageStore
from layerfs.layers import LayerStore
from layerfs.metadata import Database
from layerfs.oci import (
    CONFIG_LIMIT,
    MANIFEST_LIMIT,
    Descriptor,
    Index,
    Manifest,
    is_config,
    is_layer,
    parse_config,
    parse_manifest,
)
from layerfs.reference import Reference
from layerfs.store._places import Places, exclusive, layers_directory
from layerfs.unpack import record_layer

__all__ = ["rebuild"]


def rebuild(places: Places) -> str:
    """Replace the database; what was done, in words. InUseError while another command works with the store."""
    with exclusive(places, "rebuild the database"), Ingest(places.ingest).directory("rebuild") as work:
        for suffix in ("", "-wal"):
            with suppress(FileNotFoundError):
                shutil.copyfile(f"{places.database}{suffix}", work / f"old.db{suffix}")
        database = Database(work / "new.db")
        try:
            rows = database.salvage(work / "old.db")
            layers, images, containers = _Rebuild(places, database).run()
            database.checkpoint()
        finally:
            database.close()
        _replace(places.database, work / "new.db")
    return f"made anew with {rows} rows of the old one, {layers} layers, {images} images, {containers} containers"


def _replace(path: Path, new: Path) -> None:
    for suffix in ("", "-wal"):
        kept = path.with_name(f"{path.name}.damaged{suffix}")
        with suppress(FileNotFoundError):
            kept.unlink()
        with suppress(FileNotFoundError):
            os.link(f"{path}{suffix}", kept)
    for suffix in ("-wal", "-shm"):
        with suppress(FileNotFoundError):
            os.unlink(f"{path}{suffix}")
    os.rename(new, path)
    sync_dir(path.parent)


class _Rebuild:
    def __init__(self, places: Places, database: Database) -> None:
        self.places, self.database = places, database
        self.content = ContentStore(places.root / "blobs", places.ingest)
        self.images = ImageStore(self.content, database)

    def run(self) -> tuple[int, int, int]:
        layers = self._layers()
        self._drop_nonsense()
        images = sum(self._image(descriptor) for descriptor in list(self._documents()))
        self.database.forget_dangling()
        return layers, images, self._containers()

    def _layers(self) -> int:
        """By their headers; the format is the one that the layers have, where the setting is lost."""
        count = 0
        known = self.database.setting("layer_format")
        for name in (known,) if known in ("erofs", "dir") else ("erofs", "dir"):
            store = LayerStore(
                layers_directory(self.places, self.database), self.places.run / "layers", self.places.ingest, name
            )
            for diff_id in store.list():
                with suppress(LayerfsError):
                    record_layer(self.database, store.get(diff_id))
                    count += 1
            if count and name != known:
                self.database.set_setting("layer_format", name)
            if count:
                break
        if self.database.setting("layer_format") not in ("erofs", "dir"):
            self.database.set_setting("layer_format", "erofs")
        return count

    def _drop_nonsense(self) -> None:
        """Rows that were read, but are no names, or images that are not here."""
        for row in self.database.images():
            if not self._is_document(row.target):
                self.database.remove_image(row.target.digest)
        for snapshot in self.database.snapshots():
            if not (self.places.root / "snapshots" / snapshot.key).is_dir():
                self.database.remove_snapshot(snapshot.key)
        for container in self.database.containers():
            if not (self.places.root / "containers" / container.id).is_dir():
                self.database.remove_container(container.id)
        for name, _ in self.database.names():
            try:
                sane = str(Reference.parse(name)) == name
            except InvalidInputError:
                sane = False
            if not sane:
                self.database.remove_name(name)

    def _is_document(self, descriptor: Descriptor) -> bool:
        try:
            parse_manifest(self.content.read(descriptor.digest, MANIFEST_LIMIT), descriptor.media_type)
        except LayerfsError:
            return False
        return True

    def _documents(self) -> Iterator[Descriptor]:
        """What was recorded, then every other manifest that is not a part of those."""
        recorded = [row.target for row in self.database.images()]
        yield from recorded
        for digest in sorted(self.content.digests()):
            with suppress(LayerfsError):
                if self.database.image(digest) is not None or self.content.size(digest) > MANIFEST_LIMIT:
                    continue
                document = parse_manifest(self.content.read(digest, MANIFEST_LIMIT))
                kind = document.media_type
                if kind is not None and not self.database.is_image_blob(digest):
                    yield Descriptor(media_type=kind, digest=digest, size=self.content.size(digest))

    def _image(self, descriptor: Descriptor) -> bool:
        try:
            self.images.add(descriptor)
        except LayerfsError:
            return False
        self._layer_blobs(descriptor)
        return True

    def _layer_blobs(self, descriptor: Descriptor) -> None:
        """Which blob unpacks to which layer, as manifest and configuration say."""
        with suppress(LayerfsError):
            document = parse_manifest(self.content.read(descriptor.digest, MANIFEST_LIMIT), descriptor.media_type)
            if isinstance(document, Index):
                for child in document.manifests:
                    if self.content.has(child):
                        self._layer_blobs(child)
            elif isinstance(document, Manifest) and is_config(document.config.media_type):
                diff_ids = parse_config(self.content.read(document.config.digest, CONFIG_LIMIT)).diff_ids
                for layer, diff_id in zip(document.layers, diff_ids, strict=False):
                    if is_layer(layer.media_type) and layer.digest != diff_id:
                        self.database.add_layer_blob(layer.digest, diff_id, layer.size, layer.media_type)

    def _containers(self) -> int:
        """Those whose row is lost, from the record beside them."""
        known = {row.id for row in self.database.containers()}
        snapshots = {row.key for row in self.database.snapshots()}
        count = 0
        for place in sorted((self.places.root / "containers").iterdir()):
            upper = self.places.root / "snapshots" / place.name / "upper"
            if (place.name in known and place.name in snapshots) or not upper.is_dir():
                continue
            with suppress(OSError, LayerfsError):
                config = decode_config((place / "config.json").read_bytes(), place.name)
                if place.name not in snapshots:
                    self.database.add_snapshot(place.name, config.stack)
                if place.name not in known:
                    state = msgspec.to_builtins(State(status="exited"))
                    name = config.options.name or place.name[:12]
                    target, image_id = Digest(config.image_target), Digest(config.image_id)
                    try:
                        self.database.add_container(place.name, name, target, image_id, state)
                    except (ExistsError, NotFoundError):
                        self.database.add_container(place.name, place.name[:12], target, image_id, state)
                count += 1
        return count
