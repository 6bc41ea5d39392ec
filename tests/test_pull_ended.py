"""A pull or push that is ended by the user, or that stands still: it goes at once, and keeps nobody else waiting."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from boxes import add_box
from fake_registry import FakeRegistry, Fault, digest_of
from registrykit import access, make_image, open_store, registry, serve

from layerfs.digest import Digest
from layerfs.errors import RegistryError
from layerfs.exchange import pull
from layerfs.oci import MEDIA_LAYER_GZIP, Descriptor
from layerfs.registry.config import Endpoint, Tls
from layerfs.registry.connection import Timeouts
from layerfs.registry.retry import Retry
from layerfs.registry.source import RegistrySource
from layerfs.registry.transport import Transport

__all__ = ["registry"]

TWO = make_image((900_000, 800_000), seed=21)
ONE = make_image((2_000_000,), seed=22)
Command = Callable[..., "subprocess.Popen[str]"]
PATIENCE = 2.0
"""Seconds from Ctrl-C to the end of the command."""


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Command]:
    """Starts the real command on a store of its own."""
    started: list[subprocess.Popen[str]] = []
    environ = {
        **os.environ,
        "HOME": str(tmp_path / "home"),
        "LAYERFS_ROOT": str(tmp_path / "root"),
        "LAYERFS_RUN": str(tmp_path / "run"),
    }

    def start(*words: str | Path) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-m", "layerfs", *map(str, words)],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        with process:  # closes its pipes
            pass


def until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not reached():
        assert time.monotonic() < deadline, "it did not come so far"
        time.sleep(0.01)


def interrupted(process: "subprocess.Popen[str]", number: int = signal.SIGINT) -> float:
    """Seconds that a command takes to end after a signal."""
    started = time.monotonic()
    process.send_signal(number)
    process.wait(PATIENCE + 10)
    return time.monotonic() - started


def layer(image: object, number: int) -> str:
    return f"/blobs/{digest_of(image.layers[number])}"  # type: ignore[attr-defined]


PLACES = {
    "the manifest": (TWO, Fault("HEAD|GET", "/manifests/", stall=-1), 1),
    "the configuration": (TWO, Fault("GET", f"/blobs/{digest_of(TWO.config)}", stall=-1), 1),
    "headers of both layers": (TWO, Fault("GET", "/blobs/" + "(?!" + digest_of(TWO.config) + ")", stall=-1), 2),
    "bodies of both layers": (TWO, Fault("GET", "/blobs/" + "(?!" + digest_of(TWO.config) + ")", stall=300_000), 2),
    "headers of the only layer": (ONE, Fault("GET", layer(ONE, 0), stall=-1), 1),
    "body of the only layer": (ONE, Fault("GET", layer(ONE, 0), stall=500_000), 1),
    "a pause that was asked for": (TWO, Fault("GET", layer(TWO, 1), status=429, headers={"Retry-After": "50"}), 1),
}


@pytest.mark.parametrize("place", PLACES)
def test_interrupt_ends_a_pull_at_once(registry: FakeRegistry, command: Command, tmp_path: Path, place: str) -> None:
    """With docker's exit code; and what had come by then is not fetched again."""
    image, fault, count = PLACES[place]
    fault.hits = 0
    fault.gate.clear()
    reference = serve(registry, "app", "v1", image)
    registry.faults.append(fault)
    process = command("pull", "-q", reference)
    until(lambda: fault.hits >= count)
    time.sleep(0.5)
    assert interrupted(process) < PATIENCE
    assert process.returncode == 130
    fault.gate.set()
    registry.faults.clear()
    kept = {path.name: path.stat().st_size for path in (tmp_path / "root/ingest").glob("blob-*")}
    registry.log.clear()
    done = command("pull", "-q", reference)
    assert done.wait(30) == 0
    for each in image.layers:
        digest = digest_of(each)
        there = kept.get("blob-" + digest.replace(":", "-"), 0)
        if fault.stall is not None and fault.stall > 0:
            assert there > fault.stall // 2, "nothing was kept"
        assert registry.sent(digest) in (0, len(each) - there)


