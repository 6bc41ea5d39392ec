"""``cp``: docker's table of sources and targets, into and out of containers, and what a container may try meanwhile."""

import io
import os
import stat
import tarfile
import threading
import time
from pathlib import Path

import pytest
import tarbuild as tar
from boxes import add_box, needs_busybox, options

from layerfs import Store
from layerfs.errors import InvalidInputError, LayerfsError, NotFoundError

pytestmark = [pytest.mark.root, needs_busybox]


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    root = tmp_path_factory.mktemp("store")
    with Store.open(root, tmp_path_factory.mktemp("run")) as store:
        add_box(store, root, tar.symlink("shortcut", "/tmp"), tar.symlink("outside", "../../../../../../etc/passwd"))
        yield store
        store.snapshots.release_layers()


@pytest.fixture(params=["created", "running"])
def container(request, shared):
    chosen = options("sh", "-c", "while :; do sleep 0.05; done", runtime="builtin", volume=["vol:/vol"])
    made = shared.containers.create(chosen)
    if request.param == "running":
        made.start()
    yield made
    made.remove(force=True)
    shared.containers.volumes.remove("vol")


@pytest.fixture
def host(tmp_path):
    (tmp_path / "src/sub").mkdir(parents=True)
    (tmp_path / "src/a").write_text("a")
    (tmp_path / "src/sub/b").write_text("b")
    (tmp_path / "src/sub").chmod(0o750)
    (tmp_path / "file").write_text("content")
    (tmp_path / "file").chmod(0o640)
    os.utime(tmp_path / "file", ns=(1, 1_600_000_000_123_456_789))
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "linkdir").symlink_to("src")
    return tmp_path


def read(container, path):
    archive = tarfile.open(fileobj=io.BytesIO(b"".join(container.get_archive(path))))
    member = archive.next()
    assert member is not None
    return archive.extractfile(member).read().decode() if member.isreg() else member


def names(container, path):
    with tarfile.open(fileobj=io.BytesIO(b"".join(container.get_archive(path)))) as archive:
        return sorted(archive.getnames())


def test_a_file_into(container, host):
    file = str(host / "file")
    container.copy_in(file, "/tmp/new")  # nothing there: that name
    assert read(container, "/tmp/new") == "content"
    container.copy_in(file, "/tmp")  # a directory: into it
    container.copy_in(file, "/root/")
    container.copy_in(file, "/shortcut")  # a link to one too
    assert read(container, "/tmp/file") == read(container, "/root/file") == "content"
    (host / "file").write_text("other")
    container.copy_in(file, "/tmp/new")  # a file: over it
    assert read(container, "/tmp/new") == "other"
    for target in ("/nowhere/x", "/tmp/none/", "/tmp/new/", "/tmp/new/x"):
        with pytest.raises(LayerfsError):
            container.copy_in(file, target)
    with pytest.raises(NotFoundError, match="the host has no"):
        container.copy_in(str(host / "none"), "/tmp")


def test_a_directory_into(container, host):
    source = str(host / "src")
    container.copy_in(source, "/tmp/new")  # nothing there: made, with what is in the source
    assert names(container, "/tmp/new") == ["new", "new/a", "new/sub", "new/sub/b"]
    container.copy_in(source, "/tmp/new")  # a directory: into it
    assert "new/src/a" in names(container, "/tmp/new")
    container.copy_in(source + "/.", "/root")  # its content
    assert read(container, "/root/a") == "a"
    with pytest.raises(InvalidInputError, match="directory to a file"):
        container.copy_in(source, "/etc/passwd")
    with pytest.raises(LayerfsError):
        container.copy_in(source, "/no/where")
    container.copy_in(source, "/tmp/other/")
    assert read(container, "/tmp/other/a") == "a"


