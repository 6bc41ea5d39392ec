"""What is kept of a container: ``Config`` (``containers/<id>/config.json``, written once) and ``State`` (its row)."""

from typing import Any, Literal

import msgspec

from layerfs.containers.options import CreateOptions, MountOption
from layerfs.digest import Digest
from layerfs.errors import IntegrityError
from layerfs.runtime import Identity

__all__ = ["Config", "MountUse", "State", "Status", "decode_config"]

Status = Literal["created", "running", "paused", "restarting", "removing", "exited", "dead"]


class MountUse(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A mount of a container as it was decided: ``source`` is a path of the host; ``volume`` names the volume,
    ``layers`` are those of an image, ``mode`` is that of a tmpfs."""

    option: MountOption
    source: str = ""
    is_dir: bool = True
    volume: str = ""
    anonymous: bool = False
    layers: tuple[str, ...] = ()
    mode: int | None = None


class Config(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All that does not change while a container is there.

    ``section`` is the run configuration in the form of an image's ``config``, the image's and the options merged;
    ``layers`` are the image's, base first; ``support`` is a layer above them with the mount points that it lacks.
    ``id_map``: a user namespace of its own, the host's number of its root and how many there are.
    """

    id: str
    created: float
    options: CreateOptions
    image_id: str
    image_target: str
    os: str
    architecture: str
    section: dict[str, Any]
    args: tuple[str, ...]
    hostname: str
    runtime: str
    layers: tuple[str, ...]
    support: str | None = None
    variant: str | None = None
    id_map: tuple[int, int] | None = None
    mounts: tuple[MountUse, ...] = ()

    @property
    def stack(self) -> list[Digest]:
        """The layers that its snapshot was made on, base first."""
        return [Digest(text) for text in (*self.layers, *((self.support,) if self.support else ()))]

    @property
    def diff_ids(self) -> list[Digest]:
        """The layers of its image, base first."""
        return [Digest(text) for text in self.layers]


class State(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What changes. Times are seconds since 1970, 0 for never; ``process`` is the first one of the container.

    ``supervised``: a supervisor keeps it, and its ``status.json`` says more than this; ``stopped``: by a user, so that
    ``unless-stopped`` does not start it again.
    ``interrupted``: the machine stopped while it ran. ``stacked``: layers of commits that the next one goes on from.
    ``fleeting``: the container belongs to the command that made it, and goes with it.
    """

    status: Status = "created"
    auto_remove: bool = False
    fleeting: bool = False
    supervised: bool = False
    paused: bool = False
    stopped: bool = False
    interrupted: bool = False
    process: Identity | None = None
    exit_code: int = 0
    error: str = ""
    started: float = 0.0
    finished: float = 0.0
    volumes: tuple[str, ...] = ()
    stacked: tuple[str, ...] = ()
    restarts: int = 0
    health: str = "none"
    oom_killed: bool = False


def decode_config(data: bytes, id: str) -> Config:
    """Read ``config.json``; IntegrityError when it is damaged."""
    try:
        return msgspec.json.decode(data, type=Config)
    except msgspec.DecodeError as exc:
        raise IntegrityError(f"container {id[:12]}: its config.json is damaged: {exc}") from exc