def test_other_signals_end_it_too(registry: FakeRegistry, command: Command) -> None:
    reference = serve(registry, "app", "v1", TWO)
    fault = Fault("GET", "/blobs/(?!" + digest_of(TWO.config) + ")", stall=300_000)
    registry.faults.append(fault)
    process = command("pull", "-q", reference)
    until(lambda: fault.hits >= 2)
    assert interrupted(process, signal.SIGTERM) < PATIENCE
    assert process.returncode == 128 + signal.SIGTERM


def test_interrupt_ends_parallel_ranges(registry: FakeRegistry, command: Command, tmp_path: Path) -> None:
    large = make_image((34 << 20,), seed=23)
    reference = serve(registry, "app", "v1", large)
    stalled = Fault("GET", layer(large, 0), stall=100_000)
    # The first range comes slowly enough for the others to be asked for at once.
    registry.faults += [Fault("GET", layer(large, 0), times=1, delay=0.2), stalled]
    process = command("pull", "-q", reference)
    until(lambda: stalled.hits >= 4)
    time.sleep(0.3)
    assert interrupted(process) < PATIENCE
    assert process.returncode == 130
    registry.faults.clear()
    registry.log.clear()
    assert command("pull", "-q", reference).wait(60) == 0
    assert registry.sent(layer(large, 0)) == len(large.layers[0]) - (4 << 20)


@pytest.mark.parametrize("made", [False, True])
def test_interrupt_ends_a_push_at_once(registry: FakeRegistry, command: Command, tmp_path: Path, made: bool) -> None:
    """``made``: of layers that are compressed while they are sent."""
    with open_store(tmp_path) as store, access(tmp_path) as reach:
        pull(store.parts, serve(registry, "app", "v1", TWO), access=reach)
        if made:
            for each in TWO.layers:
                store.content.delete(Digest(digest_of(each)))
    with FakeRegistry() as target:
        fault = Fault("PUT|PATCH", "/uploads/", after=0 if made else 1, stall=-1)  # the configuration goes first
        target.faults.append(fault)
        process = command("push", "-q", f"{registry.host}/app:v1", f"{target.host}/app:v1")
        until(lambda: fault.hits >= 2)
        time.sleep(0.3)
        assert interrupted(process) < PATIENCE
        assert process.returncode == 130


def test_interrupt_while_it_connects(registry: FakeRegistry, command: Command, tmp_path: Path) -> None:
    """To a host that does not even refuse."""
    with open_store(tmp_path) as store, access(tmp_path) as reach:
        pull(store.parts, serve(registry, "app", "v1", TWO), access=reach)
        for each in TWO.layers:
            store.content.delete(Digest(digest_of(each)))
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        port = listener.getsockname()[1]
        first = socket.create_connection(("127.0.0.1", port))  # all there is room for
        with first:
            for words in (
                ("pull", f"127.0.0.1:{port}/app:v1"),
                ("push", f"{registry.host}/app:v1", f"127.0.0.1:{port}/a"),
            ):
                process = command(*words)
                time.sleep(1.5)
                assert process.poll() is None
                assert interrupted(process) < PATIENCE
                assert process.returncode == 130


def test_a_pull_that_stands_still_blocks_nobody(registry: FakeRegistry, command: Command, tmp_path: Path) -> None:
    """Also not of the image that is coming: what is not there yet is not there."""
    fault = Fault("GET", layer(TWO, 0), stall=300_000)
    registry.faults.append(fault)
    reference = serve(registry, "app", "v1", TWO)
    with open_store(tmp_path) as store:
        add_box(store, tmp_path)
    process = command("pull", "-q", reference)
    until(lambda: fault.hits >= 1)
    time.sleep(0.3)
    words = [
        ("create", "--name", "made", "box"),
        ("images",),
        ("tag", "box", "again:1"),
        *((("run", "--rm", "box", "true"), ("commit", "made", "again:2")) if os.geteuid() == 0 else ()),
        ("rm", "made"),
        ("rmi", "again:1"),
        ("ps", "-a"),
        ("system", "df"),
        ("image", "prune", "-f"),
        ("rmi", "box"),
    ]
    for each in words:
        started = time.monotonic()
        other = command(*each)
        out, err = other.communicate(timeout=20)
        assert other.returncode == 0, (each, err)
        assert time.monotonic() - started < 5, each
        assert registry.host not in out, "it is shown before it is whole"
    assert process.poll() is None
    fault.gate.set()
    assert process.wait(20) == 0
    listed, _ = command("images", "-q", "--no-trunc", reference).communicate(timeout=20)
    assert TWO.id in listed


