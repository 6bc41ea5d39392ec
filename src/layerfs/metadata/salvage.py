"""What can still be read of a damaged database, row by row, into a new one."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

from layerfs.digest import Digest
from layerfs.errors import InvalidInputError
from layerfs.metadata.connection import Connection
from layerfs.metadata.documents import from_text

__all__ = ["SalvageTables"]

_READINGS = {
    # What stands on disk as well (layers, and what images consist of) is made anew instead; leases are of commands.
    "store": ("SELECT * FROM store ORDER BY key",),
    "images": ("SELECT * FROM images ORDER BY rowid",),
    # These two stand in their table and, whole, in an index: what is lost in the one may be in the other.
    "names": (
        "SELECT * FROM names ORDER BY name",
        "SELECT name, target FROM names INDEXED BY names_by_target ORDER BY target",
    ),
    "repo_digests": (
        "SELECT * FROM repo_digests ORDER BY repository",
        "SELECT repository, digest, target FROM repo_digests INDEXED BY repo_digests_by_target ORDER BY target",
    ),
    "layer_blobs": ("SELECT * FROM layer_blobs ORDER BY digest",),
    "blob_sources": ("SELECT * FROM blob_sources ORDER BY digest",),
    "snapshots": ("SELECT * FROM snapshots ORDER BY key",),
    "containers": ("SELECT * FROM containers ORDER BY id",),
    "records": ("SELECT * FROM records ORDER BY rowid",),
    "record_layers": ("SELECT * FROM record_layers ORDER BY kind",),
}
_Row = tuple[object, ...]


class SalvageTables(Connection):
    """Taking rows over from a damaged file."""

    def salvage(self, damaged: Path) -> int:
        """Copy every row that can be read of a file, which is changed by that; how many. What they name may be gone."""
        self.checkpoint()
        self._run("PRAGMA foreign_keys = OFF")
        try:
            with self.transaction(durable=True):
                count = self._take(damaged)
                _replace_schema(damaged, self.path)
                count += self._take(damaged)
        finally:
            self._run("PRAGMA foreign_keys = ON")
        return count

    def _take(self, damaged: Path) -> int:
        count = 0
        for table, readings in _READINGS.items():
            for row in _rows(damaged, readings):
                with suppress(sqlite3.Error):
                    marks = ", ".join("?" * len(row))
                    count += self._db.execute(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", row).rowcount
        return count

    def forget_dangling(self) -> None:
        """Forget the rows that name what is neither in another table nor on disk, after that has been looked at."""
        with self.transaction(durable=True):
            self._delete_dangling()

    def _delete_dangling(self) -> None:
        for table in ("names", "repo_digests"):
            self._run(f"DELETE FROM {table} WHERE target NOT IN (SELECT target FROM images)")
        self._run(
            "DELETE FROM record_layers WHERE NOT EXISTS"
            " (SELECT 1 FROM records AS r WHERE r.kind = record_layers.kind AND r.key = record_layers.key)"
        )


def _rows(path: Path, readings: tuple[str, ...]) -> Iterator[_Row]:
    """Rows from the front up to what is damaged, and then from the back."""
    for sql in readings:
        for order in ("ASC", "DESC"):
            with suppress(sqlite3.Error), closing(sqlite3.connect(path)) as db:
                db.text_factory = bytes
                for row in db.execute(f"{sql} {order}"):
                    with suppress(UnicodeDecodeError):
                        text = tuple(value.decode() if isinstance(value, bytes) else value for value in row)
                        if all(map(_is_sane, text)):
                            yield text
                break


def _is_sane(value: object) -> bool:
    """Whether what looks like a digest or a document is one."""
    try:
        if isinstance(value, str) and value.startswith(("sha256:", "sha512:")):
            Digest(value)
        elif isinstance(value, str) and value.startswith(("{", "[")):
            found = from_text(value)
            for each in found if isinstance(found, list) else ():
                Digest(each)
    except (InvalidInputError, ValueError):
        return False
    return True


def _replace_schema(damaged: Path, model: Path) -> None:
    """Give a file the schema of a new database. All were made by the same statements, so their tables begin on the same
    pages; without its schema, SQLite finds none of them."""
    data = model.read_bytes()
    size = int.from_bytes(data[16:18], "big")
    with damaged.open("r+b") as file:
        pages = file.seek(0, 2) // size
        for page in _schema_pages(data, size):
            file.seek((page - 1) * size)
            file.write(data[(page - 1) * size : page * size])
        file.seek(28)
        file.write(pages.to_bytes(4, "big") + bytes(8))  # its length, and no free pages


def _schema_pages(data: bytes, size: int) -> list[int]:
    """Page 1, and where the schema has more, the pages that it points to."""
    if data[100] != 5:  # it is no interior page of a table
        return [1]
    count = int.from_bytes(data[103:105], "big")
    cells = [int.from_bytes(data[at : at + 2], "big") for at in range(112, 112 + 2 * count, 2)]
    children = [int.from_bytes(data[cell : cell + 4], "big") for cell in cells]
    return [1, *children, int.from_bytes(data[108:112], "big")]
