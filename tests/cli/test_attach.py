"""Streams and keys: ``-a``, ``--detach-keys``, and what runs in the foreground with a supervisor."""

import signal
import subprocess
import sys
import time

import pytest

from .test_terminal import at_terminal

pytestmark = pytest.mark.root

BOTH = "echo out; echo err >&2; exit 3"
READER = "echo ready; while read x; do echo got:$x:; done; echo over; exit 4"


@pytest.fixture
def on(runtime):
    return ("--runtime", runtime)


def wait_for(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("flags", "out", "err"),
    [
        (("-a", "stdout"), "out\n", ""),
        (("-a", "STDERR"), "", "err\n"),
        (("-a", "stderr", "--attach=stdout"), "out\n", "err\n"),
    ],
)
def test_streams(layerfs, box, on, flags, out, err):
    ended = layerfs.process("run", "--name", "one", *flags, *on, "box", "sh", "-c", BOTH, code=3)
    assert (ended.stdout.decode(), ended.stderr.decode()) == (out, err)
    assert layerfs("logs", "one") == "out\n"  # what is not shown is in the log all the same


def test_the_first_byte_and_the_last_are_not_lost(layerfs, box, on):
    script = "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done"
    lines = layerfs.lines("run", "--rm", "-a", "stdout", *on, "box", "sh", "-c", script)
    assert lines == [f"line {i}" for i in range(3000)]
    assert layerfs("ps", "-aq") == ""  # it is removed before the command ends


def test_stdin_alone(layerfs, box, on):
    ended = layerfs.process(
        "run", "-i", "-a", "stdin", *on, "box", "sh", "-c", "cat > /got; sleep 60", data=b"x" * 70000
    )
    id = ended.stdout.decode().strip()
    assert len(id) == 64
    wait_for(lambda: layerfs("exec", id, "sh", "-c", "cat /got | head -c 100000") == "x" * 70000)
    assert layerfs("inspect", "-f", "{{.State.Status}} {{.Config.AttachStdin}} {{.Config.AttachStdout}}", id) == (
        "running true false\n"
    )


def test_a_command_that_is_not_there(layerfs, box, on):
    assert "nothere" in layerfs.error("run", "--rm", "-a", "stdout", *on, "box", "nothere", code=127)
    assert layerfs("ps", "-aq") == ""


def test_streams_that_are_refused(layerfs, box):
    assert "option --attach 'stdio'" in layerfs.error("run", "-a", "stdio", "box", "true", code=125)
    assert "contradict" in layerfs.error("run", "-d", "-a", "stdout", "box", "true", code=125)


def test_streams_in_the_record(layerfs, box):
    ask = "{{.Config.AttachStdin}} {{.Config.AttachStdout}} {{.Config.AttachStderr}}"
    for flags, wanted in (((), "false true true"), (("-i",), "true true true"), (("-a", "stdin"), "true false false")):
        id = layerfs("create", *flags, "box").strip()
        assert layerfs("inspect", "-f", ask, id).strip() == wanted
    id = layerfs("run", "-d", "box", "true").strip()
    assert layerfs("inspect", "-f", ask, id).strip() == "false false false"


def test_start_without_i_gives_no_input(layerfs, box, on):
    layerfs("create", "-i", "--name", "one", *on, "box", "sh", "-c", "read x && echo $x; exit 5")
    assert layerfs("start", "-i", "one", code=5, data=b"typed\n") == "typed\n"


@pytest.mark.parametrize(("keys", "typed"), [((), "\x10\x11"), (("--detach-keys", "ctrl-a,d"), "\x01d")])
def test_run_is_left_and_joined_again(layerfs, box, on, keys, typed):
    words = ("run", "-it", "--name", "one", *keys, *on, "box", "sh", "-c", READER)
    code, shown = at_terminal(layerfs, *words, typed=[("ready", "a\r"), ("got:a:", typed)])
    assert (code, "over" in shown) == (0, False)
    assert layerfs("inspect", "-f", "{{.State.Status}}", "one") == "running\n"
    code, shown = at_terminal(layerfs, "attach", *keys, "one", typed=[(0.5, "b\r"), ("got:b:", "\x04")])
    assert code == 4
    assert "over" in shown


