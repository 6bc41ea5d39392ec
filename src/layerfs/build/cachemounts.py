"""Cache mounts: directories that outlive a build, for package managers and compilers.

``ROOT/cache/mounts/<key>/data`` and a lock beside it; a record in the database has who it is for and when it was used.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import msgspec

from layerfs.errors import InUseError, NotFoundError, system_errors
from layerfs.fsutil import Lock, disk_usage, remove_tree
from layerfs.metadata import Database

__all__ = ["KIND", "CacheMount", "CacheMounts"]

KIND = "build-cache-mount"


class CacheMount(msgspec.Struct, frozen=True):
    """A cache mount as it is listed; ``used`` in seconds since 1970."""

    key: str
    id: str
    sharing: str
    size: int
    used: float
    in_use: bool


class CacheMounts:
    """The cache mounts of a store."""

    def __init__(self, root: Path, database: Database) -> None:
        self.root = root / "cache" / "mounts"
        self._database = database

    @contextmanager
    def open(self, id: str, sharing: str, seed: Path | None, mode: int, uid: int, gid: int) -> Iterator[Path]:
        """The directory of a mount, locked as ``sharing`` says: shared with all, locked waits, private takes another
        when it is in use. ``seed``: a tree that a new one begins with."""
        with ExitStack() as stack:
            key, lock = self._locked(id, sharing)
            stack.callback(lock.release)
            place = self.root / key
            with system_errors(f"make cache mount {id}"):
                if not (place / "data").exists():
                    self._make(place, seed, mode, uid, gid)
            self._database.put_record(KIND, key, {"id": id, "sharing": sharing})
            yield place / "data"

    def _locked(self, id: str, sharing: str) -> tuple[str, Lock]:
        for number in range(1000):
            text = f"{id}\0{number}" if number else id
            key = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]
            with system_errors(f"make cache mount {id}"):
                (self.root / key).mkdir(mode=0o700, parents=True, exist_ok=True)
            if sharing == "private":
                with suppress(InUseError):
                    return key, Lock(self.root / key / "lock", blocking=False).acquire()
                continue
            return key, Lock(self.root / key / "lock", shared=sharing == "shared").acquire()
        raise InUseError(f"cache mount {id}: a thousand of it are in use")

    def _make(self, place: Path, seed: Path | None, mode: int, uid: int, gid: int) -> None:
        fresh = place / f".new-{os.urandom(6).hex()}"
        if seed is not None:
            shutil.copytree(seed, fresh, symlinks=True)
        else:
            fresh.mkdir()
        os.chmod(fresh, mode)
        if os.geteuid() == 0:
            os.chown(fresh, uid, gid)
        try:
            os.rename(fresh, place / "data")
        except OSError:  # another has just made it
            remove_tree(fresh)

    def list(self) -> list[CacheMount]:
        """All of them, the least recently used first."""
        found = []
        for key, record, used in self._database.records(KIND):
            size = disk_usage(self.root / key)
            found.append(CacheMount(key, record["id"], record["sharing"], size, used, self._is_used(key)))
        return found

    def _is_used(self, key: str) -> bool:
        try:
            with Lock(self.root / key / "lock", blocking=False):
                return False
        except InUseError:
            return True
        except NotFoundError:
            return False

    def remove(self, key: str) -> None:
        """Remove one; InUseError while a build has it."""
        with suppress(NotFoundError), Lock(self.root / key / "lock", blocking=False):
            self._database.remove_record(KIND, key)
            with suppress(FileNotFoundError), system_errors(f"remove cache mount {key}"):
                remove_tree(self.root / key)
