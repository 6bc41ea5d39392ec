"""Leases: what a running pull, commit or build is about to need is not removed under it.

A lease is a row in the database, alive while its directory in the ingest area is locked; the lock goes with the
process.  ``protect`` comes before the question whether something is here: then whoever removes what nobody needs
sees either the lease, or is done before the question is asked.
"""

import os
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Self

from layerfs.digest import Digest
from layerfs.fsutil import Ingest
from layerfs.metadata import Database

__all__ = ["Lease", "NoLease", "end_dead_leases"]


class Lease:
    """Protects blobs and layers by digest until the end of the ``with``. Any thread may use it."""

    def __init__(self, database: Database, ingest: Ingest) -> None:
        self._database = database
        self._ingest = ingest
        self._stack = ExitStack()
        self._id = ""

    def __enter__(self) -> Self:
        if self._database.readonly:  # nobody can remove anything
            return self
        self._ingest.sweep()  # what crashed commands left, above all the space that it takes
        with ExitStack() as stack:
            directory = stack.enter_context(self._ingest.directory("lease"))
            self._id = directory.name
            self._database.add_lease(self._id)
            stack.callback(self._database.remove_lease, self._id)
            self._stack = stack.pop_all()
        return self

    def protect(self, digests: Iterable[Digest]) -> None:
        """Keep these, whether they are here yet or not."""
        if not self._database.readonly:
            self._database.protect(self._id, digests)

    def __exit__(self, *_: object) -> None:
        self._stack.close()


class NoLease(Lease):
    """For who only looks whether something is here: it may go the next moment."""

    def __init__(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def protect(self, digests: Iterable[Digest]) -> None:
        """Nothing is kept."""

    def __exit__(self, *_: object) -> None:
        pass


def end_dead_leases(database: Database, ingest: Ingest) -> None:
    """Remove the leases of processes that are gone; their directories are swept before, or now."""
    leases = database.leases()
    if not leases:
        return
    ingest.sweep()
    for lease in leases:
        if not os.path.exists(ingest.root / lease):
            database.remove_lease(lease)
