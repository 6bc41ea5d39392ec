"""Archives: the suite over all that is written, all forms that are read, and hostile ones."""

import bz2
import gzip
import io
import json
import lzma
import os
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import lz4.frame
import pytest
import tarbuild
from hypothesis import given, settings
from hypothesis import strategies as st
from suites.blob_suite import NAME, BlobSuite, Memory, Place, layer_tar, make_image, make_index, noise, on

from layerfs.archives import (
    ArchiveSink,
    OciLayoutSink,
    create_archive,
    docker_archive,
    oci_layout,
    open_archive,
    open_layout,
)
from layerfs.archives.tarindex import TarIndex
from layerfs.compression import compress
from layerfs.digest import Digest
from layerfs.errors import IntegrityError, InvalidInputError, LayerfsError, NativeError, NotFoundError
from layerfs.oci import MEDIA_LAYER, Descriptor, Manifest, descriptor_of, parse_config, parse_manifest
from layerfs.store import Limits, Store
from layerfs.transfer import copy

Archive = dict[str, bytes]


# ---- the suite ----


class TestOciDir(BlobSuite):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        sink = OciLayoutSink(tmp_path / "layout")
        return Place(sink, lambda: open_archive(tmp_path / "layout", tmp_path), sink.close)

    def test_other_images_stay_and_names_move(self, tmp_path: Path) -> None:
        memory = Memory()
        first, second = (make_image(memory, layer_tar(name)) for name in ("a", "b"))
        for target, name in ((first, "a:1"), (second, "b:1"), (second, "a:1")):
            with create_archive(tmp_path / "layout", "oci-dir") as sink:
                copy(memory, sink, target, name=name)
        images = open_layout(tmp_path / "layout").images()
        assert [(image.descriptor.digest, set(image.names)) for image in images] == [
            (second.digest, {"docker.io/library/b:1", "docker.io/library/a:1"})
        ]

    def test_a_directory_of_something_else_is_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "index.json").write_text("mine")
        with pytest.raises(LayerfsError, match="no image layout"):
            OciLayoutSink(tmp_path)
        assert (tmp_path / "index.json").read_text() == "mine"

    def test_nothing_is_listed_after_a_failure(self, tmp_path: Path) -> None:
        memory = Memory()
        target = make_image(memory, layer_tar("a"), layer_tar("b"))
        layers = parse_manifest(memory.blobs[target.digest]).layers  # type: ignore[union-attr]
        del memory.blobs[layers[1].digest]
        with pytest.raises(NotFoundError), create_archive(tmp_path / "layout", "oci-dir") as sink:
            copy(memory, sink, target, name=NAME)
        assert not (tmp_path / "layout" / "index.json").exists()
        assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".layerfs-")]


class _Tar(BlobSuite):
    format = ""
    survives_failure = False

    @pytest.fixture
    def place(self, tmp_path: Path) -> Iterator[Place]:
        with open(tmp_path / "archive.tar", "wb", buffering=0) as file:
            sink = ArchiveSink(file, self.format)
            yield Place(sink, lambda: open_archive(tmp_path / "archive.tar", tmp_path), sink.close)

    def test_the_same_images_give_the_same_bytes(self, tmp_path: Path) -> None:
        memory = Memory()
        targets = [make_image(memory, layer_tar("base"), layer_tar(name)) for name in ("a", "b")]
        for number in range(2):
            with create_archive(tmp_path / str(number), self.format) as sink:
                for target, name in zip(targets, ("x:1", "y:1"), strict=True):
                    copy(memory, sink, target, name=name, jobs=4)
        assert (tmp_path / "0").read_bytes() == (tmp_path / "1").read_bytes()
        with tarfile.open(tmp_path / "0") as tar:
            members = tar.getmembers()
        assert len({member.name for member in members}) == len(members)
        assert {(member.mtime, member.uid, member.uname) for member in members} == {(0, 0, "")}

    def test_through_a_pipe_it_is_the_same(self, tmp_path: Path) -> None:
        memory = Memory()
        target = make_image(memory, layer_tar("a", size=300_000))
        with create_archive(tmp_path / "file", self.format) as sink:
            copy(memory, sink, target, name=NAME)
        reading, writing = os.pipe()
        received: list[bytes] = []

        def receive() -> None:
            with open(reading, "rb") as file:
                received.append(file.read())

        thread = threading.Thread(target=receive)
        thread.start()
        with open(writing, "wb") as file, create_archive(file, self.format) as sink:
            copy(memory, sink, target, name=NAME)
        thread.join()
        assert received == [(tmp_path / "file").read_bytes()]

    def test_after_a_failure_the_old_file_stays(self, tmp_path: Path) -> None:
        memory = Memory()
        target = make_image(memory, layer_tar("a"))
        layer = parse_manifest(memory.blobs[target.digest]).layers[0]  # type: ignore[union-attr]
        memory.blobs[layer.digest] = b"something else"
        (tmp_path / "out").write_text("old")
        with pytest.raises(IntegrityError), create_archive(tmp_path / "out", self.format) as sink:
            copy(memory, sink, target)
        assert (tmp_path / "out").read_text() == "old"
        assert os.listdir(tmp_path) == ["out"]

    def test_a_spoiled_archive_takes_nothing_more(self, place: Place) -> None:
        data = noise(1000)
        with pytest.raises(IntegrityError):
            place.sink.put(descriptor_of(data, "x/y"), io.BytesIO(data[:-1]))
        with pytest.raises(LayerfsError, match="failed before"):
            place.sink.put(descriptor_of(data, "x/y"), io.BytesIO(data))


