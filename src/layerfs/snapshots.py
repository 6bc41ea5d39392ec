"""Snapshots: a stack of layers under a writable upper directory, and stacks seen read-only.

``ROOT/snapshots/<key>/`` has ``upper/`` and ``work/``, and ``volatile`` once the upper was mounted without any sync;
the database has the key and the layers. Lists of layers are base first everywhere; this file is the one place that
turns them round, because overlayfs counts from the top.

The kernel would let an upper be mounted twice, and both mounts would then see nonsense. So ``mount`` takes note in the
database, and refuses until ``release``; a note of an earlier boot, or of a target that is no mount any more, counts for
nothing.
"""

import errno
import os
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from layerfs.digest import Digest
from layerfs.errors import (
    IntegrityError,
    InUseError,
    InvalidInputError,
    NativeError,
    NotFoundError,
    UnsupportedError,
    system_errors,
)
from layerfs.fsutil import boot_id, write_atomic
from layerfs.late import LateModule
from layerfs.layers import LayerStore
from layerfs.metadata import Database, SnapshotRow
from layerfs.trash import PREFIX, Trash

if TYPE_CHECKING:
    from layerfs import native, userns
    from layerfs.layers import directory, view
else:  # only what mounts needs them
    native, userns = LateModule("layerfs.native"), LateModule("layerfs.userns")
    directory, view = LateModule("layerfs.layers.directory"), LateModule("layerfs.layers.view")

__all__ = ["MAX_LAYERS", "SnapshotStore", "Stack"]

MAX_LAYERS = 500
"""Layers that overlayfs stacks at most."""

_DETACHED = ""
_MARKS = str.maketrans("", "", "_.-")
_PATH = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Stack(msgspec.Struct, frozen=True):
    """The directories of a snapshot; ``lowers`` TOP-MOST FIRST, as overlayfs counts."""

    lowers: tuple[Path, ...]
    upper: Path
    work: Path


