"""``ContainerStore``: the containers of a store, and its volumes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from layerfs.containers.container import Container
from layerfs.containers.facts import needs_no_look
from layerfs.containers.living import LIVE
from layerfs.containers.options import CreateOptions
from layerfs.containers.parts import Parts
from layerfs.digest import Digest
from layerfs.errors import InUseError, NotFoundError, system_errors
from layerfs.late import LateModule

if TYPE_CHECKING:
    from layerfs.containers import bundle, creating, merged, running, starting
    from layerfs.containers.bundle import Bundle
    from layerfs.containers.events import Event
    from layerfs.containers.volumes import VolumeStore
    from layerfs.fsutil import Ingest
    from layerfs.images import ImageStore
    from layerfs.layers import LayerStore
    from layerfs.metadata import Database
    from layerfs.native import Change
    from layerfs.snapshots import SnapshotStore
else:  # what one verb needs, and the next does not
    bundle, creating, merged, running, starting = (
        LateModule(f"layerfs.containers.{name}") for name in ("bundle", "creating", "merged", "running", "starting")
    )

__all__ = ["ContainerStore"]

_BEING_MADE = 60.0
"""Seconds in which a directory without a container may be one that is just being made."""


class ContainerStore:
    """The containers of a store, and its volumes."""

    def __init__(
        self,
        root: Path,
        run: Path,
        *,
        database: Database,
        layers: LayerStore,
        snapshots: SnapshotStore,
        images: ImageStore,
        ingest: Ingest,
    ) -> None:
        """``root`` and ``run`` are those of the store."""
        self._parts = Parts(
            root, run, database=database, layers=layers, snapshots=snapshots, images=images, ingest=ingest
        )

    @property
    def volumes(self) -> VolumeStore:
        """Volumes by name."""
        return self._parts.volumes

    # ---- making ----

    def create(self, options: CreateOptions) -> Container:
        """Make a container; it is ``created`` and does not run."""
        with self._created(options, fleeting=False) as container:
            return container

    def run(
        self,
        options: CreateOptions,
        stdio: tuple[int, int, int] = (0, 1, 2),
        *,
        sig_proxy: bool = True,
        detach_keys: str = "",
    ) -> tuple[Container, int | None]:
        """Make a container, run it to its end and, where ``auto_remove`` says so, remove it; its exit code.

        See ``Container.run``.
        """
        if detach_keys:  # nothing is made with keys that are none
            from layerfs.runtime import parse_keys

            parse_keys(detach_keys)
        with self.starting(options) as container:
            streams = options.attach or ("stdin", "stdout", "stderr")
            wait = container.run_locked(stdio, streams=streams, sig_proxy=sig_proxy, detach_keys=detach_keys)
        return container, wait()

    @contextmanager
    def starting(self, options: CreateOptions) -> Iterator[Container]:
        """A new container, whose lock is held; with ``auto_remove`` it goes with this process when that is killed."""
        with self._created(options, fleeting=options.auto_remove) as container:
            yield container

    @contextmanager
    def _created(self, options: CreateOptions, *, fleeting: bool) -> Iterator[Container]:
        starting.refuse_unsupported(options)
        config, lock = creating.create_container(self._parts, options, fleeting=fleeting)
        try:
            container = Container(self._parts, self._parts.database.container(config.id), config=config)
            self._parts.events.add(
                "container", "create", config.id, {**container.labels, "image": options.image, "name": container.name}
            )
            yield container
        finally:
            lock.release()

    def start(self, options: CreateOptions) -> Container:
        """Make a container and start it under a supervisor, as ``run -d``. One that does not start and is to be
        removed in the end is removed."""
        container = self.create(options)
        try:
            container.start()
        except BaseException:
            if options.auto_remove:
                container.remove(force=True)
            raise
        return container

    def bundle(self, options: CreateOptions, directory: Path, *, mounted: bool = True) -> tuple[Container, Bundle]:
        """A container for a runtime of the user's own: an OCI bundle in ``directory``, which is new or empty.

        Its root is mounted there, or ``Bundle.mounts`` has the commands for that.
        """
        container = self.create(options)
        try:
            with container.locked("bundle"):
                return container, bundle.write_bundle(self._parts, container.config, directory, mounted=mounted)
        except BaseException:
            container.remove()
            raise

    # ---- finding ----

    def get(self, text: str) -> Container:
        """A container by name, ID or the beginning of its ID; NotFoundError."""
        row = self._parts.database.container(text.removeprefix("/"))
        return Container(self._parts, row, text).refresh()

    def list(self) -> Containers:
        """All containers, the newest first."""
        rows = self._parts.database.containers()
        if all(map(needs_no_look, rows)):
            return [Container(self._parts, row) for row in rows]
        for row in rows:
            if not needs_no_look(row):
                running.reap(self._parts, row)
        return [Container(self._parts, row) for row in self._parts.database.containers()]

    def events(
        self, *, since: float | None = None, until: float | None = None, follow: Callable[[], bool] | None = None
    ) -> Iterator[Event]:
        """What happened to containers: from ``since`` on, and while ``follow`` says so what is to come."""
        return self._parts.events.read(since=since, until=until, follow=follow)

    def differences(self, base: Sequence[Digest], target: Sequence[Digest]) -> Iterator[Change]:
        """What makes one stack of layers (base first) into another, sorted by path."""
        return merged.stack_changes(self._parts, base, target)

    # ---- keeping ----

    def resume(self) -> Containers:
        """After a reboot: start what ran when the machine stopped, where its restart policy wants that."""
        started = []
        for container in self.list():
            state, policy = container.state, container.config.options.restart.policy
            if not state.interrupted or policy not in ("always", "unless-stopped"):
                continue
            if policy == "unless-stopped" and state.stopped:
                continue
            with suppress(InUseError, NotFoundError):
                container.start()
                started.append(container)
        return started

    def settle(self, text: str) -> None:
        """Set one container right after its end; no error when it is not there."""
        with suppress(NotFoundError):
            running.reap(self._parts, self._parts.database.container(text))

    def reap(self) -> None:
        """Set right what ended, and what killed processes left."""
        for row in self._parts.database.containers():
            if not needs_no_look(row):
                running.reap(self._parts, row)
        self._sweep_directories()

    def prune(self, *, keep: Callable[[Container], bool] = lambda container: False, dry_run: bool = False) -> Freed:
        """Remove containers that do not run, but those to ``keep``; ID to bytes of their changes."""
        removed: Freed = {}
        for container in self.list():
            if container.status in LIVE or keep(container):
                continue
            with suppress(InUseError, NotFoundError):
                size = container.size()[0]
                if not dry_run:
                    container.remove()
                removed[container.id] = size
        if not dry_run:
            self._forget_support()
        return removed

    def _forget_support(self) -> None:
        needed = {container.config.support for container in self.list() if container.config.support}
        stacks = {image.diff_ids for image in self._parts.images.list()}
        self._parts.support.prune({Digest(text) for text in needed}, stacks)

    def _sweep_directories(self) -> None:
        """Directories of containers that never came to be."""
        known = {row.id for row in self._parts.database.containers()}
        with system_errors("sweep containers"), suppress(FileNotFoundError):
            for name in os.listdir(self._parts.root / "containers"):
                place = self._parts.directory(name)
                with suppress(FileNotFoundError):
                    if name in known or time.time() - place.stat().st_mtime < _BEING_MADE:
                        continue
                with suppress(InUseError, NotFoundError), self._parts.lock(name):
                    if not self._is_known(name):
                        running.remove_all(self._parts, name)

    def _is_known(self, id: str) -> bool:
        try:
            self._parts.database.container(id)
        except NotFoundError:
            return False
        return True


Containers = list[Container]
Freed = dict[str, int]
