"""Containers in the background: started, looked at, entered, stopped, limited; files in and out of them."""

import io
import json
import os
import re
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest

from .test_terminal import at_terminal

pytestmark = pytest.mark.root

COUNT = "i=0; while true; do echo out $i; echo err $i >&2; i=$((i+1)); sleep 0.1; done"


def until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def state(layerfs, name, field="Status"):
    return layerfs("inspect", "-f", "{{.State." + field + "}}", name).strip()


@pytest.fixture
def sleeper(layerfs, box):
    layerfs("run", "-d", "--name", "sleeper", "--stop-timeout", "0", "box", "sh", "-c", "echo ready; exec sleep 1000")
    until(lambda: "ready" in layerfs("logs", "sleeper"))
    return "sleeper"


def test_run_in_the_background(layerfs, box, tmp_path):
    id = layerfs("run", "-d", "--name", "bg", "--cidfile", tmp_path / "cid", "box", "sleep", "1000").strip()
    assert re.fullmatch("[0-9a-f]{64}", id)
    assert (tmp_path / "cid").read_text() == id
    assert layerfs.lines("ps", "-q", "--no-trunc") == [id]
    assert re.search(r"   Up .*   bg$", layerfs.lines("ps")[1])
    assert layerfs("stop", "-t", "0", "bg") == "bg\n"
    assert layerfs("ps", "-q") == ""
    assert state(layerfs, "bg") == "exited"
    layerfs("start", "bg")
    assert state(layerfs, "bg") == "running"


def test_removed_when_it_ends(layerfs, box):
    layerfs("run", "-d", "--rm", "--name", "short", "box", "true")
    until(lambda: layerfs("ps", "-aq") == "")


def test_wait_gives_exit_codes(layerfs, box):
    layerfs("run", "-d", "--name", "three", "box", "sh", "-c", "sleep 0.3; exit 3")
    layerfs("run", "-d", "--name", "four", "box", "sh", "-c", "exit 4")
    assert layerfs("wait", "three", "four") == "3\n4\n"
    assert "no such container" in layerfs.error("wait", "nope", code=1)


def test_start_attached_to_what_is_created_and_what_runs(layerfs, box):
    layerfs("create", "--name", "made", "box", "sh", "-c", "sleep 1; echo x; exit 4")
    assert layerfs("start", "-a", "made", code=4) == "x\n"
    layerfs("start", "made")
    assert layerfs("start", "-a", "made", code=4) == "x\n"
    assert "one container alone" in layerfs.error("start", "-a", "made", "made", code=125)
    assert "no such container" in layerfs.error("start", "nope", code=1)
    assert "no such container" in layerfs.error("start", "-a", "nope", code=125)


def test_logs(layerfs, box):
    layerfs("run", "-d", "--name", "noisy", "box", "sh", "-c", "echo 1; echo 2 >&2; echo -n 3")
    layerfs("wait", "noisy")
    result = layerfs.process("logs", "noisy")
    assert (result.stdout, result.stderr) == (b"1\n3", b"2\n")
    assert layerfs("logs", "--tail", "1", "noisy") == "3"
    assert layerfs("logs", "-n", "0", "noisy") == ""
    stamp, _, rest = layerfs("logs", "-t", "noisy").splitlines()[0].partition(" ")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", stamp)
    assert rest == "1"
    assert layerfs("logs", "--since", "1h", "noisy") == "1\n3"
    assert layerfs("logs", "--until", "1h", "noisy") == ""
    assert layerfs("logs", "-f", "noisy") == "1\n3"
    assert "not a number of lines" in layerfs.error("logs", "--tail", "x", "noisy", code=2)
    assert "is not a time" in layerfs.error("logs", "--since", "yesterday", "noisy", code=2)


def test_logs_follow_until_the_end(layerfs, box):
    layerfs("run", "-d", "--name", "slow", "box", "sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.3; done")
    assert layerfs("logs", "-f", "slow") == "1\n2\n3\n"


