import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerfs import oci
from layerfs.digest import Digest
from layerfs.errors import IntegrityError, InvalidInputError, LayerfsError, NotFoundError
from layerfs.oci import Descriptor, Index, Manifest, Platform

D = "sha256:" + "a" * 64


def manifest(**changes: Any) -> bytes:
    document = {
        "schemaVersion": 2,
        "mediaType": oci.MEDIA_MANIFEST,
        "config": {"mediaType": oci.MEDIA_CONFIG, "digest": D, "size": 3},
        "layers": [{"mediaType": oci.MEDIA_LAYER_GZIP, "digest": D, "size": 4, "unknown": [1]}],
        "unknown": {"x": 1},
    }
    return json.dumps({k: v for k, v in (document | changes).items() if v is not None}).encode()


def test_a_manifest_is_read_with_unknown_members_left_out() -> None:
    document = oci.parse_manifest(manifest(), oci.MEDIA_MANIFEST)
    assert isinstance(document, Manifest)
    assert document.layers[0].digest == D
    assert isinstance(document.layers[0].digest, Digest)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"\xff\xfe",
        b"[" * 100_000,
        manifest(schemaVersion=1),
        manifest(schemaVersion=None),
        manifest(schemaVersion="2"),
        manifest(manifests=[]),
        manifest(config=None),
        manifest(fsLayers=[]),
        manifest(config={"mediaType": oci.MEDIA_CONFIG, "digest": "sha256:../../x", "size": 3}),
        manifest(config={"mediaType": oci.MEDIA_CONFIG, "digest": D, "size": -3}),
        manifest(config={"mediaType": oci.MEDIA_CONFIG, "digest": D, "size": 2**70}),
        manifest(mediaType=oci.MEDIA_INDEX),
        manifest(layers=[{"mediaType": "x", "digest": D, "size": 1}] * 10_001),
        b" " * (oci.MANIFEST_LIMIT + 1),
    ],
)
def test_bad_manifests_are_refused(data: bytes) -> None:
    with pytest.raises(IntegrityError, match="read manifest"):
        oci.parse_manifest(data)


def test_the_descriptor_and_the_document_agree_on_the_media_type() -> None:
    with pytest.raises(IntegrityError, match="calls itself"):
        oci.parse_manifest(manifest(), oci.DOCKER_MANIFEST)
    with pytest.raises(IntegrityError, match="does not fit"):
        oci.parse_manifest(manifest(mediaType=None), oci.MEDIA_INDEX)
    with pytest.raises(IntegrityError, match="schema 1"):
        oci.parse_manifest(b'{"schemaVersion":2}', "application/vnd.docker.distribution.manifest.v1+prettyjws")


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda x: (
            st.lists(x, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["schemaVersion", "config", "layers", "manifests", "digest", "size", "mediaType", "rootfs", "type"]
                ),
                x,
                max_size=4,
            )
        ),
    )
)
def test_any_json_is_read_or_refused(document: Any) -> None:
    data = json.dumps(document).encode()
    for parse in (oci.parse_manifest, oci.parse_config):
        with contextlib.suppress(IntegrityError):
            parse(data)


def test_config() -> None:
    data = json.dumps(
        {
            "architecture": "arm64",
            "os": "linux",
            "variant": "v8",
            "rootfs": {"type": "layers", "diff_ids": [D]},
            "config": {"Env": ["A=b"], "ExposedPorts": {"80/tcp": {}}, "Cmd": None, "OnBuild": ["RUN x"]},
            "history": [{"created_by": "x", "empty_layer": True}],
        }
    ).encode()
    config = oci.parse_config(data)
    assert config.run.env == ("A=b",)
    assert config.run.on_build == ("RUN x",)
    assert str(config.platform) == "linux/arm64/v8"
    assert config.chain_id == D
    with pytest.raises(IntegrityError, match="rootfs"):
        oci.parse_config(data.replace(b'"layers"', b'"other"'))


def entry(text: str) -> Descriptor:
    return Descriptor(
        media_type=oci.MEDIA_MANIFEST, digest=Digest.of(text.encode()), size=1, platform=Platform.parse(text)
    )


@pytest.mark.parametrize(
    ("wanted", "offered", "chosen"),
    [
        ("linux/amd64", ["linux/arm64", "linux/amd64"], "linux/amd64"),
        ("linux/arm64", ["linux/arm64/v8"], "linux/arm64/v8"),
        ("linux/arm64/v8", ["linux/arm/v7", "linux/arm64"], "linux/arm64"),
        ("linux/arm/v7", ["linux/arm/v5", "linux/arm/v6", "linux/arm64"], "linux/arm/v6"),
        ("linux/arm/v6", ["linux/arm/v7", "linux/arm/v6"], "linux/arm/v6"),
        ("linux/amd64/v3", ["linux/amd64", "linux/amd64/v2", "linux/amd64/v4"], "linux/amd64/v2"),
        ("linux/amd64", ["linux/amd64/v2", "linux/amd64"], "linux/amd64"),
        ("arm64", ["linux/arm64"], "linux/arm64"),
    ],
)
def test_choosing_a_platform(wanted: str, offered: list[str], chosen: str) -> None:
    index = Index(manifests=tuple(map(entry, offered)))
    assert oci.select(index, Platform.parse(wanted)).digest == Digest.of(chosen.encode())


def test_a_missing_platform_names_what_there_is() -> None:
    with pytest.raises(NotFoundError) as caught:
        oci.select(Index(manifests=(entry("linux/arm64"), entry("linux/s390x"))), Platform.parse("linux/amd64"))
    assert caught.value.hint == "there are: linux/arm64, linux/s390x"


@pytest.mark.parametrize("text", ["", "a/b/c/d", "linux/", "/amd64", "li nux/amd64"])
def test_bad_platforms(text: str) -> None:
    with pytest.raises(InvalidInputError):
        Platform.parse(text)


def test_layer_media_types() -> None:
    assert [oci.layer_compression(t) for t in (oci.MEDIA_LAYER, oci.DOCKER_LAYER_GZIP, oci.MEDIA_LAYER_ZSTD)] == [
        "none",
        "gzip",
        "zstd",
    ]
    foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    assert oci.is_foreign(foreign)
    assert oci.layer_compression(foreign) == "gzip"
    with pytest.raises(LayerfsError):
        oci.layer_compression("application/vnd.oci.image.layer.v1.tar+gzip+encrypted")


def test_new_documents_are_compact_and_ordered() -> None:
    document = Manifest(config=oci.EMPTY_DESCRIPTOR, layers=())
    again = oci.parse_manifest(oci.encode(document))
    assert again == document
    assert b" " not in oci.encode(document)


def test_null_is_an_empty_list() -> None:
    """So programs in Go write the layers of an image that has none."""
    document = json.loads(manifest()) | {"layers": None, "annotations": None}
    assert oci.parse_manifest(json.dumps(document).encode()) == oci.parse_manifest(manifest(layers=[]))
    config = b'{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":null},"history":null}'
    assert oci.parse_config(config).diff_ids == ()
    with pytest.raises(IntegrityError, match="architecture"):
        oci.parse_config(config.replace(b'"amd64"', b"null"))
