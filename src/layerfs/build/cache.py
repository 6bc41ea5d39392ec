"""The layer cache: which layer an instruction made of what it was given.

A key is the digest of all that an instruction depends on: the layers below, its own text with the values that it uses,
the content that it copies. A record names the layer, which is kept while the record is there. The configuration is
never cached: it is made anew from the Dockerfile each time, so no record can bring a foreign one.
"""

import hashlib
from collections.abc import Sequence
from typing import Any

import msgspec

from layerfs.digest import Digest
from layerfs.layers import LayerStore
from layerfs.leases import Lease
from layerfs.metadata import Database

__all__ = ["KIND", "BuildCache", "CacheRecord", "cache_key"]

KIND = "build-cache"
_VERSION = 2


class CacheRecord(msgspec.Struct, frozen=True):
    """What an instruction made: the layer (None: nothing), when (RFC 3339), and what to show for it."""

    layer: Digest | None
    created: str
    title: str = ""


def cache_key(kind: str, *parts: Any) -> str:
    """A key of anything that JSON can hold."""
    data = msgspec.json.encode([_VERSION, kind, *parts], enc_hook=str)
    return hashlib.sha256(data).hexdigest()


class BuildCache:
    """Finds and keeps records; layers that are found are protected by the build's lease. Any thread may use it."""

    def __init__(self, database: Database, layers: LayerStore, lease: Lease) -> None:
        self._database = database
        self._layers = layers
        self._lease = lease
        self._used: set[str] = set()
        self.made: dict[str, CacheRecord] = {}
        """What this build found or made, for an export."""

    def find(self, key: str) -> CacheRecord | None:
        """The record of a key whose layer is here."""
        document = self._database.record(KIND, key)
        if document is None:
            return None
        layer = Digest(document["layer"]) if document["layer"] else None
        if layer is not None:
            self._lease.protect([layer])
            if not self._layers.has(layer):
                return None
        record = CacheRecord(layer, document["created"], document.get("title", ""))
        self._used.add(key)
        self.made[key] = record
        return record

    def keep(self, key: str, record: CacheRecord) -> None:
        """Keep what an instruction made."""
        document = {"layer": record.layer, "created": record.created, "title": record.title}
        protected: Sequence[Digest] = [record.layer] if record.layer is not None else []
        self._database.put_record(KIND, key, document, protected)
        self.made[key] = record

    def flush(self) -> None:
        """Note which records were used."""
        with self._database.transaction():
            for key in self._used:
                self._database.touch_record(KIND, key)
        self._used.clear()
