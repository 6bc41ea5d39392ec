"""Work in a user namespace: what it is given, what comes back, and that nothing stays."""

import os
import threading
from pathlib import Path

import pytest
from launchkit import children

from layerfs.errors import LayerfsError, NativeError, NotFoundError
from layerfs.userns import Maps, Stream, in_userns

pytestmark = pytest.mark.root

MAPS = Maps(((0, 700_000, 10),), ((0, 700_000, 10),))


def inside(work, **keywords):
    return in_userns(work, maps=MAPS, **keywords)


@pytest.fixture(autouse=True)
def nothing_stays():
    fds, processes = set(os.listdir("/proc/self/fd")), children()
    yield
    assert len(set(os.listdir("/proc/self/fd"))) == len(fds)
    assert children() == processes


def test_the_numbers_are_those_asked_for():
    assert inside(lambda: Path("/proc/self/uid_map").read_text().split()) == ["0", "700000", "10"]
    assert inside(lambda: os.stat("/").st_uid) == 65534
    assert Path("/proc/self/uid_map").read_text().split()[1] == "0"  # and here as ever


def test_what_is_yielded_and_returned():
    def work():
        yield b"a" * 300_000
        yield b""
        yield b"b"
        return {"result": 7}

    with Stream(work, maps=MAPS) as stream:
        assert b"".join(stream) == b"a" * 300_000 + b"b"
        assert stream.result == {"result": 7}
        assert stream.read() == b""


def test_what_is_fed():
    assert inside(lambda file: len(file.read()), feed=[b"x" * 100_000] * 50) == 5_000_000
    assert inside(lambda file: file.read(3), feed=(b"y" * 70_000 for _ in range(1000))) == b"yyy"


@pytest.mark.parametrize(
    "error", [NotFoundError("x: none", hint="look"), NativeError("x: bad", 5), OSError(2, "No such file", "/x")]
)
def test_errors_come_back(error):
    def fail():
        raise error

    with pytest.raises(type(error)) as found:
        inside(fail)
    assert str(found.value) == str(error)
    assert getattr(found.value, "errno", None) == getattr(error, "errno", None)
    assert getattr(found.value, "hint", None) == getattr(error, "hint", None)


def test_errors_that_nobody_expects_say_where():
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        inside(lambda: 1 // 0)
    with pytest.raises(LayerfsError, match="killed"):
        inside(lambda: os.kill(os.getpid(), 9))

    def feed():
        yield b"x"
        raise ValueError("of the feed")

    with pytest.raises(ValueError, match="of the feed"):
        inside(lambda file: file.read(), feed=feed())


def test_a_reader_that_leaves():
    def work():
        while True:
            yield b"x" * 10_000

    with Stream(work, maps=MAPS) as stream:
        assert stream.read()


def test_from_many_threads():
    found = []
    threads = [threading.Thread(target=lambda: found.append(inside(os.getuid))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
