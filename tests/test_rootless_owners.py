"""Owners of an image in the store of an ordinary user who has ranges in /etc/subuid and /etc/subgid."""

import io
import os
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import time
from contextlib import suppress
from pathlib import Path

import pytest
import tarbuild as tar
from boxes import box_tar, needs_busybox
from test_rootless_files import COUNT, FIRST, SH, members, ranges, user

__all__ = ["ranges", "user"]

pytestmark = [pytest.mark.root, needs_busybox, pytest.mark.parametrize("ranges", ["ranges"], indirect=True)]

FILES = {
    "bobs": "1000 29 700", "bobs/file": "1000 29 600", "bobs/link": "1000 44 777", "bobs/again": "1000 29 600",
    "set": "1000 29 4755", "setgid": "0 44 2755", "roots": "0 0 4711", "sticky": "33 33 1777", "none": "65534 65534 0",
}  # fmt: skip
"""Of the image ``many``: path to owner and mode."""


def many_tar(*more):
    return box_tar(
        tar.directory("bobs", mode=0o700, uid=1000, gid=29),
        tar.file("bobs/file", b"bob's\n", mode=0o600, uid=1000, gid=29),
        tar.symlink("bobs/link", "file", uid=1000, gid=44),
        tar.hardlink("bobs/again", "bobs/file", mode=0o600, uid=1000, gid=29),
        tar.file("set", b"x", mode=0o4755, uid=1000, gid=29),
        tar.file("setgid", b"x", mode=0o2755, gid=44),
        tar.file("roots", b"x", mode=0o4711),
        tar.directory("sticky", mode=0o1777, uid=33, gid=33),
        tar.file("none", b"secret\n", mode=0, uid=65534, gid=65534),
        *more,
    )


@pytest.fixture
def many(user):
    user("import", "-", "many", "-c", "CMD /bin/sh", data=many_tar())
    return user


def shown(user, image, paths=FILES):
    lines = user("run", "--rm", image, "stat", "-c", "%n %u %g %a", *(f"/{path}" for path in paths)).splitlines()
    return {line.split(" ", 1)[0].lstrip("/"): line.split(" ", 1)[1] for line in lines}


def foreign(place):
    """Paths that belong to one of the user's further numbers; what vanishes meanwhile is left out."""
    found = []
    for directory, names, files in os.walk(place):
        for name in (*names, *files):
            with suppress(FileNotFoundError):
                status = os.lstat(os.path.join(directory, name))
                if any(FIRST <= number < FIRST + COUNT for number in (status.st_uid, status.st_gid)):
                    found.append(os.path.join(directory, name))
    return found


def test_owners_and_modes_in_a_container(many):
    assert shown(many, "many") == FILES
    assert foreign(many.place / "root/layers")
    script = "cat /bobs/file; cat /none 2>/dev/null || echo denied; touch /sticky/mine; id -u"
    assert many("run", "--rm", "-u", "bob", "many", *SH, script) == "bob's\ndenied\n1000\n"
    assert many("run", "--rm", "-u", "33", "many", *SH, "ls /bobs 2>/dev/null || echo denied") == "denied\n"
    many("system", "check")


def test_read_without_a_container(many):
    assert many("cat", "many", "/none") == "secret\n"
    assert many("cat", "many", "/bobs/again") == "bob's\n"
    owners = {words[7]: words[2:4] for words in map(str.split, many("ls", "-l", "many", "/bobs").splitlines())}
    assert owners == {"again": ["1000", "29"], "file": ["1000", "29"], "link": ["1000", "44"]}


def test_attributes_that_name_users(many):
    """Capabilities of files and ACLs are on disk in the user's numbers, and in the container in its own."""
    capability = struct.pack("<5I", 0x0200_0001, 0x400, 0, 0, 0)
    entries = [(1, 7, -1), (2, 5, 1000), (4, 5, -1), (16, 7, -1), (32, 5, -1)]
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    more = [
        tar.file("server", b"x", mode=0o755, uid=33, xattrs={"security.capability": capability}),
        tar.file("shared", b"x", mode=0o775, xattrs={"system.posix_acl_access": acl}),
    ]
    many("import", "-", "attributes", data=many_tar(*more))
    many("system", "check")
    many("create", "--name", "cc", "attributes", "true")
    found = members(many.process("export", "cc").stdout)
    for path, name, value in (
        ("server", "security.capability", capability),
        ("shared", "system.posix_acl_access", acl),
    ):
        assert found[path].pax_headers[f"SCHILY.xattr.{name}"].encode("utf-8", "surrogateescape") == value