def test_exec(layerfs, sleeper):
    assert layerfs("exec", "sleeper", "echo", "-n", "x") == "x"
    assert layerfs("exec", "sleeper", "sh", "-c", "exit 6", code=6) == ""
    assert layerfs("exec", "-i", "sleeper", "cat", data=b"in") == "in"
    assert layerfs("exec", "-u", "user", "-w", "/tmp", "-e", "A=1", "sleeper", "sh", "-c", "id -u; pwd; echo $A") == (
        "1000\n/tmp\n1\n"
    )
    layerfs("exec", "-d", "sleeper", "sh", "-c", "echo done > /tmp/mark")
    until(
        lambda: "done" in layerfs.process("exec", "sleeper", "sh", "-c", "cat /tmp/mark 2>&1 || true").stdout.decode()
    )
    assert layerfs.process("exec", "sleeper", "/nope", code=127).stderr.startswith(b"layerfs exec: ")
    layerfs.process("exec", "sleeper", "/etc", code=126)
    assert "an argument is missing" in layerfs.error("exec", "sleeper", code=125)
    layerfs("stop", "sleeper")
    assert "not running" in layerfs.error("exec", "sleeper", "true", code=125)


def test_exec_at_a_terminal(layerfs, sleeper):
    code, shown = at_terminal(layerfs, "exec", "-it", "sleeper", "sh", typed=[("# ", "echo $((40+2)); exit 3\n")])
    assert code == 3
    assert "\n42\n" in shown


def test_run_and_attach_at_a_terminal(layerfs, box):
    code, shown = at_terminal(layerfs, "run", "-it", "--rm", "box", typed=[("# ", "echo $((40+2)); exit 3\n")])
    assert code == 3
    assert "\n42\n" in shown
    layerfs("run", "-dit", "--name", "shell", "box", "sh")
    typed = [(1.0, "\n"), ("# ", "echo $((40+3))\n"), ("\n43", "\x10\x11")]
    code, shown = at_terminal(layerfs, "attach", "shell", typed=typed)
    assert code == 0
    assert state(layerfs, "shell") == "running"
    code, _ = at_terminal(layerfs, "attach", "shell", typed=[(1.0, "\n"), ("# ", "exit 5\n")])
    assert code == 5
    assert "not running" in layerfs.error("attach", "shell", code=1)


