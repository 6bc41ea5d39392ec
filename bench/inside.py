"""layerfs measured in one process, where a command's own start would hide what is measured.

``python -m bench.inside ROOT RUN WHAT …`` prints one JSON object. It is run by the comparison.
"""

import io
import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from statistics import median

from bench.containers import burst, crowd, life, many, teardown
from layerfs import Store
from layerfs.digest import Digest
from layerfs.layers import Layer
from layerfs.oci import Descriptor
from layerfs.unpack import record_layer

__all__: list[str] = []

PIECE = 1 << 20


def tar(store: Store, image: str) -> dict[str, float]:
    """Exact tars of all layers of an image; bytes a second."""
    total, start = 0, time.perf_counter()
    for diff_id in store.images.get(image).diff_ids:
        with store.layers.open_tar(diff_id) as reader:
            while piece := reader.read(PIECE):
                total += len(piece)
    return {"bytes_per_second": total / (time.perf_counter() - start), "bytes": total}


def _quickest(what: Callable[[], object], count: int) -> float:
    times = []
    for _ in range(count):
        start = time.perf_counter()
        what()
        times.append(time.perf_counter() - start)
    return median(times)


def mount(store: Store, image: str, depth: str) -> dict[str, float]:
    """Mounts of the first ``depth`` layers, which are mounted themselves already; seconds each."""
    diff_ids = store.images.get(image).diff_ids[: int(depth)]
    first = time.perf_counter()
    os.close(store.snapshots.view(diff_ids))
    first = time.perf_counter() - first
    return {"seconds": _quickest(lambda: os.close(store.snapshots.view(diff_ids)), 100), "first": first}


def _layer(number: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as layer:
        for name in ("usr", "usr/lib", "usr/lib/shared"):
            directory = tarfile.TarInfo(name)
            directory.type, directory.mode = tarfile.DIRTYPE, 0o755
            layer.addfile(directory)
        for n in range(20):
            info = tarfile.TarInfo(f"usr/lib/shared/layer{number}-{n}")
            info.size = 100
            layer.addfile(info, io.BytesIO(b"x" * 100))
    return out.getvalue()


def stack(store: Store, depth: str) -> dict[str, float]:
    """A stack of ``depth`` layers that share a directory: mounting it, and looking names up in it."""
    diff_ids = []
    for number in range(int(depth)):
        with store.layers.writer() as writer:
            writer.write(_layer(number))
            diff_ids.append(writer.commit().diff_id)
    os.close(store.snapshots.view(diff_ids))
    mounted = _quickest(lambda: os.close(store.snapshots.view(diff_ids)), 20)
    root = store.snapshots.view(diff_ids)
    try:
        names = [f"usr/lib/shared/layer0-{n}" for n in range(20)]
        start = time.perf_counter()
        for name in names:
            os.stat(name, dir_fd=root)
        found = (time.perf_counter() - start) / len(names)
        start = time.perf_counter()
        for n in range(200):
            with suppress(FileNotFoundError):
                os.stat(f"usr/lib/shared/missing{n}", dir_fd=root)
        missing = (time.perf_counter() - start) / 200
    finally:
        os.close(root)
        store.layers.release(diff_ids)
    return {"mount": mounted, "look up": found, "miss": missing}


def _import(store: Store, number: int) -> None:
    path = store.root / "growth.tar"
    path.write_bytes(_layer(number))
    store.import_image(path, f"localhost/bench/many{number}:1")


def images(store: Store, count: str) -> dict[str, float]:
    """A store of ``count`` images: adding the last ones, finding one, listing all as a command, removing one."""
    have, target = len(store.images.list()), int(count)
    times = []
    for number in range(have, target):
        start = time.perf_counter()
        _import(store, number)
        times.append(time.perf_counter() - start)
    find = _quickest(lambda: store.images.get(f"localhost/bench/many{target // 2}:1"), 50)
    places = ["--root", str(store.root), "--run", str(store.run_root)]
    program = [str(Path(sys.executable).parent / "layerfs"), *places, "images", "-q"]
    listing = _quickest(lambda: subprocess.run(program, stdout=subprocess.DEVNULL, check=True), 3)
    start = time.perf_counter()
    store.remove_image(f"localhost/bench/many{target - 1}:1")
    removed = time.perf_counter() - start
    _import(store, target - 1)
    return {"add": median(times[-100:]), "find": find, "list (command)": listing, "remove": removed}


WHAT: dict[str, Callable[..., dict[str, float]]] = {
    "burst": burst, "life": life, "teardown": teardown, "crowd": crowd, "many": many,
    "tar": tar, "mount": mount, "stack": stack, "images": images
}  # fmt: skip

if __name__ == "__main__":
    with Store.open(sys.argv[1], sys.argv[2]) as opened:
        print(json.dumps(WHAT[sys.argv[3]](opened, *sys.argv[4:])))
