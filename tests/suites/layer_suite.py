"""What every layer format must do: one suite, run over both (``test_layers``).

A subclass names its ``layer_format``. All is done to a real store, with real mounts where the test is marked ``root``.
"""

import errno
import hashlib
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import tarbuild
from fstree import Device, Dir, Fifo, File, Hole, Link, Symlink, Xattr, apply, assert_same, capture

from layerfs.digest import Digest
from layerfs.errors import IntegrityError, InvalidInputError, NativeError, NotFoundError
from layerfs.layers import Layer, LayerStore

ROOT = os.geteuid() == 0


def make_store(base: Path, layer_format: str, *, sync: bool = True) -> LayerStore:
    return LayerStore(
        base / "layers",
        base / "run",
        base / "ingest",
        layer_format,
        userxattr=not ROOT,
        chown=ROOT,
        sync=sync,
    )


def add(store: LayerStore, tar: bytes, step: int = 1 << 20, expected: Digest | None = None) -> Layer:
    with store.writer(expected) as writer:
        for at in range(0, len(tar), step):
            writer.write(tar[at : at + step])
        return writer.commit()


def exact_tar(store: LayerStore, diff_id: Digest, step: int = 1 << 20) -> bytes:
    with store.open_tar(diff_id) as reader:
        pieces = []
        while piece := reader.read(step):
            pieces.append(piece)
        assert reader.size == sum(map(len, pieces))
    return b"".join(pieces)


def sample(seed: int = 0, size: int = 300_000) -> bytes:
    """A tar with a large file, small ones, a link, a whiteout and an opaque directory."""
    noise = random.Random(seed).randbytes(size)
    return tarbuild.archive(
        tarbuild.directory("./", mode=0o750, mtime=1_600_000_000),
        tarbuild.directory("etc"),
        tarbuild.file("etc/hosts", b"127.0.0.1 localhost\n"),
        tarbuild.file("large", noise),
        tarbuild.file("etc/again", b"first"),
        tarbuild.file("etc/again", b"second"),
        tarbuild.symlink("etc/link", "../large"),
        tarbuild.hardlink("hosts", "etc/hosts"),
        tarbuild.whiteout("etc/gone"),
        tarbuild.opaque("opaque"),
    )


def litter(base: Path) -> list[str]:
    """What lies in the ingest area that is not meant to stay."""
    ingest = base / "ingest"
    return sorted(os.listdir(ingest)) if ingest.exists() else []