def test_attach_without_a_terminal(layerfs, box):
    layerfs("run", "-di", "--name", "echoes", "box", "cat")
    process = subprocess.Popen(
        [sys.executable, "-m", "layerfs", "attach", "echoes"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=layerfs.environment,
    )  # fmt: skip
    process.stdin.write(b"hello\n")
    process.stdin.flush()
    assert process.stdout.readline() == b"hello\n"
    layerfs("kill", "echoes")
    assert process.wait(20) == 137
    process.stdin.close()
    process.stdout.close()


def test_pause_and_unpause(layerfs, sleeper):
    assert layerfs("pause", "sleeper") == "sleeper\n"
    assert state(layerfs, "sleeper") == "paused"
    assert "(Paused)" in layerfs("ps")
    assert "paused" in layerfs.error("pause", "sleeper", code=1)
    assert "paused" in layerfs.error("exec", "sleeper", "true", code=125)
    assert layerfs("unpause", "sleeper") == "sleeper\n"
    assert state(layerfs, "sleeper") == "running"
    assert "not paused" in layerfs.error("unpause", "sleeper", code=1)


def test_stop_restart_and_kill(layerfs, box):
    trap = "trap 'echo bye; exit 9' TERM; echo ready; while true; do sleep 0.1; done"
    layerfs("run", "-d", "--name", "kind", "box", "sh", "-c", trap)
    until(lambda: "ready" in layerfs("logs", "kind"))
    layerfs("stop", "kind")
    assert state(layerfs, "kind", "ExitCode") == "9"
    assert "bye" in layerfs("logs", "kind")
    assert layerfs("stop", "kind") == "kind\n"  # no error when it has ended
    layerfs("start", "kind")
    before = state(layerfs, "kind", "StartedAt")
    layerfs("restart", "-t", "5", "kind")
    assert state(layerfs, "kind", "StartedAt") != before
    until(lambda: layerfs("logs", "kind").count("ready") == 3)
    layerfs("kill", "-s", "SIGTERM", "kind")
    assert layerfs("wait", "kind") == "9\n"
    assert "not running" in layerfs.error("kill", "kind", code=1)
    assert "nosignal" in layerfs.error("kill", "-s", "nosignal", "kind", code=2)
    result = layerfs.process("stop", "nope", "kind", code=1)
    assert (result.stdout, result.stderr) == (b"kind\n", b"layerfs stop: container nope: no such container\n")


def test_restart_policy(layerfs, box):
    layerfs("run", "-d", "--restart", "on-failure:2", "--name", "fails", "box", "sh", "-c", "echo try; exit 1")
    until(lambda: state(layerfs, "fails") == "exited")
    assert layerfs("logs", "fails") == "try\n" * 3
    assert "it cannot go with" in layerfs.error("run", "-d", "--rm", "--restart", "always", "box", code=125)


def test_health(layerfs, box):
    words = ["--health-cmd", "test -e /tmp/good", "--health-interval", "100ms", "--health-retries", "1"]
    layerfs("run", "-d", "--name", "checked", *words, "box", "sh", "-c", "echo > /tmp/good; sleep 1000")
    until(lambda: "(healthy)" in layerfs("ps"))
    assert layerfs.lines("ps", "-f", "health=healthy", "--format", "{{.Names}} {{.HealthStatus}}") == [
        "checked healthy"
    ]
    assert layerfs("ps", "-q", "-f", "health=unhealthy") == ""


def test_top_and_stats(layerfs, sleeper):
    head, row = layerfs.lines("top", "sleeper")
    assert head.split() == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert row.endswith("sleep 1000")
    assert layerfs.lines("top", "sleeper", "-eo", "pid,comm")[0].split()[0] == "PID"
    head, row = layerfs.lines("stats", "--no-stream")
    assert head.split()[:3] == ["CONTAINER", "ID", "NAME"]
    assert re.search(r"sleeper +\d+\.\d\d% +\S+B / \S+B +\d+\.\d\d% +", row)
    values = json.loads(layerfs("stats", "--no-stream", "--format", "json", "sleeper"))
    assert int(values["PIDs"]) >= 1
    assert "no such container" in layerfs.error("stats", "--no-stream", "nope", code=1)
    layerfs("stop", "sleeper")
    assert "not running" in layerfs.error("top", "sleeper", code=1)
    assert layerfs.lines("stats", "--no-stream")[1:] == []
    assert len(layerfs.lines("stats", "--no-stream", "-a")) == 2


def test_stats_go_on_until_interrupted(layerfs, sleeper):
    code, shown = at_terminal(layerfs, "stats", typed=[("sleeper", "\x03")])
    assert code == 130
    assert "\x1b[2J" in shown


def test_update(layerfs, sleeper):
    assert layerfs("update", "-m", "64m", "--pids-limit", "50", "sleeper") == "sleeper\n"
    assert layerfs("inspect", "-f", "{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}}", "sleeper") == "67108864 50\n"
    assert "nothing to change" in layerfs.error("update", "sleeper", code=2)
    assert "not a size" in layerfs.error("update", "-m", "lots", "sleeper", code=2)


def test_events(layerfs, box):
    layerfs("run", "--rm", "--name", "one", "-l", "a=1", "box", "true")
    layerfs("create", "--name", "two", "box", "true")
    listed = lambda *words: layerfs.lines("events", "--since", "1h", "--until", "0s", *words)  # noqa: E731
    actions = listed("--format", "{{.Action}}")
    assert actions[:3] == ["create", "start", "die"]
    assert re.fullmatch(r"\d{4}-\S+T\S+Z container create [0-9a-f]{64} \(a=1, image=box, name=one\)", listed()[0])
    assert listed("-f", "container=two", "--format", "{{.Actor.Attributes.name}} {{.Type}}") == ["two container"]
    assert listed("-f", "event=die", "-f", "event=create", "--format", "{{.Action}}") == ["create", "die", "create"]
    assert len(listed("-f", "label=a=1", "-f", "event=create")) == 1
    assert json.loads(listed("--format", "json")[0])["Action"] == "create"
    assert "unknown" in layerfs.error("events", "-f", "colour=red", code=2)


def test_cp(layerfs, box, tmp_path):
    layerfs("create", "--name", "still", "box", "true")
    layerfs("run", "-d", "--name", "runs", "box", "sleep", "1000")
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "file").write_text("1")
    for name in ("still", "runs"):
        layerfs("cp", tmp_path / "dir", f"{name}:/new")
        layerfs("cp", f"{name}:/new/file", tmp_path / f"{name}.out")
        assert (tmp_path / f"{name}.out").read_text() == "1"
        layerfs("cp", f"{tmp_path}/dir/.", f"{name}:/tmp")
        layerfs("cp", f"{name}:/tmp", tmp_path / f"{name}.dir")
        assert (tmp_path / f"{name}.dir" / "file").read_text() == "1"
        archive = layerfs.process("cp", f"{name}:/new", "-").stdout
        assert {member.name for member in tarfile.open(fileobj=io.BytesIO(archive))} == {"new", "new/file"}
        layerfs("cp", "-a", "-", f"{name}:/tmp", data=archive)
        assert "no such file" in layerfs.error("cp", f"{name}:/nope", tmp_path, code=1)
    assert layerfs("exec", "runs", "cat", "/tmp/new/file") == "1"
    assert layerfs("diff", "still") == layerfs("diff", "runs")
    layerfs("cp", "still:/new/.", "runs:/between")
    assert layerfs("exec", "runs", "cat", "/between/file") == "1"
    assert "no such container" in layerfs.error("cp", "still:/new", "nope:/x", code=1)
    assert "one side" in layerfs.error("cp", "/a", "/b", code=2)
    assert "is not CONTAINER:PATH" in layerfs.error("cp", "still:", "/b", code=2)
    assert "no such container" in layerfs.error("cp", "nope:/a", "/b", code=1)