class TestOciArchive(_Tar):
    format = "oci-archive"


class TestDockerArchive(_Tar):
    format = "docker-archive"

    def test_manifest_json_names_images_by_host_and_tag(self, tmp_path: Path) -> None:
        memory = Memory()
        base, top = layer_tar("base"), layer_tar("top")
        here = make_image(memory, base, top)
        index = make_index(memory, on(make_image(memory, base, comment="arm"), "linux/arm64"), on(here, "linux/amd64"))
        nameless = make_image(memory, top, comment="nameless")
        with create_archive(tmp_path / "out", self.format) as sink:
            copy(memory, sink, index, name="multi:1")
            copy(memory, sink, index, name="multi:2")
            copy(memory, sink, nameless)
        with tarfile.open(tmp_path / "out") as tar:
            documents = {
                name: json.load(tar.extractfile(name))  # type: ignore[arg-type]
                for name in ("manifest.json", "repositories", "index.json")
            }
        first, second = documents["manifest.json"]
        assert first["RepoTags"] == ["docker.io/library/multi:1", "docker.io/library/multi:2"]
        assert first["Layers"] == [f"blobs/sha256/{Digest.of(data).hex}" for data in (base, top)]
        assert second["RepoTags"] is None
        assert documents["repositories"] == {
            "docker.io/library/multi": {"1": Digest.of(top).hex, "2": Digest.of(top).hex}
        }
        assert [entry["digest"] for entry in documents["index.json"]["manifests"]] == [
            index.digest,
            index.digest,
            nameless.digest,
        ]


def test_sizes_over_8_gib_fit_into_the_header(tmp_path: Path) -> None:
    from layerfs.archives.writing import _header

    for size in (8**11 - 1, 8**11, 1 << 40):
        assert tarfile.TarInfo.frombuf(_header("blobs/x", size, b"0", 0o644), "utf-8", "strict").size == size


# ---- reading docker-archive, old and odd ----


def config_of(*tars: bytes, **more: Any) -> bytes:
    document = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}, **more}
    document["rootfs"]["diff_ids"] = [Digest.of(tar) for tar in tars]
    return json.dumps(document).encode()


def docker_save(
    *layers: bytes,
    names: list[str] | None = None,
    config: bytes | None = None,
    config_name: str | None = None,
    stored: Callable[[bytes], bytes] = lambda tar: tar,
) -> Archive:
    """The members that docker up to 24 writes; ``stored`` is what becomes of a layer tar."""
    config = config_of(*layers) if config is None else config
    config_name = config_name or f"{Digest.of(config).hex}.json"
    members: Archive = {config_name: config}
    paths = []
    for number, tar in enumerate(layers):
        identity = Digest.of(b"%d" % number + tar).hex
        members |= {f"{identity}/VERSION": b"1.0", f"{identity}/json": b"{}"}
        members[f"{identity}/layer.tar"] = stored(tar)
        paths.append(f"{identity}/layer.tar")
    entry = {"Config": config_name, "RepoTags": names, "Layers": paths}
    members["manifest.json"] = json.dumps([entry]).encode()
    return members


def write(path: Path, members: Archive | bytes) -> Path:
    if isinstance(members, bytes):
        path.write_bytes(members)
    else:
        path.write_bytes(tarbuild.archive(*(tarbuild.file(name, data) for name, data in members.items())))
    return path


