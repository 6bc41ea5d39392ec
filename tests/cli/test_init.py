"""``--init`` on the built-in launcher and on runc: orphans are buried, signals handed on, the command's code kept."""

import shutil
import subprocess
import time
from pathlib import Path

import pytest

from layerfs import native
from layerfs.errors import UnsupportedError
from layerfs.runtime import RunSpec, User
from layerfs.runtime.inits import with_init

from .test_terminal import at_terminal

pytestmark = pytest.mark.root


@pytest.fixture
def init(runtime):
    """The words before the image."""
    return ("--init", "--runtime", runtime)


def test_pid_1_is_ours_and_buries_orphans(layerfs, box, init):
    script = "cat /proc/1/comm; (sleep 0.1 &); sleep 0.4; cat /proc/[0-9]*/stat"
    first, *stats = layerfs.lines("run", "--rm", *init, "box", "sh", "-c", script)
    assert first == "layerfs-init"
    assert len(stats) >= 2
    assert not [line for line in stats if line.rpartition(")")[2].split()[0] == "Z"]


@pytest.mark.parametrize(
    ("words", "code"), [(("sh", "-c", "exit 7"), 7), (("sh", "-c", "kill -9 $$"), 137), (("true",), 0)]
)
def test_its_code_is_the_commands(layerfs, box, init, words, code):
    layerfs("run", "--rm", *init, "box", *words, code=code)


def test_commands_that_cannot_run(layerfs, box, init, tmp_path):
    assert "nothere" in layerfs.error("run", "--rm", *init, "box", "nothere", code=127)
    assert "/etc" in layerfs.error("run", "--rm", *init, "box", "/etc", code=126)
    # With a directory mounted what is there is known to the init alone.
    (tmp_path / "dir").mkdir()
    mount = ("-v", f"{tmp_path}/dir:/dir")
    assert "nothere" in layerfs.error("run", "--rm", *init, *mount, "box", "/dir/nothere", code=127)
    (tmp_path / "dir/text").write_bytes(b"\0")
    assert "text" in layerfs.error("run", "--rm", *init, *mount, "box", "/dir/text", code=126)


def test_a_stop_is_handed_on(layerfs, box, init):
    script = "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.05; done"
    layerfs("run", "-d", "--name", "one", *init, "box", "sh", "-c", script)
    deadline = time.monotonic() + 20
    while layerfs("logs", "one") != "ready\n":
        assert time.monotonic() < deadline
    layerfs("stop", "one")
    assert layerfs("inspect", "-f", "{{.State.ExitCode}}", "one") == "3\n"
    assert layerfs("logs", "one") == "ready\nbye\n"


def test_what_is_typed_is_for_the_command(layerfs, box, init):
    script = "trap 'echo caught; exit 9' INT; echo ready; while :; do sleep 0.05; done"
    code, shown = at_terminal(
        layerfs, "run", "--rm", "-it", *init, "box", "sh", "-c", script, typed=[("ready", "\x03")]
    )
    assert (code, "caught" in shown) == (9, True)


def test_it_cannot_be_written_and_leaves_no_change(layerfs, box, init):
    before = Path(native.launcher_program()).read_bytes()
    script = "for f in /proc/1/exe /dev/layerfs-init; do echo x >> $f; rm -f $f; done; exit 0"
    layerfs("run", "--name", "one", *init, "box", "sh", "-c", script)
    assert Path(native.launcher_program()).read_bytes() == before
    assert layerfs("diff", "one") == ""


def test_a_bundle_has_it_too(layerfs, box, tmp_path):
    if shutil.which("runc") is None:
        pytest.skip("needs the Debian package runc")
    layerfs("bundle", "--init", "box", tmp_path / "bundle", "cat", "/proc/1/comm")
    words = ["runc", "--root", tmp_path / "state", "run", "--bundle", tmp_path / "bundle", f"init-{tmp_path.name}"]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (ended.stdout, ended.returncode) == ("layerfs-init\n", 0)


def test_a_dev_of_the_users_own_is_no_place_for_it(layerfs, box):
    words = ("run", "--rm", "--init", "--runtime", "runc", "-v", "/dev:/dev", "box", "true")
    assert "option --init: not with a mount at /dev" in layerfs.error(*words, code=125)
    assert not Path("/dev/layerfs-init").exists()


def test_a_program_that_needs_libraries_is_no_init(monkeypatch):
    spec = RunSpec(id="x", args=("a",), env=(), cwd="/", user=User(), hostname="x", capabilities=0, init=True)
    assert with_init(spec).args == ("/dev/layerfs-init", "init", "a")
    monkeypatch.setattr(native, "launcher_program", lambda: "/usr/bin/env")
    with pytest.raises(UnsupportedError, match="needs libraries"):
        with_init(spec)
