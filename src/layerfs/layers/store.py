"""``LayerStore``: layers by diff ID, in one of the two formats.

``ROOT/layers/<algorithm>/<hex>`` is a layer, whole and durable or not there at all. ``ROOT/layers/bad/`` has what
``verify`` found damaged: such a layer is no longer in the store, so it is not mounted again, and can be brought anew.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from layerfs.digest import Digest
from layerfs.errors import (
    IntegrityError,
    InvalidInputError,
    NativeError,
    NotFoundError,
    UnsupportedError,
    system_errors,
)
from layerfs.fsutil import Ingest, digests_below
from layerfs.late import LateModule

if TYPE_CHECKING:
    from layerfs import native, userns
    from layerfs.layers import check, directory, erofs, mounting, tarout, tree, view, writer
    from layerfs.layers.formats import Format, OpenLayer
    from layerfs.layers.tarout import TarReader
    from layerfs.layers.view import View
    from layerfs.layers.writer import LayerWriter
else:  # what one verb needs, and the next does not
    native, userns = LateModule("layerfs.native"), LateModule("layerfs.userns")
    check, directory, erofs, mounting, tarout, tree, view, writer = (
        LateModule(f"layerfs.layers.{name}")
        for name in ("check", "directory", "erofs", "mounting", "tarout", "tree", "view", "writer")
    )

__all__ = ["Layer", "LayerStore"]

_ALGORITHMS = {64: "sha256", 128: "sha512"}
"""By the length of a digest's digits."""
_RANGES_HINT = "put his ranges back into /etc/subuid and /etc/subgid, then layerfs prune"
BAD = "bad"
"""The directory of what was found damaged."""


class Layer(msgspec.Struct, frozen=True):
    """A layer in the store: ``size`` bytes of tar, ``disk`` bytes on disk, ``data_bytes`` in its regular files."""

    diff_id: Digest
    size: int
    disk: int
    entries: int
    inodes: int
    whiteouts: int
    opaques: int
    data_bytes: int
    skipped: int
    xattrs_dropped: int
    format: str


def _remove_owned(path: Path) -> None:
    """Take a working directory away, which may be one that ``retire`` moved layers into; UnsupportedError for what has
    owners that this user has not any more, or may not act for. The rest of it goes all the same."""
    try:
        userns.remove_owned(path)
    except (PermissionError, UnsupportedError) as exc:
        left = [child for child in sorted(path.iterdir()) if not _is_removed(child)]
        if not left:
            path.rmdir()
            return
        names = [f"{_ALGORITHMS[len(child.name)]}:{child.name}" for child in left if len(child.name) in _ALGORITHMS]
        why, hint = "its files have owners that this user has no numbers for", _RANGES_HINT
        if isinstance(exc, UnsupportedError):
            why, hint = str(exc), exc.hint or hint
        raise UnsupportedError(f"remove {f'layer {names[0]}' if names else path}: {why}", hint=hint) from None


def _is_removed(path: Path) -> bool:
    try:
        userns.remove_owned(path) if path.is_dir() else path.unlink()
    except (PermissionError, UnsupportedError):
        return False
    return True


