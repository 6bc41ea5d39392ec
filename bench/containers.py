"""Containers measured in one process: their life, a burst, teardown, a crowd that shares an image, many to list.

Each function is one of ``bench.inside``'s; it gives names and figures: seconds, or bytes where the name says so.
"""

import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from statistics import mean, median

from layerfs import Store
from layerfs.containers import Container, CreateOptions
from layerfs.runtime import Cgroup

__all__ = ["burst", "crowd", "life", "many", "teardown"]

THREADS = 4
"""Containers of a burst that are under way at the same time: most of their time they wait for the kernel."""
DIRTY = "dd if=/dev/zero of=/big bs=1M count=100 2>/dev/null; echo"


def _options(image: str, *args: str, remove: bool = True) -> CreateOptions:
    return CreateOptions(image=image, args=args or ("true",), auto_remove=remove, network="none", runtime="builtin")


def _run(store: Store, options: CreateOptions, stdout: int) -> float:
    """Make a container, run it to its end and remove it; seconds."""
    start = time.perf_counter()
    _, code = store.containers.run(options, (stdout, stdout, stdout))
    seconds = time.perf_counter() - start
    if code:
        raise SystemExit(f"{' '.join(options.args)} exited with {code}")
    return seconds


@contextmanager
def _null() -> Iterator[int]:
    fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def burst(store: Store, image: str, count: str) -> dict[str, float]:
    """Containers made, started, awaited and removed as fast as one process can, until the last is gone; each."""
    with _null() as null, ThreadPoolExecutor(THREADS) as pool:
        start = time.perf_counter()
        times = list(pool.map(lambda _: _run(store, _options(image), null), range(int(count))))
        store.snapshots.close()
        seconds = (time.perf_counter() - start) / int(count)
    return {"seconds": seconds, "longest": max(times)}


def life(store: Store, image: str, count: str) -> dict[str, float]:
    """One container after another: in one call, step by step under a supervisor, and by runc where it is."""
    with _null() as null:
        whole = [_run(store, _options(image), null) for _ in range(int(count))]
    steps: dict[str, list[float]] = {}
    for _ in range(int(count)):
        marks = [time.perf_counter()]
        container = store.containers.create(_options(image, remove=False))
        marks.append(time.perf_counter())
        for step in (container.start, container.wait, container.remove):
            step()
            marks.append(time.perf_counter())
        for name, (begin, end) in zip(("create", "start", "wait", "remove"), pairwise(marks), strict=True):
            steps.setdefault(name, []).append(end - begin)
        steps.setdefault("create to remove", []).append(marks[-1] - marks[0])
    found = {"run": median(whole), "run, longest": max(whole), **{name: median(all) for name, all in steps.items()}}
    return found | _runc(store, image, min(int(count), 20))


def _runc(store: Store, image: str, count: int) -> dict[str, float]:
    """``runc run`` over a root that is mounted already."""
    if shutil.which("runc") is None:
        return {}
    times = []
    with tempfile.TemporaryDirectory() as place:
        container, bundle = store.containers.bundle(_options(image, remove=False), Path(place))
        command = ["runc", "--root", f"{store.run_root}/runc", "run", "--bundle", str(bundle.path), "measured"]
        for _ in range(count):
            start = time.perf_counter()
            subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
            times.append(time.perf_counter() - start)
        container.remove()
    return {"runc run alone": median(times)}


def teardown(store: Store, image: str, count: str) -> dict[str, float]:
    """From the last word of a container that wrote 100 MB until it is gone, and until its space is free."""
    gone, free = [], []
    for _ in range(int(count)):
        reader, writer = os.pipe()
        said: list[float] = []
        listener = threading.Thread(
            target=lambda fd=reader, said=said: (os.read(fd, 1), said.append(time.perf_counter()))
        )
        listener.start()
        _run(store, _options(image, "sh", "-c", DIRTY), writer)
        end = time.perf_counter()
        store.snapshots.close()
        freed = time.perf_counter()
        listener.join()
        os.close(reader)
        os.close(writer)
        gone.append(end - said[0])
        free.append(freed - said[0])
    return {"gone": median(gone), "gone, least": min(gone), "space is free": median(free)}


def crowd(store: Store, image: str, count: str) -> dict[str, float]:
    """Idle containers over one image, each of which read the same files: what they take of memory, in bytes."""
    read = "cat /usr/bin/* /usr/lib/*/*.so* >/dev/null 2>&1; touch /done; exec sleep 1000"
    Path("/proc/sys/vm/drop_caches").write_text("3")
    made: list[Container] = []
    try:
        made.append(_reading(store, image, read))
        marks, step = [_kernel()], max(1, (int(count) - 1) // 20)
        for number in range(1, int(count)):
            made.append(_reading(store, image, read))
            if number % step == 0:
                marks.append(_kernel())
        # The median of the steps: what else the machine does shows in some of them.
        kernel = median(after - before for before, after in pairwise(marks)) / step
        charged = [_page_cache(container) for container in made]
        supervisors = mean(_pss(_parent(container.pid)) for container in made)
    finally:
        for container in made:
            container.remove(force=True)
    return {
        "page cache of the first (bytes)": charged[0],
        "page cache of each more (bytes)": mean(charged[1:]),
        "supervisor of each (bytes)": supervisors,
        "kernel for each (bytes)": kernel,
        "all of an idle container but its program (bytes)": supervisors + kernel,
    }


def _reading(store: Store, image: str, command: str) -> Container:
    container = store.containers.start(_options(image, "sh", "-c", command, remove=False))
    until = time.monotonic() + 60
    while not Path(f"/proc/{container.pid}/root/done").exists():
        if time.monotonic() > until:
            raise SystemExit(f"container {container.name} does not come to read")
        time.sleep(0.002)
    return container


def _kernel() -> int:
    """What the kernel has for itself and cannot give back, in bytes: namespaces, control groups, mounts, stacks."""
    words = (line.replace(":", "").split() for line in Path("/proc/meminfo").read_text().splitlines())
    return sum(int(word[1]) << 10 for word in words if word[0] in ("SUnreclaim", "Percpu", "KernelStack", "PageTables"))


def _page_cache(container: Container) -> int:
    """What the kernel has charged it with: a page of a file is whose who read it first."""
    for group in Cgroup(container.id).paths:
        path = Path(group) / "memory.stat"
        if path.exists():
            words = dict(line.split() for line in path.read_text().splitlines())
            return int(words.get("cache", words.get("file", 0)))
    raise SystemExit("no memory control group: the page cache of a container cannot be told")


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _pss(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))


def many(store: Store, image: str, count: str) -> dict[str, float]:
    """Containers that are made and do not run, as for a list; each."""
    start = time.perf_counter()
    for _ in range(int(count)):
        store.containers.create(_options(image, remove=False))
    return {"seconds": (time.perf_counter() - start) / int(count)}
