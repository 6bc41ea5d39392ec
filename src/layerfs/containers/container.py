"""``Container``: one container as an object, and ``ContainerStore``: those of a store."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from layerfs.commit import CommitOptions
from layerfs.containers.committing import Committed, commit_container
from layerfs.containers.creating import create_container
from layerfs.containers.inspecting import inspect_container
from layerfs.containers.merged import container_changes, export_tree, merged, stack_changes
from layerfs.containers.names import check_name
from layerfs.containers.options import CreateOptions
from layerfs.containers.parts import Parts
from layerfs.containers.record import Config, MountUse, State, Status
from layerfs.containers.running import reap, remove_all, run_in_foreground
from layerfs.containers.starting import refuse_unsupported
from layerfs.containers.volumes import VolumeStore
from layerfs.digest import Digest
from layerfs.errors import InUseError, NotFoundError, system_errors
from layerfs.fsutil import Ingest, Lock, disk_usage
from layerfs.images import ImageStore
from layerfs.layers import LayerStore
from layerfs.metadata import ContainerRow, Database
from layerfs.native import Change
from layerfs.runtime import RuntimeChoice, is_alive, signal_process, wait_gone
from layerfs.snapshots import SnapshotStore

__all__ = ["Container", "ContainerStore"]

_FORCE_SECONDS = 30.0


class Container:
    """A container. What it shows is of the moment it was looked up; ``refresh`` looks again."""

    def __init__(self, parts: Parts, row: ContainerRow) -> None:
        self._parts = parts
        self._row = row
        self._state = parts.state(row)

    # ---- what it is ----

    @property
    def id(self) -> str:
        """64 hexadecimal digits."""
        return self._row.id

    @property
    def name(self) -> str:
        """Its name, without a slash."""
        return self._row.name

    @cached_property
    def config(self) -> Config:
        """All that does not change; read when it is first asked for."""
        return self._parts.config(self.id)

    @property
    def state(self) -> State:
        """All that changes."""
        return self._state

    @property
    def image(self) -> str:
        """The image as it was named."""
        return self.config.options.image

    @property
    def image_id(self) -> Digest | None:
        """The image ID."""
        return self._row.image_id

    @property
    def created(self) -> float:
        """Seconds since 1970."""
        return self._row.created

    @property
    def command(self) -> tuple[str, ...]:
        """What it executes."""
        return self.config.args

    @property
    def labels(self) -> dict[str, str]:
        """Labels of the image and of its own."""
        return dict(self.config.section.get("Labels") or {})

    @property
    def mounts(self) -> tuple[MountUse, ...]:
        """What is mounted in it."""
        return self.config.mounts

    @property
    def status(self) -> Status:
        """``created``, ``running``, ``paused``, ``exited`` and so on."""
        return self._state.status

    @property
    def exit_code(self) -> int:
        """Of its last run; 0 before one."""
        return self._state.exit_code

    @property
    def pid(self) -> int:
        """Its first process as the host numbers it; 0 when it does not run."""
        return self._state.process.pid if self._state.process is not None else 0

    @property
    def started_at(self) -> float:
        """Seconds since 1970; 0 for never."""
        return self._state.started

    @property
    def finished_at(self) -> float:
        """Seconds since 1970; 0 for never."""
        return self._state.finished

    @property
    def directory(self) -> Path:
        """Where its own files are."""
        return self._parts.directory(self.id)

    def size(self) -> tuple[int, int]:
        """Bytes of its changes on disk, and of all files that it sees (changes, and its layers' tars)."""
        changes = disk_usage(self._parts.snapshots.upper(self.id))
        return changes, changes + sum(self._parts.layers.get(diff_id).size for diff_id in self.config.diff_ids)

    def inspect(self) -> dict[str, object]:
        """All of it as docker's JSON has it."""
        return inspect_container(self._parts, self._row, self.config, self._state)

    def refresh(self) -> "Container":
        """The container as it is now; NotFoundError when it is gone."""
        row = self._parts.database.container(self.id)
        if not reap(self._parts, row):
            raise NotFoundError(f"container {self.id[:12]}: no such container")
        self._row = self._parts.database.container(self.id)
        self._state = self._parts.state(self._row)
        return self

    # ---- what it does ----

    def run(self, stdio: tuple[int, int, int] = (0, 1, 2), *, sig_proxy: bool = True) -> int:
        """Start it and wait for its end, with these descriptors; its exit code. One that is to be removed then is.

        InUseError when it runs. The error of a command that cannot be executed has the exit code 126 or 127.
        ``sig_proxy``: signals of this process are handed on, when this is its main thread.
        """
        with self._locked("start"):
            self.refresh_locked()
            if self._state.process is not None and is_alive(self._state.process):
                raise InUseError(f"start container {self.name}: it is running")
            return self._run_locked(stdio, sig_proxy=sig_proxy)

    def refresh_locked(self) -> None:
        """Read the state again; whoever calls has the lock."""
        self._row = self._parts.database.container(self.id)
        self._state = self._parts.state(self._row)

    def _run_locked(self, stdio: tuple[int, int, int], *, sig_proxy: bool) -> int:
        try:
            return run_in_foreground(self._parts, self.config, stdio, sig_proxy=sig_proxy)
        finally:
            if self._state.auto_remove:
                remove_all(self._parts, self.id)
            else:
                self.refresh_locked()

    def kill(self, number: int = 9) -> None:
        """Send a signal to its first process; InUseError when it does not run."""
        process = self.refresh()._state.process
        if process is None or not signal_process(process, number):
            raise InUseError(f"kill container {self.name}: it is not running")

    def changes(self) -> Iterator[Change]:
        """What it changed in its image's tree, sorted by path."""
        return container_changes(self._parts, self.config)

    def export(self, sink: BinaryIO) -> None:
        """Write its tree as one flat tar. What is mounted in it is left out."""
        for piece in export_tree(self._parts, self.config):
            sink.write(piece)

    @contextmanager
    def tree(self) -> Iterator[int]:
        """A descriptor of the root of its tree, to be read; see ``export``."""
        with merged(self._parts, self.config) as root:
            yield root

    def commit(
        self,
        reference: str | None = None,
        *,
        author: str = "",
        message: str = "",
        changes: Sequence[str] = (),
        squash: bool = False,
        format: str = "oci",
    ) -> Committed:
        """A new image of its image and its changes; with ``squash`` of one layer. What is mounted is left out."""
        options = CommitOptions(
            author=author,
            message=message,
            changes=tuple(changes),
            created_by=" ".join(self.config.section.get("Cmd") or ()),
            format=format,
        )
        return commit_container(self._parts, self.config, options, reference, squash=squash)

    def rename(self, name: str) -> None:
        """Give it another name; ExistsError when that is taken."""
        self._parts.database.rename_container(self.id, check_name(name))
        self._row = self._parts.database.container(self.id)

    def remove(self, *, force: bool = False, volumes: bool = False) -> None:
        """Remove it and its changes; with ``volumes`` also those that it brought.

        InUseError when it runs, or with ``force`` it is killed.
        """
        deadline = time.monotonic() + _FORCE_SECONDS
        while True:
            try:
                with self._locked("remove"):
                    self.refresh_locked()
                    process = self._state.process
                    if process is not None and is_alive(process):
                        if not force:
                            raise self._in_use("remove")
                        signal_process(process, 9)
                        wait_gone(process, _FORCE_SECONDS)
                    self._release()
                    remove_all(self._parts, self.id, volumes=volumes or self._state.auto_remove)
                    return
            except InUseError:
                if not force or time.monotonic() > deadline:
                    raise
            except NotFoundError:  # its keeper was faster
                return
            with suppress(InUseError, NotFoundError):
                self.kill()
            time.sleep(0.005)

    def _release(self) -> None:
        if self._parts.snapshots.row(self.id).mounted == "":
            self._parts.snapshots.release(self.id)

    def _locked(self, verb: str) -> Lock:
        if not self.directory.is_dir():
            raise NotFoundError(f"container {self.id[:12]}: no such container")
        lock = self._parts.lock(self.id)
        try:
            return _Held(lock.acquire())
        except InUseError:
            raise self._in_use(verb) from None

    def _in_use(self, verb: str) -> InUseError:
        return InUseError(f"{verb} container {self.name}: it is running", hint="stop it first, or use --force")


class _Held(Lock):
    """A lock that is held already, for a ``with``."""

    def __init__(self, lock: Lock) -> None:
        self._lock = lock

    def __enter__(self) -> "_Held":
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()


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

    def runtime_choice(self) -> RuntimeChoice:
        """What ``--runtime auto`` takes here, and why."""
        return self._parts.runtimes.choice()

    def create(self, options: CreateOptions) -> Container:
        """Make a container; it is ``created`` and does not run."""
        refuse_unsupported(options)
        id, lock = create_container(self._parts, options)
        lock.release()
        return Container(self._parts, self._parts.database.container(id))

    def run(
        self, options: CreateOptions, stdio: tuple[int, int, int] = (0, 1, 2), *, sig_proxy: bool = True
    ) -> tuple[Container, int]:
        """Make a container, run it to its end and, where ``auto_remove`` says so, remove it; its exit code."""
        with self.starting(options) as container:
            return container, container._run_locked(stdio, sig_proxy=sig_proxy)

    @contextmanager
    def starting(self, options: CreateOptions) -> Iterator[Container]:
        """A new container that goes with this process when it is killed, if it is to be removed in the end."""
        refuse_unsupported(options)
        id, lock = create_container(self._parts, options, fleeting=options.auto_remove)
        try:
            yield Container(self._parts, self._parts.database.container(id))
        finally:
            lock.release()

    def get(self, text: str) -> Container:
        """A container by name, ID or the beginning of its ID; NotFoundError."""
        row = self._parts.database.container(text.removeprefix("/"))
        return Container(self._parts, row).refresh()

    def list(self) -> "Containers":
        """All containers, the newest first."""
        rows = self._parts.database.containers()
        kept = [row for row in rows if self._needs_no_look(row) or reap(self._parts, row)]
        if len(kept) == len(rows) and all(map(self._needs_no_look, rows)):
            return [Container(self._parts, row) for row in rows]
        return [Container(self._parts, row) for row in self._parts.database.containers()]

    def _needs_no_look(self, row: ContainerRow) -> bool:
        return row.state.get("status", "created") not in ("running", "paused") and not row.state.get("fleeting")

    def differences(self, base: Sequence[Digest], target: Sequence[Digest]) -> Iterator[Change]:
        """What makes one stack of layers (base first) into another, sorted by path."""
        return stack_changes(self._parts, base, target)

    def reap(self) -> None:
        """Set right what killed processes left: containers that ended unseen, those that were to be removed."""
        for row in self._parts.database.containers():
            if not self._needs_no_look(row):
                reap(self._parts, row)
        self._sweep_directories()

    def _sweep_directories(self) -> None:
        """Directories of containers that never came to be."""
        known = {row.id for row in self._parts.database.containers()}
        with system_errors("sweep containers"), suppress(FileNotFoundError):
            for entry in list(os.scandir(self._parts.root / "containers")):
                if entry.name in known:
                    continue
                with suppress(InUseError, NotFoundError), self._parts.lock(entry.name):
                    with suppress(NotFoundError):
                        self._parts.database.container(entry.name)
                        continue
                    remove_all(self._parts, entry.name)


Containers = list[Container]
