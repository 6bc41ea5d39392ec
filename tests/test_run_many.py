"""Two hundred containers of one image at once: one mount of each layer, one copy of its pages, little else."""

import mmap
import os
import re
import time
from ctypes import CDLL, c_size_t, c_ubyte, c_void_p, get_errno
from pathlib import Path

import pytest
import tarbuild as tar
from boxes import add_box, needs_busybox, options

from layerfs import Store

pytestmark = [pytest.mark.root, needs_busybox]

COUNT = 200
BIG = 8 << 20
MIB = 1 << 20


@pytest.fixture(scope="module")
def crowd(tmp_path_factory):
    """The store and its containers, which run."""
    root = tmp_path_factory.mktemp("store")
    with Store.open(root, tmp_path_factory.mktemp("run"), layer_format="auto") as store:
        if store.layer_format != "erofs":
            pytest.skip("needs file-backed EROFS mounts")
        add_box(store, root, tar.file("big", os.urandom(BIG), mode=0o644))
        began = time.monotonic()
        made = [store.containers.start(options("sleep", "1000", runtime="builtin")) for _ in range(COUNT)]
        assert time.monotonic() - began < 60  # some 10 ms each; machines that are busy take longer
        ids = [container.id for container in made]
        try:
            yield store, made
        finally:
            for container in made:
                container.remove(force=True)
            store.snapshots.release_layers()
        store.snapshots.close()
        assert list((root / "snapshots").iterdir()) == []
        assert [path for id in ids for path in Path("/sys/fs/cgroup").glob(f"*/layerfs/{id}")] == []


def file_pages(pid):
    """Rss and Pss of what a process has mapped of files, in bytes."""
    rss = pss = 0
    ours = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            ours = line.endswith("/bin/busybox") and " r-xp " in line
        elif ours and line.startswith("Rss:"):
            rss += int(line.split()[1]) * 1024
        elif ours and line.startswith("Pss:"):
            pss += int(line.split()[1]) * 1024
    return rss, pss


def resident(path):
    """The part of a file's pages that is in memory."""
    mincore = CDLL(None, use_errno=True).mincore
    mincore.argtypes = [c_void_p, c_size_t, c_void_p]
    size = os.path.getsize(path)
    with open(path, "rb") as file, mmap.mmap(file.fileno(), size, prot=mmap.PROT_READ, flags=mmap.MAP_SHARED) as map:
        pages = (c_ubyte * -(-size // mmap.PAGESIZE))()
        # ctypes cannot take the address of a read-only map; its line of /proc/self/maps can.
        address = next(
            int(line.split("-")[0], 16)
            for line in Path("/proc/self/maps").read_text().splitlines()
            if line.endswith(os.path.basename(path)) and f" {os.fstat(file.fileno()).st_ino} " in line
        )
        assert mincore(address, size, pages) == 0, os.strerror(get_errno())
        assert len(map) == size
        return sum(page & 1 for page in pages) / len(pages)


def test_all_run(crowd):
    store, made = crowd
    assert len({container.pid for container in made}) == COUNT
    assert [container.status for container in store.containers.list()] == ["running"] * COUNT


def test_each_layer_is_mounted_once(crowd):
    store, made = crowd
    config = made[0].config
    mounted = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    ours = [place for place in mounted if place.startswith(f"{store.run_root}/layers/")]
    assert sorted(ours) == sorted(f"{store.run_root}/layers/{diff_id.hex}" for diff_id in set(config.stack))
    # In the namespace of a container there is the overlay, and nothing of the layers below it.
    inside = Path(f"/proc/{made[-1].pid}/mountinfo").read_text()
    assert " - erofs " not in inside


def test_they_share_the_pages_of_the_program(crowd):
    _, made = crowd
    pages = [file_pages(container.pid) for container in made]
    rss, pss = sum(rss for rss, _ in pages), sum(pss for _, pss in pages)
    assert all(rss for rss, _ in pages)
    assert pss < 2 * max(rss for rss, _ in pages)  # one copy, of which each has its part
    assert pss < rss / (COUNT / 4)


def test_what_one_reads_is_in_memory_for_all(crowd):
    store, made = crowd
    first, last = made[0], made[-1]
    layer = store.run_root / "layers" / first.config.diff_ids[0].hex / "big"
    with open(layer, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    assert resident(f"/proc/{last.pid}/root/big") < 0.1
    assert first.exec(["sh", "-c", "cat /big >/dev/null"]) == 0
    assert resident(f"/proc/{last.pid}/root/big") == 1


def test_memory_of_an_idle_container(crowd):
    """Beyond its workload there is its supervisor alone."""
    _, made = crowd
    private = pss = 0
    for container in made:
        # In the background nobody but the supervisor is its parent.
        parent = int(Path(f"/proc/{container.pid}/stat").read_text().rpartition(")")[2].split()[1])
        rollup = Path(f"/proc/{parent}/smaps_rollup").read_text()
        assert b"supervisor" in Path(f"/proc/{parent}/cmdline").read_bytes()
        private += sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Private_"))
        pss += sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    assert private * 1024 / COUNT < MIB
    assert pss * 1024 / COUNT < 1.2 * MIB
