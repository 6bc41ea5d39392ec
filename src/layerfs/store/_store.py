"""The facade: one object that has all of a store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from layerfs.blobs import NO_PROGRESS, Progress
from layerfs.content import ContentStore
from layerfs.digest import Digest
from layerfs.images import Image, ImageStore, ImageSummary, Removal
from layerfs.layers import LayerStore
from layerfs.metadata import Database
from layerfs.oci import Platform
from layerfs.snapshots import SnapshotStore
from layerfs.store._parts import Limits, Parts, make_parts
from layerfs.store._places import Places, default_sync, open_database

# What one command needs and another does not is imported in the methods: it decides how fast a short command starts.
if TYPE_CHECKING:
    from layerfs.build import BuildOptions, BuildResult
    from layerfs.build.check import Finding as BuildFinding
    from layerfs.build.keeping import BuildCacheStore
    from layerfs.containers import ContainerStore
    from layerfs.exchange import Pulled, Pushed
    from layerfs.gc import Swept
    from layerfs.layers import View
    from layerfs.native import Change
    from layerfs.sharing import FileSharing, LayerSharing
    from layerfs.store._checking import Finding
    from layerfs.store._images import Loaded
    from layerfs.store._keeping import Pruned, Usage
    from layerfs.store._mounts import MountInfo

__all__ = ["Store"]


class Store:
    """Images, layers and containers below one directory. Any number of threads and processes may use it.

    Made by ``Store.open``; a context manager.  Every method raises exceptions of ``layerfs.errors`` alone.
    """

    def __init__(self, parts: Parts, layer_format: str) -> None:
        self.parts = parts
        self.layer_format = layer_format
        self._containers: ContainerStore | None = None

    @classmethod
    def open(
        cls,
        root: Path | str | None = None,
        run: Path | str | None = None,
        *,
        layer_format: str = "auto",
        create: bool = True,
        sync: bool | None = None,
    ) -> Self:
        """Open the store at ``root``, and make it when there is none and ``create`` is on.

        ``run`` is where mounts are attached; it may be lost on a reboot. ``layer_format`` is ``erofs``, ``dir``, or
        ``auto``: what the store has, and for a new one the best that this host can do. Without ``sync`` the kernel
        decides when what was stored reaches the disk: faster, and not safe against a power cut (docs/storage.md);
        None: unless ``$LAYERFS_NO_SYNC`` is set.
        """
        sync = default_sync() if sync is None else sync
        places = Places.of(root, run)
        database, found, use = open_database(places, layer_format, create=create, sync=sync)
        places.make_run()
        return cls(make_parts(places, database, found, use, sync), found)

    @classmethod
    def rebuild_database(cls, root: Path | str | None = None, run: Path | str | None = None) -> str:
        """Make the database of a store anew from what is on disk and what of the old one can be read; what was done."""
        from layerfs.store._rebuilding import rebuild

        return rebuild(Places.of(root, run))

    # ---- parts ----

    @property
    def root(self) -> Path:
        """Where the store lies."""
        return self.parts.places.root

    @property
    def run_root(self) -> Path:
        """Where its mounts are attached."""
        return self.parts.places.run

    @property
    def content(self) -> ContentStore:
        """Blobs by digest."""
        return self.parts.content

    @property
    def layers(self) -> LayerStore:
        """Layers by diff ID."""
        return self.parts.layers

    @property
    def images(self) -> ImageStore:
        """Names and images."""
        return self.parts.images

    @property
    def snapshots(self) -> SnapshotStore:
        """Writable and read-only stacks of layers."""
        return self.parts.snapshots

    @property
    def database(self) -> Database:
        """The records."""
        return self.parts.database

    def close(self) -> None:
        """Unmount layers that are not in use any more, and let go of the database; again is allowed."""
        self.parts.snapshots.close()
        self.parts.database.close()
        self.parts.use.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # ---- images ----

    def import_image(
        self,
        source: Path | str | BinaryIO,
        reference: str | None = None,
        *,
        changes: Sequence[str] = (),
        message: str = "",
        platform: Platform | None = None,
        limits: Limits | None = None,
    ) -> Image:
        """An image of one layer from a root file system: a tar in any compression, or a directory."""
        from layerfs.store._images import import_image

        return import_image(
            self.parts, source, reference, changes=changes, message=message, platform=platform, limits=limits
        )

    def load(
        self,
        source: Path | str | BinaryIO,
        *,
        platform: Platform | None = None,
        progress: Progress = NO_PROGRESS,
        limits: Limits | None = None,
    ) -> list[Loaded]:
        """All images of an archive (docker-archive, OCI archive) or OCI layout directory."""
        from layerfs.store._images import load

        return load(self.parts, source, platform=platform, progress=progress, limits=limits)

    def save(
        self,
        references: Sequence[str],
        sink: Path | str | BinaryIO,
        *,
        format: str = "docker-archive",
        platform: Platform | None = None,
        progress: Progress = NO_PROGRESS,
    ) -> None:
        """Images into one archive: ``docker-archive`` (an OCI layout at once), ``oci-archive`` or ``oci-dir``."""
        from layerfs.store._images import save

        save(self.parts, references, sink, format=format, platform=platform, progress=progress)

    def remove_image(self, text: str, *, force: bool = False, prune: bool = True) -> list[Removal]:
        """Remove a name, or an image by its ID, and with ``prune`` what nothing else needs."""
        from layerfs.store._keeping import remove_image

        return remove_image(self.parts, text, force=force, prune=prune)

    # ---- registries ----

    def pull(
        self,
        reference: str,
        *,
        platform: Platform | None = None,
        all_platforms: bool = False,
        jobs: int = 4,
        progress: Progress = NO_PROGRESS,
        limits: Limits | None = None,
    ) -> Pulled:
        """Bring an image from its registry, unpacked while it arrives; what is here is not fetched."""
        from layerfs.exchange import pull

        limits = limits or Limits()
        return pull(
            self.parts,
            reference,
            platform=platform,
            all_platforms=all_platforms,
            jobs=jobs,
            max_bytes=limits.max_layer_bytes,
            max_entries=limits.max_layer_entries,
            max_metadata=limits.max_layer_metadata,
            progress=progress,
        )

    def pull_all_tags(
        self,
        repository: str,
        *,
        platform: Platform | None = None,
        all_platforms: bool = False,
        progress: Progress = NO_PROGRESS,
    ) -> Iterator[Pulled]:
        """Bring all tags of a repository, one after the other."""
        from layerfs.exchange import pull_all_tags

        return pull_all_tags(self.parts, repository, platform=platform, all_platforms=all_platforms, progress=progress)

    def push(
        self,
        image: str,
        remote: str | None = None,
        *,
        compression: str = "gzip",
        level: int | None = None,
        jobs: int = 4,
        progress: Progress = NO_PROGRESS,
    ) -> Pushed:
        """Send an image to ``remote``, or where its name says; layers without a blob are compressed on the way."""
        from layerfs.exchange import push

        return push(self.parts, image, remote, compression=compression, level=level, jobs=jobs, progress=progress)

    def build(self, options: BuildOptions) -> BuildResult:
        """Build an image from a Dockerfile; see ``layerfs.build``."""
        from layerfs.build import build
        from layerfs.store._builds import build_parts

        return build(build_parts(self.parts), options)

    def check_build(self, options: BuildOptions) -> tuple[list[BuildFinding], bool]:
        """What docker's linter warns of in a Dockerfile, and whether the file wants that to be an error."""
        from layerfs.build.building import check_build
        from layerfs.store._builds import build_parts

        return check_build(build_parts(self.parts), options)

    def build_cache(self) -> BuildCacheStore:
        """What builds keep for the next ones: to be listed and pruned."""
        from layerfs.build.keeping import BuildCacheStore
        from layerfs.store._builds import build_parts

        return BuildCacheStore(build_parts(self.parts))

    # ---- containers ----

    @property
    def containers(self) -> ContainerStore:
        """Containers and volumes."""
        if self._containers is None:
            from layerfs.containers import ContainerStore

            self._containers = ContainerStore(
                self.root,
                self.run_root,
                database=self.database,
                layers=self.layers,
                snapshots=self.snapshots,
                images=self.images,
                ingest=self.parts.ingest,
            )
        return self._containers

    def diff(self, a: str, b: str | None = None) -> Iterator[Change]:
        """What is different, sorted by path: of two containers, images or layers (by diff ID), from ``a`` to ``b``.

        With ``a`` alone: what a container changed in its image, or what an image's last layer changed in the others.
        """
        from layerfs.store._diff import diff

        return diff(self.parts, self.containers, a, b)

    def export(self, text: str, sink: BinaryIO) -> None:
        """Write the tree of a container, or of an image, as one flat tar."""
        from layerfs.store._diff import export

        export(self.parts, self.containers, text, sink)

    # ---- reading and mounting ----

    def view(self, text: str, platform: Platform | None = None) -> View:
        """The files of an image, or of a layer by its diff ID, without a mount or privilege; for a ``with``."""
        is_layer = text.startswith("sha256:") and len(text) == 71 and self.layers.has(Digest(text))
        return self.layers.view([Digest(text)] if is_layer else self.images.get(text, platform).diff_ids)

    def rootfs(
        self, image: str, target: Path | None = None, *, readonly: bool = False, platform: Platform | None = None
    ) -> AbstractContextManager[Path]:
        """An image's tree, mounted at ``target`` or elsewhere while a ``with`` lasts; changes to it go with it."""
        from layerfs.store._mounts import rootfs

        return rootfs(self.parts, image, target, readonly=readonly, platform=platform)

    def mount(self, text: str, target: Path | None = None) -> Path:
        """Mount a container, or an image read-only; the directory, which stays the same when it is done again."""
        from layerfs.store._mounts import mount

        return mount(self.parts, self.containers, text, target)

    def unmount(self, text: str | None = None, *, force: bool = False) -> list[str]:
        """Unmount an image or container, or all of them; their IDs."""
        from layerfs.store._mounts import unmount

        return unmount(self.parts, text, force=force)

    def mounts(self) -> list[MountInfo]:
        """What ``mount`` mounted."""
        from layerfs.store._mounts import mounts

        return mounts(self.parts)

    # ---- keeping ----

    def info(self) -> dict[str, Any]:
        """Facts about the store and its host, as a document."""
        from layerfs.store._info import info

        return info(self.parts, self.layer_format)

    def usage(self) -> Usage:
        """What takes how much on disk."""
        from layerfs.store._keeping import usage

        return usage(self.parts)

    def share_layers(self, references: Sequence[str] = ()) -> LayerSharing:
        """How images (none named: all) share whole layers."""
        from layerfs.sharing import share_layers

        return share_layers(self._chosen(references), self.layers)

    def share_files(
        self, references: Sequence[str] = (), *, minimum: int = 1, progress: Progress = NO_PROGRESS
    ) -> FileSharing:
        """Equal files in the layers of images (none named: all), each compared byte by byte."""
        from layerfs.sharing import share_files

        diff_ids = [diff_id for image in self._chosen(references) for diff_id in image.diff_ids]
        return share_files(self.layers, diff_ids, minimum=minimum, progress=progress)

    def _chosen(self, references: Sequence[str]) -> Sequence[ImageSummary]:
        return [self.images.get(reference) for reference in references] if references else self.images.list()

    def sweep(self, *, dry_run: bool = False) -> Swept:
        """Remove layers, blobs and litter that nothing names."""
        from layerfs.store._keeping import sweep_store

        if not dry_run:
            self.containers.reap()
        return sweep_store(self.parts, dry_run=dry_run)

    def prune_images(
        self,
        *,
        all_unused: bool = False,
        keep: Callable[[ImageSummary], bool] = lambda image: False,
        dry_run: bool = False,
        blobs: bool = False,
    ) -> Pruned:
        """Remove images without a name, or all that no container uses, except those to ``keep``."""
        from layerfs.store._keeping import prune_images

        if not dry_run:
            self.containers.reap()
        return prune_images(self.parts, all_unused=all_unused, keep=keep, dry_run=dry_run, blobs=blobs)

    def check(
        self, *, quick: bool = False, repair: bool = False, progress: Progress = NO_PROGRESS
    ) -> Iterator[Finding]:
        """What is wrong with the store, as it is found."""
        from layerfs.store._checking import check

        return check(self.parts, quick=quick, repair=repair, progress=progress)

    def migrate(self, layer_format: str, *, progress: Progress = NO_PROGRESS) -> int:
        """Keep layers in format ``erofs`` or ``dir`` from now on; how many were converted. InUseError while in use."""
        from layerfs.store._migrating import migrate

        self.containers.reap()
        count = migrate(self.parts, layer_format, progress=progress)
        self.parts = make_parts(self.parts.places, self.database, layer_format, self.parts.use, self.parts.sync)
        self.layer_format, self._containers = layer_format, None
        return count