def test_commit_of_what_runs(layerfs, sleeper):
    layerfs("exec", "sleeper", "sh", "-c", "echo 1 > /one")
    layerfs("commit", "sleeper", "first")
    assert state(layerfs, "sleeper") == "running"
    layerfs("commit", "--pause=false", "sleeper", "again")
    first = layerfs.json("inspect", "first")[0]["RootFS"]["Layers"]
    assert layerfs.json("inspect", "again")[0]["RootFS"]["Layers"] == first


def test_successive_commits_stack(layerfs, sleeper):
    layerfs("exec", "sleeper", "sh", "-c", "echo 1 > /one")
    layerfs("commit", "--stack", "sleeper", "s:1")
    layerfs("exec", "sleeper", "sh", "-c", "echo 2 > /two")
    layerfs("commit", "--stack", "sleeper", "s:2")
    first, second = (layerfs.json("inspect", name)[0]["RootFS"]["Layers"] for name in ("s:1", "s:2"))
    assert second[:-1] == first
    assert layerfs("diff", "s:2") == "A /two\n"
    assert layerfs("cat", "s:2", "one", "two") == "1\n2\n"


def test_nothing_runs_on_when_containers_are_removed(layerfs, sleeper):
    pid = int(state(layerfs, "sleeper", "Pid"))
    assert os.path.exists(f"/proc/{pid}")
    layerfs("rm", "-f", "sleeper")
    until(lambda: not os.path.exists(f"/proc/{pid}"))
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    assert not [line for line in mounts if str(layerfs.place) in line and " overlay " in line]
