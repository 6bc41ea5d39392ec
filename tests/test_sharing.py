import io
import os
import resource
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from layerfs import sharing
from layerfs.store import Store


@pytest.fixture(params=["erofs", "dir"])
def store(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Store]:
    with Store.open(tmp_path / "store", tmp_path / "run", layer_format=request.param) as store:
        yield store


def add(store: Store, path: Path, name: str, files: dict[str, bytes], links: dict[str, str] | None = None) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for file, content in files.items():
            info = tarfile.TarInfo(file)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for link, target in (links or {}).items():
            info = tarfile.TarInfo(link)
            info.type, info.linkname = tarfile.LNKTYPE, target
            archive.addfile(info)
    path.write_bytes(out.getvalue())
    store.import_image(path, name)


def test_layers_are_counted_once(store: Store, tmp_path: Path) -> None:
    add(store, tmp_path / "t", "one", {"a": b"x" * 5000})
    store.images.tag("one", "again")
    add(store, tmp_path / "t", "two", {"b": b"y" * 5000})
    first, second = store.images.get("one"), store.images.get("two")
    import json

    document = json.loads(first.config_bytes)
    document["rootfs"]["diff_ids"] += second.diff_ids
    document["history"] += [{"comment": "both"}]
    store.images.create(document, [*first.manifest.layers, *second.manifest.layers], "docker.io/library/both:1")
    sharing = store.share_layers()
    assert {row.diff_id: len(row.images) for row in sharing.layers} == {first.diff_ids[0]: 2, second.diff_ids[0]: 2}
    assert sharing.apart == 2 * sharing.together
    assert store.share_layers(["one"]).apart == store.share_layers(["one"]).together


def test_equal_files_are_found_by_their_bytes(store: Store, tmp_path: Path) -> None:
    big = bytes(range(256)) * 100
    other = big[:-1] + b"!"  # the same size and beginning, another end
    add(store, tmp_path / "t", "one", {"a": big, "b": b"small", "c": b"", "d": big}, {"hard": "a"})
    add(store, tmp_path / "t", "two", {"e": big, "f": b"SMALL", "g": b"small", "h": other})
    sharing = store.share_files()
    one, two = (store.images.get(name).diff_ids[0] for name in ("one", "two"))
    assert {group.size: set(group.places) for group in sharing.copies} == {
        len(big): {(one, b"/a"), (one, b"/d"), (two, b"/e")},
        5: {(one, b"/b"), (two, b"/g")},
    }
    assert sharing.files == 7  # the empty one and the second name of a file do not count
    assert sharing.distinct_files == 4
    assert sharing.data_bytes - sharing.distinct_bytes == 2 * len(big) + 5
    assert sharing.within == len(big)
    assert sharing.across == len(big) + 5
    assert [group.size for group in store.share_files(minimum=100).copies] == [len(big)]
    assert store.share_files(["two"]).copies == ()


def test_more_layers_than_can_be_open(store: Store) -> None:
    diff_ids = []
    for number in range(120):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as archive:
            for name, content in (("same", b"s" * 5000), ("pair", b"%3d" % (number // 2)), ("own", b"own%d" % number)):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        with store.layers.writer() as writer:
            writer.write(out.getvalue())
            diff_ids.append(writer.commit().diff_id)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 90, hard))
    try:
        found = sharing.share_files(store.layers, diff_ids)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert sorted(len(group.places) for group in found.copies) == [2] * 60 + [120]


def test_the_command_shows_it(store: Store, tmp_path: Path) -> None:
    import os
    import subprocess
    import sys

    add(store, tmp_path / "t", "one", {"a": b"x" * 9000})
    add(store, tmp_path / "t", "two", {"b": b"x" * 9000, "c": b"y"})
    environment = os.environ | {"LAYERFS_ROOT": str(store.root), "LAYERFS_RUN": str(store.run_root)}

    def run(*words: str) -> str:
        command = [sys.executable, "-m", "layerfs", "sharing", *words]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    assert "2 layers" in run()
    assert "0.0% saved" in run()
    lines = run("--files", "-n", "1").splitlines()
    assert lines[0].split() == ["SIZE", "COPIES", "WASTED", "PATH", "LAYER"]
    assert lines[1].split()[:3] == ["9kB", "2", "9kB"]
    assert lines[-1].startswith("3 files, 18kB; 2 are different")
    assert run("--files", "--format", "{{.Count}} {{.Path}}", "two") == ""


def test_many_equal_files_are_not_compared_by_their_names() -> None:
    class Place(tuple):
        compared = 0

        def __eq__(self, other: object) -> bool:
            Place.compared += 1
            return tuple.__eq__(self, other)

        __hash__ = tuple.__hash__

    contents = sharing._Contents(None)  # type: ignore[arg-type]
    contents._same = lambda a, b: a[1] % 2 == b[1] % 2  # type: ignore[method-assign]
    groups = list(contents._verified([Place(("layer", number)) for number in range(500)]))  # type: ignore[misc]
    assert Place.compared == 0
    assert [len(group) for group in groups] == [250, 250]