@pytest.mark.parametrize("removed", [True, False])
def test_at_a_terminal_to_its_end(layerfs, box, on, removed):
    words = ("run", *(["--rm"] if removed else []), "-it", *on, "box", "sh", "-c", READER)
    code, shown = at_terminal(layerfs, *words, typed=[("ready", "a\r"), ("got:a:", "\x04")])
    assert (code, "over" in shown) == (4, True)
    assert len(layerfs.lines("ps", "-aq")) == (0 if removed else 1)


def test_start_is_left(layerfs, box, on):
    layerfs("create", "-it", "--name", "one", *on, "box", "sh", "-c", READER)
    code, _ = at_terminal(layerfs, "start", "-ai", "one", typed=[("ready", "\x10\x11")])
    assert code == 0
    assert layerfs("inspect", "-f", "{{.State.Status}}", "one") == "running\n"


def test_exec_is_left_and_goes_on(layerfs, box, on):
    layerfs("run", "-d", "--name", "one", *on, "box", "sleep", "100")
    script = "trap '' HUP; echo ready; read x; i=0; "
    script += "while [ $i -lt 2000 ]; do echo more; i=$((i+1)); done; sleep 0.3; echo end > /end"
    words = ("exec", "-it", "--detach-keys", "x,y", "one", "sh", "-c", script)
    code, _ = at_terminal(layerfs, *words, typed=[("ready", "a\r"), ("more", "xy")])
    assert code == 0
    # A terminal that nobody reads would hold it back.
    wait_for(lambda: layerfs.process("exec", "one", "cat", "/end", code=None).stdout == b"end\n")


def test_exec_at_a_terminal_to_its_end(layerfs, box, on):
    layerfs("run", "-d", "--name", "one", *on, "box", "sleep", "100")
    code, shown = at_terminal(
        layerfs, "exec", "-it", "one", "sh", "-c", READER, typed=[("ready", "\x10a\r"), (":", "\x04")]
    )
    assert code == 4
    assert "got:\x10a:" in shown


@pytest.mark.parametrize("keys", ["ctrl-1", "ctrl-", "ab", "a,,b", "é", "ctrl-p ctrl-q"])
def test_keys_that_are_none(layerfs, box, keys):
    layerfs("run", "-d", "--name", "one", "box", "sleep", "100")
    for words in (("run", "box", "true"), ("exec", "one", "true")):
        assert "is not a key" in layerfs.error(words[0], "--detach-keys", keys, *words[1:], code=125)
    assert "is not a key" in layerfs.error("attach", "--detach-keys", keys, "one", code=2)
    assert layerfs.lines("ps", "-q") == layerfs.lines("ps", "-aq")


def test_a_restart_policy_in_the_foreground(layerfs, box, on):
    script = "n=$(cat /n); echo run:$n; echo x$n > /n; exit 3"
    first = layerfs("run", "--name", "one", "--restart", "on-failure:2", *on, "box", "sh", "-c", script, code=3)
    assert first == "run:\n"  # docker's command ends with the first run as well
    wait_for(lambda: layerfs("inspect", "-f", "{{.State.Status}}", "one") == "exited\n")
    assert layerfs("logs", "one") == "run:\nrun:x\nrun:xx\n"
    assert layerfs("inspect", "-f", "{{.RestartCount}}", "one") == "2\n"


def test_signals_reach_what_a_supervisor_keeps(layerfs, box, on):
    script = "trap 'echo got it; exit 5' TERM; echo ready; while :; do sleep 0.05; done"
    words = ["run", "--rm", "-a", "stdout", *on, "box", "sh", "-c", script]
    with subprocess.Popen(
        [sys.executable, "-m", "layerfs", *words], stdout=subprocess.PIPE, env=layerfs.environment
    ) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == b"got it\n"
    assert process.returncode == 5


def test_health_checks_in_the_foreground(layerfs, box, on):
    script = "echo ready; while [ ! -e /stop ]; do sleep 0.05; done; exit 6"
    words = ["run", "--name", "one", "--health-cmd", "touch /seen", "--health-interval", "100ms", *on, "box"]
    with subprocess.Popen(
        [sys.executable, "-m", "layerfs", *words, "sh", "-c", script], stdout=subprocess.PIPE, env=layerfs.environment
    ) as process:
        assert process.stdout.readline() == b"ready\n"
        wait_for(lambda: layerfs("inspect", "-f", "{{.State.Health.Status}}", "one") == "healthy\n")
        layerfs("exec", "one", "sh", "-c", "echo > /stop")
    assert process.returncode == 6
