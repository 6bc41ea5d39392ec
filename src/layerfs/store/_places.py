"""Where a store lies, and how it is made and opened (docs/storage.md)."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

import msgspec

from layerfs.errors import InUseError, InvalidInputError, NotFoundError, native_error
from layerfs.fsutil import Lock, sync_dir
from layerfs.metadata import Database

__all__ = [
    "Places",
    "default_root",
    "default_run",
    "default_sync",
    "exclusive",
    "layers_directory",
    "open_database",
]

_DIRECTORIES = (
    "blobs",
    "blobs/sha256", "blobs/sha512", "layers",
    "layers/sha256", "layers/sha512", "snapshots", "containers", "volumes", "ingest",
)  # fmt: skip
_USE = "lock-store"
_USE_SECONDS = 3.0
"""How long a command is waited for: what a container that ended leaves to do takes less."""
_RUN_DIRECTORIES = ("layers", "mounts", "containers")


def default_root() -> Path:
    """``$LAYERFS_ROOT``, else ``/var/lib/layerfs`` for root and a place in the home directory for others."""
    if chosen := os.environ.get("LAYERFS_ROOT"):
        return Path(chosen).absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/layerfs")
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share").absolute() / "layerfs"


def default_run(root: Path) -> Path:
    """``$LAYERFS_RUN``, else ``/run/layerfs`` for root and ``$XDG_RUNTIME_DIR/layerfs`` for others.

    A store elsewhere than in the default place has its own, so that two stores never share mounts.
    """
    if chosen := os.environ.get("LAYERFS_RUN"):
        return Path(chosen).absolute()
    base = Path("/run") if os.geteuid() == 0 else Path(os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/run-{os.getuid()}")
    if root in (Path("/var/lib/layerfs"), Path.home() / ".local/share/layerfs"):
        return base / "layerfs"
    return base / "layerfs" / ("root" + str(root).replace("-", "--").replace("/", "-"))


def default_sync() -> bool:
    """Whether what is stored is on the disk before it is said to be there: unless ``$LAYERFS_NO_SYNC`` is set."""
    return not os.environ.get("LAYERFS_NO_SYNC")


class Places(msgspec.Struct, frozen=True):
    """The directories of a store: ``root`` outlives a reboot, ``run`` does not."""

    root: Path
    run: Path

    @classmethod
    def of(cls, root: Path | str | None, run: Path | str | None) -> Self:
        """The given ones, and for None those that are usual."""
        place = Path(root).absolute() if root is not None else default_root()
        return cls(place, Path(run).absolute() if run is not None else default_run(place))

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.root / "layerfs.db"

    @property
    def ingest(self) -> Path:
        """What is being written and not yet visible."""
        return self.root / "ingest"

    @property
    def readonly(self) -> bool:
        """Whether nothing can be written there."""
        return not os.access(self.root, os.W_OK)

    def make(self) -> None:
        """Make what is missing. Others than the owner are kept out: layers have setuid programs in them."""
        try:
            if not self.readonly or not self.root.exists():
                self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
                for name in _DIRECTORIES:
                    (self.root / name).mkdir(mode=0o700, parents=True, exist_ok=True)
                for place in (self.root / "blobs", self.root / "layers", self.root, self.root.parent):
                    sync_dir(place)
        except OSError as exc:
            raise native_error(exc, f"create store {self.root}") from exc

    def make_run(self) -> None:
        """Make what a reboot takes away."""
        try:
            self.run.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self.run.stat().st_uid != os.geteuid():
                raise InvalidInputError(
                    f"run directory {self.run}: it belongs to somebody else", hint="give another one: --run"
                )
            for name in _RUN_DIRECTORIES:
                (self.run / name).mkdir(mode=0o700, exist_ok=True)
        except OSError as exc:
            raise native_error(exc, f"create {self.run}") from exc


def layers_directory(places: Places, database: Database) -> Path:
    """Where the layers are: the database says it, so that a change of their format is one transaction."""
    return places.root / (database.setting("layers") or "layers")


@contextmanager
def exclusive(places: Places, what: str) -> Iterator[None]:
    """Nobody else has the store open meanwhile; InUseError when somebody has for some seconds."""
    deadline = time.monotonic() + _USE_SECONDS
    while True:
        try:
            lock = Lock(places.ingest / _USE, blocking=False).acquire()
            break
        except InUseError:
            if time.monotonic() > deadline:
                raise InUseError(
                    f"{what}: another command works with the store", hint="wait until it has ended"
                ) from None
            time.sleep(0.05)
    try:
        yield
    finally:
        lock.release()


def open_database(places: Places, layer_format: str, *, create: bool, sync: bool = True) -> tuple[Database, str, Lock]:
    """The database, the store's layer format, and the lock that says that the store is in use.

    ``layer_format`` is ``auto``, ``erofs`` or ``dir``. NotFoundError when there is no store and ``create`` is off,
    InvalidInputError when the store has another format than the one asked for.
    """
    if layer_format not in ("auto", "erofs", "dir"):
        raise InvalidInputError(f"layer format {layer_format!r}: not known", hint="there are auto, erofs and dir")
    if not places.database.exists():
        if not create:
            raise NotFoundError(f"store {places.root}: there is none")
        _create(places, layer_format)
    use = Lock(places.ingest / _USE, shared=True)
    if not places.readonly:
        use.acquire()
    try:
        database = Database(places.database, readonly=places.readonly, sync=sync)
        found = database.setting("layer_format")
    except BaseException:
        use.release()
        raise
    if found is None:
        database.close()
        raise NotFoundError(f"store {places.root}: {places.database} is not the database of a store")
    if layer_format not in ("auto", found):
        database.close()
        raise InvalidInputError(
            f"store {places.root}: it has layer format {found}, not {layer_format}",
            hint="give another --root, or move it: layerfs system migrate",
        )
    return database, found, use


def _create(places: Places, layer_format: str) -> None:
    """A new store; of two processes that make one at the same time the second finds it."""
    places.make()
    with Lock(places.root / "ingest" / "lock-create"):
        if places.database.exists():
            return
        # The name appears when the format is recorded: who opens it sees a whole store.
        _remove_new(places, ("", "-wal", "-shm"))  # of a command that failed or was killed
        database = Database(places.root / "ingest" / "new.db")
        try:
            if layer_format == "auto":
                from layerfs.layers import probe_format  # only a new store is asked what this host can do

                layer_format = probe_format(places.root)
            database.set_setting("layer_format", layer_format)
            database.checkpoint()
        finally:
            database.close()
        os.rename(places.root / "ingest" / "new.db", places.database)
        sync_dir(places.root)
        _remove_new(places, ("-wal", "-shm"))


def _remove_new(places: Places, suffixes: tuple[str, ...]) -> None:
    for name in ("reserve", *(f"new.db{suffix}" for suffix in suffixes)):
        with suppress(FileNotFoundError):
            os.unlink(places.root / "ingest" / name)