class SnapshotStore:
    """The snapshots below ``root``. Any number of threads and processes may use it."""

    def __init__(self, root: Path, layers: LayerStore, database: Database) -> None:
        self.root = root
        self._layers = layers
        self._database = database
        self._left = False
        self._trash = Trash(root)
        self._roots: dict[Digest, view.RootDirectory] = {}

    # ---- what there is ----

    def prepare(self, key: str, diff_ids: Sequence[Digest]) -> None:
        """Make a snapshot with an empty upper over layers (base first; none: from scratch).

        ExistsError when the key is taken, NotFoundError for a layer that is not here, UnsupportedError for too many.
        """
        if not _is_key(key):
            raise InvalidInputError(f"snapshot {key!r}: not a name of letters, digits, '_', '.' and '-'")
        _check_depth(diff_ids)
        with system_errors(f"make snapshot {key}"), self._database.transaction():
            self._database.add_snapshot(key, diff_ids)
            for diff_id in diff_ids:  # in the transaction: from here on no sweep takes one of them
                if not self._layers.has(diff_id):
                    raise NotFoundError(
                        f"snapshot {key}: layer {diff_id} is not in the store",
                        hint="layerfs system check says what is missing; bring the image again",
                    )
            place = self.root / key
            if place.exists():  # left by a crash between this directory and its row
                userns.remove_owned(place)
            place.mkdir(mode=0o700, parents=True)
            (place / "work").mkdir(mode=0o700)
            (place / "upper").mkdir(mode=0o755)
            if diff_ids:
                self._copy_root(diff_ids[-1], place / "upper")

    def _copy_root(self, top: Digest, upper: Path) -> None:
        """The root of the merged tree is the upper directory itself, so it must look like the root of the layers."""
        root = self._roots.get(top)  # a layer never changes
        if root is None:
            with self._layers.view([top]) as tree:
                root = self._roots[top] = view.RootDirectory.of(tree.stat(b"/"))
        root.give(upper, privileged=self._layers.chown)

    def row(self, key: str) -> SnapshotRow:
        """What the database knows of a snapshot; NotFoundError."""
        found = self._database.snapshot(key)
        if found is None:
            raise NotFoundError(f"snapshot {key}: there is none")
        return found

    def list(self) -> Sequence[SnapshotRow]:
        """All snapshots, the oldest first."""
        return self._database.snapshots()

    def upper(self, key: str) -> Path:
        """The directory with all that was changed."""
        return self.root / key / "upper"

    def usage(self, key: str) -> int:
        """Bytes that the changes take on disk."""
        self.row(key)
        with system_errors(f"measure snapshot {key}"):
            return userns.usage_owned(self.upper(key))

    def remove(self, key: str) -> None:
        """Remove a snapshot and all that was changed in it; InUseError while it is mounted.

        It is gone at once; its space is free a moment later, at the latest when ``close`` returns.
        """
        with system_errors(f"remove snapshot {key}"), self._database.transaction():
            self._refuse_mounted(self.row(key), "remove")
            self._database.remove_snapshot(key)
            with suppress(FileNotFoundError):
                self._trash.take(self.root / key)
        self._trash.empty()

    def forget(self, key: str) -> None:
        """Remove the row of a snapshot alone, mounted or not, for whoever knows that nothing uses it any more. Its
        directory is then for ``discard``."""
        self._left = self._left or self.row(key).mounted is not None
        self._database.remove_snapshot(key)

    def let_go(self, fd: int) -> None:
        """Close a descriptor of a mount together with what ``discard`` takes next, in the background."""
        self._trash.let_go(fd)

    def discard(self, *directories: Path) -> None:
        """Let directories of the snapshots' file system go as snapshots do; no error for one that is not there."""
        for directory in directories:
            with system_errors(f"remove {directory}"), suppress(FileNotFoundError):
                self._trash.take(directory)
        self._trash.empty()

    def sweep(self) -> int:
        """Remove directories that no snapshot owns, and records of snapshots that were gone already: litter of crashes;
        how many. What a container lacks is not litter, but damage."""
        with system_errors("sweep snapshots"), suppress(FileNotFoundError):
            with self._database.transaction():
                rows = self._database.snapshots()
                containers = {row.id for row in self._database.containers()}
                for row in rows:
                    if row.kind == "active" and row.key not in containers and not (self.root / row.key).exists():
                        self._database.remove_snapshot(row.key)
                known = {row.key for row in rows}
                litter = [path for path in self.root.iterdir() if path.name not in known]
                for path in litter:
                    if not path.name.startswith(PREFIX):
                        self._trash.take(path)
            self._trash.sweep()
            return len(litter)
        return 0

    # ---- mounts ----

    def mount(
        self, key: str, *, volatile: bool = False, readonly: bool = False, id_map: tuple[int, int] | None = None
    ) -> int:
        """Mount a snapshot, detached: a descriptor, and when the caller closes it unattached nothing is left.

        ``id_map``: owner 0 is seen as this number, and so on for so many; what is stored keeps its own.
        ``volatile``: no sync, ever, for a snapshot that will be thrown away. InUseError while it is mounted already,
        that is until ``release``. IntegrityError when the machine stopped while it was mounted ``volatile``.
        UnsupportedError for an ``id_map`` where the kernel stacks no mounts with other owners.
        """
        if id_map is not None and not _stacks_mapped():
            raise UnsupportedError(
                f"mount snapshot {key}: this kernel cannot stack mounts with other owners",
                hint="--userns auto needs Linux 6.15 or newer",
            )
        row = self._claim(key)
        try:
            self._reset_work(key)
            with system_errors(f"mount snapshot {key}"), ExitStack() as stack:
                place = _open(self.root / key, stack)
                userns = _userns(id_map, stack) if id_map is not None else None
                if userns is not None:
                    place = _mapped(native.bind_mount(place, "", recursive=False), userns, stack, consume=True)
                upper, work = (_open_in(place, name, stack) for name in ("upper", "work"))
                if not row.diff_ids:
                    return native.bind_mount(upper, "", recursive=False, readonly=readonly)
                if volatile:
                    write_atomic(self.root / key / "volatile", boot_id().encode(), durable=False)
                lowers = _lowers(self._layers, row.diff_ids, stack)
                if userns is not None:
                    lowers = [_mapped(fd, userns, stack) for fd in lowers]
                return native.overlay_mount(
                    lowers,
                    upper,
                    work,
                    volatile=volatile,
                    userxattr=self._layers.userxattr,
                    readonly=readonly,
                    owner=(id_map[0], id_map[0]) if id_map is not None else None,
                )
        except BaseException:
            self._database.set_mounted(key, None, None)
            raise

    def claim(self, key: str, *, volatile: bool = False) -> "Stack":
        """The directories of a snapshot for somebody who mounts it himself, in a namespace where he may.

        It counts as mounted until ``release``. UnsupportedError for layers that are not directories, and those whose
        files have owners that this user has not any more.
        """
        if self._layers.format != "dir":
            raise UnsupportedError(f"mount snapshot {key}: its layers cannot be mounted without privilege")
        row = self._claim(key)
        try:
            self._layers.check_owners(row.diff_ids)
            self._reset_work(key)
            if volatile:
                write_atomic(self.root / key / "volatile", boot_id().encode(), durable=False)
        except BaseException:
            self._database.set_mounted(key, None, None)
            raise
        lowers = dict.fromkeys(self._layers.path(diff_id) / directory.TREE for diff_id in reversed(row.diff_ids))
        return Stack(tuple(lowers), self.upper(key), self.root / key / "work")

    def view(self, diff_ids: Sequence[Digest]) -> int:
        """A detached read-only mount of a stack of layers, base first; a descriptor to close."""
        _check_depth(diff_ids)
        with system_errors("mount layers"), ExitStack() as stack:
            lowers = _lowers(self._layers, diff_ids, stack)
            if len(lowers) < 2:  # overlayfs wants two; and alone, the marks of a layer would be seen
                lowers.append(self._empty(stack))
            return native.overlay_mount(lowers, userxattr=self._layers.userxattr, readonly=True)

    def attach(self, fd: int, target: Path, key: str | None = None) -> None:
        """Put a detached mount at a directory; of snapshot ``key``, which then counts as mounted as long as that is."""
        native.attach(fd, target)
        if key is not None:
            self._database.set_mounted(key, os.fspath(target.absolute()), boot_id())

    def detach(self, target: Path, lazy: bool = False) -> None:
        """Unmount a directory; NativeError (EBUSY) while something in it is open, unless ``lazy``."""
        native.detach(target, lazy=lazy)

    def release(self, key: str, *, layers: bool = True) -> None:
        """Nothing has the snapshot mounted any more; layer mounts that only it needed go.

        Without ``layers`` they stay for the next mount, until ``release_layers`` or ``close``.
        """
        self._left = self._left or not layers
        with self._database.transaction():
            row = self.row(key)
            self._database.set_mounted(key, None, None)
        if layers:
            self._layers.release(sorted(set(row.diff_ids) - self._needed()))

    def release_layers(self) -> None:
        """Unmount all layers that no mounted snapshot needs, as after a view was unmounted. What is mounted above a
        layer stays usable; a later mount of the layer only does not share its page cache."""
        self._left = False
        self._layers.release(sorted(set(self._layers.mounted()) - self._needed()))

    def close(self) -> None:
        """Unmount the layers that were left mounted, and that nobody needs; wait until what was removed is deleted."""
        if self._left:
            self.release_layers()
        self._trash.wait()

    def _needed(self) -> set[Digest]:
        return {diff_id for row in self._database.mounted_snapshots() if _is_mounted(row) for diff_id in row.diff_ids}

    def _claim(self, key: str) -> SnapshotRow:
        with self._database.transaction():
            row = self.row(key)
            self._refuse_mounted(row, "mount")
            self._database.set_mounted(key, _DETACHED, boot_id())
        return row

    def _refuse_mounted(self, row: SnapshotRow, verb: str) -> None:
        if _is_mounted(row):
            where = f" at {row.mounted}" if row.mounted else ""
            raise InUseError(f"{verb} snapshot {row.key}: it is mounted{where}")

    def _reset_work(self, key: str) -> None:
        """The kernel refuses an upper that was mounted volatile, by a mark in work. In the same boot nothing can have
        been lost, so the mark may go."""
        work = self.root / key / "work"
        with system_errors(f"mount snapshot {key}"):
            if not os.path.lexists(work / "work" / "incompat" / "volatile"):
                return
            with suppress(FileNotFoundError):
                if (self.root / key / "volatile").read_text() != boot_id():
                    raise IntegrityError(
                        f"mount snapshot {key}: the machine stopped while it was mounted without syncing",
                        hint="its content may be incomplete: remove it",
                    )
            userns.remove_owned(work)
            work.mkdir(mode=0o700)

    def _empty(self, stack: ExitStack) -> int:
        """A directory with nothing in it."""
        place = self._layers.run / "empty"
        place.mkdir(mode=0o755, parents=True, exist_ok=True)
        return _open(place, stack)