def test_owners_modes_and_times(container, host):
    os.chown(host / "file", 1234, 1235)
    container.copy_in(str(host / "file"), "/tmp/plain")
    container.copy_in(str(host / "file"), "/tmp/kept", keep_owner=True)
    for name, owner in (("plain", (0, 0)), ("kept", (1234, 1235))):
        with tarfile.open(fileobj=io.BytesIO(b"".join(container.get_archive(f"/tmp/{name}")))) as archive:
            member = archive.next()
        assert (member.uid, member.gid) == owner
        assert member.mode & 0o7777 == 0o640
        assert member.pax_headers["mtime"] == "1600000000.123456789"


def test_links_of_the_host(container, host):
    container.copy_in(str(host / "link"), "/tmp/l")
    assert read(container, "/tmp/l").issym()
    container.copy_in(str(host / "link"), "/tmp/f", follow=True)
    assert read(container, "/tmp/f") == "content"
    container.copy_in(str(host / "linkdir") + "/", "/tmp/d")
    assert read(container, "/tmp/d/a") == "a"


def test_out(container, host):
    container.copy_in(str(host / "src"), "/tmp/src")
    out = host / "out"
    container.copy_out("/etc/group", str(out))
    assert out.read_text().startswith("root:")
    container.copy_out("/etc/passwd", str(out))  # over a file
    assert "bob" in out.read_text()
    (host / "dir").mkdir()
    container.copy_out("/etc/passwd", str(host / "dir"))
    assert (host / "dir/passwd").exists()
    container.copy_out("/tmp/src", str(host / "dir"))
    assert (host / "dir/src/sub/b").read_text() == "b"
    assert stat.S_IMODE((host / "dir/src/sub").stat().st_mode) == 0o750
    container.copy_out("/tmp/src/.", str(host / "dir"))
    assert (host / "dir/a").read_text() == "a"
    container.copy_out("/tmp/src", str(host / "made"))
    assert (host / "made/a").read_text() == "a"
    for path, target in (("/none", "x"), ("/etc/passwd/", "x"), ("/etc/passwd", "no/where"), ("/tmp/src", "out")):
        with pytest.raises(LayerfsError):
            container.copy_out(path, str(host / target))
    os.chown(host / "file", 1234, 1235)
    container.copy_in(str(host / "file"), "/tmp/kept", keep_owner=True)
    container.copy_out("/tmp/kept", str(host / "kept"), keep_owner=True)
    assert ((host / "kept").stat().st_uid, (host / "kept").stat().st_gid) == (1234, 1235)


def test_links_of_the_container_stay_inside(container, host):
    with pytest.raises(NotFoundError):
        container.copy_out("/nothing", str(host / "x"))
    container.copy_out("/outside", str(host / "link2"))
    assert (host / "link2").is_symlink()  # the link itself
    container.copy_out("/outside", str(host / "followed"), follow=True)
    assert "bob" in (host / "followed").read_text()  # the container's own /etc/passwd
    before = Path("/etc/passwd").read_text()
    container.copy_in(str(host / "file"), "/outside")
    assert Path("/etc/passwd").read_text() == before


def test_stat(container):
    assert container.stat("/etc/passwd").size > 0
    found = container.stat("/outside")
    assert stat.S_ISLNK(found.mode)
    assert found.target == "/etc/passwd"
    assert container.stat("/").name == "/"
    with pytest.raises(NotFoundError):
        container.stat("/none")


def test_volumes(container, host, shared):
    container.copy_in(str(host / "file"), "/vol")
    mountpoint = shared.containers.volumes.get("vol").mountpoint
    assert (mountpoint / "file").read_text() == "content"
    container.copy_in(str(host / "src") + "/.", "/vol/")
    assert (mountpoint / "a").exists()
    assert read(container, "/vol/file") == "content"