def read_all_images(path: Path, tmp_path: Path) -> list[tuple[Memory, Descriptor, tuple[str, ...]]]:
    found = []
    with open_archive(path, tmp_path) as source:
        for image in source.images():
            memory = Memory()
            target = copy(source, memory, image.descriptor)
            found.append((memory, target, image.names))
    return found


def check_image(path: Path, tmp_path: Path, *tars: bytes, config: bytes | None = None) -> tuple[str, ...]:
    """The archive has exactly one image, of these layers, plain. Gives its names."""
    ((memory, target, names),) = read_all_images(path, tmp_path)
    manifest = parse_manifest(memory.blobs[target.digest], target.media_type)
    assert isinstance(manifest, Manifest)
    assert memory.blobs[manifest.config.digest] == (config_of(*tars) if config is None else config)
    assert [layer.digest for layer in manifest.layers] == [Digest.of(tar) for tar in tars]
    assert {layer.media_type for layer in manifest.layers} <= {MEDIA_LAYER}
    return names


BASE, TOP = layer_tar("base"), layer_tar("top", size=70_000)


def test_an_archive_of_docker_before_25(tmp_path: Path) -> None:
    path = write(tmp_path / "a", docker_save(BASE, TOP, names=["some/thing:1", "other", "quay.io/x/y:2"]))
    assert check_image(path, tmp_path, BASE, TOP) == (
        "docker.io/some/thing:1",
        "docker.io/library/other:latest",
        "quay.io/x/y:2",
    )


@pytest.mark.parametrize("link", ["sym", "hard", "absolute"])
def test_layers_that_are_links_to_each_other(tmp_path: Path, link: str) -> None:
    members = docker_save(BASE, BASE)
    *_, second = [name for name in members if name.endswith("layer.tar")]
    first = next(name for name in members if name.endswith("layer.tar"))
    target = {"sym": f"../{first}", "hard": first, "absolute": f"/{first}"}[link]
    make = tarbuild.hardlink if link == "hard" else tarbuild.symlink
    parts = [make(name, target) if name == second else tarbuild.file(name, data) for name, data in members.items()]
    check_image(write(tmp_path / "a", tarbuild.archive(*parts)), tmp_path, BASE, BASE)


def test_several_images_that_share_a_layer(tmp_path: Path) -> None:
    first, second = docker_save(BASE, names=["a:1"]), docker_save(BASE, TOP)
    both = first | second
    both["manifest.json"] = json.dumps(
        json.loads(first["manifest.json"]) + json.loads(second["manifest.json"])
    ).encode()
    path = write(tmp_path / "a", both)
    found = read_all_images(path, tmp_path)
    assert [names for _, _, names in found] == [("docker.io/library/a:1",), ()]
    with open_archive(path, tmp_path) as source:
        assert source.resolve("a:1") == found[0][1]
        assert source.resolve("@1") == found[1][1]
        with pytest.raises(NotFoundError, match="a:2"):
            source.resolve("a:2")
        with pytest.raises(NotFoundError):
            source.resolve("")


@pytest.mark.parametrize("name", ["config.json", f"sha256:{Digest.of(config_of(BASE)).hex}", "a/b/c.json"])
def test_configurations_of_any_name(tmp_path: Path, name: str) -> None:
    check_image(write(tmp_path / "a", docker_save(BASE, config_name=name)), tmp_path, BASE)


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": lambda data: gzip.compress(data, 1, mtime=0),
    "zstd": lambda data: b"".join(compress([data], "zstd")),
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "lz4": lz4.frame.compress,
}


@pytest.mark.parametrize("kind", COMPRESSIONS)
def test_layers_that_are_compressed_in_spite_of_their_name(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / "a", docker_save(BASE, TOP, stored=COMPRESSIONS[kind]))
    ((memory, target, _),) = read_all_images(path, tmp_path)
    layers = parse_manifest(memory.blobs[target.digest], target.media_type).layers  # type: ignore[union-attr]
    if kind in ("gzip", "zstd"):
        assert [layer.media_type for layer in layers] == [f"{MEDIA_LAYER}+{kind}"] * 2
        assert [memory.blobs[layer.digest] for layer in layers] == [COMPRESSIONS[kind](tar) for tar in (BASE, TOP)]
    else:
        assert [layer.digest for layer in layers] == [Digest.of(tar) for tar in (BASE, TOP)]


