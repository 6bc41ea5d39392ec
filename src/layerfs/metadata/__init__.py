"""The database: what is in the store, what it is called, and who needs it.  All SQL of layerfs is in this package.

One SQLite file in WAL mode; a connection for each thread.  A transaction is durable (synced before it returns) when
it acknowledges something that must outlive a power cut, as an image; records of running containers are not.
On publishing the database comes last, on removal first: a row never names what is not there, unless a disk lost it.
"""

from layerfs.metadata.containers import ContainerTables
from layerfs.metadata.images import ImageTables
from layerfs.metadata.layers import LayerTables
from layerfs.metadata.records import RecordTables
from layerfs.metadata.rows import ContainerRow, ImageRow, LayerRow, SnapshotRow
from layerfs.metadata.salvage import SalvageTables

__all__ = ["ContainerRow", "Database", "ImageRow", "LayerRow", "SnapshotRow"]


class Database(ImageTables, LayerTables, ContainerTables, RecordTables, SalvageTables):
    """The store's SQLite file; made when it is missing, unless ``readonly``. Any thread may use it."""
