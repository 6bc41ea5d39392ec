"""Known vulnerabilities in how engines read manifests and image configurations, and in what they do with them."""

import json
import os
import stat
import subprocess

import pytest
import tarbuild as tar
from boxes import BUSYBOX, add_box, needs_busybox, run
from cvekit import Host, host
from fake_registry import FakeRegistry, digest_of
from registrykit import CONFIG_TYPE, LAYER_TYPE, descriptor, make_image, serve, tar_of

from layerfs.errors import LayerfsError

__all__ = ["host"]

pytestmark = pytest.mark.root


def layout(manifest: bytes, *blobs: bytes) -> bytes:
    """An OCI archive with one manifest."""
    index = {"schemaVersion": 2, "manifests": [descriptor(manifest, "application/vnd.oci.image.manifest.v1+json")]}
    files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": json.dumps(index).encode()}
    files |= {f"blobs/sha256/{digest_of(data)[7:]}": data for data in (manifest, *blobs)}
    return tar_of(files)


def test_cve_2021_41190_a_document_is_one_thing(host: Host) -> None:
    """An index and a manifest at once would be another image to another tool."""
    image = make_image((100,))
    both = json.loads(image.manifest) | {"manifests": [descriptor(b"x", LAYER_TYPE)]}
    both.pop("mediaType")
    assert host("load", "-i", "@", data=layout(json.dumps(both).encode(), image.config, *image.layers)).code == 3
    with FakeRegistry() as registry:
        serve(registry, "r", "1", image)
        registry.put_manifest("r", "1", json.dumps(both).encode())
        assert host("pull", "-q", f"{registry.host}/r:1").code == 3
    assert host("images", "-q").out == ""


@pytest.mark.parametrize(
    "digest", ["sha256:../../outside/victim", "", "sha256:" + "g" * 64, "sha256:" + "A" * 64, "md5:" + "0" * 32]
)
def test_cve_2024_3727_digests_are_digests(host: Host, digest: str) -> None:
    image = make_image((100,))
    document = json.loads(image.manifest)
    document["layers"][0]["digest"] = digest
    said = host("load", "-i", "@", data=layout(json.dumps(document).encode(), image.config, *image.layers))
    assert said.code in (2, 3), said
    with FakeRegistry() as registry:
        serve(registry, "r", "1", image)
        registry.put_manifest("r", "1", json.dumps(document).encode())
        assert host("pull", "-q", f"{registry.host}/r:1").code in (2, 3)
        assert not [request.path for request in registry.log if ".." in request.path]


@pytest.mark.parametrize("what", ["manifest", "configuration"])
def test_cve_2020_1702_documents_of_a_registry_are_bounded(host: Host, what: str) -> None:
    image = make_image((100,))
    big = {"x": "x" * (20 << 20)}
    with FakeRegistry() as registry:
        serve(registry, "r", "1", image)
        document = json.loads(image.manifest)
        if what == "manifest":
            document |= big
        else:
            config = json.dumps(json.loads(image.config) | big).encode()
            registry.put_blob("r", config)
            document["config"] = descriptor(config, CONFIG_TYPE)
        registry.put_manifest("r", "1", json.dumps(document).encode())
        assert host("pull", "-q", f"{registry.host}/r:1").code == 3
        assert registry.sent("manifests|blobs") < 24 << 20


@pytest.mark.parametrize(
    "change",
    [
        {"config": None}, {"layers": None}, {"layers": [None]}, {"layers": {}}, {"config": {}}, {"schemaVersion": "2"},
        {"config": {"digest": 1}}, {"layers": [[]]}, {"schemaVersion": 1, "fsLayers": [{}]}, {"layers": [{"size": -1}]},
    ],
)  # fmt: skip
def test_cve_2021_21285_a_malformed_manifest_is_an_error(host: Host, change: dict[str, object]) -> None:
    image = make_image((100,))
    with FakeRegistry() as registry:
        serve(registry, "r", "1", image)
        registry.put_manifest("r", "1", json.dumps(json.loads(image.manifest) | change).encode())
        assert host("pull", "-q", f"{registry.host}/r:1").code in (2, 3, 5)


