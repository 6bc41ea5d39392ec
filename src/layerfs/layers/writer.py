"""``LayerWriter``: tar bytes in, one layer out, in a single pass.

Each piece of the tar is hashed and goes to the core, which places it; what is no file content comes back as the rest
and is compressed into a file beside. At the end rest, layer and header are joined, made durable by one sync, and get
their name. Until then all of it lies in a working directory of the ingest area, which vanishes with the writer.
"""

import errno
import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import lz4.frame
import xxhash

from layerfs.digest import Digest, hasher
from layerfs.errors import IntegrityError, NativeError, UnsupportedError, system_errors
from layerfs.fsutil import Lock, sync_dir
from layerfs.late import LateModule
from layerfs.layers.formats import REST, Format, write_all
from layerfs.layers.header import Header
from layerfs.native import Buffer, Unpacker, UnpackResult
from layerfs.syncing import SyncAhead

if TYPE_CHECKING:
    from layerfs import userns
    from layerfs.layers.store import Layer, LayerStore
else:  # root needs none
    userns = LateModule("layerfs.userns")

__all__ = ["LayerWriter"]


class _Rest:
    """The rest on its way into its file: compressed, with a checksum of its content, and hashed as it lies there."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        stack.callback(os.close, self._fd)
        self._lz4 = lz4.frame.LZ4FrameCompressor(block_size=lz4.frame.BLOCKSIZE_MAX1MB, content_checksum=True)
        self._hash = xxhash.xxh3_128()
        self.length = 0
        self._store(self._lz4.begin())

    def _store(self, data: bytes) -> None:
        write_all(self._fd, data, self.length)
        self._hash.update(data)
        self.length += len(data)

    def write(self, data: bytes) -> None:
        self._store(self._lz4.compress(data))

    def finish(self) -> bytes:
        """End the frame; the hash of all that is in the file."""
        self._store(self._lz4.flush())
        return self._hash.digest()


class LayerWriter:
    """Takes the bytes of one layer's tar. Made by ``LayerStore.writer``; use it in a ``with``.

    ``present`` says, from the beginning of the ``with`` on, that the layer expected is in the store already, perhaps
    because another writer has just finished it: then nothing need be written, and ``commit`` returns that one. What
    is not committed leaves no trace.
    """

    def __init__(
        self,
        store: "LayerStore",
        layer_format: Format,
        expected: Digest | None,
        *,
        protect: Callable[[Iterable[Digest]], None] | None,
        max_bytes: int,
        max_entries: int,
        max_metadata: int,
    ) -> None:
        self.present = False
        self._store = store
        self._format = layer_format
        self._expected = expected
        self._protect = protect
        self._limits = {"max_bytes": max_bytes, "max_entries": max_entries, "max_metadata": max_metadata}
        self._what = f"unpack layer {expected}" if expected else "unpack layer"
        self._stack = ExitStack()
        self._hash: Any = None
        self._unpacker: Unpacker | None = None
        self._ahead: SyncAhead | None = None

    def __enter__(self) -> Self:
        with ExitStack() as stack, system_errors(self._what):
            self._store.ingest.root.mkdir(parents=True, exist_ok=True)
            if self._expected is not None:
                self._wait_for_turn(self._expected, stack)
            if not self.present:
                self._begin(stack)
            self._stack = stack.pop_all()
        return self

    def _wait_for_turn(self, expected: Digest, stack: ExitStack) -> None:
        """Only one writer at a time works on a layer that is known by name; the others find it done.

        The lock file goes when its holder is done. Who waited for it then has a lock that later ones do not see; the
        two do the same work, and the first to publish wins.
        """
        path = self._store.ingest.root / f"lock-layer-{expected.hex}"
        self.present = self._store.has(expected)
        if self.present:
            return
        stack.enter_context(Lock(path))
        stack.callback(_unlink, path)
        self.present = self._store.has(expected)

    def _begin(self, stack: ExitStack) -> None:
        self._work = stack.enter_context(self._store.ingest.directory("layer"))
        self._fd = self._format.start(self._work)
        stack.callback(os.close, self._fd)
        if self._store.sync and self._format.is_file:
            self._ahead = SyncAhead(self._fd)
            stack.callback(self._ahead.stop)
        self._rest = _Rest(self._work / REST, stack)
        self._unpacker = stack.enter_context(self._format.unpacker(self._fd, **self._limits))
        self._hash = hasher(self._expected.algorithm if self._expected else "sha256")

    def __exit__(self, *_: object) -> None:
        self._unpacker = None
        self._stack.close()

    def write(self, data: Buffer) -> None:
        """Take the next bytes of the tar, in any split; pieces of a MiB are best, and are not copied.

        IntegrityError for a malformed archive, InvalidInputError where it passes a limit, NativeError for the disk.
        """
        self.hash(data)
        self.place(data)

    def hash(self, data: Buffer) -> None:
        """The first half of ``write``. Each half takes all of the tar; they may be in two threads."""
        self._hash.update(data)

    def place(self, data: Buffer) -> None:
        """The second half of ``write``."""
        if self._unpacker is None:
            raise ValueError("write: the layer is there already, or the writer is closed")
        self._unpacker.write(data)
        self._keep_rest(self._unpacker)
        if self._ahead is not None:
            self._ahead.grow(len(data))

    def _keep_rest(self, unpacker: Unpacker) -> None:
        data = unpacker.rest()
        if data:
            with system_errors(self._what):
                self._rest.write(data)

    def commit(self) -> "Layer":
        """The tar has ended: make the layer durable and visible.

        IntegrityError when the tar is cut short or its digest is not the one expected. A layer that is there already
        stays as it is, and is returned.
        """
        if self.present and self._expected is not None:
            return self._store.get(self._expected)
        if self._unpacker is None:
            raise ValueError("commit: the writer is closed")
        diff_id = Digest.from_hash(self._hash)
        if self._expected not in (None, diff_id):
            raise IntegrityError(f"{self._what}: the content has diff ID {diff_id}")
        if self._protect is not None:
            self._protect([diff_id])
        if not self._store.has(diff_id):
            self._seal(self._unpacker, diff_id)
            self._publish(diff_id)
        self._unpacker = None
        return self._store.get(diff_id)

    def _seal(self, unpacker: Unpacker, diff_id: Digest) -> None:
        result = unpacker.finish(self._hash.digest()[:16])
        self._keep_rest(unpacker)
        maps, owned = (None, 0) if self._format.chown else self._own(unpacker, result)
        with system_errors(self._what):
            rest_hash = self._rest.finish()
            header = Header(
                diff_id=diff_id,
                format=self._format.name,
                userxattr=self._format.userxattr,
                chown=self._format.chown,
                tar_size=result.tar_bytes,
                meta_offset=result.meta_offset,
                image_size=result.image_size,
                rest_offset=result.image_size,
                rest_length=self._rest.length,
                entries=result.entries,
                inodes=result.inodes,
                whiteouts=result.whiteouts,
                opaques=result.opaques,
                data_bytes=result.data_bytes,
                skipped=result.skipped,
                xattrs_dropped=result.xattrs_dropped - owned,
                disk=0,
                meta_hash=self._format.metadata_hash(self._fd, result.meta_offset, result.image_size),
                rest_hash=rest_hash,
                maps=maps,
            )
            if self._ahead is not None:
                self._ahead.end()
            self._format.seal(self._work, self._fd, header)

    def _own(self, unpacker: Unpacker, result: UnpackResult) -> "tuple[userns.Maps | None, int]":
        """Without privilege: the owners of the tar, as far as this user has numbers for them. The maps in which they
        are now those of the tar, and how many attributes that were dropped are set."""
        maps = userns.own_maps()
        if not result.unowned:  # all is root's, whatever else there is
            return userns.Maps(maps.uids[:1], maps.gids[:1]), 0
        if maps.alone:
            return None, 0
        try:
            return maps, userns.in_userns(unpacker.own)
        except UnsupportedError as exc:  # without them they would all be his, and nobody would know
            raise UnsupportedError(
                f"{self._what}: set the owners of its files: {exc}",
                hint="allow user namespaces (sysctl user.max_user_namespaces), or take this user out of /etc/subuid "
                "and /etc/subgid: then all files of his layers are his own",
            ) from exc
        except NativeError as exc:
            if exc.errno != errno.EINVAL:
                raise
            raise UnsupportedError(
                f"{self._what}: {exc}: this user has no such numbers",
                hint="give this user larger ranges in /etc/subuid and /etc/subgid",
            ) from exc

    def _publish(self, diff_id: Digest) -> None:
        target = self._store.path(diff_id)
        with system_errors(self._what):
            if not target.parent.is_dir():
                target.parent.mkdir(parents=True, exist_ok=True)
                if self._store.sync:
                    sync_dir(target.parent.parent)
            with suppress(FileExistsError):  # another writer was faster; this one's work goes
                self._format.publish(self._work, target)


def _unlink(path: Path) -> None:
    path.unlink(missing_ok=True)
