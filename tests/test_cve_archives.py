"""Known vulnerabilities of engines that unpack layers: each archive does no harm here, in either layer format."""

import gzip
import io
import lzma
import os
import resource
import tarfile

import pytest
import tarbuild as tar
from cvekit import Host, host
from registrykit import make_image

__all__ = ["host"]

pytestmark = pytest.mark.root
FORMATS = ("erofs", "dir")
UP = "../" * 40


def _outside(host: Host) -> str:
    return str(host.outside)


# name: (members, given where the host's directory is; what comes of it: "refused", or the paths of the layer)
ARCHIVES = {
    "CVE-2014-6407": (
        lambda out: tar.symlink("l", out) + tar.hardlink("h", "l/victim") + tar.file("h", b"x"),
        "refused",
    ),
    "CVE-2014-9356": (lambda out: tar.symlink("w", out) + tar.file("w/victim", b"x"), "refused"),
    "CVE-2021-32760": (lambda out: tar.symlink("f", f"{out}/victim", mode=0o777), ["f"]),
    "CVE-2021-41089": (lambda out: tar.symlink("d", out) + tar.directory("d/etc", mode=0o777), "refused"),
    "CVE-2021-29136": (lambda out: tar.symlink("/", out) + tar.file("victim", b"x"), "refused"),
    "CVE-2021-29136-dot": (lambda out: tar.symlink(".", out) + tar.file("victim", b"x"), "refused"),
    "CVE-2007-4559": (lambda out: tar.file(f"{UP}{out}/victim", b"x"), "refused"),
    "CVE-2024-12718": (lambda out: tar.symlink("x", f"{UP}{out}") + tar.directory("x/etc", mode=0o7777), "refused"),
    "CVE-2025-4138": (
        lambda out: (
            b"".join(tar.directory("/".join(["d" * 200] * n)) for n in range(1, 22))
            + tar.symlink("deep", "/".join(["d" * 200] * 21) + UP + out)
            + tar.file("deep/victim", b"x")
        ),
        "refused",
    ),
    "CVE-2025-4330": (lambda out: tar.symlink("l", f"{out}/victim") + tar.hardlink("h", "l"), ["l", "h"]),
    "CVE-2025-4435": (lambda out: tar.file(f"../{out}/victim", b"x"), "refused"),
    "CVE-2025-4517": (
        lambda out: (
            tar.directory("a") + tar.symlink("a/b", "..") + tar.symlink("a/b/c", f"..{out}") + tar.file("c/victim")
        ),
        "refused",
    ),
    "go-archive-2026-up": (
        lambda out: (
            tar.directory("inner")
            + tar.symlink("inner/go_up", "..")
            + tar.symlink("inner/go_up/e", "../victim")
            + tar.file("inner/go_up/e/x", b"x")
        ),
        "refused",
    ),
    "go-archive-2026-dotdot": (lambda out: tar.file("..", b"x"), "refused"),
    "go-archive-2026-absolute-hard-link": (
        lambda out: tar.directory("etc") + tar.file("etc/a", b"x") + tar.hardlink("b", "/etc/a"),
        ["b", "etc", "etc/a"],
    ),
    "go-archive-2026-absolute-link": (lambda out: tar.symlink("l", f"{out}/etc/shadow"), ["l"]),
    "CVE-2021-32803": (
        lambda out: tar.directory("d") + tar.symlink("d", out) + tar.file("d/victim", b"x"),
        "refused",
    ),
    "CVE-2021-37701": (
        lambda out: tar.directory("d\\x") + tar.directory("d") + tar.symlink("d", out) + tar.file("d/victim", b"x"),
        "refused",
    ),
    "CVE-2021-37712": (
        lambda out: tar.directory("ſ") + tar.directory("s") + tar.symlink("s", out) + tar.file("s/victim", b"x"),
        "refused",
    ),
    "CVE-2019-20907": (lambda out: tar.pax(b"0 path=x\n") + tar.file("x"), "refused"),
    "CVE-2025-8194": (lambda out: tar.header("x", size=-512) + tar.file("y"), "refused"),
    "CVE-2022-2879": (lambda out: tar.pax({"comment": "x" * (5 << 20)}) + tar.file("x"), "refused-or-limit"),
    "ordering-whiteout-through-link": (lambda out: tar.symlink("l", out) + tar.whiteout("l/victim"), "refused"),
    "ordering-opaque-in-linked-directory": (lambda out: tar.symlink("l", out) + tar.opaque("l"), "refused"),
    "ordering-hard-link-through-link": (
        lambda out: tar.symlink("l", f"{out}/etc") + tar.hardlink("h", "l/shadow"),
        "refused",
    ),
}


