"""The supervisor, from outside: containers that outlive the call that started them."""

import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from launchkit import DOCKER_CAPABILITIES, busybox_root, children, needs_busybox

from layerfs import native
from layerfs.errors import NativeError

pytestmark = [pytest.mark.root, needs_busybox]
AT_FDCWD = -100
PIECE = 16384


class Container:
    """A supervised container in a temporary place; ended when its test is over."""

    def __init__(self, where: Path) -> None:
        self.tree = busybox_root(where / "root")
        self.state = where / "state"
        self.run = where / "run"
        self.state.mkdir()
        self.run.mkdir()

    def start(self, *args: str, **options: object) -> int:
        defaults: dict[str, object] = {"env": ["PATH=/bin"], "capabilities": DOCKER_CAPABILITIES, "name": "box"}
        root = native.bind_mount(AT_FDCWD, str(self.tree))
        state, run = (os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in (self.state, self.run))
        try:
            spec = native.SupervisorSpec(root=root, args=args, state=state, socket=run, **(defaults | options))  # type: ignore[arg-type]
            return native.supervise(spec)
        finally:
            for fd in (root, state, run):
                os.close(fd)

    def sh(self, script: str, **options: object) -> int:
        return self.start("sh", "-c", script, **options)

    @property
    def status(self) -> dict[str, object]:
        status: dict[str, object] = json.loads((self.state / "status.json").read_text())
        return status

    def wait(self, condition: Callable[[dict[str, object]], bool], seconds: float = 10) -> dict[str, object]:
        end = time.monotonic() + seconds
        while not condition(self.status):
            assert time.monotonic() < end, self.status
            time.sleep(0.01)
        return self.status

    def ended(self) -> dict[str, object]:
        return self.wait(lambda status: status["status"] == "exited")

    def log(self) -> list[tuple[str, str, str]]:
        return parse((self.state / "log").read_bytes())

    @contextmanager
    def client(self, flags: int = 0) -> Iterator[socket.socket]:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            client.settimeout(10)
            client.connect(str(self.run / "box.sock"))
            if flags:
                client.send(b"A" + bytes([flags]))
                assert client.recv(PIECE + 1) == b"A"
            yield client


def parse(data: bytes) -> list[tuple[str, str, str]]:
    """(stream, tag, text) of each entry; every one must be well formed."""
    entries = []
    for line in data.decode().splitlines():
        match = re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z (stdout|stderr) ([FP]) (.*)", line)
        assert match, line
        entries.append((match[1], match[2], match[3]))
    return entries


def receive(client: socket.socket, kind: bytes) -> bytes:
    """All payload of this kind up to the end of the container."""
    data = b""
    while message := client.recv(PIECE + 1):
        if message[:1] == kind:
            data += message[1:]
    return data


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Container]:
    container = Container(tmp_path)
    yield container
    with suppress(FileNotFoundError, ProcessLookupError):
        if container.status["status"] != "exited":
            os.kill(int(str(container.status["supervisor"])), signal.SIGKILL)