class LayerStore:
    """The layers below ``root``; their mounts are below ``run``. Any number of threads and processes may use it.

    ``userxattr`` and ``chown`` are for stores of users who are not root: overlayfs's marks are then ``user.overlay.*``,
    and owners are left as they fall (format dir only). With ``sync`` a layer that has appeared is on the disk.
    """

    def __init__(
        self,
        root: Path,
        run: Path,
        ingest: Path,
        format: str,
        *,
        userxattr: bool = False,
        chown: bool = True,
        sync: bool = True,
    ) -> None:
        if format not in ("erofs", "dir"):
            raise InvalidInputError(f"layer format {format!r}: not known", hint="there are erofs and dir")
        self.root = root
        self.run = run
        self.ingest = Ingest(ingest, None if chown else _remove_owned)
        self.format = format
        self.userxattr = userxattr
        self.chown = chown
        self.sync = sync
        self._base = os.fspath(root)

    @cached_property
    def _format(self) -> Format:
        if self.format == "erofs":
            return erofs.ErofsFormat(userxattr=self.userxattr, sync=self.sync)
        return directory.DirFormat(userxattr=self.userxattr, chown=self.chown, sync=self.sync)

    @cached_property
    def _mounts(self) -> mounting.SharedMounts:
        return mounting.SharedMounts(self.run)

    # ---- what there is ----

    def path(self, diff_id: Digest) -> Path:
        """Where a layer lies, or would."""
        return Path(self._place(diff_id))

    def _place(self, diff_id: Digest) -> str:
        """The same as text: mounting a stack asks for many, and a Path takes as long to make as a file to look up."""
        return f"{self._base}/{diff_id.algorithm}/{diff_id.hex}"

    def has(self, diff_id: Digest) -> bool:
        """Whether the layer is in the store."""
        return os.path.lexists(self._place(diff_id))

    def get(self, diff_id: Digest) -> Layer:
        """What is known of a layer; NotFoundError, or IntegrityError when its header is damaged."""
        with self.open(diff_id) as layer:
            header, disk = layer.header, self._format.disk(layer)
        return Layer(
            diff_id,
            header.tar_size,
            disk,
            header.entries,
            header.inodes,
            header.whiteouts,
            header.opaques,
            header.data_bytes,
            header.skipped,
            header.xattrs_dropped,
            header.format,
        )

    def list(self) -> Iterator[Digest]:
        """All layers, sorted."""
        yield from digests_below(self.root)[0]

    def strays(self) -> Sequence[Path]:
        """What lies among the layers and is none."""
        return digests_below(self.root)[1]

    def open(self, diff_id: Digest) -> OpenLayer:
        """Descriptors and header of a layer, for the ``with`` of the caller; header and sizes are checked."""
        return self._format.open(self.path(diff_id), diff_id)

    # ---- in and out ----

    def writer(
        self,
        expected: Digest | None = None,
        *,
        protect: Callable[[Iterable[Digest]], None] | None = None,
        max_bytes: int = 0,
        max_entries: int = 0,
        max_metadata: int = 0,
    ) -> LayerWriter:
        """Takes a layer's tar. ``max_bytes`` of file content, ``max_entries`` members, and ``max_metadata`` bytes of
        names, link targets and attributes are allowed (0: any).

        Whoever does not know the diff ID beforehand gives ``protect`` (of a lease): it is told the ID before the layer
        appears, so that no sweep takes it for litter before it is recorded.
        """
        return writer.LayerWriter(
            self,
            self._format,
            expected,
            protect=protect,
            max_bytes=max_bytes,
            max_entries=max_entries,
            max_metadata=max_metadata,
        )

    def open_tar(self, diff_id: Digest) -> TarReader:
        """The exact tar again, for a ``with``."""
        reader = tarout.TarReader if self.chown else tarout.OwnTarReader
        return reader(self.open(diff_id), f"read layer {diff_id}")

    def damaged(self) -> Sequence[tuple[Path, int]]:
        """What was put away: (path, bytes on disk)."""
        try:
            return [(path, userns.usage_owned(path)) for path in sorted((self.root / BAD).iterdir())]
        except FileNotFoundError:
            return []

    def open_damaged(self, diff_id: Digest) -> OpenLayer:
        """As ``open``, but of a layer as it was put away last; NotFoundError when it was not."""
        places = sorted((self.root / BAD).glob(f"{diff_id.hex}.*"), key=lambda path: path.lstat().st_ctime_ns)
        if not places:
            raise NotFoundError(f"open damaged layer {diff_id}: it was not put away")
        return self._format.open(places[-1], diff_id)

    def verify(self, diff_id: Digest, quick: bool = False) -> None:
        """IntegrityError when the layer is not what it was, and then it is put away; NotFoundError.

        ``quick`` checks header, sizes, all metadata of an image and the rest by their hashes. Otherwise every byte is
        read: the exact tar must have the diff ID, and a directory must have the tree that the tar describes (for
        which the layer is unpacked once more, into a temporary file).
        """
        try:
            with self.open(diff_id) as layer:
                check.check_hashes(self._format, layer)
            if not quick:
                self._check_content(diff_id)
        except IntegrityError as exc:
            self._put_away(diff_id)
            raise IntegrityError(
                f"verify layer {diff_id}: {exc}", hint="the layer was put away; pull or load the image again"
            ) from exc

    def _check_content(self, diff_id: Digest) -> None:
        if not self.chown:
            self.check_owners([diff_id])
        with self.open_tar(diff_id) as reader:
            check.check_content(diff_id, reader)
        if self.format == "dir":
            with (
                system_errors(f"verify layer {diff_id}"),
                self.open(diff_id) as layer,
                closing(self._format.tree(layer)) as found,
                self.open_tar(diff_id) as reader,
            ):
                check.check_tree(layer, reader, found, self.ingest.root)

    def _put_away(self, diff_id: Digest) -> None:
        """Out of the store's sight; where that cannot be done (a read-only store), it stays and stays damaged."""
        bad = self.root / BAD
        with suppress(OSError):
            bad.mkdir(exist_ok=True)
            os.rename(self.path(diff_id), bad / f"{diff_id.hex}.{os.urandom(4).hex()}")
        with suppress(NativeError):
            self._mounts.release(diff_id.hex)

    def delete(self, diff_id: Digest) -> None:
        """Remove a layer, and its mount where nobody has that open; no error when it is not there."""
        if not self.has(diff_id):
            return
        with self.ingest.directory("trash") as trash:
            self.retire(diff_id, trash)

    def retire(self, diff_id: Digest, trash: Path) -> None:
        """Let a layer vanish at once, by moving it into the directory ``trash`` (of the ingest area)."""
        self._mounts.release(diff_id.hex)
        with system_errors(f"remove layer {diff_id}"), suppress(FileNotFoundError):
            os.rename(self.path(diff_id), trash / diff_id.hex)

    # ---- mounts ----

    def mount(self, diff_id: Digest) -> int:
        """A descriptor of the layer's tree to stack by overlayfs, for the caller to close.

        Format erofs: the layer's one mount on this host, made when it is missing. Format dir: the tree itself.
        """
        with system_errors(f"mount layer {diff_id}"):
            if self.format == "dir":
                with self.open(diff_id) as layer:
                    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                    return os.open(directory.TREE, flags, dir_fd=layer.fd)
            try:
                status = os.stat(self._place(diff_id))
            except FileNotFoundError:
                raise NotFoundError(f"mount layer {diff_id}: not in the store") from None
            fd = self._mounts.open(diff_id.hex, status)
            if fd is not None:
                return fd
            with self.open(diff_id) as layer:
                return self._mounts.attach(diff_id.hex, layer)

    def check_owners(self, diff_ids: Iterable[Digest]) -> None:
        """UnsupportedError unless the owners of the layers' files are among the numbers that this user has now."""
        own = userns.own_maps()
        for diff_id in diff_ids:
            with self.open(diff_id) as layer:
                maps = layer.header.maps
            if maps is not None and not own.has(maps):
                raise UnsupportedError(
                    f"layer {diff_id}: its files belong to ranges that this user had once",
                    hint="put them back into /etc/subuid and /etc/subgid, the first ones first",
                )

    def release(self, diff_ids: Iterable[Digest]) -> Sequence[Digest]:
        """Unmount layers that nobody needs any more; those that are busy stay, and are returned."""
        return [diff_id for diff_id in diff_ids if not self._mounts.release(diff_id.hex)]

    def mounted(self) -> Sequence[Digest]:
        """The layers that are mounted."""
        return [Digest(f"{_ALGORITHMS[len(name)]}:{name}") for name in self._mounts.names()]

    # ---- reading without a mount ----

    @contextmanager
    def reader(self, diff_id: Digest) -> Iterator[native.Reader]:
        """The core's reader of a layer file; InvalidInputError in the format dir."""
        if self.format != "erofs":
            raise InvalidInputError(f"read layer {diff_id}: layers of this store are directories")
        with self.open(diff_id) as layer, native.Reader(layer.fd) as reader:
            yield reader

    def view(self, diff_ids: Sequence[Digest], upper: Path | None = None) -> View:
        """A stack of layers (base first), perhaps under an ``upper``, read without a mount; for a ``with``."""
        with ExitStack() as stack:
            trees: dict[Digest, tree.LayerTree] = {}
            for diff_id in diff_ids:
                if diff_id not in trees:
                    with self.open(diff_id) as layer:
                        trees[diff_id] = self._format.tree(layer)
                    stack.callback(trees[diff_id].close)
            stacked = [trees[diff_id] for diff_id in diff_ids]
            if upper is not None:
                with system_errors(f"open {upper}"):
                    stacked.append(tree.DirTree(os.open(upper, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)))
                stack.callback(stacked[-1].close)
            return view.View(stacked, stack.pop_all())
