"""Options that podman's users know: umask, tz, timeout, variables left out, annotations; ``cp`` between containers."""

import hashlib
import json
import os
import time
from pathlib import Path

import pytest
import tarbuild as tar
from boxes import add_box, box_store, needs_busybox, options, run, sh

from layerfs.errors import InvalidInputError, NotFoundError

pytestmark = [pytest.mark.root, needs_busybox]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with box_store(tmp_path_factory) as store:
        add_box(store, store.root, name="talk", changes=("ENV GREETING=hello", "ENV OTHER=more"))
        yield store


@pytest.fixture
def make(store, runtime):
    made = []

    def one(*args, begin=True, **flags):
        container = store.containers.create(options(*(args or ("sleep", "60")), runtime=runtime, **flags))
        made.append(container)
        if begin:
            container.start()
        return container

    yield one
    for container in made:
        container.remove(force=True)


def test_umask(store, runtime, make):
    assert sh(store, runtime, "umask; touch /f; stat -c %a /f", umask="0027").out == "0027\n640\n"
    assert sh(store, runtime, "umask", umask="77", init=True).out == "0077\n"
    assert sh(store, runtime, "umask").out == "0022\n"
    container = make(umask="0002")
    if runtime == "builtin":  # runc before 1.2 sets none for a process of exec
        assert container.exec(["sh", "-c", "[ $(umask) = 0002 ]"]) == 0
    assert container.inspect()["Config"]["Umask"] == "0002"
    for wrong in ("0o27", "99", "u=rwx", "00027"):
        with pytest.raises(InvalidInputError, match="--umask"):
            options("true", umask=wrong)


@pytest.mark.skipif(not Path("/usr/share/zoneinfo/America/New_York").exists(), reason="needs the Debian package tzdata")
def test_timezone(store, runtime, make, tmp_path):
    look = "date -d @0 +%H; cat /etc/localtime | md5sum; echo x 2>/dev/null >/etc/localtime || echo kept"
    zone = hashlib.md5(Path("/usr/share/zoneinfo/America/New_York").read_bytes()).hexdigest()
    assert sh(store, runtime, look, tz="America/New_York").out == f"19\n{zone}  -\nkept\n"
    here = hashlib.md5(Path("/etc/localtime").read_bytes()).hexdigest()
    assert f"{here}  -" in sh(store, runtime, look, tz="local").out
    assert sh(store, runtime, "date -d @0 +%H; ls /etc/localtime 2>/dev/null").out == "00\n"
    # An image whose link leads where it has nothing, as those without tzdata.
    add_box(store, tmp_path, tar.symlink("etc/localtime", "/usr/share/zoneinfo/Etc/UTC"), name="linked")
    assert sh(store, runtime, look, tz="America/New_York", image="linked").out.startswith(f"19\n{zone}")
    mine = tmp_path / "mine"
    mine.write_text("mine")
    volume = [f"{mine}:/etc/localtime"]
    assert sh(store, runtime, "cat /etc/localtime", tz="America/New_York", volume=volume).out == "mine"
    container = make(tz="America/New_York")
    assert container.inspect()["Config"]["Timezone"] == "America/New_York"
    container.restart(0)
    assert container.exec(["sh", "-c", "[ $(date -d @0 +%H) = 19 ]"]) == 0
    for wrong in ("Nowhere/City", "", "../zoneinfo/America/New_York", "/etc/passwd", "America", "zone.tab"):
        with pytest.raises(InvalidInputError, match="--tz"):
            store.containers.create(options("true", tz=wrong))


def test_timeout(store, runtime, make):
    begin = time.monotonic()
    ran = sh(store, runtime, "echo on; sleep 60", timeout="1")
    assert (ran.code, ran.out) == (137, "on\n")
    assert 0.9 < time.monotonic() - begin < 20
    container = make("sh", "-c", "trap '' TERM; sleep 60 & wait; sleep 60", timeout="1")
    process = container.refresh().state.process
    assert container.wait() == 137
    with pytest.raises(ProcessLookupError):
        for _ in range(500):  # nothing of it goes on
            os.kill(process.pid, 0)
            time.sleep(0.01)
    assert sh(store, runtime, "echo on", timeout="60").out == "on\n"
    for wrong in ("-1", "soon", str(10**12)):
        with pytest.raises(InvalidInputError, match="--timeout"):
            options("true", timeout=wrong)


def test_variables_left_out(store, runtime):
    def variables(**flags):
        out = run(store, "/bin/env", image="talk", runtime=runtime, rm=True, **flags).out
        return dict(line.split("=", 1) for line in out.splitlines())

    usual = variables()
    assert (usual["GREETING"], usual["OTHER"]) == ("hello", "more")
    found = variables(unsetenv=["GREETING", "PATH"])
    assert found.keys() == usual.keys() - {"GREETING", "PATH"}
    assert variables(unsetenv=["GREETING"], env=["GREETING=new"])["GREETING"] == "new"
    assert variables(unsetenv_all=True, env=["ONE=1"]).items() >= {("ONE", "1")}
    left = variables(unsetenv_all=True, env=["ONE=1"]).keys() - {"ONE"}
    assert not left & {"GREETING", "OTHER", "PATH", "HOSTNAME"}
    for wrong in ("", "A=b"):
        with pytest.raises(InvalidInputError, match="--unsetenv"):
            options("true", unsetenv=[wrong])


def test_annotations(store, tmp_path):
    chosen = options("true", annotation=["org.example.one=1", "two=a=b"])
    container, bundle = store.containers.bundle(chosen, tmp_path / "bundle", mounted=False)
    try:
        document = json.loads((bundle.path / "config.json").read_text())
        assert document["annotations"].items() >= {("org.example.one", "1"), ("two", "a=b")}
        assert container.inspect()["HostConfig"]["Annotations"] == {"org.example.one": "1", "two": "a=b"}
    finally:
        container.remove()
    with pytest.raises(InvalidInputError, match="--annotation"):
        options("true", annotation=["one"])


@pytest.mark.parametrize("running", [(True, True), (True, False), (False, True), (False, False)])
def test_cp_from_one_to_another(make, running):
    one, two = (make(begin=begin) for begin in running)
    one.copy_to("/data", two, "/copied")
    one.copy_to("/data/seed", two, "/tmp")
    one.copy_to("/data/.", two, "/root")
    for path in ("/copied/seed", "/tmp/seed", "/root/seed"):
        assert b"".join(two.read(path)) == b"seeded\n"
    assert two.stat("/copied").mode & 0o777 == 0o750
    with pytest.raises(NotFoundError, match=r"copy .*:/nope: no such file"):
        one.copy_to("/nope", two, "/tmp")
    with pytest.raises(InvalidInputError, match="cannot copy a directory to a file"):
        one.copy_to("/data", two, "/tmp/seed")


@pytest.mark.parametrize("begin", [True, False])
def test_cp_within_one(make, begin):
    one = make(begin=begin)
    one.copy_to("/data", one, "/data/inner")
    assert [entry.path for entry in one.files("/data/inner", recursive=True)]
    assert b"".join(one.read("/data/inner/seed")) == b"seeded\n"
    with pytest.raises(NotFoundError):
        one.stat("/data/inner/inner")


def test_owners_stay_with_the_option_alone(make):
    one, two = make(), make()
    one.copy_to("/data/seed", two, "/plain")
    one.copy_to("/data/seed", two, "/kept", keep_owner=True)
    assert two.exec(["sh", "-c", "[ $(stat -c %u /plain)-$(stat -c %u /kept) = 0-1000 ]"]) == 0