def _open(path: Path, stack: ExitStack) -> int:
    fd = os.open(path, _PATH)
    stack.callback(os.close, fd)
    return fd


def _open_in(directory: int, name: str, stack: ExitStack) -> int:
    fd = os.open(name, _PATH, dir_fd=directory)
    stack.callback(os.close, fd)
    return fd


@cache
def _stacks_mapped() -> bool:
    """Whether a mount that is attached nowhere can be copied, as those with other owners have to be: Linux 6.15."""
    try:
        mount = native.bind_mount(-100, "/", recursive=False)
        try:
            os.close(native.bind_mount(mount, "", recursive=False))
        finally:
            os.close(mount)
    except NativeError as exc:
        return exc.errno != errno.EINVAL
    return True


def _userns(id_map: tuple[int, int], stack: ExitStack) -> int:
    maps = ((0, *id_map),)
    fd = native.userns_open(maps, maps)
    stack.callback(os.close, fd)
    return fd


def _mapped(mount: int, userns: int, stack: ExitStack, *, consume: bool = False) -> int:
    """A copy of a mount through which owners are seen by the maps of a user namespace."""
    try:
        fd = native.idmap_mount(mount, userns)
    finally:
        if consume:
            os.close(mount)
    stack.callback(os.close, fd)
    return fd


