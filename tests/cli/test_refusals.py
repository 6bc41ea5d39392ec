"""Values that cannot be meant, told in one line before anything is made; and what a runtime says stays in that line."""

import os

import pytest

pytestmark = pytest.mark.root


@pytest.fixture
def on(runtime):
    return ("--runtime", runtime)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--memory-swap", "2g"), "--memory is not given"),
        (("--memory-swap", "1"), "--memory is not given"),
        (("-m", "1g", "--memory-reservation", "2g"), "--memory-reservation: more than --memory"),
        (("--cpu-shares", "1"), "out of range, 2 to 262144"),
        (("--oom-score-adj", "5000"), "out of range, -1000 to 1000"),
        (("--oom-score-adj", "-1001"), "out of range"),
        (("--cpus", "8000"), "--cpus 8000: this host has"),
        (("--cpuset-cpus", "0-4000"), "--cpuset-cpus 0-4000: this host has 0"),
        (("--cpuset-mems", "77"), "--cpuset-mems 77: this host has 0"),
        (("--health-retries", "-1"), "--health-retries -1: less than 0"),
        (("--device", "/tmp"), "/tmp is not a device"),
        (("--device", "/etc/passwd"), "/etc/passwd is not a device"),
        (("--uts", "host", "--hostname", "x"), "cannot go with --uts host"),
        (("--network", "none", "--add-host", "a:host-gateway"), "host-gateway: not offered without a network"),
        (("--platform", "linux/s390x"), "is for linux/amd64, not for linux/s390x"),
        (("-a", ""), "option --attach ''"),
        (("--restart", "always", "--rm"), "--rm: it cannot go with --restart"),
    ],
)
def test_values(layerfs, box, flags, said):
    if "--platform" in flags and os.uname().machine != "x86_64":
        pytest.skip("the image is for this machine")
    for verb in ("run", "create"):
        assert said in layerfs.error(verb, *flags, "box", "true", code=125 if verb == "run" else None)
    assert layerfs("ps", "-aq") == ""


def test_an_update_of_limits_is_looked_at_too(layerfs, box):
    layerfs("create", "--name", "one", "-m", "64m", "box")
    assert "more than --memory" in layerfs.error("update", "--memory-reservation", "1g", "one", code=2)
    assert "this host has" in layerfs.error("update", "--cpus", "8000", "one", code=2)


@pytest.mark.parametrize(
    ("line", "said"), [("A b=1", "white space"), ("  C d = 2", "white space"), ("=x", "wanted is NAME")]
)
def test_lines_of_an_env_file(layerfs, box, tmp_path, line, said):
    (tmp_path / "env").write_text(f"# a comment\n\nGOOD=1 2\n{line}\n")
    assert said in layerfs.error("run", "--env-file", tmp_path / "env", "box", "true", code=125)


def test_what_docker_takes(layerfs, box, on):
    assert layerfs("run", "--rm", *on, "--hostname", "a_b", "box", "hostname") == "a_b\n"
    words = ("run", "--rm", *on, "--add-host", "gate:host-gateway", "box", "cat", "/etc/hosts")
    assert layerfs.lines(*words)[-1] == "127.0.0.1\tgate"
    mounts = layerfs("run", "--rm", *on, "--shm-size", "0", "box", "cat", "/proc/mounts")
    assert [line for line in mounts.splitlines() if " /dev/shm " in line and "size=65536k" in line]
    layerfs(
        "run", "--rm", *on, "--platform", "linux/amd64" if os.uname().machine == "x86_64" else "linux", "box", "true"
    )


def test_attach_to_what_is_paused(layerfs, box, on):
    layerfs("run", "-d", "--name", "one", *on, "box", "sleep", "100")
    layerfs("pause", "one")
    assert "to container one: it is paused" in layerfs.error("attach", "one", code=1)


@pytest.mark.parametrize("kept", [(), ("--rm",)])
def test_one_line_for_what_does_not_start(layerfs, box, on, tmp_path, kept):
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir/plain").write_bytes(b"x")
    mount = ("-v", f"{tmp_path}/dir:/dir")
    assert "/dir/none" in layerfs.error("run", *kept, *on, *mount, "box", "/dir/none", code=127)
    assert "/dir/plain" in layerfs.error("run", *kept, *on, *mount, "box", "/dir/plain", code=126)
    assert "nothere" in layerfs.error("run", *kept, *on, *mount, "box", "nothere", code=127)
    assert "kernel.foo" in layerfs.error("run", *kept, *on, "--sysctl", "kernel.foo=1", "box", "true", code=125)


def test_one_line_for_an_exec_that_does_not_start(layerfs, box, on):
    layerfs("run", "-d", "--name", "one", *on, "box", "sleep", "100")
    assert "/nodir" in layerfs.error("exec", "-w", "/nodir", "one", "true", code=None)
    assert "nothere" in layerfs.error("exec", "one", "nothere", code=127)
