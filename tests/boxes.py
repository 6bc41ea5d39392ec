"""A small image to run: busybox and a few files, and a store that has it."""

import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tarbuild as tar

from layerfs import Store
from layerfs.containers import Container, CreateOptions, create_options
from layerfs.runtime import Runtimes

BUSYBOX = Path("/bin/busybox")
PASSWD = b"root:x:0:0:root:/root:/bin/sh\nbob:x:1000:1000::/home/bob:/bin/sh\n1234:x:0:0:a name of digits:/:/bin/sh\n"
GROUP = b"root:x:0:\naudio:x:29:bob\nvideo:x:44:\nbob:x:1000:\n"
RUNTIMES = ("builtin", "runc", "crun")

needs_busybox = pytest.mark.skipif(not BUSYBOX.exists(), reason="needs the Debian package busybox-static")


@cache
def missing(runtime: str) -> str | None:
    """Why a runtime cannot be tried on this machine; None where it can. crun does not start on every one."""
    if runtime != "builtin" and shutil.which(runtime) is None:
        return f"needs the Debian package {runtime}"
    if runtime == "crun":
        with tempfile.TemporaryDirectory() as place:
            answer = Runtimes(Path(place)).choice().reasons.get("crun")
        return None if answer == "works" else f"crun does not start here: {answer}"
    return None


def box_tar(*more: bytes) -> bytes:
    applets = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split()
    return tar.archive(
        *(tar.directory(name, mode=0o755) for name in ("bin", "etc", "root", "home")),
        tar.directory("tmp", mode=0o1777),
        tar.file("bin/busybox", BUSYBOX.read_bytes(), mode=0o755),
        *(tar.symlink(f"bin/{name}", "busybox") for name in applets if name != "busybox"),
        tar.file("etc/passwd", PASSWD, mode=0o644),
        tar.file("etc/group", GROUP, mode=0o644),
        tar.directory("data", mode=0o750, uid=1000, gid=29),
        tar.file("data/seed", b"seeded\n", mode=0o640, uid=1000),
        *more,
    )


def add_box(store: Store, directory: Path, *more: bytes, name: str = "box", changes: tuple[str, ...] = ()) -> None:
    path = directory / f"{name}.tar"
    path.write_bytes(box_tar(*more))
    store.import_image(path, name, changes=("CMD /bin/sh", *changes))
    path.unlink()


@contextmanager
def box_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store with the image, for the tests of a module, who leave nothing in it, on the disk or among the mounts and
    control groups."""
    root = tmp_path_factory.mktemp("store")
    with Store.open(root, tmp_path_factory.mktemp("run")) as store:
        add_box(store, root)
        yield store
        assert store.containers.list() == []
        ids = {event.id for event in store.containers.events(since=0)}
        store.snapshots.close()
        assert list((root / "snapshots").iterdir()) == []
        store.snapshots.release_layers()
    left = [path for path in Path("/sys/fs/cgroup").glob("*/layerfs/*") if path.name in ids]
    assert not left, f"left behind: {left}"


def options(*args: str, image: str = "box", **flags: Any) -> CreateOptions:
    return create_options(image, args, flags)


def sh(store: Store, runtime: str, script: str, **flags: Any) -> "Ran":
    """Run a script of the shell."""
    return run(store, "sh", "-c", script, runtime=runtime, rm=True, **flags)


class Ran:
    """What came of a run."""

    def __init__(self, container: Container, code: int, out: bytes, err: bytes) -> None:
        self.container, self.code, self.out, self.err = container, code, out.decode(), err.decode()


def run(store: Store, *args: str, image: str = "box", stdin: bytes | None = None, **flags: Any) -> Ran:
    """Run a container to its end; its output."""
    chosen = options(*args, image=image, **flags)
    with _files(stdin) as (stdio, outputs):
        container, code = store.containers.run(chosen, stdio)
        for fd in stdio:
            os.close(fd)
        return Ran(container, code, outputs(1), outputs(2))


@contextmanager
def _files(stdin: bytes | None) -> Iterator[Any]:
    pipes = [os.pipe2(os.O_CLOEXEC) for _ in range(3)]
    found: dict[int, bytes] = {}

    def read(number: int) -> None:
        with open(pipes[number][0], "rb") as file:
            found[number] = file.read()

    def feed() -> None:
        with open(pipes[0][1], "wb") as file:
            file.write(stdin or b"")

    threads = [threading.Thread(target=read, args=(1,)), threading.Thread(target=read, args=(2,))]
    threads.append(threading.Thread(target=feed))
    for thread in threads:
        thread.start()

    def outputs(number: int) -> bytes:
        threads[number - 1].join()
        return found[number]

    stdio = (pipes[0][0], pipes[1][1], pipes[2][1])
    try:
        yield stdio, outputs
    finally:
        for fd in stdio:
            try:
                os.fstat(fd)
            except OSError:
                continue
            if threads[0].is_alive() or threads[1].is_alive():
                os.close(fd)
        for thread in threads:
            thread.join()
