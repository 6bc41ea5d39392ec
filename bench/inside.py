"""layerfs measured in one process, where a command's own start would hide what is measured.

``python -m bench.inside ROOT RUN WHAT …`` prints one JSON object. It is run by the comparison.
"""

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Sequence
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
    """Twenty files in a directory that all layers have; in the first one what a container needs too."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as layer:
        places = ("usr", "usr/lib", "usr/lib/shared")
        for name in (*places, *(("bin", "dev", "etc", "proc", "sys") if number == 0 else ())):
            directory = tarfile.TarInfo(name)
            directory.type, directory.mode = tarfile.DIRTYPE, 0o755
            layer.addfile(directory)
        for n in range(20):
            info = tarfile.TarInfo(f"usr/lib/shared/layer{number}-{n}")
            info.size = 100
            layer.addfile(info, io.BytesIO(b"x" * 100))
        if number == 0 and (busybox := shutil.which("busybox")):
            layer.add(busybox, "bin/busybox")
    return out.getvalue()


def stack(store: Store, depth: str) -> dict[str, float]:
    """A stack of ``depth`` layers that share a directory: mounting it, and looking names up in it."""
    layers = []
    for number in range(int(depth)):
        with store.layers.writer() as writer:
            writer.write(_layer(number))
            layers.append(writer.commit())
            record_layer(store.database, layers[-1])
    diff_ids = [layer.diff_id for layer in layers]
    os.close(store.snapshots.view(diff_ids))
    mounted = _quickest(lambda: os.close(store.snapshots.view(diff_ids)), 20)
    root = store.snapshots.view(diff_ids)
    try:
        found, missing = _look_up(root)
    finally:
        os.close(root)
    told = {"mount": mounted, "look up": found, "look up what is not there": missing}
    if shutil.which("busybox"):
        told |= _in_container(store, _image(store, layers[:499]))  # one of the 500 has the mount points
    store.layers.release(diff_ids)
    return told


def _look_up(root: int) -> tuple[float, float]:
    """Seconds to find a name that the lowest layer has, and that no layer has one; none was asked for before."""
    start = time.perf_counter()
    for n in range(20):
        os.stat(f"usr/lib/shared/layer0-{n}", dir_fd=root)
    found = (time.perf_counter() - start) / 20
    start = time.perf_counter()
    for n in range(200):
        with suppress(FileNotFoundError):
            os.stat(f"usr/lib/shared/missing{n}", dir_fd=root)
    return found, (time.perf_counter() - start) / 200


def _image(store: Store, layers: Sequence[Layer]) -> str:
    """An image of layers that are here."""
    kind = "application/vnd.oci.image"

    def put(document: dict[str, object], media_type: str) -> dict[str, object]:
        data = json.dumps(document).encode()
        return {"mediaType": media_type, "digest": str(store.content.write(data)), "size": len(data)}

    rootfs = {"type": "layers", "diff_ids": [str(layer.diff_id) for layer in layers]}
    config = put({"architecture": "amd64", "os": "linux", "rootfs": rootfs}, f"{kind}.config.v1+json")
    parts = [
        {"mediaType": f"{kind}.layer.v1.tar", "digest": str(layer.diff_id), "size": layer.size} for layer in layers
    ]
    manifest = {"schemaVersion": 2, "mediaType": f"{kind}.manifest.v1+json", "config": config, "layers": parts}
    target = put(manifest, f"{kind}.manifest.v1+json")
    digest = Digest(str(target["digest"]))
    store.images.add(Descriptor(media_type=f"{kind}.manifest.v1+json", digest=digest, size=len(json.dumps(manifest))))
    name = "localhost/bench/stack:1"
    store.database.set_name(name, digest)
    return name


def _in_container(store: Store, image: str) -> dict[str, float]:
    """The same look-ups in the file system of a container that runs: through its own mount, and with its upper."""
    program = [str(Path(sys.executable).parent / "layerfs"), "--root", str(store.root), "--run", str(store.run_root)]
    words = ["run", "-d", "--name", "stack", "--network", "none", "--runtime", "builtin", image]
    subprocess.run([*program, *words, "/bin/busybox", "sleep", "1000"], stdout=subprocess.DEVNULL, check=True)
    told = subprocess.run([*program, "inspect", "stack"], capture_output=True, text=True, check=True).stdout
    root = os.open(f"/proc/{json.loads(told)[0]['State']['Pid']}/root", os.O_PATH | os.O_DIRECTORY)
    try:
        found, missing = _look_up(root)
    finally:
        os.close(root)
        subprocess.run([*program, "rm", "-f", "stack"], stdout=subprocess.DEVNULL, check=True)
    return {"look up in a container": found, "look up what is not there, in a container": missing}


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
