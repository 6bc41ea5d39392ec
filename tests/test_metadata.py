import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from layerfs.digest import Digest
from layerfs.errors import ExistsError, IntegrityError, InvalidInputError, LayerfsError, NotFoundError, UnsupportedError
from layerfs.fsutil import Ingest
from layerfs.leases import Lease, end_dead_leases
from layerfs.metadata import Database
from layerfs.oci import MEDIA_MANIFEST, descriptor_of

A, B, C = (Digest.of(x) for x in (b"a", b"b", b"c"))
TARGET = descriptor_of(b"manifest", MEDIA_MANIFEST)


@pytest.fixture
def database(tmp_path: Path) -> "Database":
    database = Database(tmp_path / "x.db")
    yield database
    database.close()


def test_images_and_names(database: Database) -> None:
    database.add_image(TARGET, A, [B], [TARGET.digest, A, C], "docker.io/library/x:1")
    database.set_name("docker.io/library/x:2", TARGET.digest)
    database.add_repo_digest("docker.io/library/x", C, TARGET.digest)
    assert database.resolve("docker.io/library/x:1") == TARGET.digest
    assert [name for name, _ in database.names(TARGET.digest)] == ["docker.io/library/x:1", "docker.io/library/x:2"]
    assert database.resolve_repo_digest("docker.io/library/x", C) == TARGET.digest
    assert [row.target for row in database.find_images(A[:12])] == [TARGET]
    assert [row.target for row in database.find_images(TARGET.digest[:12])] == [TARGET]
    database.remove_image(TARGET.digest)
    assert database.images() == []
    assert database.names() == []
    assert database.repo_digests(TARGET.digest) == []
    assert not database.is_image_blob(C)


def test_a_name_needs_its_image(database: Database) -> None:
    with pytest.raises(LayerfsError, match="FOREIGN KEY"):
        database.set_name("docker.io/library/x:1", TARGET.digest)


def test_what_needs_a_layer_keeps_it(database: Database) -> None:
    database.add_layer(A, 1, 1, 1, 1)
    assert database.unneeded_layers() == [A]
    database.add_image(TARGET, None, [A], [])
    assert database.unneeded_layers() == []
    database.remove_image(TARGET.digest)
    database.add_snapshot("s", [A])
    assert database.unneeded_layers() == []
    database.remove_snapshot("s")
    database.put_record("cache", "k", {"x": 1}, [A])
    assert not database.take_layer(A)
    database.put_record("cache", "k", {"x": 2})
    assert not database.take_layer(B)
    assert database.take_layer(A)
    assert database.layer(A) is None


def test_leases_protect_until_they_end(database: Database, tmp_path: Path) -> None:
    (tmp_path / "ingest").mkdir()
    ingest = Ingest(tmp_path / "ingest")
    database.add_layer(A, 1, 1, 1, 1)
    with Lease(database, ingest) as lease:
        lease.protect([A, B])
        end_dead_leases(database, ingest)
        assert not database.take_layer(A)
        assert database.is_leased(B)
    assert database.leases() == []
    assert os.listdir(tmp_path / "ingest") == []
    database.add_lease("lease-of-the-dead")
    database.protect("lease-of-the-dead", [A])
    end_dead_leases(database, ingest)
    assert database.take_layer(A)


def test_containers(database: Database) -> None:
    database.add_container("ab" * 32, "one", None, A, {"status": "created"})
    database.add_container("ac" * 32, "two", None, A, {})
    with pytest.raises(ExistsError, match="in use by container abab"):
        database.add_container("ad" * 32, "one", None, A, {})
    assert database.container("one").id == database.container("aba").id == "ab" * 32
    with pytest.raises(NotFoundError, match="several"):
        database.container("a")
    for text in ("none", "", "%", "a' OR 1"):
        with pytest.raises(NotFoundError):
            database.container(text)
    database.set_container_state("ab" * 32, {"status": "exited"})
    database.rename_container("ab" * 32, "three")
    assert database.container("three").state == {"status": "exited"}
    with pytest.raises(ExistsError):
        database.rename_container("ab" * 32, "two")
    assert len(database.containers_of_image(A)) == 2


def test_a_failed_transaction_leaves_nothing(database: Database) -> None:
    def half() -> None:
        with database.transaction():
            database.add_layer(A, 1, 1, 1, 1)
            raise KeyError

    with pytest.raises(KeyError):
        half()
    assert database.layers() == []


def test_threads_write_at_once(database: Database) -> None:
    def work(number: int) -> None:
        for i in range(20):
            database.put_record("kind", f"{number}-{i}", {})

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(database.records("kind")) == 160


def test_a_store_of_the_future_and_a_damaged_one_are_refused(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "new.db")) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(UnsupportedError, match="version 99"):
        Database(tmp_path / "new.db")
    (tmp_path / "bad.db").write_bytes(b"SQLite format 3\0" + b"\xff" * 4096)
    with pytest.raises(IntegrityError, match=r"bad\.db"):
        Database(tmp_path / "bad.db")


def test_a_read_only_store_can_be_read(tmp_path: Path) -> None:
    with_rows = Database(tmp_path / "x.db")
    with_rows.add_layer(A, 1, 1, 1, 1)
    with_rows.close()
    reader = Database(tmp_path / "x.db", readonly=True)
    assert [row.diff_id for row in reader.layers()] == [A]
    reader.close()


def test_connections_of_threads_that_ended_are_closed(database: Database) -> None:
    """A copy has new threads each time, and a store may live for months."""

    def descriptors() -> int:
        links = (os.path.join("/proc/self/fd", name) for name in os.listdir("/proc/self/fd"))
        return sum(os.path.lexists(link) and os.readlink(link).startswith(str(database.path)) for link in links)

    for _ in range(30):
        thread = threading.Thread(target=database.images)
        thread.start()
        thread.join()
    assert len(database._connections) <= 2
    assert descriptors() < 12


def test_what_is_no_text_is_an_error_of_input(database: Database) -> None:
    with pytest.raises(InvalidInputError, match="not UTF-8"):
        database.container("\udcff")


def test_an_interrupt_as_a_transaction_begins_leaves_none(database: Database) -> None:
    real = database._db

    class Interrupted:
        def execute(self, sql: str, *values: object) -> object:
            done = real.execute(sql, *values)
            if sql == "BEGIN IMMEDIATE":
                raise KeyboardInterrupt
            return done

    database._local.connection = Interrupted()
    with pytest.raises(KeyboardInterrupt), database.transaction():
        pass
    database._local.connection = real
    database.add_layer(A, 1, 1, 1, 1)  # neither this thread nor another process is kept out
