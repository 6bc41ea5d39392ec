"""Volumes: directories ``ROOT/volumes/<name>/_data`` that outlive containers, and their records in the database."""

import errno
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from layerfs.errors import InUseError, InvalidInputError, NativeError, NotFoundError, system_errors
from layerfs.fsutil import Ingest, Lock
from layerfs.metadata import Database
from layerfs.native import Differ, Unpacker
from layerfs.runtime import open_beneath
from layerfs.userns import owned, remove_owned, usage_owned

__all__ = ["Volume", "VolumeStore"]

_KIND = "volume"
_NAME = r"[a-zA-Z0-9][a-zA-Z0-9_.-]{1,254}"
_PIECE = 1 << 20


class Volume(msgspec.Struct, frozen=True):
    """A volume; ``mountpoint`` is the directory of its data, ``anonymous`` one that a container brought."""

    name: str
    mountpoint: Path
    created: float
    labels: dict[str, str]
    anonymous: bool = False

    def is_empty(self) -> bool:
        """Whether nothing is in it; OSError."""
        return owned(self._is_empty)

    def _is_empty(self) -> bool:
        with os.scandir(self.mountpoint) as entries:
            return next(entries, None) is None


# Inside the class ``list`` is its method.
Volumes = list[Volume]
Names = list[str]


class VolumeStore:
    """The volumes below ``root``."""

    def __init__(self, root: Path, database: Database, ingest: Ingest, discard: Callable[[Path], None]) -> None:
        """``discard`` lets a directory of the store's file system go in the background."""
        self.root = root
        self._database = database
        self._ingest = ingest
        self._discard = discard

    def create(
        self, name: str | None = None, *, labels: Mapping[str, str] | None = None, anonymous: bool = False
    ) -> Volume:
        """A volume by this name, the one that is there where there is one; without a name a new one."""
        name = name or os.urandom(32).hex()
        if re.fullmatch(_NAME, name) is None:
            raise InvalidInputError(
                f"volume name {name!r}: not a name", hint="wanted are letters, digits, '_', '.' and '-', two or more"
            )
        with suppress(NotFoundError):
            return self.get(name)
        with system_errors(f"create volume {name}"), self._database.transaction():
            record = self._database.record(_KIND, name)
            if record is None:
                (self.root / name / "_data").mkdir(mode=0o755, parents=True, exist_ok=True)
                (self.root / name).chmod(0o700)
                self._database.put_record(
                    _KIND, name, {"created": time.time(), "labels": dict(labels or {}), "anonymous": anonymous}
                )
        return self.get(name)

    def get(self, name: str) -> Volume:
        """A volume by its name; NotFoundError."""
        record = self._database.record(_KIND, name)
        if record is None:
            raise NotFoundError(f"volume {name}: no such volume")
        return self._volume(name, record)

    def list(self) -> Volumes:
        """All volumes, by name."""
        return sorted(
            (self._volume(name, record) for name, record, _ in self._database.records(_KIND)),
            key=lambda volume: volume.name,
        )

    def _volume(self, name: str, record: dict[str, Any]) -> Volume:
        return Volume(name, self.root / name / "_data", record["created"], record["labels"], record["anonymous"])

    def users(self) -> dict[str, Names]:
        """Volume name to the IDs of the containers that have it."""
        found: dict[str, Names] = {}
        for row in self._database.containers():
            for name in row.state.get("volumes", ()):
                found.setdefault(name, []).append(row.id)
        return found

    def usage(self, name: str) -> int:
        """Bytes that a volume takes on disk."""
        with system_errors(f"measure volume {name}"):
            return usage_owned(self.get(name).mountpoint)

    def remove(self, name: str, *, force: bool = False) -> None:
        """Remove a volume and its data; InUseError while a container has it. ``force``: it need not be there.

        It is gone at once; its space is free a moment later, at the latest when the store is closed.
        """
        trash = self.root / f".removed-{os.urandom(8).hex()}"
        with system_errors(f"remove volume {name}"):
            with self._database.transaction():
                if self._database.record(_KIND, name) is None:
                    if force:
                        return
                    raise NotFoundError(f"volume {name}: no such volume")
                users = self.users().get(name)
                if users:
                    raise InUseError(f"remove volume {name}: in use by container {users[0][:12]}")
                self._database.remove_record(_KIND, name)
                with suppress(FileNotFoundError):
                    os.rename(self.root / name, trash)
            if trash.exists():
                try:
                    self._discard(trash)
                except NativeError as exc:
                    if exc.errno != errno.EXDEV:  # volumes may lie on a file system of their own
                        raise
                    remove_owned(trash)

    def prune(self, *, all_unused: bool = False, keep: Iterable[str] = ()) -> dict[str, int]:
        """Remove anonymous volumes that no container has, with ``all_unused`` named ones too; name to bytes freed."""
        users, kept, removed = self.users(), set(keep), {}
        for volume in self.list():
            if volume.name in users or volume.name in kept or not (volume.anonymous or all_unused):
                continue
            with suppress(InUseError, NotFoundError):
                size = self.usage(volume.name)
                self.remove(volume.name)
                removed[volume.name] = size
        return removed

    # ---- seeding ----

    def seed(self, volume: Volume, root: int, target: str) -> bool:
        """Fill a volume that is empty with what the tree ``root`` has at ``target``; whether anything was there.

        Mode, owner and attributes of the directory itself come with it. For root, perhaps of a user namespace.
        """
        with Lock(self.root / volume.name / "lock"), system_errors(f"fill volume {volume.name}"):
            if not volume.is_empty():
                return False
            try:
                found = open_beneath(root, os.fsencode(target))
            except OSError as exc:
                if exc.errno in (errno.ENOENT, errno.ENOTDIR):
                    return False
                raise
            try:
                try:
                    source = os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                except NotADirectoryError:
                    return False
                try:
                    self._copy(source, volume)
                finally:
                    os.close(source)
            finally:
                os.close(found)
        return True

    def _copy(self, source: int, volume: Volume) -> None:
        with self._ingest.directory("volume") as work:
            fd = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                with Differ(source, tree=True) as differ, Unpacker(fd, directory=True) as unpacker:
                    while piece := differ.read(_PIECE):
                        unpacker.write(piece)
                        unpacker.rest()
                    unpacker.finish(bytes(16))
                for name in os.listdir(work / "fs"):
                    os.rename(work / "fs" / name, volume.mountpoint / name)
            finally:
                os.close(fd)
        _copy_directory(source, volume.mountpoint)


def _copy_directory(source: int, target: Path) -> None:
    status = os.fstat(source)
    for name in os.listxattr(source):
        if not name.startswith(("trusted.overlay.", "user.overlay.", "security.")):
            with suppress(PermissionError):
                os.setxattr(target, name, os.getxattr(source, name))
    os.chown(target, status.st_uid, status.st_gid)
    os.chmod(target, status.st_mode & 0o7777)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
