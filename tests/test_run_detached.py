"""Containers that run by themselves: started, entered, stopped, looked at; on the built-in launcher and on runc."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from boxes import add_box, needs_busybox, options

from layerfs import Store
from layerfs.containers import Restart
from layerfs.errors import InUseError, InvalidInputError, LayerfsError, NotFoundError, UnsupportedError

pytestmark = [pytest.mark.root, needs_busybox]

LOOP = "while :; do sleep 0.05; done"


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    root = tmp_path_factory.mktemp("store")
    with Store.open(root, tmp_path_factory.mktemp("run")) as store:
        add_box(store, root)
        yield store
        store.snapshots.release_layers()


def supervisors(store):
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        ids = {row.id.encode() for row in store.database.containers()}
        if b"supervisor" in words[0] and ids & set(words):
            found.append(path)
    return found


@pytest.fixture
def store(shared):
    yield shared
    ids = [row.id for row in shared.database.containers()]
    for container in shared.containers.list():
        container.remove(force=True, volumes=True)
    for volume in shared.containers.volumes.list():
        shared.containers.volumes.remove(volume.name)
    shared.snapshots.close()
    for place in (shared.root / "containers", shared.root / "snapshots", shared.run_root / "containers"):
        assert list(place.iterdir()) == []
    if (shared.run_root / "sockets").exists():
        assert list((shared.run_root / "sockets").iterdir()) == []
    assert not [row for row in shared.snapshots.list() if row.mounted is not None]
    for id in ids:
        assert list(Path("/sys/fs/cgroup").glob(f"*/layerfs/{id}")) == []


def start(store, runtime, script, **flags):
    return store.containers.start(options("sh", "-c", script, runtime=runtime, **flags))


def text(container, **kw):
    return b"".join(entry.text for entry in container.logs(**kw)).decode()


def wait_for(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def captured(call):
    """The output of ``call(stdio)``, and its result."""
    pipes = [os.pipe2(os.O_CLOEXEC) for _ in range(2)]
    found = {}

    def read(number):
        with open(pipes[number][0], "rb") as file:
            found[number] = file.read().decode()

    threads = [threading.Thread(target=read, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    null = os.open("/dev/null", os.O_RDONLY)
    try:
        result = call((null, pipes[0][1], pipes[1][1]))
    finally:
        for fd in (null, pipes[0][1], pipes[1][1]):
            os.close(fd)
        for thread in threads:
            thread.join()
    return result, found[0], found[1]


def test_start_look_stop(store, runtime):
    container = start(store, runtime, f"trap 'echo bye; exit 4' TERM; echo hello; echo oops >&2; {LOOP}", name="one")
    wait_for(lambda: "oops" in text(container))
    found = store.containers.get("one")
    assert (found.status, found.exit_code) == ("running", 0)
    assert Path(f"/proc/{found.pid}/root/bin/busybox").exists()
    assert sorted((entry.stream, entry.data) for entry in found.logs()) == [("stderr", b"oops"), ("stdout", b"hello")]
    began = time.monotonic()
    found.stop()
    assert time.monotonic() - began < 5
    assert (found.status, found.exit_code, found.pid) == ("exited", 4, 0)
    assert text(found).endswith("bye\n")
    assert found.finished_at >= found.started_at > 0
    found.stop()  # of what is stopped: nothing
    assert found.wait() == 4


def test_it_outlives_the_command_that_started_it(store, runtime):
    program = (
        "import sys\nfrom layerfs import Store\nfrom layerfs.containers import create_options\n"
        "with Store.open(sys.argv[1], sys.argv[2]) as store:\n"
        "    store.containers.start(create_options('box', ['sleep', '60'], {'runtime': sys.argv[3], 'name': 'long'}))\n"
    )
    subprocess.run(
        [sys.executable, "-c", program, store.root, store.run_root, runtime], check=True, start_new_session=True
    )
    container = store.containers.get("long")
    assert container.status == "running"
    container.stop(0)
    assert (container.status, container.exit_code) == ("exited", 137)


def test_start_again_keeps_the_changes_and_the_log(store, runtime):
    container = start(store, runtime, "cat /count; echo x >>/count; echo run")
    for _ in range(2):
        assert container.wait(20) == 0
        container.start()
    assert container.wait(20) == 0
    lines = text(container).splitlines()
    assert lines.count("run") == 3
    assert lines.count("x") == 3  # none, one, two


def test_a_stop_that_is_not_heard(store, runtime):
    container = start(store, runtime, f"trap '' TERM; echo up; {LOOP}")
    wait_for(lambda: "up" in text(container))
    began = time.monotonic()
    container.stop(0.3)
    assert 0.3 <= time.monotonic() - began < 5
    assert container.exit_code == 137


def test_the_stop_signal(store, runtime):
    container = start(store, runtime, f"trap 'exit 9' USR1; echo up; {LOOP}", stop_signal="USR1", stop_timeout="20")
    wait_for(lambda: "up" in text(container))
    container.stop()
    assert container.exit_code == 9


def test_kill(store, runtime):
    container = start(store, runtime, f"trap 'echo usr' USR1; echo up; {LOOP}")
    wait_for(lambda: "up" in text(container))
    container.kill(signal.SIGUSR1)
    wait_for(lambda: "usr" in text(container))
    container.kill()
    assert container.wait(20) == 137
    for call in (container.kill, container.pause, container.unpause, container.top):
        with pytest.raises(InUseError, match="not"):
            call()


def test_wait(store, runtime):
    container = start(store, runtime, "sleep 0.3; exit 6")
    with pytest.raises(TimeoutError):
        container.wait(0.05)
    assert container.wait() == 6
    assert store.containers.create(options("true")).wait() == 0


def test_restart(store, runtime):
    container = start(store, runtime, f"echo up; {LOOP}")
    wait_for(lambda: text(container) == "up\n")  # else it may be killed before that
    first = container.pid
    container.restart(0)
    assert container.status == "running"
    assert container.pid != first
    wait_for(lambda: text(container).count("up") == 2)


def test_remove(store, runtime):
    container = start(store, runtime, "sleep 60")
    with pytest.raises(InUseError, match="running"):
        container.remove()
    with pytest.raises(InUseError, match="running"):
        container.run()
    container.start()  # of what runs: nothing
    container.remove(force=True)
    with pytest.raises(NotFoundError):
        store.containers.get(container.id)


def test_removal_at_the_end(store, runtime):
    container = start(store, runtime, "sleep 0.2; exit 3", rm=True, volume=["/anonymous"])
    assert container.wait() == 3
    wait_for(lambda: not container.directory.exists())  # by its own hook, not by a command
    assert store.containers.list() == []
    assert store.containers.volumes.list() == []


def test_a_command_that_is_not_there(store, runtime):
    with pytest.raises(LayerfsError) as caught:
        store.containers.start(options("no-such-thing", runtime=runtime))
    assert caught.value.exit_code == 127
    (container,) = store.containers.list()
    assert (container.status, container.exit_code) == ("created", 127)
    with pytest.raises(LayerfsError):
        store.containers.start(options("/etc/passwd", runtime=runtime, rm=True))
    assert len(store.containers.list()) == 1


@pytest.mark.parametrize(("policy", "code", "runs"), [("on-failure:2", 1, 3), ("on-failure", 0, 1), ("no", 1, 1)])
def test_restart_policies(store, runtime, policy, code, runs):
    container = start(store, runtime, f"echo run; exit {code}", restart=policy)
    assert container.wait(30) == code
    assert text(container).count("run") == runs
    assert container.state.restarts == runs - 1


def test_always_is_started_again_until_it_is_stopped(store, runtime):
    container = start(store, runtime, "echo run; sleep 0.1", restart="always")
    wait_for(lambda: text(container).count("run") >= 3)
    container.stop(0)
    count = text(container).count("run")
    time.sleep(0.5)
    assert text(container).count("run") == count
    assert container.refresh().status == "exited"


@pytest.mark.parametrize("how", ["kill", "remove"])
def test_between_two_runs_it_can_be_killed_and_removed(store, runtime, how):
    container = start(store, runtime, "exit 1", restart="always")
    # The wait before the next run doubles each time.
    wait_for(lambda: container.refresh().state.restarts >= 2 and container.status == "restarting")
    begun = time.monotonic()
    if how == "kill":
        container.kill()
        assert (container.refresh().status, container.exit_code) == ("exited", 1)
    else:
        container.remove(force=True)
        assert store.containers.list() == []
    assert time.monotonic() - begun < 10


def test_exec(store, runtime):
    container = start(store, runtime, LOOP, env=["A=1"], hostname="inside", workdir="/tmp", volume=["vol:/vol"])
    code, out, err = captured(
        lambda stdio: container.exec(
            ["sh", "-c", "echo $A $B $(hostname) $(pwd); echo e >&2; touch /new /vol/x; exit 5"],
            env=["B=2"],
            stdio=stdio,
        )
    )
    assert (code, out, err) == (5, "1 2 inside /tmp\n", "e\n")
    assert (store.containers.volumes.get("vol").mountpoint / "x").exists()
    _, out, _ = captured(lambda stdio: container.exec(["id"], user="bob", stdio=stdio))
    assert out.startswith("uid=1000(bob) gid=1000(bob)")
    _, out, _ = captured(lambda stdio: container.exec(["pwd"], workdir="/etc", stdio=stdio))
    assert out == "/etc\n"
    script = (
        "grep -E 'Cap(Inh|Eff|Bnd)|NoNewPrivs' /proc/self/status; readlink /proc/self/ns/pid; readlink /proc/1/ns/pid"
    )
    _, out, _ = captured(lambda stdio: container.exec(["sh", "-c", script], stdio=stdio))
    lines = out.splitlines()
    assert [line.split()[1] for line in lines[:4]] == ["0" * 16, "00000000a80425fb", "00000000a80425fb", "1"]
    assert lines[4] == lines[5] != os.readlink("/proc/self/ns/pid")
    for args, wrong in ((["nothing"], 127), (["/etc/passwd"], 126)):
        with pytest.raises(LayerfsError) as caught:
            captured(lambda stdio, args=args: container.exec(args, stdio=stdio))
        assert caught.value.exit_code == wrong
    with pytest.raises(NotFoundError, match="nobody"):
        container.exec(["id"], user="nobody")
    with pytest.raises(InvalidInputError):
        container.exec([])
    container.stop(0)
    with pytest.raises(InUseError, match="not running"):
        container.exec(["true"])


def test_exec_in_the_background(store, runtime):
    container = start(store, runtime, LOOP)
    assert container.exec(["sh", "-c", "sleep 0.1; touch /done; sleep 60"], detach=True) == 0
    wait_for(lambda: Path(f"/proc/{container.pid}/root/done").exists())
    began = time.monotonic()
    container.stop(0)
    assert time.monotonic() - began < 5


def test_exec_leaks_no_descriptor(store, runtime):
    container = start(store, runtime, LOOP)
    with open("/etc/passwd") as file:
        os.set_inheritable(file.fileno(), True)
        _, out, _ = captured(lambda stdio: container.exec(["sh", "-c", "ls /proc/self/fd | wc -w"], stdio=stdio))
    assert out.strip() == "4"


def test_top_and_usage(store, runtime):
    container = start(store, runtime, f"sleep 77 & {LOOP}")
    wait_for(lambda: any(row[-1] == "sleep 77" for row in container.top().rows))
    shown = container.top()
    assert shown.titles[:3] == ("UID", "PID", "PPID")
    assert str(container.pid) in {row[1] for row in shown.rows}
    if shutil.which("ps"):
        shown = container.top(["-o", "pid,comm"])
        assert shown.titles == ("PID", "COMMAND")
        assert len(shown.rows) >= 2
        with pytest.raises(InvalidInputError, match="PID"):
            container.top(["-o", "comm"])
    usage = container.usage()
    assert usage.pids >= 2
    assert usage.memory > 0
    assert usage.cpu > 0


def test_pause(store, runtime):
    container = start(store, runtime, "while :; do echo x; sleep 0.02; done")
    wait_for(lambda: "x" in text(container))
    container.pause()
    assert container.status == store.containers.get(container.id).status == "paused"
    time.sleep(0.1)
    count = len(text(container))
    time.sleep(0.2)
    assert len(text(container)) == count
    for call in (container.pause, lambda: container.exec(["true"])):
        with pytest.raises(InUseError, match="paused"):
            call()
    container.unpause()
    assert container.status == "running"
    wait_for(lambda: len(text(container)) > count)
    container.pause()
    container.stop(1)
    assert container.status == "exited"


def test_commit_of_a_live_container(store, runtime):
    container = start(store, runtime, "i=0; while :; do i=$((i+1)); echo $i >/a; echo $i >/b; done")
    wait_for(lambda: Path(f"/proc/{container.pid}/root/b").exists())
    for _ in range(5):
        image = container.commit(pause=True).image
        with store.layers.view(image.diff_ids) as view:
            a, b = (b"".join(view.read(path)) for path in (b"/a", b"/b"))
        # Between the writes of one round, or between two: never further apart.
        assert int(a or b"0") - int(b or b"0") in (0, 1) or not a or not b
    assert container.refresh().status == "running"
    assert start(store, runtime, LOOP).commit().image.id  # without a pause one that writes may be refused


def test_commits_that_stack(store, runtime):
    container = start(store, runtime, f"mkdir /d; echo 1 >/d/one; rm /etc/group; echo up; {LOOP}")
    wait_for(lambda: "up" in text(container))
    first = container.commit("stack:1", stack=True).image
    captured(lambda stdio: container.exec(["sh", "-c", "echo 2 >/d/two; rm /d/one"], stdio=stdio))
    second = container.commit("stack:2", stack=True).image
    captured(lambda stdio: container.exec(["sh", "-c", "echo 3 >/d/three"], stdio=stdio))
    third = container.commit("stack:3", stack=True).image
    assert second.diff_ids[:-1] == first.diff_ids
    assert third.diff_ids[:-1] == second.diff_ids
    with store.layers.view(second.diff_ids[-1:]) as view:
        names = {entry.path for entry in view.walk() if not entry.is_dir}
    assert names == {b"/d/two"}
    with store.layers.view(third.diff_ids) as view:
        assert [entry.name for entry in view.listdir(b"/d")] == [b"three", b"two"]
        with pytest.raises(NotFoundError):
            view.stat(b"/etc/group")
    assert container.commit().image.diff_ids[:-1] == store.images.get("box").diff_ids  # one without is of all changes
    with pytest.raises(InvalidInputError, match="exclude"):
        container.commit(stack=True, squash=True)


def test_attach(store, runtime):
    container = start(store, runtime, "read x; echo got $x; read y; echo and $y; exit 3", interactive=True)
    read, write = os.pipe()
    os.write(write, b"first\nsecond\n")
    pipe = os.pipe()
    try:
        assert container.attach((read, pipe[1], pipe[1])) == 3
        assert os.read(pipe[0], 1000) == b"got first\nand second\n"
    finally:
        for fd in (read, write, *pipe):
            os.close(fd)
    with pytest.raises(InUseError, match="not running"):
        container.attach()


def test_attach_and_the_end_of_input(store, runtime):
    container = start(store, runtime, "cat; echo end", interactive=True)
    read, write = os.pipe()
    os.write(write, b"text\n")
    os.close(write)
    out = os.open("/dev/null", os.O_WRONLY)
    try:
        assert container.attach((read, out, out)) == 0
    finally:
        os.close(read)
        os.close(out)
    assert text(container) == "text\nend\n"


def test_detach_keys(store, runtime):
    container = start(store, runtime, "while read x; do echo got $x; done", interactive=True, tty=True)
    read, write = os.pipe()
    os.write(write, b"one\r\x10")
    pipe = os.pipe()

    def leave():
        time.sleep(0.2)
        os.write(write, b"\x11")

    thread = threading.Thread(target=leave)
    thread.start()
    try:
        assert container.attach((read, pipe[1], pipe[1])) is None
        thread.join()
        wait_for(lambda: "got one" in text(container))
        assert container.refresh().status == "running"
    finally:
        for fd in (read, write, *pipe):
            os.close(fd)


def test_logs(store, runtime):
    container = start(
        store, runtime, "for i in 1 2 3 4 5; do echo line $i; done; echo -n rest; sleep 0.3; echo; sleep 0.3; echo last"
    )
    wait_for(lambda: "line 5" in text(container))
    followed = "".join(entry.text.decode() for entry in container.logs(follow=True))
    assert followed == "line 1\nline 2\nline 3\nline 4\nline 5\nrest\nlast\n"
    entries = list(container.logs())
    assert text(container, tail=1) == "last\n"
    assert text(container, tail=0) == ""
    assert text(container, tail=2) == "rest\nlast\n"
    assert text(container, since=entries[-1].seconds - 0.1) == "last\n"
    assert "last" not in text(container, until=entries[0].seconds + 0.1)
    assert all(container.started_at - 1 < entry.seconds < time.time() for entry in entries)


def test_log_rotation(store, runtime):
    script = "i=0; while [ $i -lt 500 ]; do echo 0123456789012345678901234567890123456789 $i; i=$((i+1)); done"
    container = start(store, runtime, script, log_opt=["max-size=4k", "max-file=3"])
    assert container.wait(20) == 0
    files = sorted(path.name for path in container.directory.glob("log*"))
    assert files == ["log", "log.1", "log.2"]
    assert all((container.directory / name).stat().st_size <= 5000 for name in files)
    lines = text(container).splitlines()
    numbers = [int(line.split()[1]) for line in lines]
    assert numbers[-1] == 499
    assert numbers == list(range(numbers[0], 500))
    silent = start(store, runtime, "echo x", log_driver="none")
    silent.wait()
    assert text(silent) == ""


def test_update(store, runtime):
    controllers = Path("/sys/fs/cgroup/cgroup.controllers")
    version2 = controllers.exists() and "memory" in controllers.read_text().split()
    if not version2 and not Path("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists():
        pytest.skip("needs a memory group")
    container = start(store, runtime, LOOP, memory="64m")
    assert container.usage().memory_limit == 64 << 20
    container.update(memory=128 << 20, memory_swap=128 << 20)
    assert container.usage().memory_limit == 128 << 20
    container.update(pids_limit=50)
    assert container.usage().pids_limit == 50
    assert store.containers.get(container.id).config.options.memory == 128 << 20
    with pytest.raises(UnsupportedError, match="user"):
        container.update(user="x")


def test_a_restart_policy_that_is_changed_while_it_runs(store, runtime):
    container = start(store, runtime, "while [ ! -e /go ]; do sleep 0.02; done; exit 3")
    container.update(restart=Restart("on-failure", 2))
    assert container.exec(["touch", "/go"]) == 0
    wait_for(lambda: container.refresh().status == "exited")
    assert (container.state.restarts, container.exit_code) == (2, 3)
    container = start(store, runtime, "exit 3", restart="always")
    wait_for(lambda: container.refresh().state.restarts >= 1)
    container.update(restart=Restart("no"))
    wait_for(lambda: container.refresh().status == "exited")
    container = start(store, runtime, LOOP, rm=True)
    with pytest.raises(InvalidInputError, match="--rm"):
        container.update(restart=Restart("always"))
    container.stop(0)


def test_health(store, runtime):
    container = start(
        store,
        runtime,
        LOOP,
        health_cmd="test -e /ok",
        health_interval="100ms",
        health_retries="2",
        health_timeout="5s",
    )
    assert container.health == "starting"
    wait_for(lambda: container.refresh().health == "unhealthy")
    captured(lambda stdio: container.exec(["touch", "/ok"], stdio=stdio))
    wait_for(lambda: container.refresh().health == "healthy")


def test_events(store, runtime):
    since = time.time()
    container = start(store, runtime, "exit 3", name="eventful", label=["k=v"])
    container.wait()
    container.remove()
    found = [event for event in store.containers.events(since=since) if event.id == container.id]
    assert [event.action for event in found] == ["create", "start", "die", "destroy"]
    assert found[1].attributes == {"image": "box", "name": "eventful", "k": "v"}
    assert found[2].attributes["exitCode"] == "3"


def test_prune(store, runtime):
    ended = start(store, runtime, "echo x >/x")
    ended.wait()
    kept = store.containers.create(options("true", name="kept-1"))
    live = start(store, runtime, LOOP)
    assert store.containers.prune(keep=lambda container: container.name == "kept-1", dry_run=True).keys() == {ended.id}
    assert store.containers.prune(keep=lambda container: container.name == "kept-1").keys() == {ended.id}
    assert {container.id for container in store.containers.list()} == {kept.id, live.id}


def test_a_supervisor_that_is_killed(store, runtime):
    container = start(store, runtime, "sleep 60")
    report = json.loads((container.directory / "status.json").read_text())
    pid = container.pid
    os.kill(report["supervisor"], signal.SIGKILL)
    wait_for(lambda: store.containers.get(container.id).status == "exited")
    found = store.containers.get(container.id)
    assert found.exit_code == 255
    assert "supervisor" in found.state.error
    wait_for(lambda: not Path(f"/proc/{pid}").exists())  # the container goes with it
    found.start()
    assert found.status == "running"


def test_what_ends_by_itself_leaves_nothing_on_the_host(store, runtime):
    """No later command is needed for that."""
    container = start(store, runtime, "exit 0")
    bundle = store.run_root / "containers" / container.id

    def left():
        groups = [
            *Path("/sys/fs/cgroup").glob(f"*/layerfs/{container.id}"),
            Path("/sys/fs/cgroup/layerfs") / container.id,
        ]
        mounts = Path("/proc/self/mountinfo").read_text()
        return [path for path in groups if path.exists()] or bundle.exists() or str(bundle) in mounts

    wait_for(lambda: not left())
    wait_for(lambda: not supervisors(store))
    if runtime != "builtin":  # its mount was on the host, and counts no more
        assert store.snapshots.row(container.id).mounted is None
    assert container.refresh().status == "exited"


def test_a_reboot(store, runtime):
    container = start(store, runtime, "sleep 60", restart="always")
    path = container.directory / "status.json"
    container.kill()
    container.wait()
    report = json.loads(path.read_text())
    row = store.database.container(container.id)
    store.database.set_container_state(container.id, {**row.state, "status": "running", "supervised": True})
    path.write_text(json.dumps({**report, "status": "running", "pid": os.getpid(), "boot": "another"}))
    found = store.containers.get(container.id)
    assert (found.status, found.exit_code) == ("exited", 255)
    assert [again.id for again in store.containers.resume()] == [container.id]
    assert store.containers.get(container.id).status == "running"
    assert store.containers.resume() == []


def test_a_terminal(store, runtime):
    container = start(store, runtime, "tty; stty size; read x; echo got $x", tty=True, interactive=True)
    wait_for(lambda: "/dev/" in text(container))
    read, write = os.pipe()
    os.write(write, b"typed\r")
    out = os.open("/dev/null", os.O_WRONLY)
    try:
        assert container.attach((read, out, out)) == 0
    finally:
        for fd in (read, write, out):
            os.close(fd)
    assert "got typed" in text(container)


def test_many_at_once(store):
    began = time.monotonic()
    containers = [start(store, "builtin", "exit 2") for _ in range(20)]
    assert [container.wait(20) for container in containers] == [2] * 20
    assert time.monotonic() - began < 20
    assert [container.status for container in store.containers.list()] == ["exited"] * 20