def test_cve_2014_8178_a_layer_is_what_the_configuration_says(host: Host) -> None:
    """CVE-2014-8178, CVE-2014-8179: identity comes from content; a manifest cannot pass off another layer."""
    good, evil = make_image((100,), seed=1), make_image((100,), seed=2)
    document = json.loads(good.manifest)
    document["layers"] = json.loads(evil.manifest)["layers"]
    with FakeRegistry() as registry:
        serve(registry, "r", "good", good)
        for layer in evil.layers:
            registry.put_blob("r", layer)
        registry.put_manifest("r", "evil", json.dumps(document).encode())
        assert host("pull", "-q", f"{registry.host}/r:evil").code == 3
        assert host("pull", "-q", f"{registry.host}/r:good").code == 0
    with host.store() as store:
        assert list(store.check()) == []


def test_cve_2025_62725_annotations_name_no_files(host: Host) -> None:
    data = b"payload"
    title = {
        "org.opencontainers.image.title": f"../../../../..{host.outside}/victim",
        "com.docker.compose.file": "../x",
    }
    layer = descriptor(data, "application/vnd.example.file", annotations=title)
    config = b"{}"
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": "application/vnd.example",
        "config": descriptor(config, "application/vnd.oci.empty.v1+json"),
        "layers": [layer],
        "annotations": title,
    }
    with FakeRegistry() as registry:
        registry.put_blob("r", data)
        registry.put_blob("r", config)
        registry.put_manifest("r", "1", json.dumps(manifest).encode())
        host("pull", "-q", f"{registry.host}/r:1")


@pytest.mark.parametrize("layer_format", ["erofs", "dir"])
def test_cve_2021_41091_others_cannot_enter_the_store(host: Host, layer_format: str) -> None:
    """CVE-2021-41091, CVE-2021-41103, CVE-2024-25621: setuid programs in layers are out of reach for other users."""
    with host.store(layer_format):
        pass
    layer = tar.archive(tar.file("su", b"x", mode=0o4755))
    assert host("import", "@", "x:1", data=layer).code == 0
    for place in (host.root, host.run):
        assert stat.S_IMODE(place.stat().st_mode) == 0o700
    nobody = subprocess.run(["/bin/ls", host.root], user=65534, group=65534, extra_groups=[], capture_output=True)
    assert nobody.returncode != 0


# ---- configurations ----


def box(host: Host, *more: bytes, changes: tuple[str, ...] = ()) -> None:
    with host.store() as store:
        add_box(store, host.place, *more, changes=changes)


def ran(host: Host, *args: str, **flags: object) -> str:
    with host.store() as store:
        result = run(store, *args, **flags)
        assert result.code == 0, (result.code, result.err)
        return result.out


@needs_busybox
def test_cve_2016_3697_a_numeric_user_is_a_number(host: Host) -> None:
    """The image has a user *named* 1234 with uid 0."""
    box(host, changes=("USER 1234",))
    assert ran(host, "id", "-u") == "1234\n"


@needs_busybox
@pytest.mark.parametrize("user", ["2147483648", "4294967295", "4294967296", "18446744073709551616", "-1"])
def test_cve_2024_40635_a_large_user_does_not_become_root(host: Host, user: str) -> None:
    box(host)
    with host.store() as store:
        try:
            result = run(store, "id", "-u", user=user)
        except LayerfsError:
            return
        assert result.code != 0 or result.out.strip() != "0"


@needs_busybox
@pytest.mark.parametrize("link", ["absolute", "relative"])
def test_cve_2024_9676_users_are_looked_up_in_the_image(host: Host, link: str) -> None:
    (host.place / "passwd").write_text("evil:x:0:0::/:/bin/sh\n")
    target = str(host.place / "passwd") if link == "absolute" else "../" * 30 + str(host.place / "passwd")[1:]
    box(host, tar.symlink("etc/passwd", target))
    with host.store() as store, pytest.raises(LayerfsError):
        run(store, "id", user="evil")