def _lowers(layers: LayerStore, diff_ids: Sequence[Digest], stack: ExitStack) -> list[int]:
    """Descriptors of the layers, TOP-MOST FIRST.

    overlayfs refuses the same directory twice. Of a layer that comes more than once (empty ones often do) the top-most
    place is enough: whatever the layer has or hides, it has or hides there.
    """
    fds = []
    for diff_id in dict.fromkeys(reversed(diff_ids)):
        fds.append(layers.mount(diff_id))
        stack.callback(os.close, fds[-1])
    return fds


def _check_depth(diff_ids: Sequence[Digest]) -> None:
    count = len(set(diff_ids))
    if count > MAX_LAYERS:
        raise UnsupportedError(
            f"stack {count} layers: overlayfs takes at most {MAX_LAYERS}",
            hint="make it fewer by committing with --squash",
        )


def _is_mounted(row: SnapshotRow) -> bool:
    if row.mounted is None or row.boot_id != boot_id():
        return False
    return row.mounted == _DETACHED or os.path.ismount(row.mounted)


def _is_key(text: str) -> bool:
    """Whether it is ``[A-Za-z0-9][A-Za-z0-9_.-]{0,127}``."""
    return len(text) <= 128 and text.isascii() and text[:1].isalnum() and text.translate(_MARKS).isalnum()