def attached(store: LayerStore) -> list[str]:
    """The mounts below the store's run directory."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line.split()[4] for line in lines if line.split()[4].startswith(f"{store.run}/")]


def _mount_in_a_process(base: Path, layer_format: str, diff_id: str, start: float) -> None:
    store = make_store(base, layer_format)
    time.sleep(max(0.0, start - time.time()))
    os.close(store.mount(Digest(diff_id)))


def _write_in_a_process(base: Path, layer_format: str, tar: Path, expected: str | None, result: Path) -> None:
    store = make_store(base, layer_format)
    with store.writer(Digest(expected) if expected else None) as writer:
        if writer.present:
            result.write_text("present")
        else:
            with open(tar, "rb") as file:
                while piece := file.read(4096):
                    writer.write(piece)
                    time.sleep(0.002)
            result.write_text("written")
        writer.commit()


class LayerSuite:
    layer_format = ""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[LayerStore]:
        store = make_store(tmp_path, self.layer_format)
        yield store
        assert store.release(store.mounted()) == []

    # ---- in and out ----

    def test_a_layer_has_its_diff_id_and_counts(self, store: LayerStore) -> None:
        tar = sample()
        layer = add(store, tar)
        assert layer.diff_id == Digest.of(tar)
        assert layer.size == len(tar)
        assert layer.format == self.layer_format
        assert (layer.whiteouts, layer.opaques) == (1, 1)
        assert layer.data_bytes == 300_000 + len(b"127.0.0.1 localhost\n") + len(b"second")
        assert layer.disk >= 300_000
        assert store.get(layer.diff_id) == layer
        assert list(store.list()) == [layer.diff_id]
        assert store.has(layer.diff_id)

    @pytest.mark.parametrize("step", [511, 4096, 1 << 20])
    def test_the_exact_tar_comes_back_whatever_the_pieces(self, store: LayerStore, step: int) -> None:
        tar = sample(step)
        layer = add(store, tar, step)
        assert exact_tar(store, layer.diff_id, step) == tar

    def test_an_empty_archive_is_a_layer(self, store: LayerStore) -> None:
        tar = tarbuild.archive()
        layer = add(store, tar)
        assert layer.entries == 0
        assert exact_tar(store, layer.diff_id) == tar
        store.verify(layer.diff_id)

    def test_a_sha512_diff_id(self, store: LayerStore) -> None:
        tar = sample()
        expected = Digest("sha512:" + hashlib.sha512(tar).hexdigest())
        assert add(store, tar, expected=expected).diff_id == expected
        assert list(store.list()) == [expected]
        store.verify(expected)

    def test_another_diff_id_than_expected_names_both(self, store: LayerStore, tmp_path: Path) -> None:
        expected, tar = Digest.of(b"else"), sample()
        with pytest.raises(IntegrityError) as caught:
            add(store, tar, expected=expected)
        assert expected in str(caught.value)
        assert Digest.of(tar) in str(caught.value)
        assert list(store.list()) == []
        assert litter(tmp_path) == []

    def test_a_truncated_or_abandoned_tar_leaves_nothing(self, store: LayerStore, tmp_path: Path) -> None:
        with pytest.raises(IntegrityError):
            add(store, sample()[:200_000])
        with store.writer() as writer:
            writer.write(sample()[:100_000])
        with pytest.raises(ValueError, match="closed"):
            writer.write(b"x")
        assert list(store.list()) == []
        assert litter(tmp_path) == []

    def test_a_malformed_archive_leaves_nothing(self, store: LayerStore, tmp_path: Path) -> None:
        with pytest.raises(IntegrityError):
            add(store, tarbuild.archive(tarbuild.file("../x", b"")))
        assert litter(tmp_path) == []

    def test_limits(self, store: LayerStore, tmp_path: Path) -> None:
        for limits in ({"max_bytes": 1000}, {"max_entries": 3}, {"max_metadata": 20}):
            with pytest.raises(InvalidInputError), store.writer(**limits) as writer:
                writer.write(sample())
        assert litter(tmp_path) == []

    def test_what_is_not_there(self, store: LayerStore) -> None:
        missing = Digest.of(b"missing")
        assert not store.has(missing)
        for call in (store.get, store.open_tar, store.mount, store.verify, lambda d: store.view([d])):
            with pytest.raises(NotFoundError, match="not in the store"):
                call(missing)
        store.delete(missing)

    # ---- many writers ----

    def test_a_layer_that_is_there_need_not_be_written(self, store: LayerStore, tmp_path: Path) -> None:
        layer = add(store, sample())
        with store.writer(layer.diff_id) as writer:
            assert writer.present
            assert writer.commit() == layer
        assert add(store, sample()) == layer
        assert litter(tmp_path) == []

    def test_the_second_of_two_threads_waits_and_finds_it_done(self, store: LayerStore) -> None:
        tar = sample()
        first_began, seen = threading.Event(), []

        def second() -> None:
            first_began.wait()
            with store.writer(Digest.of(tar)) as writer:
                seen.append(writer.present)
                writer.commit()

        thread = threading.Thread(target=second)
        thread.start()
        with store.writer(Digest.of(tar)) as writer:
            first_began.set()
            time.sleep(0.1)
            writer.write(tar)
            writer.commit()
            assert seen == []
        thread.join()
        assert seen == [True]

    @pytest.mark.parametrize("known", [True, False])
    def test_two_processes_unpack_one_layer_at_once(self, store: LayerStore, tmp_path: Path, known: bool) -> None:
        tar = tmp_path / "tar"
        tar.write_bytes(sample())
        diff_id = Digest.of(tar.read_bytes())
        results = [tmp_path / "one", tmp_path / "two"]
        context = multiprocessing.get_context("spawn")
        processes = [
            context.Process(
                target=_write_in_a_process,
                args=(tmp_path, self.layer_format, tar, diff_id if known else None, result),
            )
            for result in results
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
            assert process.exitcode == 0
        found = sorted(result.read_text() for result in results)
        assert found == (["present", "written"] if known else ["written", "written"])
        store.verify(diff_id)
        assert list(store.list()) == [diff_id]
        assert litter(tmp_path) == []

    def test_kill_9_while_writing_leaves_a_store_that_works(self, store: LayerStore, tmp_path: Path) -> None:
        tar = tmp_path / "tar"
        tar.write_bytes(sample(size=3_000_000))
        diff_id = Digest.of(tar.read_bytes())
        context = multiprocessing.get_context("spawn")
        process = context.Process(
            target=_write_in_a_process, args=(tmp_path, self.layer_format, tar, diff_id, tmp_path / "result")
        )
        process.start()
        deadline = time.monotonic() + 30
        while not any(name.startswith("layer-") for name in litter(tmp_path)) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.2)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert any(name.startswith("layer-") for name in litter(tmp_path))
        assert not store.has(diff_id)
        assert store.ingest.sweep() >= 1
        assert not any(name.startswith("layer-") for name in litter(tmp_path))
        layer = add(store, tar.read_bytes(), expected=diff_id)
        store.verify(layer.diff_id)
        assert litter(tmp_path) == []

    def test_a_sweep_spares_what_is_being_written(self, store: LayerStore) -> None:
        with store.writer() as writer:
            writer.write(sample())
            assert store.ingest.sweep() == 0
            writer.commit()

    # ---- the disk ----

    @pytest.mark.root
    def test_a_full_disk_leaves_nothing(self, tmp_path: Path) -> None:
        with small_disk(tmp_path, 8) as disk:
            store = make_store(disk, self.layer_format)
            kept = add(store, sample())
            with pytest.raises(NativeError) as caught:
                add(store, sample(1, 20_000_000))
            assert caught.value.errno == errno.ENOSPC
            assert caught.value.hint is not None
            assert list(store.list()) == [kept.diff_id]
            assert litter(disk) == []
            store.verify(kept.diff_id)

    @pytest.mark.root
    def test_a_disk_that_fills_up_with_the_last_bytes(self, tmp_path: Path) -> None:
        """Whatever step hits the end of the disk, nothing half-made is seen, and with space it works."""
        tar = sample(1, 1_000_000)
        with small_disk(tmp_path, 8) as disk:
            store = make_store(disk, self.layer_format)
            (disk / "layers").mkdir()
            free = os.statvfs(disk)
            filler = os.open(disk / "filler", os.O_RDWR | os.O_CREAT)
            full = 0
            for spare in (*range(900_000, 1_200_000, 8192), 2_000_000):
                os.posix_fallocate(filler, 0, free.f_bavail * free.f_bsize - 100_000 - spare)
                os.ftruncate(filler, free.f_bavail * free.f_bsize - 100_000 - spare)
                error = 0
                try:
                    layer = add(store, tar)
                except NativeError as exc:
                    error = exc.errno
                if error:
                    assert error == errno.ENOSPC
                    full += 1
                    assert list(store.list()) == []
                else:
                    assert exact_tar(store, layer.diff_id) == tar
                    store.delete(layer.diff_id)
                assert litter(disk) == []
            os.close(filler)
            assert full > 0

    @pytest.mark.root
    def test_a_read_only_store(self, tmp_path: Path) -> None:
        with small_disk(tmp_path, 8) as disk:
            store = make_store(disk, self.layer_format)
            layer = add(store, sample())
            store = LayerStore(disk / "layers", tmp_path / "run", disk / "ingest", self.layer_format)
            subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
            assert exact_tar(store, layer.diff_id) == sample()
            store.verify(layer.diff_id)
            os.close(store.mount(layer.diff_id))
            with store.view([layer.diff_id]) as view:
                assert b"".join(view.read(b"etc/hosts")) == b"127.0.0.1 localhost\n"
            with pytest.raises(NativeError) as caught:
                add(store, sample(1))
            assert caught.value.errno == errno.EROFS
            with pytest.raises(NativeError):
                store.delete(layer.diff_id)
            assert store.has(layer.diff_id)
            assert store.release(store.mounted()) == []

    # ---- damage ----

    def _rest(self, store: LayerStore, diff_id: Digest) -> tuple[Path, int]:
        with store.open(diff_id) as layer:
            offset = layer.header.rest_offset
        path = store.path(diff_id)
        return (path if path.is_file() else path / "rest.lz4"), offset

    @pytest.mark.parametrize("quick", [True, False])
    def test_a_damaged_rest_is_found_and_put_away(self, store: LayerStore, quick: bool) -> None:
        layer = add(store, sample())
        path, offset = self._rest(store, layer.diff_id)
        flip(path, offset + 40)
        with pytest.raises(IntegrityError, match="damaged"):
            store.verify(layer.diff_id, quick)
        assert not store.has(layer.diff_id)
        with pytest.raises(NotFoundError):
            store.mount(layer.diff_id)
        assert add(store, sample(), expected=layer.diff_id) == layer  # what was damaged can be brought again

    def test_a_damaged_rest_gives_no_wrong_tar(self, store: LayerStore) -> None:
        layer = add(store, sample())
        path, _ = self._rest(store, layer.diff_id)
        flip(path, path.stat().st_size - 30)
        with pytest.raises(IntegrityError):
            assert exact_tar(store, layer.diff_id) == sample()

    def test_a_rest_cut_short(self, store: LayerStore) -> None:
        layer = add(store, sample())
        path, _ = self._rest(store, layer.diff_id)
        path.chmod(0o644)
        os.truncate(path, path.stat().st_size - 1)
        for call in (store.get, store.mount):
            with pytest.raises(IntegrityError, match="bytes, not"):
                call(layer.diff_id)
        with pytest.raises(IntegrityError):
            store.verify(layer.diff_id, quick=True)
        assert not store.has(layer.diff_id)

    def test_damaged_content_is_found_by_the_full_check(self, store: LayerStore) -> None:
        layer = add(store, sample())
        path = store.path(layer.diff_id)
        if path.is_dir():
            flip(path / "fs" / "large", 1000)
        else:
            flip(path, path.read_bytes().index(sample()[sample().index(random.Random(0).randbytes(32)) :][:32]) + 9)
        store.verify(layer.diff_id, quick=True)
        with pytest.raises(IntegrityError, match="diff ID"):
            store.verify(layer.diff_id)
        assert not store.has(layer.diff_id)

    @pytest.mark.parametrize("offset", [0, 20, 200, 300, 900, 1023])
    def test_a_damaged_header_is_not_believed(self, store: LayerStore, offset: int) -> None:
        layer = add(store, sample())
        path = store.path(layer.diff_id)
        flip(path if path.is_file() else path / "header", offset)
        for call in (store.get, store.mount, store.open_tar):
            with pytest.raises(IntegrityError):
                call(layer.diff_id)

    def test_a_layer_under_the_name_of_another(self, store: LayerStore) -> None:
        one, two = add(store, sample(1)), add(store, sample(2))
        os.rename(store.path(two.diff_id), store.root / "aside")
        os.rename(store.path(one.diff_id), store.path(two.diff_id))
        for call in (store.get, store.mount, store.open_tar):
            with pytest.raises(IntegrityError, match=one.diff_id):
                call(two.diff_id)

    # ---- mounts ----

    @pytest.mark.root
    def test_the_tree_is_the_one_that_gnu_tar_extracts(self, store: LayerStore, tmp_path: Path) -> None:
        source, extracted, tar = tmp_path / "source", tmp_path / "extracted", tmp_path / "tar"
        source.mkdir()
        extracted.mkdir()
        apply(
            source,
            Dir("", mode=0o711, uid=5, gid=6),
            Dir("d", mode=0o2775, uid=1000, gid=100_000),
            File("d/small", b"x" * 100, mode=0o4755, mtime_ns=1),
            File("d/large", os.urandom(3_000_001), mode=0),
            File("empty"),
            File(b"\xff\xfe name\n", b"not UTF-8"),
            File("n" * 255, b"long"),
            Symlink("d/link", "../large/../x"),
            Link("d/hard", "d/small"),
            Device("null", "c", 1, 3, mode=0o666),
            Device("disk", "b", 259, 1_000_000),
            Fifo("fifo"),
            Xattr("d/small", "user.a", b"\0binary\xff"),
            Xattr("d/large", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000")),
            Xattr("d", "trusted.t", b"t"),
            Hole("sparse", 50 << 20, {1 << 20: b"island", 40 << 20: b"z" * 10_000}),
            *(File(f"many/{number:04}", str(number).encode()) for number in range(2000)),
        )
        pack = ["tar", "--format=posix", "--xattrs", "--xattrs-include=*", "--numeric-owner", "--sparse"]
        subprocess.run([*pack, "-cf", tar, "-C", source, "."], check=True)
        unpack = ["tar", "--xattrs", "--xattrs-include=*", "--numeric-owner", "--same-owner", "-p"]
        subprocess.run([*unpack, "-xf", tar, "-C", extracted], check=True)
        layer = add(store, tar.read_bytes(), 100_000)
        fd = store.mount(layer.diff_id)
        try:
            assert_same(capture(extracted), capture(f"/proc/self/fd/{fd}"))
        finally:
            os.close(fd)
        assert hashlib.sha256(exact_tar(store, layer.diff_id)).hexdigest() == layer.diff_id.hex
        store.verify(layer.diff_id)

    @pytest.mark.root
    def test_processes_share_one_mount(self, store: LayerStore, tmp_path: Path) -> None:
        layer = add(store, sample())
        start = time.time() + 1.0
        code = (
            "import sys; sys.path[:0] = sys.argv[1:3]\n"
            "from pathlib import Path\n"
            "from suites.layer_suite import _mount_in_a_process as mount\n"
            f"mount(Path(sys.argv[3]), {self.layer_format!r}, sys.argv[4], float(sys.argv[5]))\n"
        )
        here = Path(__file__).parent
        arguments = [str(here), str(here.parent), str(tmp_path), layer.diff_id, str(start)]
        processes = [subprocess.Popen([sys.executable, "-c", code, *arguments]) for _ in range(4)]
        assert [process.wait() for process in processes] == [0] * 4
        expected = [f"{store.run}/{layer.diff_id.hex}"] if self.layer_format == "erofs" else []
        assert attached(store) == expected
        one, two = store.mount(layer.diff_id), store.mount(layer.diff_id)
        assert os.fstat(one).st_dev == os.fstat(two).st_dev
        os.close(one)
        os.close(two)
        assert store.release([layer.diff_id]) == []
        assert attached(store) == []

    @pytest.mark.root
    def test_deleting_a_layer_takes_its_mount_along(self, store: LayerStore, tmp_path: Path) -> None:
        layer = add(store, sample())
        os.close(store.mount(layer.diff_id))
        store.delete(layer.diff_id)
        assert not store.has(layer.diff_id)
        assert attached(store) == []
        assert store.mounted() == []
        assert litter(tmp_path) == []

    @pytest.mark.root
    def test_a_mount_that_is_open_survives_the_layer(self, store: LayerStore) -> None:
        layer = add(store, sample())
        fd = store.mount(layer.diff_id)
        store.delete(layer.diff_id)
        if self.layer_format == "erofs":
            assert Path(f"/proc/self/fd/{fd}/etc/hosts").read_text() == "127.0.0.1 localhost\n"
        os.close(fd)

    @pytest.mark.root
    def test_few_descriptors_are_an_error_of_ours(self, store: LayerStore) -> None:
        layer = add(store, sample())

        def view() -> None:
            with store.view([layer.diff_id, layer.diff_id]) as view:
                for entry in view.walk():
                    if entry.type == "file":
                        list(view.read(entry.path))

        def tar() -> None:
            with store.open_tar(layer.diff_id) as reader:
                while reader.read(1 << 20):
                    pass

        for what in (lambda: os.close(store.mount(layer.diff_id)), view, tar, lambda: store.get(layer.diff_id)):
            what()  # modules that it needs are there from now on
            failures = 0
            for count in range(40):
                with descriptors(count):
                    try:
                        what()
                        break
                    except NativeError as exc:
                        failures += exc.errno == errno.EMFILE
            assert 0 < failures == count < 39
        assert store.release([layer.diff_id]) == []


@contextmanager
def descriptors(count: int) -> Iterator[None]:
    """No more than so many can be opened."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def flip(path: Path, offset: int) -> None:
    """Change one byte of a file, whatever its mode."""
    fd = os.open(path, os.O_RDWR) if ROOT else _writable(path)
    old = os.pread(fd, 1, offset)
    assert os.pwrite(fd, bytes([old[0] ^ 0x55]), offset) == 1
    os.close(fd)


def _writable(path: Path) -> int:
    path.chmod(0o644)
    return os.open(path, os.O_RDWR)


class small_disk:
    """A file system of its own, of ``size`` MiB, in a file."""

    def __init__(self, base: Path, size: int) -> None:
        self.image, self.place, self.size = base / "disk.img", base / "disk", size

    def __enter__(self) -> Path:
        self.place.mkdir()
        with open(self.image, "wb") as file:
            file.truncate(self.size << 20)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", self.image], check=True)
        subprocess.run(["mount", "-o", "loop", self.image, self.place], check=True)
        return self.place

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", self.place], check=True)