@needs_busybox
@pytest.mark.parametrize("volume", ["/../../../../..{out}", "/link/etc", "/link"])
def test_cve_2022_23648_a_volume_takes_nothing_of_the_host(host: Host, volume: str) -> None:
    box(host, tar.symlink("link", str(host.outside)), changes=(f"VOLUME {volume.format(out=host.outside)}",))
    with host.store() as store:
        try:
            run(store, "true")
        except LayerfsError:
            return
    for place, _, files in os.walk(host.root / "volumes"):
        assert not {"victim", "shadow"} & set(files), place


@needs_busybox
@pytest.mark.parametrize("path", ["/proc", "/proc/self", "/sys"])
def test_cve_2019_16884_a_volume_over_proc(host: Host, path: str) -> None:
    """The image asks for a volume over /proc. Either that is refused, or /proc is what it must be all the same."""
    box(host, changes=(f"VOLUME {path}",))
    with host.store() as store:
        try:
            result = run(store, "sh", "-c", "cat /proc/self/attr/current >/dev/null 2>&1; readlink /proc/self/exe")
        except LayerfsError:
            return
        assert result.out.strip() == "/bin/busybox" or result.code != 0


@needs_busybox
def test_cve_2026_53488_labels_control_nothing(host: Host) -> None:
    program = host.place / "logger"
    program.write_text(f"#!/bin/sh\necho x > {host.place}/executed\n")
    program.chmod(0o755)
    labels = [
        "containerd.io/restart.logpath",
        "nerdctl/log-uri",
        "io.containerd.image.log",
        "layerfs.log",
        "run.oci.handler",
    ]
    box(host, changes=tuple(f"LABEL {label}=binary://{program}" for label in labels))
    ran(host, "true")
    assert not (host.place / "executed").exists()


@needs_busybox
@pytest.mark.parametrize("number", [3, 7, 8, 9, 15])
def test_cve_2024_21626_no_descriptor_of_the_host_is_a_working_directory(host: Host, number: int, runtime: str) -> None:
    box(host, changes=(f"WORKDIR /proc/self/fd/{number}",))
    fds = [os.open(host.outside, os.O_RDONLY) for _ in range(12)]
    try:
        with host.store() as store:
            try:
                result = run(store, "sh", "-c", "cat ../outside/victim victim etc/shadow", runtime=runtime)
            except LayerfsError:
                return
            assert "precious" not in result.out
            assert "secret" not in result.out
    finally:
        for fd in fds:
            os.close(fd)


@needs_busybox
@pytest.mark.parametrize(
    ("user", "groups"), [("bob", "1000 29"), ("1000", "1000 29"), ("4321", "0"), ("bob:audio", "29")]
)
def test_cve_2022_36109_supplementary_groups(host: Host, user: str, groups: str) -> None:
    """CVE-2022-36109, CVE-2022-2989, CVE-2022-2990, CVE-2023-25173: those of the image's /etc/group, none of ours."""
    box(host)
    assert ran(host, "id", "-G", user=user).strip() == groups


@needs_busybox
def test_cve_2022_24769_no_inheritable_capabilities(host: Host, runtime: str) -> None:
    """CVE-2022-24769, -27649, -27650, -27651, -29162."""
    box(host)
    out = ran(host, "grep", "-E", "^Cap(Inh|Amb)", "/proc/self/status", runtime=runtime)
    assert {line.split()[1] for line in out.splitlines()} == {"0000000000000000"}


@needs_busybox
@pytest.mark.parametrize("name", ["etc/hosts", "etc/resolv.conf", "etc/hostname"])
def test_cve_2019_18837_links_at_mount_targets(host: Host, name: str) -> None:
    box(host, tar.symlink(name, str(host.outside / "victim")))
    with host.store() as store:
        try:
            run(store, "sh", "-c", f"echo evil > /{name}; true")
        except LayerfsError:
            return
    assert BUSYBOX.exists()