def test_layers_that_come_at_once(many):
    context = many.place / "context"
    context.mkdir()
    steps = [f"RUN mkdir /l{i} && touch /l{i}/f && chown -R {100 + i}:{200 + i} /l{i}" for i in range(8)]
    (context / "Dockerfile").write_text("\n".join(["FROM many", *steps]))
    many("build", "-q", "-t", "deep", str(context))
    data = many.process("save", "deep").stdout
    many("rmi", "deep")
    many("prune", "-af")
    assert foreign(many.place / "root") == []
    many("load", data=data)
    assert shown(many, "deep", ["l0/f", "l7"]) == {"l0/f": "100 200 644", "l7": "107 207 755"}


def test_out_and_in_again(many):
    """Saved, exported and committed it has the owners of the image, and a layer is the same to the byte."""
    with tarfile.open(fileobj=io.BytesIO(many.process("save", "many").stdout)) as archive:
        layer = next(m for m in archive if m.isfile() and m.size > 100_000)
        assert archive.extractfile(layer).read() == many_tar()
    many("run", "--name", "cc", "many", *SH, "mkdir /new; chown 33:44 /new; chmod 700 /new; echo >/bobs/file; rm /none")
    exported = members(many.process("export", "cc").stdout)
    for path, look in {**FILES, "new": "33 44 700"}.items():
        if path != "none":
            found = exported[path]
            assert f"{found.uid} {found.gid} {found.mode:o}" == look, path
    many("commit", "cc", "again")
    many("commit", "--squash", "cc", "flat")
    for image in ("again", "flat"):
        look = {path: FILES[path] for path in FILES if path not in ("none", "bobs/again")}
        assert shown(many, image, [*look, "new"]) == {**look, "new": "33 44 700"}
    many("rm", "cc")
    many("system", "check")


def test_nothing_is_left_of_what_is_removed(many):
    many(
        "run", "--name", "cc", "-v", "/sticky", "many", *SH, "cp -a /bobs /sticky/; mkdir /x; chown 5:5 /x; chmod 0 /x"
    )
    assert foreign(many.place / "root")
    many("system", "df")
    many("rm", "-v", "cc")
    many("rmi", "many", "box")
    many("prune", "-f")
    assert foreign(many.place / "root") == []
    assert list((many.place / "root/layers/sha256").iterdir()) == []


def test_volumes_have_the_owners_of_the_image(many):
    script = "stat -c '%u %g %a' /bobs /bobs/file; touch /bobs/mine"
    for _ in range(2):
        assert many("run", "--rm", "-u", "bob", "-v", "vol:/bobs", "many", *SH, script) == "1000 29 700\n1000 29 600\n"
    many("volume", "ls")
    many("system", "df", "-v")
    many("volume", "rm", "vol")


def test_mount_points_lie_in_directories_that_keep_their_owner(many):
    source = many.place / "source"
    source.write_text("here")
    look = "stat -c '%u %g %a' /bobs; cat /bobs/sub/place; ls /bobs"
    got = many("run", "--rm", "-v", f"{source}:/bobs/sub/place", "-v", "vol:/bobs/vol", "many", *SH, look)
    assert got == "1000 29 700\nhereagain\nfile\nlink\nsub\nvol\n"


def test_a_number_that_the_user_has_not(many):
    failed = many.process("import", "-", "far", data=many_tar(tar.file("far", uid=70_000, gid=1)), code=4)
    assert b"set owner 70000:1 of far" in failed.stderr
    assert b"/etc/subuid" in failed.stderr
    many("prune", "-f")
    assert sorted(path.name for path in (many.place / "root/ingest").iterdir() if path.is_dir()) == []


def test_ranges_that_are_taken_away(many):
    subuid = Path("/etc/subuid")
    whole = subuid.read_bytes()
    subuid.write_bytes(whole.replace(f"nobody:{FIRST}".encode(), f"nobody:{FIRST + 1}".encode()))
    try:
        failed = many.process("run", "--rm", "many", "true", code=125)
        assert b"ranges that this user had once" in failed.stderr
    finally:
        subuid.write_bytes(whole)
    assert shown(many, "many") == FILES


