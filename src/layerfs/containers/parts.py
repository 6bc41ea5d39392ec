"""What the operations on containers work with."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from layerfs.containers.record import Config, State, decode_config
from layerfs.errors import NotFoundError, system_errors
from layerfs.fsutil import Lock, write_atomic

# The rest is imported where it is needed: it decides how fast a short command starts.
if TYPE_CHECKING:
    from layerfs.containers.events import EventLog
    from layerfs.containers.support import SupportLayers
    from layerfs.containers.volumes import VolumeStore
    from layerfs.fsutil import Ingest
    from layerfs.images import ImageStore
    from layerfs.layers import LayerStore
    from layerfs.metadata import ContainerRow, Database
    from layerfs.runtime import Runtimes
    from layerfs.snapshots import SnapshotStore

__all__ = ["Parts", "is_rootless"]


def is_rootless() -> bool:
    """Whether this process can mount only in a user namespace of the container's."""
    return os.geteuid() != 0


class Parts:
    """The stores that containers need, and where a container's files are."""

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
        self.root = root
        self.run = run
        self.database = database
        self.layers = layers
        self.snapshots = snapshots
        self.images = images
        self.ingest = ingest

    @cached_property
    def runtimes(self) -> Runtimes:
        """What runs them."""
        from layerfs.runtime import Runtimes

        return Runtimes(self.run)

    @cached_property
    def events(self) -> EventLog:
        """What happened."""
        from layerfs.containers.events import EventLog

        return EventLog(self.run)

    @cached_property
    def volumes(self) -> VolumeStore:
        """Volumes by name."""
        from layerfs.containers.volumes import VolumeStore

        return VolumeStore(self.root / "volumes", self.database, self.ingest, self.snapshots.discard)

    @cached_property
    def support(self) -> SupportLayers:
        """Layers of mount points."""
        from layerfs.containers.support import SupportLayers

        return SupportLayers(self.layers, self.database, self.ingest)

    def directory(self, id: str) -> Path:
        """Where a container's own files are."""
        return Path(f"{self.root}/containers/{id}")

    def lock(self, id: str, *, blocking: bool = False) -> Lock:
        """The lock of a container: who holds it runs the container, or changes it."""
        return Lock(self.directory(id) / "lock", blocking=blocking)

    def config(self, id: str) -> Config:
        """Read a container's ``config.json``."""
        try:
            with open(self.directory(id) / "config.json", "rb") as file:
                return decode_config(file.read(), id)
        except FileNotFoundError:
            raise NotFoundError(f"container {id[:12]}: its config.json is not there") from None

    def write_config(self, config: Config) -> None:
        """Write ``config.json``, before the container has a row."""
        with system_errors(f"write the record of container {config.id[:12]}"):
            fd = os.open(
                self.directory(config.id) / "config.json", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600
            )
            with open(fd, "wb") as file:
                file.write(msgspec.json.encode(config, enc_hook=str))  # a Digest is a str of its own kind

    def replace_config(self, config: Config) -> None:
        """Write ``config.json`` of a container that is there."""
        encoded = msgspec.json.encode(config, enc_hook=str)
        write_atomic(self.directory(config.id) / "config.json", encoded, 0o600, durable=self.layers.sync)

    def state(self, row: ContainerRow) -> State:
        """The state in a row."""
        return msgspec.convert(row.state, State)

    def set_state(self, id: str, state: State) -> None:
        """Replace a container's state."""
        self.database.set_container_state(id, msgspec.to_builtins(state))
