"""``ContainerFacts``: what is known of a container, as it was when it was looked up."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

from layerfs.containers.living import LIVE, live_state
from layerfs.containers.parts import Parts
from layerfs.containers.record import Config, MountUse, State, Status
from layerfs.digest import Digest
from layerfs.errors import NotFoundError
from layerfs.fsutil import file_sizes
from layerfs.late import LateModule
from layerfs.metadata import ContainerRow

if TYPE_CHECKING:
    from layerfs.containers import inspecting, running
else:
    inspecting, running = LateModule("layerfs.containers.inspecting"), LateModule("layerfs.containers.running")

__all__ = ["ContainerFacts", "needs_no_look"]


def needs_no_look(row: ContainerRow) -> bool:
    """Whether a container is as its row says, because nobody keeps it."""
    return row.state.get("status", "created") not in LIVE and not row.state.get("fleeting")


class ContainerFacts:
    """What a container is, and how it is; ``refresh`` looks again."""

    def __init__(self, parts: Parts, row: ContainerRow, given: str = "", *, config: Config | None = None) -> None:
        """``given``: as its user named it, by name or ID. ``config``: for who has it already."""
        if config is not None:
            self.__dict__["config"] = config
        self._parts = parts
        self._given = given or row.name
        self._row = row
        self._state = live_state(parts, row.id, parts.state(row))[0]

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
        """``created``, ``running``, ``paused``, ``restarting``, ``exited``."""
        return self._state.status

    @property
    def health(self) -> str:
        """``none``, ``starting``, ``healthy`` or ``unhealthy``."""
        return self._state.health

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
    def logged(self) -> bool:
        """Whether what it writes is kept."""
        return self.config.options.log_options.get("driver") != "none"

    @property
    def directory(self) -> Path:
        """Where its own files are."""
        return self._parts.directory(self.id)

    def size(self) -> tuple[int, int]:
        """Bytes in the files that it changed, and in all that it sees (those, and its layers' tars)."""
        changes = file_sizes(self._parts.snapshots.upper(self.id))
        return changes, changes + sum(self._parts.layers.get(diff_id).size for diff_id in self.config.diff_ids)

    def inspect(self) -> dict[str, object]:
        """All of it as docker's JSON has it."""
        return inspecting.inspect_container(self._parts, self._row, self.config, self._state)

    def refresh(self) -> Self:
        """The container as it is now; NotFoundError when it is gone."""
        row = self._parts.database.container(self.id)
        if not needs_no_look(row) and not running.reap(self._parts, row):
            raise NotFoundError(f"container {self.id[:12]}: no such container")
        self._look()
        return self

    def _look(self) -> None:
        self._row = self._parts.database.container(self.id)
        self._state = live_state(self._parts, self.id, self._parts.state(self._row))[0]
