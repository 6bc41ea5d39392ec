"""Cache mounts: directories that outlive a build, for package managers and compilers.

``ROOT/cache/mounts/<key>/data`` and a lock beside it; a record in the database has who it is for and when it was used.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import msgspec

from layerfs.build.export import write_tar, write_tree
from layerfs.errors import ExistsError, InUseError, NotFoundError, system_errors
from layerfs.fsutil import Lock, remove_tree
from layerfs.metadata import Database

__all__ = ["KIND", "CacheMount", "CacheMounts"]

KIND = "build-cache-mount"
_MOST = 1000


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
    def open(self, id: str, sharing: str, seed: int | None, mode: int, uid: int, gid: int) -> Iterator[Path]:
        """The directory of a mount, locked as ``sharing`` says: shared with all, locked waits, private takes another
        when it is in use. ``seed``: a directory whose content a new one begins with."""
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
        number = 0
        while number < _MOST:
            text = f"{id}\0{number}" if number else id
            key = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:32]
            with system_errors(f"make cache mount {id}"):
                (self.root / key).mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = Lock(self.root / key / "lock", shared=sharing == "shared", blocking=sharing != "private")
            try:
                lock.acquire()
            except InUseError:
                number += 1
                continue
            if (self.root / key / "lock").exists():
                return key, lock
            lock.release()  # it was removed while we waited
        raise InUseError(f"cache mount {id}: {_MOST} of it are in use")

    def _make(self, place: Path, seed: int | None, mode: int, uid: int, gid: int) -> None:
        fresh = place / f".new-{os.urandom(6).hex()}"
        if seed is not None:
            write_tree(seed, fresh, None, owners=os.geteuid() == 0)
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
            from layerfs.userns import usage_owned  # a build needs it not

            size = usage_owned(self.root / key)
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

    def export(self, id: str, sink: BinaryIO) -> None:
        """Write a cache mount as one tar; NotFoundError. Whoever writes in it meanwhile may be caught half way."""
        with self._locked_existing(id, shared=True) as place, system_errors(f"read cache mount {id}"):
            fd = os.open(place / "data", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                write_tar(fd, sink, None)
            finally:
                os.close(fd)

    def take(self, id: str, root: int) -> None:
        """Let a cache mount begin with the tree of a descriptor; ExistsError when there is one with this ID."""
        key, lock = self._locked(id, "locked")
        place = self.root / key
        fresh = place / f".new-{os.urandom(6).hex()}"
        try:
            if (place / "data").exists():
                raise ExistsError(f"import cache mount {id}: there is one already", hint="remove it: builder prune")
            write_tree(root, fresh, None, owners=True)
            with system_errors(f"make cache mount {id}"):
                os.rename(fresh, place / "data")
            self._database.put_record(KIND, key, {"id": id, "sharing": "shared"})
        finally:
            with suppress(FileNotFoundError):
                remove_tree(fresh)
            lock.release()

    @contextmanager
    def _locked_existing(self, id: str, *, shared: bool) -> Iterator[Path]:
        place = self.root / hashlib.sha256(id.encode("utf-8", "surrogateescape")).hexdigest()[:32]
        if not (place / "data").exists():
            raise NotFoundError(f"cache mount {id}: there is none")
        with Lock(place / "lock", shared=shared):
            yield place

    def remove(self, key: str) -> None:
        """Remove one; InUseError while a build has it."""
        with suppress(NotFoundError), Lock(self.root / key / "lock", blocking=False):
            self._database.remove_record(KIND, key)
            with suppress(FileNotFoundError), system_errors(f"remove cache mount {key}"):
                from layerfs.userns import remove_owned  # a build needs it not

                remove_owned(self.root / key)