def test_it_outlives_the_call_and_keeps_the_exit_status(box: Container) -> None:
    before, children_before = time.time_ns(), children()
    pid = box.sh("echo out; echo err >&2; sleep 0.2; exit 7")
    running = box.status
    assert running["status"] == "running"
    assert running["pid"] == pid
    assert running["pid_start"] == int(Path(f"/proc/{pid}/stat").read_text().rsplit(")")[1].split()[19])
    assert running["boot"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert Path(f"/proc/{running['supervisor']}/stat").read_text().split()[3] != str(os.getpid())
    status = box.ended()
    assert status["exit_code"] == 7
    assert status["pid"] == 0
    assert before < int(str(status["started"])) < int(str(status["finished"]))
    assert sorted(box.log()) == [("stderr", "F", "err"), ("stdout", "F", "out")]
    box.wait(lambda _: not list(box.run.iterdir()))  # the socket goes when clients have been told
    assert not children() - children_before


def test_a_command_that_cannot_run(box: Container) -> None:
    with pytest.raises(native.CommandError, match="run nothing"):
        box.start("nothing")
    assert box.status["status"] == "exited"
    assert box.status["exit_code"] == 127
    assert "run nothing" in str(box.status["error"])
    with pytest.raises(NativeError, match="root of the container"):
        box.start("true", mounts=[native.Mount(type="tmpfs", target="/")])
    assert box.status["exit_code"] == 125


def test_the_socket_is_private(box: Container) -> None:
    box.start("sleep", "60")
    assert (box.run / "box.sock").stat().st_mode & 0o777 == 0o600


def test_log_of_long_lines_and_of_a_last_line_without_end(box: Container) -> None:
    box.sh("head -c 40000 /dev/zero | tr '\\0' x; echo; echo -n last")
    box.ended()
    entries = box.log()
    assert [tag for _, tag, _ in entries] == ["P", "P", "F", "P"]
    assert [len(text) for _, _, text in entries] == [16384, 16384, 40000 - 2 * 16384, 4]
    assert entries[-1][2] == "last"


def test_log_rotation(box: Container) -> None:
    box.sh("i=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); done", log_max_size=5000, log_max_files=3)
    box.ended()
    names = sorted(path.name for path in box.state.glob("log*"))
    assert names == ["log", "log.1", "log.2"]
    texts = [text for name in ("log.2", "log.1", "log") for _, _, text in parse((box.state / name).read_bytes())]
    assert texts[-1] == "line 299"
    assert texts == [f"line {i}" for i in range(300 - len(texts), 300)]
    assert all((box.state / name).stat().st_size <= 5000 for name in names)


def test_no_log(box: Container) -> None:
    box.sh("echo x", no_log=True)
    box.ended()
    assert not (box.state / "log").exists()


def test_attach(box: Container) -> None:
    box.sh("read line; echo got $line; echo err >&2; cat", open_stdin=True)
    with box.client(7) as one, box.client(2) as two:
        one.send(b"Ihello\n")
        one.send(b"Imore")
        one.send(b"I")
        data = b"".join(receive_all(one))
        assert data.replace(b"err\n", b"") == b"got hello\nmore0"
        assert b"err\n" in data
        assert receive(two, b"O") == b"got hello\nmore"
    assert box.ended()["exit_code"] == 0


def receive_all(client: socket.socket) -> Iterator[bytes]:
    while message := client.recv(PIECE + 1):
        yield message[1:]
        if message[:1] == b"X":
            assert message == b"X0"


def test_input_ends_with_the_client_only_when_asked(box: Container) -> None:
    box.sh("cat; echo end", open_stdin=True, stdin_once=True)
    with box.client(1) as client:
        client.send(b"Itext\n")
    box.ended()
    assert [text for _, _, text in box.log()] == ["text", "end"]


def test_without_open_input_it_is_empty_and_refused(box: Container) -> None:
    box.sh("cat; sleep 60")
    with box.client(3) as client:
        client.send(b"Ix")
        assert client.recv(100) == b"Fthe container takes no input"


def test_a_client_that_does_not_read_holds_the_output_back_and_loses_nothing(box: Container) -> None:
    box.sh("read go; head -c 3000000 /dev/zero; echo done >&2", open_stdin=True, no_log=True)
    with box.client(3) as client:
        client.send(b"Igo\n")
        time.sleep(0.2)
        assert box.status["status"] == "running"
        assert len(receive(client, b"O")) == 3000000


def test_stop_by_signal_and_by_force(box: Container) -> None:
    box.sh("trap 'exit 5' USR1; echo ready; while :; do sleep 0.05; done", stop_signal=signal.SIGUSR1)
    while not box.log():
        time.sleep(0.01)
    with box.client() as client:
        client.send(b"S")
        assert client.recv(100) == b"X5"
    box.sh("trap '' TERM; echo ready; while :; do sleep 0.05; done", restart="always")
    while len(box.log()) < 2:
        time.sleep(0.01)
    with box.client() as client:
        client.send(b"S15:100")
        assert client.recv(100) == b"X137"
    assert box.status["restarts"] == 0


def test_signals_and_refusals(box: Container) -> None:
    box.sh("trap 'echo hup' HUP; echo ready; while :; do sleep 0.05; done")
    while not box.log():
        time.sleep(0.01)
    with box.client(2) as client:
        client.send(b"K%d" % signal.SIGHUP)
        assert client.recv(100) == b"Ohup\n"
        client.send(b"W10:20")
        assert client.recv(100).startswith(b"F")
        client.send(b"?")
        assert client.recv(100) == b"Funknown request"
        client.send(b"K9")
        assert client.recv(100) == b"X137"


def test_sigterm_to_the_supervisor_stops_the_container(box: Container) -> None:
    box.sh("trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done", restart="always")
    while not box.log():
        time.sleep(0.01)
    os.kill(int(str(box.status["supervisor"])), signal.SIGTERM)
    assert box.ended()["exit_code"] == 3


def test_a_killed_supervisor_takes_its_container_along(box: Container) -> None:
    pid = box.start("sleep", "60")
    os.kill(int(str(box.status["supervisor"])), signal.SIGKILL)
    end = time.monotonic() + 5
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < end
        time.sleep(0.01)
    assert box.status["status"] == "running"  # a lie that pid and start time give away


def test_restart_on_failure(box: Container) -> None:
    box.sh("echo run; exit 4", restart="on-failure", restart_max=2)
    status = box.wait(lambda status: status["status"] == "exited" and status["restarts"] == 2)
    assert status["exit_code"] == 4
    assert len(box.log()) == 3


def test_restart_on_failure_leaves_success_alone(box: Container) -> None:
    box.sh("exit 0", restart="on-failure")
    assert box.ended()["restarts"] == 0


def test_restart_always_until_stopped_with_the_upper_kept(box: Container) -> None:
    box.sh("echo x >> /count; wc -l < /count", restart="always")
    box.wait(lambda status: int(str(status["restarts"])) >= 2)
    with box.client() as client:
        client.send(b"S")
        client.recv(100)
    assert box.ended()["restarts"] in (2, 3)
    assert [text for _, _, text in box.log()][:3] == ["1", "2", "3"]


def test_the_restart_policy_can_be_changed(box: Container) -> None:
    box.sh("while [ ! -e /go ]; do sleep 0.02; done; exit 4")
    with box.client(1) as client:
        for wrong in (b"Pnever:1", b"P", b"Pno-way", b"Palways-on:1"):
            client.send(wrong)
            assert client.recv(100) == b"Fno such restart policy"
        client.send(b"Pon-failure:1")
        (box.tree / "go").touch()
        assert client.recv(100) == b"R4"
        assert client.recv(100) == b"X4"
    assert box.ended()["restarts"] == 1


def test_a_stop_counts_though_the_command_has_ended_and_its_client_has_gone(box: Container) -> None:
    pid = box.start("sleep", "60", restart="always")
    supervisor = int(str(box.status["supervisor"]))
    os.kill(supervisor, signal.SIGSTOP)
    with box.client() as client:
        client.send(b"S9:1000")
    os.kill(pid, signal.SIGKILL)
    os.kill(supervisor, signal.SIGCONT)
    assert box.ended()["restarts"] == 0


def test_a_client_from_before_the_start_misses_nothing(box: Container) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        ours.settimeout(10)
        ours.send(b"A" + bytes([2]))
        with theirs:
            box.sh("echo run; echo oops >&2; exit 4", restart="on-failure", restart_max=1, client=theirs.fileno())
        messages = list(iter(lambda: ours.recv(PIECE + 1), b""))
    assert messages == [b"A", b"Orun\n", b"R4", b"Orun\n", b"X4"]


def test_terminal(box: Container) -> None:
    box.sh("stty size; read line; stty size; tty", tty=True, tty_size=(11, 22))
    with box.client(3) as client:
        while not box.log():
            time.sleep(0.01)
        client.send(b"W33:44")
        client.send(b"Ix\n")
        receive(client, b"O")
    box.ended()
    text = [text.strip() for _, _, text in box.log()]
    assert text[0] == "11 22"
    assert text[-2:] == ["33 44", "/dev/pts/0"]


def test_health(box: Container) -> None:
    (box.tree / "tmp/ok").touch()
    box.start(
        "sleep", "60", health=["test", "-e", "/tmp/ok"], health_interval=30, health_timeout=5000, health_retries=2
    )
    assert box.status["health"] == "starting"
    box.wait(lambda status: status["health"] == "healthy")
    (box.tree / "tmp/ok").unlink()
    assert int(str(box.wait(lambda status: status["health"] == "unhealthy")["health_failures"])) >= 2


def test_a_health_check_that_hangs_fails(box: Container) -> None:
    box.start("sleep", "60", health=["sleep", "50"], health_interval=20, health_timeout=50, health_retries=1)
    box.wait(lambda status: status["health"] == "unhealthy")


def test_hook_runs_after_the_end(box: Container, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    script = f"import shutil; shutil.copy({str(box.state / 'status.json')!r}, {str(mark)!r})"
    box.sh("exit 6", hook=[sys.executable, "-c", script])
    end = time.monotonic() + 10
    while not mark.exists() or not mark.read_text():
        assert time.monotonic() < end
        time.sleep(0.01)
    assert json.loads(mark.read_text())["exit_code"] == 6


def test_memory_of_an_idle_supervisor(box: Container) -> None:
    box.start("sleep", "60")
    rollup = Path(f"/proc/{box.status['supervisor']}/smaps_rollup").read_text()
    private = sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Private_"))
    assert private <= 1024