def test_archives(container):
    data = tar.archive(
        tar.directory("d", mode=0o700, uid=5), tar.file("d/f", b"x", uid=5, mode=0o4755), tar.symlink("d/s", "/etc"),
        tar.hardlink("d/h", "d/f"), tar.fifo("d/p"), tar.device("d/c", "c", 1, 3),
    )  # fmt: skip
    container.put_archive("/tmp", io.BytesIO(data), keep_owner=True)
    assert names(container, "/tmp/d") == ["d", "d/c", "d/f", "d/h", "d/p", "d/s"]
    with tarfile.open(fileobj=io.BytesIO(b"".join(container.get_archive("/tmp/d")))) as archive:
        member = archive.getmember("d/f")
        assert (member.uid, member.mode) == (5, 0o4755)
        assert archive.getmember("d/h").islnk()
    with pytest.raises(InvalidInputError, match="directory"):
        container.put_archive("/etc/passwd", io.BytesIO(data))
    with pytest.raises(NotFoundError):
        container.put_archive("/none", io.BytesIO(data))
    with pytest.raises(InvalidInputError):
        container.put_archive("/tmp", io.BytesIO(b"not a tar" * 100))


@pytest.mark.parametrize(
    "members",
    [
        (tar.file("../x", b""),),
        (tar.file("a/../../x", b""),),
        (tar.directory("g"), tar.hardlink("g/h", "../../../etc/passwd")),
        (tar.hardlink("h", "none"),),
        (tar.file("..", b""),),
        (tar.file(".", b""),),
    ],
)
def test_archives_that_lead_outside(container, members):
    with pytest.raises(InvalidInputError):
        container.put_archive("/tmp", io.BytesIO(tar.archive(*members)))


def test_links_in_an_archive_lead_nowhere_else(container, tmp_path):
    data = tar.archive(tar.symlink("up", "../../../../../../.." + str(tmp_path)), tar.file("up/x", b"harm"))
    with pytest.raises(LayerfsError):
        container.put_archive("/tmp", io.BytesIO(data))
    assert list(tmp_path.iterdir()) == []


def test_a_device_of_a_container_is_not_made_on_the_host(container, host):
    container.put_archive("/tmp", io.BytesIO(tar.archive(tar.device("disk", "b", 8, 0))))
    with pytest.raises(InvalidInputError, match="device node"):
        container.copy_out("/tmp/disk", str(host / "disk"))
    assert not (host / "disk").exists()


def test_a_container_that_races(shared, tmp_path):
    """Components of the path become links to the host's places, and directories again, as fast as they can."""
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "secret").write_text("secret")
    (victim / "of-the-host").write_text("")
    up = "../" * 12
    script = (
        f"mkdir -p /w/real/x /w/a; echo inside >/w/real/secret; ln -s {up}{victim} /w/evil; cp -a /w/real /w/a/d;"
        " while :; do mv /w/a/d /w/a/t; cp -P /w/evil /w/a/d; rm /w/a/d; mv /w/a/t /w/a/d; done"
    )
    container = shared.containers.start(options("sh", "-c", script, runtime="builtin"))
    source = tmp_path / "file"
    source.write_text("new")
    stop = time.monotonic() + 3
    outcomes = set()

    def work() -> None:
        while time.monotonic() < stop:
            try:
                container.copy_in(str(source), "/w/a/d/made")
                outcomes.add("in")
                data = b"".join(container.get_archive("/w/a/d/secret"))
                assert b"secret\n" not in data.replace(b"inside", b"")
                with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                    member = archive.next()
                    assert archive.extractfile(member).read() == b"inside\n"
                outcomes.add("out")
                assert b"".join(container.read("/w/a/d/secret")) == b"inside\n"
                outcomes.add("read")
                for path, recursive in (("/w/a/d", False), ("/w", True)):
                    found = container.files(path, recursive=recursive)
                    assert b"of-the-host" not in [entry.name for entry in found]
                outcomes.add("listed")
            except LayerfsError:
                outcomes.add("refused")

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    container.remove(force=True)
    assert sorted(path.name for path in victim.iterdir()) == ["of-the-host", "secret"]
    assert (victim / "secret").read_text() == "secret"
    assert outcomes  # something was tried
