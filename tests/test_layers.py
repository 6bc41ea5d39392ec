"""The layer store: what both formats must do, and what only one of them has."""

import errno
import os
import shutil
import struct
from pathlib import Path

import pytest
import tarbuild
from fstree import assert_same, capture
from suites.layer_suite import LayerSuite, add, attached, exact_tar, flip, make_store, sample

from layerfs import native
from layerfs.digest import Digest
from layerfs.errors import IntegrityError, InvalidInputError, NativeError
from layerfs.layers import HEADER_SIZE, Header, LayerStore, mounting, probe_format


class TestErofs(LayerSuite):
    layer_format = "erofs"

    @pytest.mark.root
    @pytest.mark.parametrize("quick", [True, False])
    def test_damaged_metadata_are_found_by_both_checks(self, store: LayerStore, quick: bool) -> None:
        layer = add(store, sample())
        os.close(store.mount(layer.diff_id))
        with store.open(layer.diff_id) as opened:
            offset = opened.header.image_size - 100
        flip(store.path(layer.diff_id), offset)
        with pytest.raises(IntegrityError, match="metadata"):
            store.verify(layer.diff_id, quick)
        assert attached(store) == []  # what is damaged does not stay mounted either

    def test_a_layer_is_one_file_that_nobody_writes(self, store: LayerStore) -> None:
        path = store.path(add(store, sample()).diff_id)
        assert path.is_file()
        assert path.stat().st_mode & 0o777 == 0o444
        assert path.stat().st_nlink == 1

    def test_the_image_does_not_depend_on_the_pieces(self, tmp_path: Path) -> None:
        images = []
        for name, step in (("a", 777), ("b", 1 << 20)):
            store = make_store(tmp_path / name, "erofs")
            layer = add(store, sample(), step)
            with store.open(layer.diff_id) as opened:
                images.append(store.path(layer.diff_id).read_bytes()[1024 : opened.header.image_size])
        assert images[0] == images[1]

    @pytest.mark.root
    def test_a_mount_of_a_file_that_was_replaced_is_replaced_too(self, store: LayerStore) -> None:
        layer = add(store, sample())
        old = store.mount(layer.diff_id)
        path = store.path(layer.diff_id)
        shutil.copyfile(path, store.root / "copy")
        os.rename(store.root / "copy", path)
        new = store.mount(layer.diff_id)
        assert os.fstat(new).st_dev != os.fstat(old).st_dev
        assert len(attached(store)) == 1
        assert Path(f"/proc/self/fd/{old}/etc/hosts").exists()  # whoever has the old one keeps it
        os.close(old)
        os.close(new)

    @pytest.mark.root
    def test_a_run_directory_that_vanished(self, store: LayerStore) -> None:
        layer = add(store, sample())
        os.close(store.mount(layer.diff_id))
        native.detach(store.run / layer.diff_id.hex)
        os.close(store.mount(layer.diff_id))  # the mount alone
        native.detach(store.run / layer.diff_id.hex)
        shutil.rmtree(store.run)
        os.close(store.mount(layer.diff_id))  # all of it
        assert store.mounted() == [layer.diff_id]

    @pytest.mark.root
    def test_a_busy_mount_stays(self, store: LayerStore) -> None:
        layer = add(store, sample())
        fd = store.mount(layer.diff_id)
        assert store.release([layer.diff_id]) == [layer.diff_id]
        assert store.mounted() == [layer.diff_id]
        os.close(fd)
        assert store.release([layer.diff_id]) == []

    @pytest.mark.root
    def test_a_loop_device_serves_where_files_cannot_be_mounted(
        self, store: LayerStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = native.erofs_mount

        def refusing(fd: int, *, loop: bool = False) -> int:
            if not loop:
                raise NativeError("mount layer file: refused", errno.ENOTBLK)
            return real(fd, loop=True)

        monkeypatch.setattr(mounting.native, "erofs_mount", refusing)
        layer = add(store, sample())
        fd = store.mount(layer.diff_id)
        assert Path(f"/proc/self/fd/{fd}/etc/hosts").read_text() == "127.0.0.1 localhost\n"
        os.close(fd)

    def test_kernels_that_panic_get_a_loop_device(self) -> None:
        panics = mounting._direct_mounts_panic
        assert [panics(release) for release in ("6.12.0", "6.12.1-arch1", "6.12", "6.12-rc3")] == [True] * 4
        assert [panics(release) for release in ("6.12.2", "6.12.10", "6.12.13+deb", "6.1.12", "6.18.44")] == [False] * 5

    def test_the_reader(self, store: LayerStore) -> None:
        layer = add(store, sample())
        with store.reader(layer.diff_id) as reader:
            nid = reader.lookup(reader.lookup(reader.root, b"etc"), b"again")
            assert reader.read(nid, 0, 100) == b"second"


class TestDir(LayerSuite):
    layer_format = "dir"

    def test_its_parts(self, store: LayerStore) -> None:
        path = store.path(add(store, sample()).diff_id)
        assert sorted(os.listdir(path)) == ["dead", "fs", "header", "rest.lz4"]

    @pytest.mark.parametrize("part", ["fs", "header", "rest.lz4"])
    def test_a_part_that_is_missing(self, store: LayerStore, part: str) -> None:
        layer = add(store, sample())
        os.rename(store.path(layer.diff_id) / part, store.root / "aside")
        with pytest.raises(IntegrityError, match="missing"):
            store.verify(layer.diff_id, quick=True)
        assert not store.has(layer.diff_id)

    def test_a_mode_that_was_changed_is_found_by_the_full_check(self, store: LayerStore) -> None:
        layer = add(store, sample())
        (store.path(layer.diff_id) / "fs" / "large").chmod(0o777)
        with pytest.raises(IntegrityError, match="/large is not"):
            store.verify(layer.diff_id)

    def test_there_is_no_reader(self, store: LayerStore) -> None:
        layer = add(store, sample())
        with pytest.raises(InvalidInputError), store.reader(layer.diff_id):
            pass

    def test_without_privilege(self, tmp_path: Path) -> None:
        """The options of a store of a user: marks of that user, owners as they fall."""
        store = LayerStore(
            tmp_path / "layers", tmp_path / "run", tmp_path / "ingest", "dir", userxattr=True, chown=False
        )
        tar = tarbuild.archive(tarbuild.opaque("d"), tarbuild.file("d/f", b"x", uid=12345))
        layer = add(store, tar)
        tree = store.path(layer.diff_id) / "fs"
        assert os.getxattr(tree / "d", "user.overlay.opaque") == b"y"
        assert (tree / "d" / "f").stat().st_uid == os.geteuid()
        assert exact_tar(store, layer.diff_id) == tar
        store.verify(layer.diff_id)


def test_the_header_comes_back() -> None:
    header = Header(
        diff_id=Digest.of(b"x"),
        format="dir",
        userxattr=True,
        chown=False,
        **{name: number for number, name in enumerate(Header.__struct_fields__[4:17], 1 << 40)},
        meta_hash=b"m" * 16,
        rest_hash=b"r" * 16,
    )
    data = header.encode()
    assert len(data) == HEADER_SIZE
    assert Header.decode(data, "x") == header
    assert struct.unpack_from("<Q", data, 152) == (header.tar_size,)
    with pytest.raises(IntegrityError, match="not a layer"):
        Header.decode(b"", "x")


@pytest.mark.root
def test_the_probe_tells_what_works(tmp_path: Path) -> None:
    assert probe_format(tmp_path) == "erofs"
    assert os.listdir(tmp_path) == []
    assert probe_format(tmp_path / "missing") == "dir"
    shm = Path("/dev/shm/layerfs-test-probe")
    shm.mkdir()
    try:
        # On tmpfs a loop device serves.
        assert probe_format(shm) == "erofs"
        assert os.listdir(shm) == []
    finally:
        shm.rmdir()


def test_an_unknown_format(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="squashfs"):
        make_store(tmp_path, "squashfs")


@pytest.mark.root
def test_both_formats_show_the_same_tree(tmp_path: Path) -> None:
    trees = []
    for name in ("erofs", "dir"):
        store = make_store(tmp_path / name, name)
        layer = add(store, sample())
        fd = store.mount(layer.diff_id)
        tree = capture(f"/proc/self/fd/{fd}")
        del tree[b"etc/gone"]  # a whiteout has no time of its own
        trees.append(tree)
        os.close(fd)
        store.release([layer.diff_id])
    assert_same(*trees)


def test_a_reader_that_cannot_begin_closes_the_layer(tmp_path: Path) -> None:
    store = make_store(tmp_path, "dir")
    diff_id = add(store, sample()).diff_id
    reader = store.open_tar(diff_id)
    os.rename(store.path(diff_id) / "fs", store.path(diff_id) / "gone")
    with pytest.raises(NativeError), reader:
        pass
    for fd in (reader._layer.fd, reader._layer.rest_fd):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