@pytest.mark.parametrize("layer_format", FORMATS)
@pytest.mark.parametrize("name", ARCHIVES)
def test_layer(host: Host, name: str, layer_format: str) -> None:
    members, outcome = ARCHIVES[name]
    with host.store(layer_format):
        pass
    said = host("import", "@", "evil:1", data=tar.archive(members(_outside(host))))
    if outcome == "refused-or-limit":
        assert said.code in (2, 3), said
    elif outcome == "refused":
        assert said.code == 3, said
    else:
        assert said.code == 0, said
        with host.store() as store, store.view("evil:1") as view:
            assert sorted(os.fsdecode(entry.path).strip("/") for entry in view.walk() if entry.path != b"/") == sorted(
                outcome
            )
    if said.code:
        assert host("images", "-q").out == ""
        assert not [each for each in os.listdir(host.root / "ingest") if not each.startswith(("blob-", "lock-"))]


def test_type_change_between_layers(host: Host) -> None:
    """A directory below, a link to the host above, and a file through it: each layer stands for itself."""
    image = [tar.archive(tar.directory("d"), tar.file("d/a")), tar.archive(tar.symlink("d", _outside(host)))]
    image.append(tar.archive(tar.file("d/victim", b"x")))
    for number, layer in enumerate(image):
        assert host("import", "@", f"l{number}:1", data=layer).code == 0
    with host.store() as store:
        diff_ids = [store.images.get(f"l{number}:1").diff_ids[0] for number in range(3)]
        with store.layers.view(diff_ids) as view:
            assert b"".join(view.read(b"/d/victim")) == b"x"


def test_cve_2014_9357_no_program_of_the_layer_is_executed(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """xz is inflated by a library: a program of that name is not looked for, in PATH or in the layer."""
    program = host.place / "bin" / "xz"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho x > {host.place}/executed\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    layer = tar.archive(tar.directory("usr/bin"), tar.file("usr/bin/xz", program.read_bytes(), mode=0o755))
    assert host("import", "@", "x:1", data=lzma.compress(layer)).code == 0
    assert not (host.place / "executed").exists()


def test_cve_2017_14992_much_padding_takes_no_memory(host: Host) -> None:
    """A gigabyte of zeros behind the archive, which is a megabyte compressed."""
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=1) as file:
        file.write(tar.archive(tar.file("a", b"x")))
        for _ in range(256):
            file.write(bytes(1 << 20))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert host("import", "@", "x:1", data=out.getvalue()).code == 0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


@pytest.mark.parametrize("name", ["CVE-2025-58183", "CVE-2026-32288"])
def test_sparse_maps_are_bounded(host: Host, name: str) -> None:
    """A map of a hundred million segments in a small archive allocates nothing of the kind."""
    numbers = b"100000000\n" + b"0\n0\n" * 100
    records = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "s", "GNU.sparse.realsize": "9"}
    if name == "CVE-2026-32288":
        records = {"GNU.sparse.numblocks": "100000000", "GNU.sparse.size": "9", "GNU.sparse.map": "0,0," * 1000 + "0,0"}
        numbers = b"x"
    said = host("import", "@", "x:1", data=tar.archive(tar.pax(records) + tar.file("s", numbers)))
    assert said.code in (2, 3), said


def test_cve_2021_20291_a_corrupt_xz_stream_is_told_at_once(host: Host) -> None:
    data = bytearray(lzma.compress(tar.archive(tar.file("a", os.urandom(300_000)))))
    data[len(data) // 2] ^= 0xFF
    assert host("import", "@", "x:1", data=bytes(data)).code == 3
    assert host("import", "@", "x:1", data=tar.archive(tar.file("a"))).code == 0  # no lock is left


def _docker_archive(documents: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in documents.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.mark.parametrize("where", ["Config", "Layers", "RepoTags"])
def test_cve_2014_9358_paths_and_names_in_a_docker_archive(host: Host, where: str) -> None:
    """What manifest.json names is a member of the archive, never a file of the host; names are checked."""
    image = make_image((100,))
    entry = {"Config": '"c.json"', "Layers": '["l.tar"]', "RepoTags": '["a:1"]'}
    evil = f"{host.outside}/victim" if where != "RepoTags" else "../../x:1"
    entry[where] = f'"{evil}"' if where == "Config" else f'["{evil}"]'
    manifest = "[{" + ",".join(f'"{key}":{value}' for key, value in entry.items()) + "}]"
    documents = {"manifest.json": manifest.encode(), "c.json": image.config, "l.tar": image.tars[0]}
    said = host("load", "-i", "@", data=_docker_archive(documents))
    assert said.code in (1, 2, 3), said
    assert host("images", "-q").out == ""


@pytest.mark.parametrize("name", ["index.json", "oci-layout", "manifest.json"])
def test_cve_2023_25153_documents_of_an_archive_are_bounded(host: Host, name: str) -> None:
    documents = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": b'{"schemaVersion":2,"manifests":[]}'}
    documents[name] = b'{"x":"' + b"x" * (80 << 20) + b'"}'
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (host.place / "data").write_bytes(_docker_archive(documents))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert host("load", "-i", host.place / "data").code in (1, 2, 3)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40_000