@pytest.mark.parametrize("kind", COMPRESSIONS)
def test_archives_in_any_compression(tmp_path: Path, kind: str) -> None:
    plain = write(tmp_path / "plain", docker_save(BASE, TOP)).read_bytes()
    path = write(tmp_path / "a", COMPRESSIONS[kind](plain))
    check_image(path, tmp_path, BASE, TOP)
    assert sorted(os.listdir(tmp_path)) == ["a", "plain"]


def test_an_archive_through_a_pipe(tmp_path: Path) -> None:
    path = write(tmp_path / "a", docker_save(BASE, TOP))
    for command in (["cat", path], ["gzip", "-c", path]):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            with open_archive(process.stdout, tmp_path) as source:  # type: ignore[arg-type]
                (image,) = source.images()
                copy(source, Memory(), image.descriptor)


def test_pax_and_gnu_names(tmp_path: Path) -> None:
    members = docker_save(BASE)
    long = "d/" * 100 + "layer.tar"
    short = next(name for name in members if name.endswith("layer.tar"))
    members["manifest.json"] = members["manifest.json"].replace(short.encode(), long.encode())
    layer = members.pop(short)
    rest = [tarbuild.file(f"./{name}", data) for name, data in members.items()]
    for first in (
        tarbuild.pax({"path": long, "size": str(len(layer))}) + tarbuild.header("x", size=0) + tarbuild.pad(layer),
        tarbuild.gnu_long(long) + tarbuild.header("x", size=len(layer), form="gnu") + tarbuild.pad(layer),
    ):
        check_image(write(tmp_path / "a", tarbuild.archive(first, *rest)), tmp_path, BASE)


# ---- reading layouts ----


def layout(memory: Memory, *entries: dict[str, Any]) -> Archive:
    index = {"schemaVersion": 2, "manifests": list(entries)}
    return {
        "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
        "index.json": json.dumps(index).encode(),
        **{f"blobs/{digest.algorithm}/{digest.hex}": data for digest, data in memory.blobs.items()},
    }


def entry(descriptor: Descriptor, **annotations: str) -> dict[str, Any]:
    named = {key.replace("__", "."): value for key, value in annotations.items()}
    return {
        "mediaType": descriptor.media_type,
        "digest": descriptor.digest,
        "size": descriptor.size,
        "annotations": named,
    }


def test_names_of_a_layout(tmp_path: Path) -> None:
    memory = Memory()
    one, two, three = (make_image(memory, layer_tar(name)) for name in "abc")
    path = write(
        tmp_path / "a",
        layout(
            memory,
            entry(one, io__containerd__image__name="docker.io/x/y:1", org__opencontainers__image__ref__name="1"),
            entry(one, org__opencontainers__image__ref__name="quay.io/z:2"),
            entry(two, org__opencontainers__image__ref__name="latest"),
            entry(three),
        ),
    )
    with open_archive(path, tmp_path) as source:
        assert [image.names for image in source.images()] == [("docker.io/x/y:1", "quay.io/z:2"), (), ()]
        assert source.resolve("latest").digest == two.digest
        assert source.resolve("1").digest == source.resolve("x/y:1").digest == one.digest
        assert source.resolve("@2").digest == three.digest


def test_an_index_that_is_not_whole_stands_for_what_is_there(tmp_path: Path) -> None:
    memory = Memory()
    here, away = make_image(memory, BASE), make_image(memory, BASE, platform="linux/s390x", comment="away")
    index = make_index(memory, on(away, "linux/s390x"), on(here, "linux/amd64"))
    with open_archive(write(tmp_path / "whole", layout(memory, entry(index))), tmp_path) as source:
        assert [image.descriptor.digest for image in source.images()] == [index.digest]
    del memory.blobs[away.digest]
    with open_archive(write(tmp_path / "part", layout(memory, entry(index))), tmp_path) as source:
        assert [image.descriptor.digest for image in source.images()] == [here.digest]
    del memory.blobs[here.digest]
    path = write(tmp_path / "none", layout(memory, entry(index)))
    with pytest.raises(NotFoundError, match="no manifest"), open_archive(path, tmp_path) as source:
        source.images()


def test_the_layout_counts_where_both_forms_are_there(tmp_path: Path) -> None:
    memory = Memory()
    target = make_image(memory, BASE, compression="gzip")
    path = write(tmp_path / "a", docker_save(TOP) | layout(memory, entry(target)))
    with open_archive(path, tmp_path) as source:
        assert [image.descriptor.digest for image in source.images()] == [target.digest]


# ---- hostile ----


