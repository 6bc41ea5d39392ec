"""All of it as an ordinary user, who has one number and no privilege."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from boxes import box_tar, needs_busybox

pytestmark = [pytest.mark.root, needs_busybox]

USER = 54321

PROGRAM = r"""
import json, os, sys, time
from layerfs import Store
from layerfs.containers import create_options
from layerfs.errors import LayerfsError

def captured(call):
    read, write = os.pipe()
    try:
        result = call((0, write, write))
    finally:
        os.close(write)
    with open(read) as file:
        return result, file.read()

def text(container):
    return b"".join(entry.text for entry in container.logs()).decode()

found = {}
with Store.open(sys.argv[1], sys.argv[2]) as store:
    containers = store.containers
    found["format"] = store.layer_format
    store.import_image(sys.argv[3], "box", changes=["CMD /bin/sh"])
    script = "id -u; cat /proc/self/uid_map; hostname; echo x >/new; rm /data/seed; cat /etc/hostname; exit 3"
    (container, code), out = captured(
        lambda stdio: containers.run(create_options("box", ["sh", "-c", script], {"hostname": "mine"}), stdio)
    )
    found["run"] = [code, out]
    found["changes"] = [f"{change.kind} {change.path.decode()}" for change in container.changes()]
    image = container.commit("again").image
    found["committed"] = len(image.diff_ids)
    container.remove()
    ran = containers.run(create_options("again", ["cat", "/new"], {"rm": True, "network": "none"}))
    found["again"] = ran[1]

    loop = "trap 'exit 4' TERM; echo up; while :; do sleep 0.05; done"
    flags = {"name": "live", "volume": ["vol:/data"]}
    container = containers.start(create_options("box", ["sh", "-c", loop], flags))
    while "up" not in text(container):
        time.sleep(0.01)
    inside = ["sh", "-c", "id -u; cat /data/seed; touch /made; exit 6"]
    found["exec"] = captured(lambda stdio: container.exec(inside, stdio=stdio))
    container.copy_in(sys.argv[4], "/tmp/in")
    container.copy_out("/tmp/in", sys.argv[4] + ".out")
    found["copied"] = open(sys.argv[4] + ".out").read()
    container.restart(0)
    container.refresh()
    found["status"] = container.status
    while text(container).count("up") < 2:
        time.sleep(0.01)
    container.stop()
    found["stopped"] = container.exit_code
    container.remove()
    containers.volumes.remove("vol")
    refused = []
    for flags in ({"user": "bob"}, {"memory": "64m"}):
        try:
            containers.run(create_options("box", ["true"], {"rm": True, **flags}))
        except LayerfsError as exc:
            refused.append(str(exc))
    found["refused"] = refused
    container = containers.start(create_options("box", ["sh", "-c", "sleep 0.5; exit 2"], {"rm": True}))
    found["waited"] = container.wait()
    while os.path.exists(container.directory) or os.listdir(os.path.join(sys.argv[1], "snapshots")):
        time.sleep(0.01)
    found["left"] = len(containers.list())
print(json.dumps(found))
"""


def python(user: str = str(USER), group: int = USER) -> list[str]:
    """A Python that an ordinary user can run, with the packages of this one."""
    as_user = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups"]
    for program in (sys.executable, "/usr/bin/python3"):
        check = [*as_user, program, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
        if shutil.which("setpriv") and subprocess.run(check, capture_output=True).returncode == 0:
            return [*as_user, program]
    pytest.skip("needs setpriv and a Python that other users can run")


def packages() -> str:
    """Where that Python finds them."""
    import layerfs

    return os.pathsep.join([str(Path(layerfs.__file__).parent.parent), *filter(None, sys.path)])


def test_a_life_without_privilege(tmp_path):
    switch = Path("/proc/sys/kernel/unprivileged_userns_clone")
    if switch.exists() and switch.read_text().strip() == "0":
        pytest.skip("user namespaces are for root alone here")
    # pytest's own directory is root's.
    place = Path(f"/tmp/layerfs-rootless-{os.getpid()}")
    place.mkdir()
    try:
        (place / "box.tar").write_bytes(box_tar())
        (place / "file").write_text("content")
        shutil.chown(place, USER, USER)
        for path in place.iterdir():
            shutil.chown(path, USER, USER)
        done = subprocess.run(
            [*python(), "-c", PROGRAM, place / "root", place / "run", place / "box.tar", place / "file"],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": packages(), "HOME": str(place)},
            capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd="/", timeout=100,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout.splitlines()[-1])
    finally:
        subprocess.run(["umount", "-l", place / "run/layers"], capture_output=True)
        shutil.rmtree(place)
    assert found["format"] == "dir"
    code, out = found["run"]
    lines = out.split("\n")
    assert code == 3
    assert lines[0] == "0"
    assert lines[1].split() == ["0", str(USER), "1"]
    assert lines[2:4] == ["mine", "mine"]
    assert found["changes"] == ["C data", "D data/seed", "A new"]
    assert found["committed"] == 2
    assert found["again"] == 0
    assert found["exec"] == [6, "0\nseeded\n"]
    assert found["copied"] == "content"
    assert found["status"] == "running"
    assert found["stopped"] == 4
    assert "without privilege" in found["refused"][0]
    assert "memory" in found["refused"][1]
    assert found["waited"] == 2
    assert found["left"] == 0