def test_a_build_keeps_owners(many):
    context = many.place / "context"
    context.mkdir()
    (context / "mine").write_text("x")
    (context / "Dockerfile").write_text(
        "FROM many\n"
        "RUN chown 33:44 /roots && mkdir -p /run/web && chown 33:33 /run/web && chmod 750 /run/web\n"
        "COPY --chown=bob:audio mine /copied\n"
        "USER bob\n"
        "RUN echo more >>/bobs/file && id -u >/bobs/id\n"
    )
    many("build", "-t", "built", str(context))
    wanted = {"roots": "33 44 711", "run/web": "33 33 750", "bobs/id": "1000 1000 644", "bobs/file": "1000 29 600"}
    assert shown(many, "built", ["copied"])["copied"].startswith("1000 29")
    assert many("run", "--rm", "-u", "0", "built", *SH, "cat /bobs/id; cat /bobs/file") == "1000\nbob's\nmore\n"
    assert {**shown(many, "built", wanted)} == wanted
    many("system", "check")


def test_root_looks_at_the_users_store(many):
    words = [sys.executable, "-m", "layerfs", "--run", str(many.place / "of-root"), "system", "check"]
    done = subprocess.run(words, env=many.environment, capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, (done.stdout, done.stderr)
    many("system", "check")


def test_layers_of_before_there_were_ranges(many):
    files = [Path("/etc/subuid"), Path("/etc/subgid")]
    with_ranges = [path.read_bytes() for path in files]
    many("rmi", "many", "box")
    for path in files:
        path.write_bytes(b"")
    try:
        many("import", "-", "many", "-c", "CMD /bin/sh", data=many_tar())
        assert {look.rsplit(" ", 1)[0] for look in shown(many, "many").values()} == {"0 0"}
        many("system", "check")
    finally:
        for path, content in zip(files, with_ranges, strict=True):
            path.write_bytes(content)
    # They can be used as they are, and made anew.
    assert {look.rsplit(" ", 1)[0] for look in shown(many, "many").values()} == {"0 0"}
    many("system", "check")
    for _ in range(2):
        many("system", "migrate", "dir")
        assert shown(many, "many") == FILES
    many("system", "check")
    many("prune", "-f")


def test_an_unpack_that_is_killed(many):
    """Also while its owners are set, by a child that then ends too; what it left the next command removes."""
    place, ingest = many.place / "big.tar", many.place / "root/ingest"
    place.write_bytes(many_tar(*(tar.file(f"bobs/{n:05}", uid=1000, mode=0o600) for n in range(8000))))
    hit = 0
    for _ in range(3):
        child = subprocess.Popen([*many.words, "import", str(place), "big"], env=many.environment, cwd="/")
        while child.poll() is None and not foreign(ingest):
            time.sleep(0.005)
        hit += child.poll() is None
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert hit
    time.sleep(0.5)
    many("prune", "-f")
    assert foreign(ingest) == []
    many("import", str(place), "big")
    assert shown(many, "big") == FILES


@pytest.mark.skipif(shutil.which("podman") is None, reason="needs the Debian package podman")
def test_podman_shows_the_same(many):
    (many.place / "run").chmod(0o700)
    (many.place / "many.tar").write_bytes(many_tar())
    podman = [*many.words[:-3], "podman", "--cgroup-manager=cgroupfs", "--storage-driver=vfs"]
    environment = {**many.environment, "XDG_RUNTIME_DIR": str(many.place / "run")}

    def said(*words):
        done = subprocess.run([*podman, *words], env=environment, cwd=many.place, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"podman does not run here as an ordinary user: {done.stderr[-200:]}")
        return done.stdout

    words = ("stat", "-c", "%n %u %g %a", *(f"/{path}" for path in (*FILES, "data", "data/seed", "bin", "etc/passwd")))
    try:
        said("import", "many.tar", "localhost/many")
        theirs = said("--runtime=runc", "run", "--rm", "--network=host", "localhost/many", *words)
        said("unshare", "rm", "-rf", str(many.place / ".local"))
    finally:  # the process that holds its namespace
        subprocess.run([*podman, "system", "migrate"], env=environment, cwd=many.place, capture_output=True)
    assert many("run", "--rm", "many", *words) == theirs