def refused(path: Path, tmp_path: Path) -> str:
    """Reading all of the archive is refused in one line that names it; what was said."""
    with pytest.raises((IntegrityError, NotFoundError)) as caught:
        read_all_images(path, tmp_path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def edited(members: Archive, **changes: object) -> Archive:
    """The archive with members of its manifest.json entry changed."""
    document = json.loads(members["manifest.json"])
    document[0].update(changes)
    return members | {"manifest.json": json.dumps(document).encode()}


def hostile() -> Iterator[tuple[str, Archive | bytes, str]]:
    """(what it is, the archive, words of the refusal)"""
    whole = docker_save(BASE)
    config_name = f"{Digest.of(config_of(BASE)).hex}.json"
    layer_name = next(name for name in whole if name.endswith("layer.tar"))
    members = [tarbuild.file(name, data) for name, data in whole.items()]
    raw = tarbuild.archive(*members)

    yield "empty", b"", "empty"
    yield "no tar", b"hello, world" * 100, "not a tar"
    yield "a tar of something else", {"etc/passwd": b"x"}, "no archive of images"
    yield "only zeros", bytes(10240), "no archive of images"
    yield "docker before 1.10", {"repositories": b"{}", "x/layer.tar": BASE, "x/json": b"{}"}, "1.10"
    yield "cut in a member", raw[: raw.index(BASE) + 700], "cut short"
    yield "cut in a header", raw[: 1024 + 300], "cut short"
    yield "a damaged header", b"X" + raw[1:], "not a tar"

    yield "climbing out", whole | {"../../etc/passwd": b"x"}, "leads out"
    yield "climbing out inside", whole | {"a/../../b": b"x"}, "leads out"
    for target in ("../../etc/passwd", "../../../x"):
        parts = [tarbuild.symlink("x/y", target), raw]
        yield f"a link to {target}", b"".join(parts), "leads out"
    circle = [tarbuild.symlink(layer_name, "../z"), tarbuild.symlink("z", layer_name)]
    rest = [tarbuild.file(name, data) for name, data in whole.items() if name != layer_name]
    yield "links in circles", tarbuild.archive(*circle, *rest), "circles"
    dangling = [tarbuild.hardlink(layer_name, "/etc/passwd")]
    yield "a link to what is outside", tarbuild.archive(*dangling, *rest), "no member"
    yield "a device for a layer", tarbuild.archive(tarbuild.device(layer_name), *rest), "no member"

    yield "huge claim", tarbuild.header("manifest.json", size=1 << 40) + raw, "cut short"
    yield "negative size", tarbuild.header("x", size=-512) + raw, "cut short"
    yield "negative PAX size", tarbuild.pax({"size": "-512"}) + tarbuild.file("x") + raw, "cut short"
    yield "PAX size no number", tarbuild.pax({"size": "9" * 30}) + tarbuild.file("x") + raw, "cut short"
    yield "huge PAX header", tarbuild.header("x", type="x", size=4 << 20) + bytes(4 << 20) + raw, "extended header"
    yield "a PAX length that lies", tarbuild.pax(b"99999999 path=x\n") + raw, "PAX"
    yield "a PAX length of zero", tarbuild.pax(b"0 path=x\n") + raw, "PAX"

    yield "no JSON", whole | {"manifest.json": b"{"}, "manifest.json"
    yield "JSON of another shape", whole | {"manifest.json": b'{"Config": 1}'}, "manifest.json"
    yield "deep JSON", whole | {"manifest.json": b"[" * 100_000}, "manifest.json"
    yield "not UTF-8", whole | {"manifest.json": b'[{"Config": "\xff"}]'}, "manifest.json"
    yield "manifest.json of 17 MiB", whole | {"manifest.json": b" " * (17 << 20)}, "allowed"
    yield "config of 17 MiB", whole | {config_name: b" " * (17 << 20)}, "allowed"
    yield "twice the same document", tarbuild.archive(*members, *members), "several members"
    yield "no config", {name: data for name, data in whole.items() if name != config_name}, config_name
    yield "no layer", {name: data for name, data in whole.items() if name != layer_name}, layer_name
    yield "config not by its digest", edited(whole, Config="0" * 64) | {"0" * 64: config_of(BASE)}, "has digest"
    yield "too few layers", edited(whole, Layers=[]), "layers"
    yield "too many layers", edited(whole, Layers=[layer_name] * 2), "layers"
    yield "a config that names the host", edited(whole, Config="/etc/passwd"), "no member"
    yield "a layer that names the host", edited(whole, Layers=["../../../etc/passwd"]), "no member"
    for tag in ("UPPER:1", "x:", "x@sha256:0", "-x:1", "a b:1", "x:" + "t" * 200):
        yield f"name {tag[:20]}", edited(whole, RepoTags=[tag]), "reference"
    wrong = config_of(TOP)
    yield "a wrong diff ID", docker_save(BASE, config=wrong, config_name="c.json"), ""
    bad_type = json.loads(config_of(BASE))
    bad_type["rootfs"]["type"] = "other"
    yield "unknown rootfs", docker_save(BASE, config=json.dumps(bad_type).encode()), "rootfs"
    bad_id = json.loads(config_of(BASE))
    bad_id["rootfs"]["diff_ids"] = ["sha256:../../../../etc/passwd"]
    yield "a diff ID that is a path", docker_save(BASE, config=json.dumps(bad_id).encode()), "digest"
    yield "corrupt xz layer", docker_save(BASE, stored=lambda tar: lzma.compress(tar)[:-40]), "cut short"


HOSTILE = list(hostile())


@pytest.mark.parametrize(("archive", "words"), [case[1:] for case in HOSTILE], ids=[case[0] for case in HOSTILE])
def test_hostile_archives_are_refused(tmp_path: Path, archive: Archive | bytes, words: str) -> None:
    path = write(tmp_path / "hostile.tar", archive)
    if words:
        assert words in refused(path, tmp_path)
    else:
        with pytest.raises(IntegrityError):
            read_all_images(path, tmp_path)
    assert os.listdir(tmp_path) == ["hostile.tar"]


def hostile_layouts() -> Iterator[tuple[str, Archive, str]]:
    memory = Memory()
    target = make_image(memory, BASE)
    whole = layout(memory, entry(target))
    manifest = memory.blobs[target.digest]

    yield "no JSON", whole | {"index.json": b"]"}, "index.json"
    yield "a manifest for an index", whole | {"index.json": manifest}, "index.json"
    both = json.dumps(json.loads(manifest) | {"manifests": []}).encode()
    yield "manifests and layers at once", whole | {"index.json": both}, "at once"
    yield "index.json of 5 MiB", whole | {"index.json": b" " * (5 << 20)}, "allowed"
    yield "oci-layout of 1 MiB", whole | {"oci-layout": b" " * (1 << 20)}, "allowed"
    yield "another layout version", whole | {"oci-layout": b'{"imageLayoutVersion": "9.0"}'}, "version"
    yield "no version", whole | {"oci-layout": b"[]"}, "oci-layout"
    path = entry(target) | {"digest": "sha256:" + "../" * 21 + "x"}
    yield "a digest that is a path", layout(memory, path), "digest"
    yield "an unknown algorithm", layout(memory, entry(target) | {"digest": "md5:" + "0" * 32}), "digest"
    missing = entry(descriptor_of(b"missing", target.media_type))
    yield "a missing manifest", layout(memory, missing), "missing"
    name = entry(target, io__containerd__image__name="docker.io/X/y:1")
    yield "a name that is none", layout(memory, name), "lower case"


LAYOUTS = list(hostile_layouts())


@pytest.mark.parametrize(("archive", "words"), [case[1:] for case in LAYOUTS], ids=[case[0] for case in LAYOUTS])
@pytest.mark.parametrize("form", ["archive", "directory"])
def test_hostile_layouts_are_refused(tmp_path: Path, archive: Archive, words: str, form: str) -> None:
    path = write(tmp_path / "hostile", archive) if form == "archive" else tmp_path / "hostile"
    if form == "directory":
        for name, data in archive.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
    assert words in refused(path, tmp_path)


def corrupt_layouts() -> Iterator[tuple[str, Callable[[Memory, Descriptor], Descriptor]]]:
    """What only copying finds: (what it is, an edit of an image in memory that gives the target)."""

    def no_layer(memory: Memory, target: Descriptor) -> Descriptor:
        del memory.blobs[Digest.of(BASE)]
        return target

    def other_layer(memory: Memory, target: Descriptor) -> Descriptor:
        memory.blobs[Digest.of(BASE)] = TOP
        return target

    def other_manifest(memory: Memory, target: Descriptor) -> Descriptor:
        memory.blobs[target.digest] = memory.blobs[target.digest][:-1] + b" }"
        return target

    def wrong_size(memory: Memory, target: Descriptor) -> Descriptor:
        return Descriptor(media_type=target.media_type, digest=target.digest, size=target.size - 1)

    def huge_size(memory: Memory, target: Descriptor) -> Descriptor:
        return Descriptor(media_type=target.media_type, digest=target.digest, size=1 << 50)

    def too_deep(memory: Memory, target: Descriptor) -> Descriptor:
        for _ in range(20):
            target = make_index(memory, target)
        return target

    def index_as_manifest(memory: Memory, target: Descriptor) -> Descriptor:
        index = make_index(memory, target)
        return Descriptor(media_type=target.media_type, digest=index.digest, size=index.size)

    yield from ((edit.__name__, edit) for edit in (no_layer, other_layer, other_manifest, wrong_size))
    yield from ((edit.__name__, edit) for edit in (huge_size, too_deep, index_as_manifest))


@pytest.mark.parametrize(("name", "edit"), list(corrupt_layouts()))
def test_what_copying_a_layout_finds(
    tmp_path: Path, name: str, edit: Callable[[Memory, Descriptor], Descriptor]
) -> None:
    memory = Memory()
    target = edit(memory, make_image(memory, BASE))
    path = write(tmp_path / "a", layout(memory, entry(target)))
    sink = Memory()
    with pytest.raises((IntegrityError, NotFoundError)), open_archive(path, tmp_path) as source:
        (image,) = source.images()
        copy(source, sink, image.descriptor, name=NAME)
    assert sink.names == {}
    assert target.digest not in sink.blobs


def test_links_and_devices_in_a_layout_directory(tmp_path: Path) -> None:
    memory = Memory()
    target = make_image(memory, BASE)
    root = tmp_path / "layout"
    for name, data in layout(memory, entry(target)).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    secret = tmp_path / "secret"
    secret.write_bytes((root / "index.json").read_bytes())
    (root / "index.json").unlink()
    (root / "index.json").symlink_to(secret)
    with pytest.raises(NativeError):
        open_layout(root)
    (root / "index.json").unlink()
    os.mkfifo(root / "index.json")
    with pytest.raises(IntegrityError, match="no file"):
        open_layout(root)


def test_what_is_spooled_has_a_limit(tmp_path: Path) -> None:
    bomb = write(tmp_path / "bomb", gzip.compress(docker_save(BASE)["manifest.json"] + bytes(64 << 20)))
    with pytest.raises(IntegrityError, match="allowed"), open_archive(bomb, tmp_path, max_bytes=1 << 20):
        pass
    assert os.listdir(tmp_path) == ["bomb"]


@pytest.mark.parametrize("kind", COMPRESSIONS)
def test_a_compressed_archive_cut_short(tmp_path: Path, kind: str) -> None:
    plain = write(tmp_path / "plain", docker_save(BASE, TOP)).read_bytes()
    path = write(tmp_path / "a", COMPRESSIONS[kind](plain)[:-20])
    assert "cut short" in refused(path, tmp_path)


def test_no_archive_at_all(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="No such file"), open_archive(tmp_path / "no", tmp_path):
        pass
    with pytest.raises(NotFoundError, match="oci-layout"), open_archive(tmp_path, tmp_path):
        pass
    with pytest.raises(InvalidInputError), open_archive(object(), tmp_path):  # type: ignore[arg-type]
        pass
    with pytest.raises(InvalidInputError), create_archive(tmp_path / "x", "zip"):
        pass
    with pytest.raises(NotFoundError), create_archive(tmp_path / "no" / "x"):
        pass


def test_an_archive_in_memory(tmp_path: Path) -> None:
    plain = write(tmp_path / "a", docker_save(BASE, TOP)).read_bytes()
    found = []
    for data in (plain, gzip.compress(plain)):
        with open_archive(io.BytesIO(data), tmp_path) as archive:
            found.append([image.descriptor for image in archive.images()])
    with open_archive(tmp_path / "a", tmp_path) as archive:
        assert found == [[image.descriptor for image in archive.images()]] * 2
    assert os.listdir(tmp_path) == ["a"]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_damage_is_refused_or_harmless(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Whatever byte is changed or wherever it is cut: a clean error, or an image with the bytes that it names."""
    tmp_path = tmp_path_factory.mktemp("damage")
    raw = bytearray(write(tmp_path / "a", docker_save(layer_tar(size=10))).read_bytes())
    if data.draw(st.booleans()):
        raw = raw[: data.draw(st.integers(0, len(raw)))]
    else:
        raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    path = write(tmp_path / "b", bytes(raw))
    try:
        for memory, _, _ in read_all_images(path, tmp_path):
            assert all(Digest.of(content) == digest for digest, content in memory.blobs.items())
    except LayerfsError:
        pass


names = st.lists(st.sampled_from(["a", "b", "d/e", "long/" * 40 + "x", "u\u00fc"]), unique=True, max_size=5)


@settings(max_examples=60, deadline=None)
@given(names, st.lists(st.binary(max_size=1500), min_size=5, max_size=5), st.sampled_from(["ustar", "gnu", "pax"]))
def test_the_index_finds_what_tarfile_wrote(
    tmp_path_factory: pytest.TempPathFactory, wanted: list[str], contents: list[bytes], form: str
) -> None:
    path = tmp_path_factory.mktemp("index") / "x.tar"
    formats = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
    if form == "ustar":
        wanted = [name for name in wanted if len(name) < 100]
    with tarfile.open(path, "w", format=formats[form]) as tar:
        for name, content in zip(wanted, contents, strict=False):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    with ExitStack() as stack:
        file = stack.enter_context(open(path, "rb"))
        index = TarIndex(file.fileno(), "x")
        assert index.names() == wanted
        for name, content in zip(wanted, contents, strict=False):
            assert index.read(name, 1 << 20) == content


def test_many_small_records_take_no_longer_than_large_ones(tmp_path: Path) -> None:
    records = b"6 a=b\n" * (170_000)
    header = tarbuild.file("PaxHeaders", records)
    block = bytearray(header[:512])
    block[156:157] = b"x"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    path = tmp_path / "archive"
    path.write_bytes(tarbuild.archive(bytes(block) + header[512:], tarbuild.file("a", b"content")))
    with open(path, "rb") as file:
        started = time.process_time()
        assert TarIndex(file.fileno(), "archive").names() == ["a"]
        assert time.process_time() - started < 3


def test_names_are_bounded_all_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("layerfs.archives.tarindex._NAMES_LIMIT", 1000)
    path = write(tmp_path / "archive", {f"{'n' * 90}{number}": b"" for number in range(12)})
    with open(path, "rb") as file, pytest.raises(IntegrityError, match="bytes of names"):
        TarIndex(file.fileno(), "archive")


def test_a_configuration_that_many_images_have_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = docker_save(layer_tar("a"))
    archive["manifest.json"] = json.dumps(json.loads(archive["manifest.json"]) * 50).encode()
    read = []
    monkeypatch.setattr(docker_archive, "parse_config", lambda data: read.append(1) or parse_config(data))
    with open_archive(write(tmp_path / "archive", archive), tmp_path) as source:
        assert len(source.images()) == 50
    assert len(read) == 1


@pytest.mark.parametrize("kind", ["bzip2", "xz", "lz4"])
def test_what_a_layer_decompresses_to_has_a_limit(tmp_path: Path, kind: str) -> None:
    """Also where nothing is stored yet, but only its length is found."""
    path = write(tmp_path / "a", docker_save(bytes(3 << 20), stored=COMPRESSIONS[kind]))
    with (
        pytest.raises(IntegrityError, match="allowed") as caught,
        open_archive(path, tmp_path, max_layer_bytes=1 << 20),
    ):
        pass
    assert "--max-layer-bytes" in str(caught.value.hint)
    with open_archive(path, tmp_path, max_layer_bytes=3 << 20) as source:
        assert len(source.images()) == 1


def test_the_limit_of_the_store_holds_for_that_too(tmp_path: Path) -> None:
    path = write(tmp_path / "a", docker_save(bytes(3 << 20), stored=bz2.compress))
    with (
        Store.open(tmp_path / "root", tmp_path / "run") as store,
        pytest.raises(IntegrityError, match=r"read archive .* more than the 1048576 bytes allowed"),
    ):
        store.load(path, limits=Limits(max_layer_bytes=1 << 20))


def test_an_index_that_many_entries_name_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory()
    here, away = make_image(memory, BASE), make_image(memory, BASE, platform="linux/s390x", comment="away")
    index = make_index(memory, on(away, "linux/s390x"), on(here, "linux/amd64"))
    del memory.blobs[away.digest]
    names = [f"docker.io/x/y:{number}" for number in range(50)]
    entries = [entry(index, io__containerd__image__name=name) for name in names]
    read: list[int] = []
    monkeypatch.setattr(
        oci_layout, "parse_manifest", lambda data, *more: read.append(len(data)) or parse_manifest(data, *more)
    )
    with open_archive(write(tmp_path / "a", layout(memory, *entries)), tmp_path) as source:
        (image,) = source.images()
    assert image.names == tuple(names)
    assert image.descriptor.digest == here.digest
    assert len(read) == 2, "index.json, and the index"
