"""The sweep: layers and blobs that nothing names are removed.

The database decides, in one short transaction, which layers are unneeded at that instant and forgets them; only then
their files go.  A pull or commit under way has a lease on what it needs (``leases``), so it never loses any of it, and
never waits for the removal of files.
"""

import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING

import msgspec

from layerfs.content import ContentStore
from layerfs.digest import Digest
from layerfs.fsutil import Ingest
from layerfs.late import LateModule
from layerfs.layers import LayerStore
from layerfs.leases import end_dead_leases
from layerfs.metadata import Database

if TYPE_CHECKING:
    from layerfs import userns
else:  # most sweeps find nothing
    userns = LateModule("layerfs.userns")

__all__ = ["Swept", "sweep"]

_BATCH = 8
"""Layers or blobs that one transaction takes at most: a few milliseconds, in which no other command can write."""
_HOLD = 0.01
"""Seconds after which a transaction takes no more of them, because the disk or the machine is slow."""
_PAUSE = 0.003
"""Seconds between transactions, in which those that wait get their turn: SQLite has no queue for them."""
_PARTIAL_SECONDS = 7 * 24 * 3600
"""How long a partial download is kept for a pull to continue it."""


class Swept(msgspec.Struct, frozen=True):
    """What a sweep removed, or would remove; ``damaged`` names what ``system check`` had put away."""

    layers: tuple[Digest, ...] = ()
    blobs: tuple[Digest, ...] = ()
    reclaimed: int = 0
    damaged: tuple[str, ...] = ()


def sweep(
    content: ContentStore,
    layers: LayerStore,
    database: Database,
    ingest: Ingest,
    *,
    keep_layer_blobs: bool = True,
    dry_run: bool = False,
    damaged: bool = False,
    blobs: Iterable[Digest] | None = None,
) -> Swept:
    """Remove what nobody needs.

    ``blobs`` limits the look at blobs to those (after the removal of one image); None looks at all of them, and at
    litter of crashes and old partial downloads too.  With ``damaged`` also what was put away as damaged goes.  Without
    ``keep_layer_blobs`` also the compressed blobs of layers that are unpacked go; a push then compresses again, or
    finds them in the registry.
    """
    if not dry_run:
        end_dead_leases(database, ingest)
    gone, reclaimed = _sweep_layers(layers, database, ingest, dry_run)
    if blobs is None:
        orphans, bytes_of_orphans = _sweep_orphans(layers, database, ingest, dry_run)
        gone, reclaimed = [*gone, *orphans], reclaimed + bytes_of_orphans
    removed, bytes_of_blobs = _sweep_blobs(
        content, database, content.digests() if blobs is None else blobs, keep_layer_blobs, dry_run
    )
    reclaimed += bytes_of_blobs
    if blobs is None:
        reclaimed += _old_partials(content, dry_run)
        if not dry_run:
            ingest.sweep()
    names = []
    for path, size in (*layers.damaged(), *content.damaged()) if damaged else ():
        if not dry_run:
            userns.remove_owned(path) if path.is_dir() else path.unlink(missing_ok=True)
        names.append(path.name)
        reclaimed += size
    return Swept(tuple(gone), tuple(removed), reclaimed, tuple(names))


def _sweep_layers(layers: LayerStore, database: Database, ingest: Ingest, dry_run: bool) -> tuple[list[Digest], int]:
    """The layers that go, and their bytes. Whoever makes a snapshot in a transaction of its own sees each of them
    either protected by that or gone; their bytes are freed when nobody waits any more.

    What made them unneeded is brought to the disk first, so the transactions need not wait for it: should one of them
    be lost with the power, a row is left that the next sweep takes.
    """
    unneeded = database.unneeded_layers()
    if unneeded and not dry_run:
        database.flush()
    sizes = {diff_id: row.disk for diff_id in unneeded if (row := database.layer(diff_id))}
    gone: list[Digest] = unneeded if dry_run else []
    with nullcontext() if dry_run or not unneeded else ingest.directory("trash") as trash:
        pending = deque(unneeded if trash else ())
        while pending:
            with database.transaction():
                for diff_id in _for_a_moment(pending):
                    if trash and database.take_layer(diff_id):
                        layers.retire(diff_id, trash)
                        gone.append(diff_id)
            if pending:
                time.sleep(_PAUSE)
    return gone, sum(sizes.get(diff_id, 0) for diff_id in gone)


def _for_a_moment(pending: deque[Digest]) -> Iterator[Digest]:
    """Take the next few, as many as a transaction may: those behind the first only while no time has gone by."""
    end = time.monotonic() + _HOLD
    for _ in range(min(_BATCH, len(pending))):
        yield pending.popleft()
        if time.monotonic() > end:
            return


def _sweep_orphans(layers: LayerStore, database: Database, ingest: Ingest, dry_run: bool) -> tuple[list[Digest], int]:
    """Layers that have no record: a command was killed between the two. One that works has them in its lease."""
    recorded = database.layer_data_bytes()
    orphans, total = [diff_id for diff_id in layers.list() if diff_id not in recorded], 0
    gone = []
    with nullcontext() if dry_run or not orphans else ingest.directory("trash") as trash:
        for diff_id in orphans:
            with nullcontext() if dry_run else database.transaction():
                if database.layer(diff_id) is not None or database.is_layer_needed(diff_id):
                    continue
                total += userns.usage_owned(layers.path(diff_id))
                gone.append(diff_id)
                if trash:
                    layers.retire(diff_id, trash)
    return gone, total


def _sweep_blobs(
    content: ContentStore, database: Database, present: Iterable[Digest], keep_layer_blobs: bool, dry_run: bool
) -> tuple[list[Digest], int]:
    """The blobs that go, and their bytes. A first look, which keeps nobody out, leaves few to look at once more."""
    used = database.image_blobs() if keep_layer_blobs else ()
    candidates = deque(digest for digest in present if digest not in used)
    removed, total = [], 0
    while candidates:
        # The transaction orders this against ``protect``: either the lease is seen here, or whoever asks after it
        # whether the blob is there hears no.
        with nullcontext() if dry_run else database.transaction():
            for digest in _for_a_moment(candidates):
                if content.has(digest) and not _is_needed(database, digest, keep_layer_blobs):
                    total += content.disk(digest) if dry_run else content.delete(digest)
                    removed.append(digest)
        if not dry_run and candidates:
            time.sleep(_PAUSE)
    return removed, total


def _is_needed(database: Database, digest: Digest, keep_layer_blobs: bool) -> bool:
    if database.is_leased(digest):
        return True
    diff_id = None if keep_layer_blobs else database.layer_of_blob(digest)
    if diff_id is not None and database.layer(diff_id) is not None:
        return False
    return database.is_image_blob(digest)


def _old_partials(content: ContentStore, dry_run: bool) -> int:
    """Bytes of partial downloads that nobody went on with for a week; they are removed."""
    total = 0
    for path, status in content.partials():
        if time.time() - status.st_mtime < _PARTIAL_SECONDS:
            continue
        total += status.st_size
        if not dry_run:
            path.unlink(missing_ok=True)
    return total