# ---- slowness ----


def test_headers_that_drip_without_end(registry: FakeRegistry, tmp_path: Path) -> None:
    """Each line comes in time; the answer never."""
    reference = serve(registry, "team/app", "v1", ONE)
    registry.faults.append(Fault("GET", layer(ONE, 0), drip_headers=0.05))
    hurried = Timeouts(connect=2, read=1, answer=0.5, stretch=30)
    started = time.monotonic()
    with (
        open_store(tmp_path) as store,
        access(tmp_path, timeouts=hurried, retry=Retry(attempts=2, base=0.001)) as reach,
        pytest.raises(RegistryError, match="no whole answer came in") as caught,
    ):
        pull(store.parts, reference, access=reach)
    assert time.monotonic() - started < 5
    assert f"{registry.host}/team/app:v1" in str(caught.value)
    assert registry.count("GET", layer(ONE, 0)) == 2


def test_frames_that_drip(registry: FakeRegistry, tmp_path: Path) -> None:
    """A chunked body whose first frame never begins: no byte of the body comes, but bytes do."""
    reference = serve(registry, "app", "v1", ONE)
    registry.faults.append(
        Fault(
            "GET",
            layer(ONE, 0),
            drip=0.02,
            body=b"5;" + b"x" * 60_000,
            headers={"Content-Length": None, "Transfer-Encoding": "chunked"},
        )
    )
    hurried = Timeouts(connect=2, read=2, answer=5, stretch=0.3)
    started = time.monotonic()
    with (
        open_store(tmp_path) as store,
        access(tmp_path, timeouts=hurried, retry=Retry(attempts=2, base=0.001)) as reach,
        pytest.raises(RegistryError, match="bytes a second came"),
    ):
        pull(store.parts, reference, access=reach)
    assert time.monotonic() - started < 5


def test_who_reads_slowly_is_not_taken_for_a_slow_server(registry: FakeRegistry, tmp_path: Path) -> None:
    data = b"x" * 3_000_000
    digest = registry.put_blob("app", data)
    named = Descriptor(media_type=MEDIA_LAYER_GZIP, digest=Digest(digest), size=len(data))
    hurried = Timeouts(connect=2, read=2, answer=5, stretch=0.1)
    with access(tmp_path, timeouts=hurried) as reach:
        clients = [reach.client(Endpoint(registry.host, "app"), "pull")]
        with RegistrySource(clients) as source, source.open(named) as reader:
            read = 0
            while piece := reader.read(256 << 10):
                read += len(piece)
                time.sleep(0.4)
    assert read == len(data)
    assert registry.count("GET", digest) == 1


def test_upload_may_take_its_time(tmp_path: Path) -> None:
    """Longer than connecting may, as long as something goes: a line of 4 Mbit/s is no reason to give up."""
    taken = []

    def serve_slowly(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += connection.recv(1)
            count = 0
            time.sleep(1.0)
            while count < len(BODY) and (data := connection.recv(1 << 20)):
                count += len(data)
            taken.append(count)
            connection.sendall(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve_slowly, args=(listener,))
        thread.start()
        timeouts = Timeouts(connect=0.5, read=20)
        transport = Transport(lambda host: Tls(), lambda host: True, {}, timeouts)
        response = transport.send("PUT", f"http://127.0.0.1:{listener.getsockname()[1]}/x", {}, body=BODY)
        response.close()
        thread.join()
    assert taken == [len(BODY)]


BODY = bytes(32 << 20)
