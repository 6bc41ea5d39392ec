"""Files of containers as an ordinary user: with one number, and with ranges in /etc/subuid and /etc/subgid."""

import fcntl
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pytest
from boxes import box_tar, needs_busybox
from test_run_rootless import packages, python

pytestmark = [pytest.mark.root, needs_busybox]

NOBODY = 65534
FIRST, COUNT = 700_000, 65_536

SH = ("sh", "-c")


@pytest.fixture(params=["one number", "ranges"])
def ranges(request):
    """Whether the user has more numbers than his own; the host's files are as before in the end."""
    # Tests run in several processes, and these files are one for all.
    with open(Path(tempfile.gettempdir(), "layerfs-tests-subids.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if request.param == "one number":
            yield False
            return
        if shutil.which("newuidmap") is None:
            pytest.skip("needs the Debian package uidmap")
        files = [Path("/etc/subuid"), Path("/etc/subgid")]
        before = [path.read_bytes() if path.exists() else None for path in files]
        for path, content in zip(files, before, strict=True):
            path.write_bytes((content or b"") + f"nobody:{FIRST}:{COUNT}\n".encode())
        yield True
        for path, content in zip(files, before, strict=True):
            if content is None:
                path.unlink()
            else:
                path.write_bytes(content)


class User:
    """The command as the user, over a store of his own that has the image box."""

    def __init__(self, place):
        self.place = place
        self.words = [*python("nobody", NOBODY), "-m", "layerfs"]
        self.environment = {
            "PATH": os.environ["PATH"], "PYTHONPATH": packages(), "HOME": str(place),
            "LAYERFS_ROOT": str(place / "root"), "LAYERFS_RUN": str(place / "run"),
        }  # fmt: skip

    def process(self, *words, code=0, data=b""):
        done = subprocess.run(
            [*self.words, *words], env=self.environment, input=data, capture_output=True, cwd="/", timeout=100
        )
        assert done.returncode == code, (words, done.stdout[-1000:], done.stderr[-2000:])
        return done

    def __call__(self, *words, **keywords):
        return self.process(*words, **keywords).stdout.decode()


@pytest.fixture
def user(ranges):
    switch = Path("/proc/sys/kernel/unprivileged_userns_clone")
    if switch.exists() and switch.read_text().strip() == "0":
        pytest.skip("user namespaces are for root alone here")
    # pytest's own directory is root's.
    place = Path(f"/tmp/layerfs-user-{os.getpid()}")
    place.mkdir()
    shutil.chown(place, NOBODY, NOBODY)
    try:
        user = User(place)
        user("import", "-", "box", "-c", "CMD /bin/sh", data=box_tar())
        yield user
        for id in user("ps", "-aq").split():
            user("rm", "-f", "-v", id)
        # All can be removed by the user himself, whoever made it.
        assert list((place / "root/snapshots").iterdir()) == []
        assert list((place / "root/containers").iterdir()) == []
    finally:
        shutil.rmtree(place)


def members(data):
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {member.name.rstrip("/"): member for member in archive}


def make(user, ranges, name="cc"):
    """A container with files that its user alone may read, and with ranges those of other users too."""
    script = "umask 077; mkdir /secret; echo x >/secret/file; rm /data/seed; chmod 0 /secret/file"
    if ranges:
        script += "; mkdir /bobs; echo y >/bobs/file; chown -R 1000:29 /bobs; chmod 0700 /bobs"
    user("run", "--name", name, "box", *SH, script)
    return name


def test_users_of_the_image(user, ranges):
    if ranges:
        assert user("run", "--rm", "-u", "bob", "box", *SH, "id -u; id -G") == "1000\n1000 29\n"
        user("run", "-d", "--name", "live", "box", "sleep", "100")
        assert user("exec", "-u", "bob", "live", "id", "-u") == "1000\n"
        assert b"too small" in user.process("run", "--rm", "-u", "70000", "box", "true", code=125).stderr
    else:
        assert b"root alone" in user.process("run", "--rm", "-u", "bob", "box", "true", code=125).stderr


@pytest.mark.skipif(not Path("/usr/share/zoneinfo/America/New_York").exists(), reason="needs the Debian package tzdata")
def test_timezone(user):
    assert user("run", "--rm", "--tz", "America/New_York", "box", "date", "-d", "@0", "+%H") == "19\n"
    assert b"no such time zone" in user.process("run", "--rm", "--tz", "Nowhere", "box", "true", code=125).stderr


def test_diff_export_and_commit(user, ranges):
    name = make(user, ranges)
    changes = user("diff", name).splitlines()
    assert {"A /secret", "A /secret/file", "D /data/seed"} <= set(changes)
    exported = members(user.process("export", name).stdout)
    assert "data/seed" not in exported
    assert (exported["secret/file"].uid, exported["secret/file"].mode) == (0, 0)
    assert exported["etc/passwd"].uid == 0

    # Committed, by its changes and squashed: owners are those inside.
    user("commit", name, "again")
    user("commit", "--squash", name, "flat")
    for image, layers in (("again", 2), ("flat", 1)):
        assert json.loads(user("inspect", "-f", "{{len .RootFS.Layers}}", image)) == layers
        script = "stat -c '%u %a' /secret/file; test -e /data/seed || echo gone"
        assert user("run", "--rm", image, *SH, script) == "0 0\ngone\n"
    with tarfile.open(fileobj=io.BytesIO(user.process("save", "flat").stdout)) as archive:
        layer = next(m for m in archive if m.isfile() and m.size > 100_000)
        flat = members(archive.extractfile(layer).read())
    assert flat["secret/file"].uid == 0
    if ranges:
        for found in (exported, flat):
            assert (found["bobs"].uid, found["bobs/file"].gid) == (1000, 29)
        assert user("ps", "-a", "-s", "--format", "{{.Names}}") == "cc\n"


def test_commits_that_stack(user, ranges):
    user("run", "--name", "cc", "box", *SH, "cat /new 2>/dev/null; echo x >>/new; echo $$ >>/other")
    user("commit", "--stack", "cc", "one")
    user("start", "-a", "cc")
    user("commit", "--stack", "cc", "two")
    assert user("run", "--rm", "two", "cat", "/new") == "x\nx\n"
    assert user("run", "--rm", "one", "cat", "/new") == "x\n"
    assert json.loads(user("inspect", "-f", "{{len .RootFS.Layers}}", "two")) == 3


def test_cp(user, ranges):
    source = user.place / "source"
    source.write_text("content")
    shutil.chown(source, NOBODY, NOBODY)
    name = make(user, ranges)
    # Stopped: in and out, also where only the container's root may.
    user("cp", str(source), f"{name}:/secret/in")
    user("cp", f"{name}:/secret/in", str(user.place / "out"))
    assert (user.place / "out").read_text() == "content"
    assert members(user.process("cp", f"{name}:/secret", "-").stdout)["secret/in"].uid == 0
    if ranges:
        assert members(user.process("cp", f"{name}:/bobs", "-").stdout)["bobs/file"].uid == 1000
        user("cp", str(source), f"{name}:/bobs/in")
    assert b"no such file" in user.process("cp", f"{name}:/none", "-", code=1).stderr
    user("commit", name, "with")
    assert user("run", "--rm", "with", *SH, "stat -c %u /secret/in; cat /secret/in") == "0\ncontent"

    # Running.
    flags = ["-u", "bob"] if ranges else []
    user("run", "-d", "--name", "live", *flags, "with", "sleep", "100")
    user("cp", str(source), "live:/secret/more")
    assert user("exec", "-u", "0", "live", *SH, "stat -c %u /secret/more; cat /secret/more") == "0\ncontent"
    user("cp", "live:/secret/more", str(user.place / "again"))
    assert (user.place / "again").read_text() == "content"
    if ranges:
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as out:
            member = tarfile.TarInfo("mine")
            member.uid, member.gid = 1000, 29
            out.addfile(member)
        user("cp", "-a", "-", "live:/bobs", data=archive.getvalue())
        assert user("exec", "-u", "0", "live", "stat", "-c", "%u %g", "/bobs/mine") == "1000 29\n"


def test_volumes_of_others_are_removed_by_the_user(user, ranges):
    script = "mkdir -p /vol/d && touch /vol/d/f && chmod 0 /vol/d"
    if ranges:
        script = "mkdir /vol/d && touch /vol/d/f && chown -R 1000 /vol/d && chmod 700 /vol/d"
    user("run", "--name", "cc", "-v", "vol:/vol", "box", *SH, script)
    user("rm", "cc")
    user("volume", "rm", "vol")
    assert user("volume", "ls", "-q") == ""
    assert list((user.place / "root/volumes").iterdir()) == []
